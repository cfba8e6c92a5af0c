"""Runs the units of the runs asked for, some at a time, and prints how they differ from a direct
server. What a run is stands in runs.py; what is done inside of one, in one.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compare
from runs import ALL, QUICK, RUNS

OUT = Path("target/suites/out")  # OUT/run/unit/: names, time, and the logs
SLOWEST = 400  # seconds that any unit may take directly
ROOT = os.geteuid() == 0
NAMESPACE = ["unshare", "-n"] if ROOT else ["unshare", "-rn"]
ISOLATED = subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


def units(suite):
    if suite == "tcl":
        command = ["./runtest", "--list-tests"]
        listed = subprocess.run(command, cwd="target/suites/tcl", capture_output=True, text=True)
        return [line for line in listed.stdout.splitlines() if re.match(r"(unit|integration)/", line)]
    tree = Path("target/suites/redis-py")
    return sorted(str(file.relative_to(tree)) for file in tree.glob("tests/**/test_*.py"))


def folder(run, unit):
    return OUT / run / unit.replace("/", ".")


def names(run, unit):
    file = folder(run, unit) / "names"
    return compare.read_names(file) if file.exists() else {}


def seconds(run, unit):
    file = folder(run, unit) / "time"
    return float(file.read_text()) if file.exists() else 0.0


def do(run, unit):
    """One unit in a process group and network of its own, ended when it takes far too long."""
    place, baseline = folder(run, unit), RUNS[run].baseline
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = [sys.executable, Path(__file__).parent / "one.py", run, unit, place]
    environment = os.environ | ({"SUITES_NAMESPACE": "1"} if ISOLATED else {})
    limit = 4 * seconds(baseline, unit) + 60 if baseline else SLOWEST
    begun = time.monotonic()
    with open(place / "one.log", "w") as log:
        process = subprocess.Popen((NAMESPACE if ISOLATED else []) + command, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            log.write(f"ended after {limit:.0f}s\n")
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if not baseline and not (place / "names").exists():
        raise RuntimeError(f"{run} {unit}: {(place / 'one.log').read_text()}")
    (place / "time").write_text(f"{time.monotonic() - begun:.1f}")


def pool(tasks):
    """The longest first, as far as an earlier run told."""
    tasks.sort(key=lambda task: -seconds(RUNS[task[0]].baseline or task[0], task[1]))
    with ThreadPoolExecutor(int(os.environ.get("JOBS", 2)) if ISOLATED else 1) as executor:
        list(executor.map(lambda task: do(*task), tasks))


def panics(run, of):
    logs = [folder(run, unit) / "sluice.log" for unit in of]
    return [log for log in logs if log.exists() and "panicked" in log.read_text(errors="replace")]


def gather(run, of):
    return {name: status for unit in of for name, status in names(run, unit).items()}


def report(run, of):
    baseline = RUNS[run].baseline
    direct, got = gather(baseline, of), gather(run, of)
    print(f"\n== {run}: {compare.totals(got)} (pass / fail / skip), directly {compare.totals(direct)}, "
          f"{sum(seconds(run, unit) for unit in of):.0f} s of units")
    for unit in of:
        told = (folder(run, unit) / "one.log").read_text().strip()
        if told:
            print(f"   {unit}: {told}")
    bad = panics(run, of)
    for log in bad:
        print(f"   Sluice panicked: {log}")
    return compare.verdict(run, direct, got) and not bad


def once_more(run, of):
    """Units with differences nobody knows of run again, alone: many of these tests race a clock."""
    known, loose = compare.read_known(run)
    for unit in of:
        before = names(run, unit)
        found = compare.differs(names(RUNS[run].baseline, unit), before)
        if not found.keys() - known.keys() - loose:
            continue
        pool([(run, unit)])
        after = names(run, unit)
        for name in sorted(name for name in found if after.get(name) == "ok"):
            print(f"   flaky: {run}: {name}")
        merged = after | {name: "ok" for name, status in before.items() if status == "ok"}
        text = "".join(f"{status}\t{name}\n" for name, status in merged.items())
        (folder(run, unit) / "names").write_text(text)


def show_known(run):
    for unit in units(RUNS[run].suite):
        for name in compare.differs(names(RUNS[run].baseline, unit), names(run, unit)):
            print(name)


def main(words):
    if words[0] == "known":
        return show_known(words[1]) or 0
    asked = {"all": ALL, "quick": list(QUICK), "sliced": ["tcl-sliced"]}.get(words[0], [words[0]])
    if asked[0] not in RUNS:
        sys.exit(f"no run {words[0]}; there are all, quick, sliced, {', '.join(RUNS)}")
    begun = time.monotonic()
    work = {run: QUICK[run] if words[0] == "quick" else words[1:] or units(RUNS[run].suite) for run in asked}
    direct = {(RUNS[run].baseline, unit) for run, of in work.items() for unit in of if RUNS[run].baseline}
    pool([task for task in sorted(direct) if not (folder(*task) / "time").exists()])
    pool([(run, unit) for run, of in work.items() for unit in of])
    good = True
    for run, of in work.items():
        if RUNS[run].baseline:
            once_more(run, of)
            good &= report(run, of)
        else:
            print(f"{run}: {compare.totals(gather(run, of))}")
    print(f"\n{time.monotonic() - begun:.0f} s; logs in {OUT}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main(sys.argv[1:]))
