#!/usr/bin/env python3
"""Sluice beside the Redis proxies that are installed: what a request costs each of them.

usage: compare.py [--rounds 3] [--n 200000] [--scenarios a,b] [--only sluice,twemproxy] [--replicas] [--json FILE]

Two redis-servers are started, then in every round each proxy in turn, alone, under the same
redis-benchmark loads. The figure to look at is the CPU time (user and system, from /proc/PID/stat)
that the proxy spent per request: it is steady on a busy machine, where requests per second are
not. Medians over the rounds. twemproxy and HAProxy are taken from PATH; PREDIXY and ENVOY name the
binaries of the others, SLUICE another build than target/release/sluice. What is absent is left out
and named.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICK = 1 / os.sysconf("SC_CLK_TCK")

# Name: what redis-benchmark is told, and how much of --n is sent.
SCENARIOS = {
    "GET c50": (["-t", "get", "-c", "50", "-d", "64"], 1.0),
    "GET c50 P16": (["-t", "get", "-c", "50", "-P", "16", "-d", "64"], 4.0),
    "GET c1000": (["-t", "get", "-c", "1000", "-d", "64"], 1.0),
    "GET 4KiB": (["-t", "get", "-c", "50", "-d", "4096"], 1.0),
    "MSET of 10": (["-t", "mset", "-c", "50", "-d", "64"], 0.5),
    "SET c50": (["-t", "set", "-c", "50", "-d", "64"], 1.0),
    "SET c50 P16": (["-t", "set", "-c", "50", "-P", "16", "-d", "64"], 4.0),
}
# The ones that the goals are about.
USUAL = ["GET c50", "GET c50 P16", "GET c1000", "GET 4KiB", "MSET of 10"]
BASELINE = "twemproxy"


class Process:
    """A server or proxy of this run, listening on `port` once started."""

    def __init__(self, folder, name, command, port):
        self.port, self.name = port, name
        self.log = Path(folder) / (re.sub(r"\W+", "-", name) + ".log")
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)

    def wait_until_it_answers(self):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.child.poll() is None:
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", self.port), 1) as conn:
                    conn.settimeout(1)
                    # twemproxy 0.4 does not know PING, but any proxy that is up answers a GET.
                    conn.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
                    if conn.recv(16).startswith((b"$", b"_")):
                        return self
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-1500:]
        self.stop()
        raise RuntimeError(f"{self.name} does not answer on port {self.port}:\n{tail}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def cpu_seconds(self):
        # The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    def peak_mib(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    held = [socket.socket() for _ in range(count)]
    for sock in held:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def write(folder, name, text):
    path = Path(folder) / name
    path.write_text(text)
    return str(path)


def peers(folder, shards, replicas):
    """Every proxy that can be run here, as {name: function of a port giving its command}."""
    found, absent = {}, []

    def offer(name, binary, command):
        if binary and os.path.exists(binary):
            found[name] = lambda port: command(binary, port)
        else:
            absent.append(name)

    def sluice(workers, reads=None):
        def command(binary, port):
            copies = replicas if reads else [None] * len(shards)
            lines = "".join(
                f"      - {{ primary: 127.0.0.1:{shard}"
                + (f", replicas: [127.0.0.1:{copy}]" if copy else "") + " }\n"
                for shard, copy in zip(shards, copies)
            )
            lines += f"    reads: {{ {reads} }}\n" if reads else ""
            admin = free_ports(1)[0]
            text = (
                f"workers: {workers}\nadmin: {{ bind: 127.0.0.1:{admin} }}\nlisteners:\n"
                f"  - {{ name: bench, bind: 127.0.0.1:{port}, protocol: redis, cluster: bench }}\n"
                f"clusters:\n  bench:\n    shards:\n{lines}"
            )
            return [binary, "run", "-c", write(folder, f"sluice{port}.yaml", text)]

        return command

    def twemproxy(binary, port):
        servers = "".join(f"    - 127.0.0.1:{shard}:1 s{shard}\n" for shard in shards)
        text = (
            f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
            f"  backlog: 1024\n  auto_eject_hosts: false\n  server_connections: 1\n  servers:\n{servers}"
        )
        stats = free_ports(1)[0]
        return [binary, "-c", write(folder, "twemproxy.yml", text), "-s", str(stats), "-m", "512"]

    def haproxy(binary, port):
        # It forwards bytes and parses none, so it can use one shard only.
        text = (
            "global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 5s\n"
            f"  timeout client 1m\n  timeout server 1m\nlisten bench\n  bind 127.0.0.1:{port}\n"
            f"  server s0 127.0.0.1:{shards[0]}\n"
        )
        return [binary, "-db", "-f", write(folder, "haproxy.cfg", text)]

    def predixy(binary, port):
        groups = "".join(f"  Group s{shard} {{\n    + 127.0.0.1:{shard}\n  }}\n" for shard in shards)
        text = (
            f"Bind 127.0.0.1:{port}\nWorkerThreads 1\nMaxMemory 0\nClientTimeout 300\n"
            'Authority {\n  Auth "" {\n    Mode admin\n  }\n}\n'
            'StandaloneServerPool {\n  Databases 16\n  Hash crc16\n  HashTag "{}"\n  Distribution modula\n'
            f"  MasterReadPriority 60\n  RefreshMethod fixed\n{groups}}}\n"
        )
        return [binary, write(folder, "predixy.conf", text)]

    def envoy(binary, port):
        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        endpoints = [{"endpoint": {"address": address(shard)}} for shard in shards]
        redis_filter = {"name": "envoy.filters.network.redis_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
            "stat_prefix": "bench",
            "settings": {"op_timeout": "5s", "max_buffer_size_before_flush": 1024, "buffer_flush_timeout": "0.001s"},
            "prefix_routes": {"catch_all_route": {"cluster": "bench"}},
        }}
        bootstrap = {
            "static_resources": {
                "listeners": [
                    {
                        "name": "bench",
                        "address": address(port),
                        "filter_chains": [{"filters": [redis_filter]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "bench",
                        "type": "STATIC",
                        "lb_policy": "MAGLEV",
                        "connect_timeout": "1s",
                        "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": endpoints}]},
                    }
                ],
            }
        }
        # JSON is YAML, and a .json file is taken as it is.
        path = write(folder, "envoy.json", json.dumps(bootstrap))
        return [binary, "-c", path, "--concurrency", "1", "-l", "error", "--disable-hot-restart"]

    ours = os.environ.get("SLUICE", str(ROOT / "target/release/sluice"))
    offer("sluice", ours, sluice(1))
    offer("sluice, 2 workers", ours, sluice(2))
    if replicas:
        offer("sluice, replicas", ours, sluice(1, "from: prefer_replica"))
        promised = "from: prefer_replica, consistency: key, max_lag: 1s"
        offer("sluice, replicas, consistency: key", ours, sluice(1, promised))
    offer(BASELINE, shutil.which("nutcracker", path=search_path()), twemproxy)
    offer("haproxy, tcp", shutil.which("haproxy", path=search_path()), haproxy)
    offer("predixy", os.environ.get("PREDIXY") or shutil.which("predixy"), predixy)
    offer("envoy", os.environ.get("ENVOY") or shutil.which("envoy"), envoy)
    return found, absent


def search_path():
    # Debian keeps daemons where a user's PATH may not look.
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def load(port, arguments, requests):
    """Runs redis-benchmark once; requests per second, and p50 and p99 in milliseconds."""
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-n", str(requests), "-r", "100000", "--csv"]
    done = subprocess.run(command + arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    rows = [re.findall(r'"([^"]*)"', line) for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode or len(rows) < 2:
        raise RuntimeError(f"redis-benchmark {' '.join(arguments)}: {(done.stdout + done.stderr)[-400:]}")
    row = dict(zip(rows[0], rows[-1]))
    return {"rps": float(row["rps"]), "p50": float(row["p50_latency_ms"]), "p99": float(row["p99_latency_ms"])}


def measure(process, scenarios, n):
    """One proxy under each load: {scenario: figures}."""
    figures = {}
    for name in scenarios:
        arguments, share = SCENARIOS[name]
        requests = int(n * share)
        before = process.cpu_seconds()
        figure = load(process.port, arguments, requests)
        figure["us"] = (process.cpu_seconds() - before) / requests * 1e6
        figure["peak"] = process.peak_mib()
        figures[name] = figure
    return figures


def table(scenario, results):
    """A markdown table of one scenario."""
    base = results.get(BASELINE, {}).get("us")
    lines = [
        f"\n### {scenario}\n",
        f"| proxy | CPU us/request | ratio to {BASELINE} | req/s | p50 ms | p99 ms | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, m in results.items():
        direct = name.startswith("direct")
        cost = "-" if direct else f"{m['us']:.2f}"
        ratio = "-" if direct or not base else f"{m['us'] / base:.2f}"
        peak = "-" if direct else f"{m['peak']:.1f}"
        lines.append(f"| {name} | {cost} | {ratio} | {m['rps']:,.0f} | {m['p50']:.3f} | {m['p99']:.3f} | {peak} |")
    return "\n".join(lines)


def first_line(command):
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
        return (done.stdout + done.stderr).strip().partition("\n")[0]
    return None


def machine():
    """What the figures were measured on."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    versions = [["redis-server", "--version"], ["nutcracker", "--version"], ["haproxy", "-v"]]
    lines = [first_line([shutil.which(v[0], path=search_path()) or v[0], *v[1:]]) for v in versions]
    system = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {model[1] if model else platform.machine()}, Linux {platform.release()}"
    return [system, *[line for line in lines if line]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each proxy is measured; the median counts")
    parser.add_argument("--n", type=int, default=200_000, help="requests of a load; pipelined ones send four times as many")
    parser.add_argument("--scenarios", default=",".join(USUAL), help="of: " + ", ".join(SCENARIOS))
    parser.add_argument("--only", default="", help="parts of the names of the proxies to run")
    parser.add_argument("--replicas", action="store_true", help="also Sluice reading replicas, with and without a promise")
    parser.add_argument("--json", metavar="FILE", help="every single figure, too")
    options = parser.parse_args()
    scenarios = [name.strip() for name in options.scenarios.split(",") if name.strip()]
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")

    runs = {name: {} for name in scenarios}
    with tempfile.TemporaryDirectory(prefix="compare-") as folder, contextlib.ExitStack() as running:
        ports = free_ports(4)
        shards, replicas = ports[:2], ports[2:] if options.replicas else []
        for port in shards + replicas:
            arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxclients", "15000"]
            if port in replicas:
                arguments += ["--replicaof", "127.0.0.1", str(shards[replicas.index(port)])]
            server = Process(folder, f"redis-{port}", ["redis-server", *arguments], port)
            running.callback(server.stop)
            server.wait_until_it_answers()
        found, absent = peers(folder, shards, replicas)
        if wanted := [part for part in options.only.split(",") if part]:
            found = {name: make for name, make in found.items() if any(part in name for part in wanted)}
        if not found:
            sys.exit("nothing to measure; build Sluice with `cargo build --release`")
        for number in range(options.rounds):
            for name, make in found.items():
                print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
                port = free_ports(1)[0]
                proxy = Process(folder, name, make(port), port)
                running.callback(proxy.stop)
                try:
                    figures = measure(proxy.wait_until_it_answers(), scenarios, options.n)
                except RuntimeError as error:
                    log = proxy.log.read_text(errors="replace")[-1500:]
                    sys.exit(f"{name}: {error}\nits log ends:\n{log}")
                finally:
                    proxy.stop()
                for scenario, figure in figures.items():
                    runs[scenario].setdefault(name, []).append(figure)
            for scenario in scenarios:
                arguments, share = SCENARIOS[scenario]
                figure = load(shards[0], arguments, int(options.n * share))
                runs[scenario].setdefault("direct, one redis-server", []).append({**figure, "us": 0.0, "peak": 0.0})

    print("\n".join(f"- {line}" for line in machine()))
    print(f"- median of {options.rounds} rounds, {options.n:,} requests (pipelined 4 times, MSET half as many)")
    if absent:
        print(f"- not here: {', '.join(absent)}")
    for scenario, by_name in runs.items():
        print(table(scenario, {name: {key: statistics.median(f[key] for f in figures) for key in figures[0]} for name, figures in by_name.items()}))
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
