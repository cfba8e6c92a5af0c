#!/usr/bin/env python3
"""What an idle keep-alive client of HTTP/1.1 costs Sluice and HAProxy in memory.

usage: idle_http.py [--clients 10000] [--only sluice,haproxy] [--json FILE]

Each proxy in turn stands before one server of this script. The clients connect from processes of
their own, because descriptors are limited, each asks for 128 bytes once, and then stays. The figure
is what the proxy's resident memory grew by, over the number of clients; what the kernel has for the
sockets is not in it. `asked` is measured right behind the requests, `idle` ten seconds later, when
connections to the server have been closed. HAProxy is taken from PATH, SLUICE names another build
than target/release/sluice. What is absent is left out and named.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from compare import ROOT, Process, free_ports, search_path, write  # noqa: E402

REQUEST = b"GET / HTTP/1.1\r\nHost: bench.example.org\r\nUser-Agent: idle/1\r\nAccept: */*\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n" + b"x" * 128
# A process has as many descriptors as the system lets it; some are its own.
SPARE = 200
AT_ONCE = 200


class Web(Process):
    def wait_until_it_answers(self):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.child.poll() is None:
            done = subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{self.port}/"])
            if done.returncode == 0:
                return self
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"{self.name} does not answer:\n{self.log.read_text(errors='replace')[-1500:]}")

    def rss(self):
        """Bytes."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


async def serve(port):
    """The server: the same reply to whatever ends a head."""

    async def client(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(REPLY)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def connect(port, clients):
    """Clients that ask once and stay until a line comes."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one():
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(128)
            return head.startswith(b"HTTP/1.1 200") and body and (reader, writer)

    kept = await asyncio.gather(*(one() for _ in range(clients)))
    assert all(kept)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def configurations(folder, origin, clients):
    most = clients + 100

    def sluice(binary, port):
        admin = free_ports(1)[0]
        text = (
            f"workers: 1\nadmin: {{ bind: 127.0.0.1:{admin} }}\nlisteners:\n"
            f"  - {{ name: bench, bind: 127.0.0.1:{port}, protocol: http, cluster: bench }}\n"
            f"clusters:\n  bench: {{ backends: [127.0.0.1:{origin}] }}\n"
        )
        return [binary, "run", "-c", write(folder, "sluice.yaml", text)]

    def haproxy(binary, port):
        # Twice as many descriptors as connections are set aside, so the limit cannot be higher here.
        text = (
            f"global\n  nbthread 1\n  maxconn {most}\n  no strict-limits\ndefaults\n  mode http\n"
            "  timeout connect 5s\n  timeout client 75s\n  timeout server 60s\n"
            f"listen bench\n  bind 127.0.0.1:{port} backlog 4096\n  maxconn {most}\n"
            f"  option forwardfor\n  http-reuse always\n  server s0 127.0.0.1:{origin}\n"
        )
        return [binary, "-db", "-f", write(folder, "haproxy.cfg", text)]

    ours = os.environ.get("SLUICE", str(ROOT / "target/release/sluice"))
    wanted = {"sluice": (os.path.abspath(ours), sluice), "haproxy": (shutil.which("haproxy", path=search_path()), haproxy)}
    found = {name: entry for name, entry in wanted.items() if entry[0] and os.path.exists(entry[0])}
    return found, [name for name in wanted if name not in found]


def measure(folder, name, binary, command, clients):
    port = free_ports(1)[0]
    proxy = Web(folder, name, command(binary, port), port).wait_until_it_answers()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE
    parts = max(2, -(-clients // limit))
    shares = [clients // parts + (part < clients % parts) for part in range(parts)]
    before = proxy.rss()
    loads = []
    try:
        for share in shares:
            command = [sys.executable, __file__, "--connect", str(port), "--clients", str(share)]
            loads.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for load in loads:
            if load.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name}: not every client was answered")
        asked = proxy.rss()
        time.sleep(10)
        idle = proxy.rss()
        return {"before": before, "asked": (asked - before) / clients, "idle": (idle - before) / clients}
    finally:
        for load in loads:
            load.kill()
            load.wait()
        proxy.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--only", help="names with commas")
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--connect", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        return asyncio.run(serve(options.serve))
    if options.connect:
        return asyncio.run(connect(options.connect, options.clients))
    with tempfile.TemporaryDirectory() as folder:
        origin = free_ports(1)[0]
        found, absent = configurations(folder, origin, options.clients)
        if options.only:
            found = {name: found[name] for name in options.only.split(",")}
        command = [sys.executable, __file__, "--serve", str(origin)]
        server = Web(folder, "server", command, origin).wait_until_it_answers()
        try:
            figures = {name: measure(folder, name, *entry, options.clients) for name, entry in found.items()}
        finally:
            server.stop()
    print(f"{options.clients} clients over HTTP/1.1, one worker\n")
    print("| proxy | KiB per client, asked | KiB per client, idle | MiB before |\n|---|---:|---:|---:|")
    for name, figure in figures.items():
        asked, idle, before = figure["asked"] / 1024, figure["idle"] / 1024, figure["before"] / 1024**2
        print(f"| {name} | {asked:.1f} | {idle:.1f} | {before:.1f} |")
    if absent:
        print(f"\nnot installed: {', '.join(absent)}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
