#!/usr/bin/env python3
"""Sluice beside nginx, HAProxy and Envoy in front of web servers: what a request costs each of them.

usage: compare_http.py [--rounds 3] [--secs 4] [--scenarios a,b] [--only sluice,haproxy] [--json FILE]

Two nginx are the backends. In every round each proxy in turn, alone and with one thread, gets the
same loads: requests of HTTP/1.1 by wrk, full TLS 1.3 handshakes by openssl s_time (ECDSA P-256,
X25519, nothing resumed), and a stream of bytes over TCP. Medians over the rounds. nginx and HAProxy
are taken from PATH; ENVOY names its binary, SLUICE another build than target/release/sluice. What is
absent, or does not start, is left out and named.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from compare import ROOT, Process, first_line, free_ports, machine, search_path, write

# Name: what is spoken, then for http the connections, the path and wrk's own arguments.
SCENARIOS = {
    "128 B c50": ("http", 50, "/", []),
    "128 B c500": ("http", 500, "/", []),
    "64 KiB c50": ("http", 50, "/64k", []),
    "Connection: close, 128 B c50": ("http", 50, "/", ["-H", "Connection: close"]),
    "TLS 1.3 handshakes": ("tls", 2, None, []),
    "TCP bulk": ("tcp", 4, None, []),
}
BASELINE = {"http": "haproxy, cookie insert", "tls": "haproxy", "tcp": "haproxy, splice"}
CHUNK = 1 << 20


class Proxy(Process):
    """A proxy or a server that speaks `kind`."""

    def __init__(self, folder, name, command, port, kind):
        super().__init__(folder, name, command, port)
        self.kind = kind

    def answers(self):
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 1) as conn:
                conn.settimeout(1)
                if self.kind == "tcp":
                    return bool(conn.recv(1))
                if self.kind == "tls":
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    conn = context.wrap_socket(conn)
                conn.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                return conn.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def wait_until_it_answers(self):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.child.poll() is None:
            if self.answers():
                return self
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-1500:]
        self.stop()
        raise RuntimeError(f"{self.name} does not answer on port {self.port}:\n{tail}")


def nginx(folder, port, body, listen="", extra=""):
    """The file of an nginx of one process."""
    temp = "".join(
        f"{kind}_temp_path {folder}/{port}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return write(
        folder,
        f"nginx-{port}.conf",
        f"daemon off; master_process off; pid {folder}/nginx-{port}.pid; error_log stderr crit;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 8192; }\n"
        f"http {{ access_log off; {temp}keepalive_requests 1000000000; keepalive_timeout 300s; {extra}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096 {listen}; {body} }} }}\n",
    )


def certificate(folder):
    """A key on P-256 and its certificate, apart and in one file."""
    cert, key, both = (str(Path(folder) / name) for name in ("cert.pem", "key.pem", "both.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
        timeout=30,
    )
    Path(both).write_text(Path(cert).read_text() + Path(key).read_text())
    return cert, key, both


def peers(folder, backends, source, pem):
    """Every proxy that can be run here: {kind: {name: function of a port giving its command}}, and what is absent."""
    found, absent = {"http": {}, "tls": {}, "tcp": {}}, []
    cert, key, both = pem

    def offer(kind, name, binary, command):
        if binary and os.path.exists(binary):
            found[kind][name] = lambda port: command(binary, port)
        elif name not in absent:
            absent.append(name)

    def sluice(kind, cookie=""):
        def command(binary, port):
            members = [source] if kind == "tcp" else backends
            protocol = "tcp" if kind == "tcp" else "http"
            tls = f'    tls: {{ min_version: "1.3", certificates: [{{ cert: {cert}, key: {key} }}] }}\n' if kind == "tls" else ""
            sticky = f"    sticky: {{ cookie: {{ name: SRV, {cookie} }} }}\n" if cookie else ""
            text = (
                f"workers: 1\nadmin: {{ bind: 127.0.0.1:{free_ports(1)[0]} }}\nlisteners:\n"
                f"  - name: bench\n    bind: 127.0.0.1:{port}\n    protocol: {protocol}\n    cluster: bench\n{tls}"
                f"clusters:\n  bench:\n    balance: round_robin\n{sticky}    backends:\n"
                + "".join(f"      - 127.0.0.1:{member}\n" for member in members)
            )
            return [binary, "run", "-c", write(folder, f"sluice-{port}.yaml", text)]

        return command

    def nginx_proxy(kind):
        def command(binary, port):
            upstream = "".join(f"server 127.0.0.1:{member}; " for member in backends)
            upstream = f"upstream u {{ {upstream}keepalive 256; keepalive_requests 1000000000; }}"
            body = 'location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }'
            if kind == "tls":
                body += (
                    f" ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;"
                    " ssl_ecdh_curve X25519; ssl_session_cache off; ssl_session_tickets off;"
                )
            return [binary, "-c", nginx(folder, port, body, "ssl" if kind == "tls" else "", upstream)]

        return command

    def haproxy(kind, cookie=True):
        def command(binary, port):
            # Each spliced connection may want two pipes of two descriptors.
            lines = ["global", " nbthread 1", f" maxconn {1000 if kind == 'tcp' else 8000}"]
            lines += [" tune.ssl.cachesize 0"] if kind == "tls" else []
            lines += ["defaults", " timeout connect 5s", " timeout client 1m", " timeout server 1m"]
            if kind == "tcp":
                lines += [" mode tcp", " option splice-request", " option splice-response"]
            else:
                lines += [" mode http", " option http-keep-alive", " http-reuse always"]
            options = f" ssl crt {both} ssl-min-ver TLSv1.3 curves X25519 no-tls-tickets" if kind == "tls" else ""
            lines += ["listen bench", f" bind 127.0.0.1:{port}{options}", " balance roundrobin"]
            with_cookie = cookie and kind == "http"
            lines += [" cookie SRV insert indirect nocache"] if with_cookie else []
            for member in [source] if kind == "tcp" else backends:
                lines += [f" server s{member} 127.0.0.1:{member}" + (f" cookie s{member}" if with_cookie else "")]
            return [binary, "-db", "-f", write(folder, f"haproxy-{port}.cfg", "\n".join(lines) + "\n")]

        return command

    def envoy(binary, port):
        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        prefix = "type.googleapis.com/envoy.extensions.filters"
        router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{prefix}.http.router.v3.Router"}}
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "bench"}}]
        manager = {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": f"{prefix}.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "bench",
                "generate_request_id": False,
                "http_filters": [router],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            },
        }
        most = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
        endpoints = [{"endpoint": {"address": address(member)}} for member in backends]
        cluster = {
            "name": "bench",
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "connect_timeout": "1s",
            "circuit_breakers": {"thresholds": [most]},
            "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": endpoints}]},
        }
        listener = {"name": "bench", "address": address(port), "filter_chains": [{"filters": [manager]}]}
        path = write(folder, f"envoy-{port}.json", json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
        return [binary, "-c", path, "--concurrency", "1", "-l", "error", "--disable-hot-restart"]

    ours = os.environ.get("SLUICE", str(ROOT / "target/release/sluice"))
    nginx_binary = shutil.which("nginx", path=search_path())
    haproxy_binary = shutil.which("haproxy", path=search_path())
    offer("http", "sluice", ours, sluice("http"))
    offer("http", "sluice, plain cookie", ours, sluice("http", "mode: plain"))
    offer("http", "sluice, signed cookie", ours, sluice("http", 'keys: ["a key of 16 bytes or more"]'))
    offer("http", "haproxy", haproxy_binary, haproxy("http", cookie=False))
    offer("http", "haproxy, cookie insert", haproxy_binary, haproxy("http"))
    offer("http", "nginx", nginx_binary, nginx_proxy("http"))
    offer("http", "envoy", os.environ.get("ENVOY") or shutil.which("envoy"), envoy)
    for kind in ("tls", "tcp"):
        offer(kind, "sluice", ours, sluice(kind))
        offer(kind, "haproxy" if kind == "tls" else "haproxy, splice", haproxy_binary, haproxy(kind))
    offer("tls", "nginx", nginx_binary, nginx_proxy("tls"))
    return found, absent


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


def requests(port, scenario, secs):
    """Runs wrk once."""
    _, connections, path, arguments = SCENARIOS[scenario]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{secs}s", "--latency", *arguments, f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=secs + 60)
    said = done.stdout
    count = re.search(r"(\d+) requests in", said)
    errors = re.findall(r"Socket errors: .*|Non-2xx or 3xx responses: .*", said)
    if done.returncode or not count or int(count[1]) == 0 or errors:
        raise RuntimeError(f"{' '.join(command)}: {'; '.join(errors) or (said + done.stderr)[-400:]}")
    return {
        "n": int(count[1]),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]),
        "p50": milliseconds(re.search(r"\s50%\s+(\S+)", said)[1]),
        "p99": milliseconds(re.search(r"\s99%\s+(\S+)", said)[1]),
    }


def handshakes(port, scenario, secs, folder):
    """Full handshakes, by a few clients one after another each."""
    _, clients, _, _ = SCENARIOS[scenario]
    # s_time has no option for the group; without one OpenSSL 3.5 sends a post-quantum share too.
    config = write(folder, "openssl.cnf", "openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nGroups=X25519\n")
    command = ["openssl", "s_time", "-new", "-tls1_3", "-time", str(secs), "-connect", f"127.0.0.1:{port}"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    children = [subprocess.Popen(command, env={**os.environ, "OPENSSL_CONF": config}, **pipes) for _ in range(clients)]
    total = 0
    try:
        for child in children:
            said, _ = child.communicate(timeout=secs + 30)
            count = re.search(r"(\d+) connections in (\d+) real seconds", said)
            if child.returncode or not count or int(count[1]) == 0:
                raise RuntimeError(f"{' '.join(command)}: {said[-400:]}")
            total += int(count[1])
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
    return {"n": total, "rate": total / secs}


def bulk(port, scenario, secs):
    """Reads for so long on a few connections and throws everything away; one MiB counts as one request."""
    _, connections, _, _ = SCENARIOS[scenario]
    counts, faults = [0] * connections, []
    deadline = time.monotonic() + secs

    def read(index):
        room = bytearray(CHUNK)
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as conn:
                conn.settimeout(5)
                while time.monotonic() < deadline:
                    # The kernel throws the bytes away: no copy that the proxy would have to wait for.
                    got = conn.recv_into(room, CHUNK, socket.MSG_TRUNC)
                    if not got:
                        raise ConnectionError("the stream ended")
                    counts[index] += got
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise RuntimeError(f"bulk: {faults[0]}")
    total = sum(counts) / CHUNK
    return {"n": total, "rate": total / secs}


def serve_bulk(port):
    """Sends a file to everybody for ever; run as a process of its own."""
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        file.write(os.urandom(8 * CHUNK))
        file.flush()

        def send(conn):
            with contextlib.suppress(OSError), conn:
                while True:
                    offset = 0
                    while offset < 8 * CHUNK:
                        offset += os.sendfile(conn.fileno(), file.fileno(), offset, 8 * CHUNK - offset)

        while True:
            conn, _ = listener.accept()
            threading.Thread(target=send, args=(conn,), daemon=True).start()


def load(kind, port, scenario, secs, folder):
    if kind == "http":
        return requests(port, scenario, secs)
    return handshakes(port, scenario, secs, folder) if kind == "tls" else bulk(port, scenario, secs)


def measure(proxy, scenario, secs, folder):
    before = proxy.cpu_seconds()
    figure = load(proxy.kind, proxy.port, scenario, secs, folder)
    figure["us"] = (proxy.cpu_seconds() - before) / figure["n"] * 1e6
    figure["peak"] = proxy.peak_mib()
    return figure


def table(scenario, results):
    """A markdown table of one scenario."""
    kind = SCENARIOS[scenario][0]
    base = results.get(BASELINE[kind], {}).get("us")
    unit, rate = {"http": ("request", "req/s"), "tls": ("handshake", "handshakes/s"), "tcp": ("MiB", "MiB/s")}[kind]
    head = ["proxy", f"CPU us/{unit}", f"ratio to {BASELINE[kind]}", rate]
    head += ["p50 ms", "p99 ms"] if kind == "http" else ["GiB per CPU second"] if kind == "tcp" else []
    head += ["peak MiB"]
    lines = [f"\n### {scenario}\n", f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, m in results.items():
        direct = name.startswith("direct")
        row = [name, "-" if direct else f"{m['us']:.2f}", "-" if direct or not base else f"{m['us'] / base:.2f}"]
        row += [f"{m['rate']:,.0f}"]
        if kind == "http":
            row += [f"{m['p50']:.3f}", f"{m['p99']:.3f}"]
        elif kind == "tcp":
            row += ["-" if direct or not m["us"] else f"{1e6 / m['us'] / 1024:.2f}"]
        lines.append(f"| {' | '.join([*row, '-' if direct else format(m['peak'], '.1f')])} |")
    return "\n".join(lines)


def versions():
    """The machine, and the programs of this run."""
    asked = [["nginx", "-v"], ["haproxy", "-v"], ["wrk", "-v"], ["openssl", "version"]]
    lines = [first_line([shutil.which(v[0], path=search_path()) or v[0], *v[1:]]) for v in asked]
    return [machine()[0], *[line for line in lines if line]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each proxy is measured; the median counts")
    parser.add_argument("--secs", type=int, default=4, help="how long each load lasts")
    parser.add_argument("--scenarios", default="", help="parts of the names of those to run, of: " + "; ".join(SCENARIOS))
    parser.add_argument("--only", default="", help="parts of the names of the proxies to run")
    parser.add_argument("--json", metavar="FILE", help="every single figure, too")
    parser.add_argument("--serve-bulk", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bulk:
        return serve_bulk(options.serve_bulk)
    parts = [part.strip() for part in options.scenarios.split(",") if part.strip()]
    scenarios = [name for name in SCENARIOS if not parts or any(part in name for part in parts)]
    if not scenarios:
        parser.error("no such scenario; there are: " + "; ".join(SCENARIOS))
    if missing := [tool for tool in ("nginx", "wrk", "openssl") if not shutil.which(tool, path=search_path())]:
        sys.exit(f"not installed: {', '.join(missing)}")

    runs = {name: {} for name in scenarios}
    with tempfile.TemporaryDirectory(prefix="compare-") as folder, contextlib.ExitStack() as running:
        *backends, source = free_ports(3)
        (Path(folder) / "64k").write_bytes(b"y" * 65536)
        body = f'location / {{ return 200 "{"x" * 128}"; }} location /64k {{ alias {folder}/64k; }}'
        nginx_binary = shutil.which("nginx", path=search_path())
        commands = [(port, [nginx_binary, "-c", nginx(folder, port, body)], "http") for port in backends]
        commands += [(source, [sys.executable, os.path.abspath(__file__), "--serve-bulk", str(source)], "tcp")]
        for port, command, kind in commands:
            server = Proxy(folder, f"server-{port}", command, port, kind)
            running.callback(server.stop)
            server.wait_until_it_answers()
        found, absent = peers(folder, backends, source, certificate(folder))
        if wanted := [part for part in options.only.split(",") if part]:
            keep = lambda name: any(part in name for part in wanted)  # noqa: E731
            found = {kind: {name: make for name, make in each.items() if keep(name)} for kind, each in found.items()}
        kinds = [kind for kind in found if any(SCENARIOS[name][0] == kind for name in scenarios)]
        if not any(found[kind] for kind in kinds):
            sys.exit("nothing to measure; build Sluice with `cargo build --release`")
        for number in range(options.rounds):
            for kind in kinds:
                own = [name for name in scenarios if SCENARIOS[name][0] == kind]
                for name, make in list(found[kind].items()):
                    print(f"round {number + 1} of {options.rounds}: {kind}, {name}", file=sys.stderr, flush=True)
                    port = free_ports(1)[0]
                    proxy = Proxy(folder, f"{name}-{kind}", make(port), port, kind)
                    running.callback(proxy.stop)
                    try:
                        proxy.wait_until_it_answers()
                    except RuntimeError as error:
                        print(error, file=sys.stderr)
                        absent.append(f"{name} ({kind}: does not start)")
                        del found[kind][name]
                        continue
                    try:
                        for scenario in own:
                            runs[scenario].setdefault(name, []).append(measure(proxy, scenario, options.secs, folder))
                    except RuntimeError as error:
                        tail = proxy.log.read_text(errors="replace")[-1500:]
                        sys.exit(f"{name}: {error}\nits log ends:\n{tail}")
                    finally:
                        proxy.stop()
                for scenario in own if kind != "tls" else []:
                    direct = backends[0] if kind == "http" else source
                    figure = load(kind, direct, scenario, options.secs, folder)
                    runs[scenario].setdefault("direct, no proxy", []).append({**figure, "us": 0.0, "peak": 0.0})

    print("\n".join(f"- {line}" for line in versions()))
    print(f"- median of {options.rounds} rounds, {options.secs}s for each load, one thread each")
    if absent:
        print(f"- not here: {', '.join(absent)}")
    for scenario, by_name in runs.items():
        medians = {
            name: {key: statistics.median(f[key] for f in figures) for key in figures[0]} for name, figures in by_name.items()
        }
        print(table(scenario, medians))
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": versions(), "runs": runs}, indent=1))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
