# syntax=docker/dockerfile:1

# Built on the oldest Debian that the image runs on, so that the C library fits.
FROM rust:1.95-slim-bookworm AS build
# mimalloc and AWS-LC (the cryptography of TLS) are C.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY benches ./benches
# The binary carries the example that `sluice config example` prints.
COPY conf ./conf
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin sluice \
 && cp target/release/sluice /sluice

# No shell, no package manager; its default user is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="Proxy and load balancer between applications and their storage" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /sluice /sluice
COPY LICENSE /usr/share/doc/sluice/LICENSE
# The file says what each line means; mount your own over it.
COPY deploy/docker/sluice.yaml /etc/sluice/sluice.yaml
USER 65532:65532
EXPOSE 6380 9900
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sluice"]
CMD ["run", "-c", "/etc/sluice/sluice.yaml"]
