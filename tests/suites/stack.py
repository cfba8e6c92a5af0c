"""Starts what a run talks to: servers, Sluice, slicers, on fixed ports of a network of its own.

It does not know the suites."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import runs

FRONT = 6379  # what the suites talk to; redis-py's tests name it, and the next two, in their text
REPLICA = 6380
SENTINELS = (26379, 26380, 26381)
SERVERS = (7001, 7002, 7003)  # behind Sluice
SLICED = 10  # a slicer stands this many ports above what it forwards to
HERE = Path(__file__).parent
SLUICE = os.environ.get("SLUICE", "target/debug/sluice")


def refusal(run, folder):
    """What this Sluice has against the configuration of the run; "" when it takes it."""
    file = folder / "check.yaml"
    file.write_text(runs.config(run, FRONT, SERVERS[: run.shards]))
    checked = subprocess.run([SLUICE, "check", "-c", file], capture_output=True, text=True)
    return (checked.stderr + checked.stdout).strip() if checked.returncode else ""


class Stack:
    def __init__(self, run, folder):
        self.run, self.folder, self.started = run, folder, []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.send_signal(signal.SIGKILL)
            process.wait()

    def start(self):
        run = self.run
        if run.front in ("direct", "cluster"):
            primary = FRONT + SLICED if run.sliced else FRONT
            self.redis(primary)
            if run.front == "cluster":
                cli(primary, "cluster", "addslotsrange", "0", "16383")
                until("the cluster", lambda: "cluster_state:ok" in cli(primary, "cluster", "info"))
            if run.sliced:
                self.slicer(FRONT, primary)
        else:
            primary = SERVERS[0]
            for port in SERVERS[: run.shards]:
                self.redis(port)
            self.sluice(run)
        if run.suite == "py":
            self.redis(REPLICA, "--replicaof", "127.0.0.1", str(primary))
            for port in SENTINELS:
                self.sentinel(port, primary)

    def sluice(self, run):
        servers, listen = SERVERS[: run.shards], FRONT
        if run.sliced:
            listen = FRONT + SLICED
            for port in servers:
                self.slicer(port + SLICED, port)
            servers = [port + SLICED for port in servers]
        file = self.folder / "sluice.yaml"
        file.write_text(runs.config(run, listen, servers))
        self.spawn("sluice", [SLUICE, "run", "-c", file], listen)
        until("an answer through Sluice", lambda: cli(listen, "dbsize").strip().isdigit())
        if run.sliced:
            self.slicer(FRONT, listen)

    def redis(self, port, *more):
        folder = self.folder / f"redis-{port}"
        folder.mkdir()
        if self.run.front == "cluster":
            more += ("--cluster-enabled", "yes")
        flags = "--bind 127.0.0.1 --enable-debug-command yes --enable-protected-configs yes --save"
        command = ["redis-server", "--port", str(port), "--dir", folder, *flags.split(), "", *more]
        self.spawn(f"redis-{port}", command, port)

    def sentinel(self, port, primary):
        file = self.folder / f"sentinel-{port}.conf"
        file.write_text(f"port {port}\nsentinel monitor redis-py-test 127.0.0.1 {primary} 2\n")
        self.spawn(f"sentinel-{port}", ["redis-server", file, "--sentinel"], port)

    def slicer(self, listen, target):
        self.spawn(f"slicer-{listen}", [sys.executable, HERE / "slicer.py", str(listen), str(target)], listen)

    def spawn(self, name, command, port):
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started.append(process)
        until(f"{name} on port {port}", lambda: open_port(port), process)


def cli(port, *words):
    command = ["redis-cli", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout


def open_port(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(what, condition, process=None):
    deadline = time.monotonic() + 20
    while not condition():
        if process and process.poll() is not None:
            sys.exit(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not there after 20s")
        time.sleep(0.02)
