"""Runs one unit of a suite in the network namespace it finds itself in. It compares nothing.

Usage: one.py RUN UNIT FOLDER. FOLDER gets every log, and `names`, with a line for each test:
`status<tab>name<tab>cause`. Those of Redis's tests are written by write_tcl_names, afterwards."""

import os
import re
import subprocess
import sys
from pathlib import Path

import runs
import stack

SUITES = Path("target/suites").resolve()
MARKS = "not onlycluster and not redismod and not ssl and not cp_integration"
STATUS = {"ok": "ok", "err": "failed", "exception": "failed", "ignore": "skipped"}


def tcl(run, unit, folder):
    """In a tree of links around a `tests/tmp` of its own."""
    tree = folder / "tcl"
    (tree / "tests" / "tmp").mkdir(parents=True)
    for source in [*(SUITES / "tcl").iterdir(), *(SUITES / "tcl" / "tests").iterdir()]:
        link = tree / source.relative_to(SUITES / "tcl")
        if not link.exists():
            link.symlink_to(source)
    command = ["./runtest", "--host", "127.0.0.1", "--port", str(stack.FRONT), "--tags", "-slow"]
    command += ["--durable", "--single", unit] + ["--cluster-mode"] * run.cluster_mode
    if run.shards > 1:
        command += [word for name in runs.POISON_TCL for word in ("--skiptest", name)]
    for race in runs.RACES if run.sliced else []:
        command += ["--skiptest", race]
    with open(folder / "suite.log", "w") as log:
        ended = subprocess.run(command, cwd=tree, stdout=log, stderr=log)
    return ended.returncode


def write_tcl_names(unit, folder):
    """After the end, whatever it was: a unit that hung has told what it had."""
    log = folder / "suite.log"
    with open(folder / "names", "w") as names:
        for status, name, cause in tcl_names(log.read_text(errors="replace") if log.exists() else ""):
            names.write(f"{status}\t{unit}: {name}\t{cause}\n")


def tcl_names(text):
    """(status, name, cause); the cause of a failure is the line after it."""
    seen = {}
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    for line, after in zip(lines, [*lines[1:], ""]):
        found = re.match(r"\[(ok|err|ignore|exception)\]: (.*)", line)
        if not found:
            continue
        status, name = STATUS[found[1]], re.sub(r" \(\d+ ms\)$| in tests/\S+\.tcl$", "", found[2])
        seen[name] = seen.get(name, 0) + 1  # a loop's tests often share one name
        cause = re.sub(r"\s+", " ", after if name != after else "") if status == "failed" else ""
        yield status, name if seen[name] == 1 else f"{name} ({seen[name]})", cause


def py(run, unit, folder):
    command = [SUITES / "venv" / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--protocol={run.protocol}", "-W", "ignore", "--timeout", "60", "-m", MARKS]
    command += ["--tb=native", "--durations=10", "-p", "names_plugin", unit]
    command += [f"--deselect={name}" for name in runs.POISON if run.baseline]
    names = folder.resolve() / "names"
    names.touch()
    environment = os.environ | {"PYTHONPATH": str(stack.HERE), "NAMES": str(names)}
    with open(folder / "suite.log", "w") as log:
        ended = subprocess.run(command, cwd=SUITES / "redis-py", env=environment, stdout=log, stderr=log)
    return ended.returncode


if __name__ == "__main__":
    run, unit, folder = runs.RUNS[sys.argv[1]], sys.argv[2], Path(sys.argv[3])
    if os.environ.get("SUITES_NAMESPACE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with stack.Stack(run, folder):
        sys.exit({"tcl": tcl, "py": py}[run.suite](run, unit, folder) and 1)
