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
import one
import stack
from runs import ALL, QUICK, RUNS, SLICED

OUT = Path("target/suites/out")  # OUT/run/unit/: names, time, and the logs
SLOWEST = 400  # seconds that any unit may take directly
FLAKY = 3  # so many new differences in a unit may be luck; more are not run again
ROOT = os.geteuid() == 0
NAMESPACE = ["unshare", "-n"] if ROOT else ["unshare", "-rn"]
running = set()  # the process groups of the units under way
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
    return compare.read_names(folder(run, unit) / "names")


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
    limit = 4 * seconds(baseline, unit) + 90 if baseline else SLOWEST
    begun = time.monotonic()
    with open(place / "one.log", "w") as log:
        process = subprocess.Popen((NAMESPACE if ISOLATED else []) + command, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        running.add(process.pid)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            log.write(f"ended after {limit:.0f}s\n")
    end(process.pid)
    process.wait()
    running.discard(process.pid)
    if RUNS[run].suite == "tcl" and (place / "suite.log").exists():
        one.write_tcl_names(unit, place)
    if not baseline and not (place / "names").exists():
        raise RuntimeError(f"{run} {unit}: {(place / 'one.log').read_text()}")
    (place / "time").write_text(f"{time.monotonic() - begun:.1f}")


def end(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop(*_):
    for group in list(running):
        end(group)
    os._exit(1)


def pool(tasks):
    """The longest first, as far as an earlier run told."""
    tasks.sort(key=lambda task: -seconds(RUNS[task[0]].baseline or task[0], task[1]))
    with ThreadPoolExecutor(int(os.environ.get("JOBS", 2)) if ISOLATED else 1) as executor:
        list(executor.map(lambda task: do(*task), tasks))


def panics(run, of):
    logs = [folder(run, unit) / "sluice.log" for unit in of]
    return [log for log in logs if log.exists() and "panicked" in log.read_text(errors="replace")]


def differs(run, of):
    """{unit: {name: cause}}: what passes directly and not in this run."""
    return {unit: compare.differs(names(RUNS[run].baseline, unit), names(run, unit)) for unit in of}


def gather(run, of):
    return {name: told for unit in of for name, told in names(run, unit).items()}


def flatten(found):
    return {name: cause for names in found.values() for name, cause in names.items()}


def report(run, of):
    """Prints what is to be said of a run; how many names pass on both sides, and how much is wrong."""
    direct, got = gather(RUNS[run].baseline, of), gather(run, of)
    print(f"\n== {run}: {compare.totals(got)} (pass / fail / skip), directly {compare.totals(direct)}, "
          f"{sum(seconds(run, unit) for unit in of):.0f} s of units")
    for unit in of:
        told = (folder(run, unit) / "one.log").read_text().strip()
        if told:
            print(f"   {unit}: {told}")
    bad = panics(run, of)
    for log in bad:
        print(f"   Sluice panicked: {log}")
    if not compare.passes(direct):
        print("   no test passes directly")
    wrong = compare.verdict(run, RUNS[run].like, direct, flatten(differs(run, of)), OUT / run)
    return len(compare.passes(direct) & compare.passes(got)), wrong + len(bad) + (not compare.passes(direct))


def once_more(run, of):
    """Units with a few differences that nobody knows of run again: many of these tests race a
    clock. A name that passes once passes, and is told."""
    known, loose = compare.read_known(run, RUNS[run].like)
    found, first = differs(run, of), {unit: names(run, unit) for unit in of}
    again = [unit for unit in of if 0 < len(found[unit].keys() - known.keys() - loose) <= FLAKY]
    pool([(run, unit) for unit in again])
    for unit in again:
        second = names(run, unit)
        for name in sorted(found[unit].keys() - known.keys() & compare.passes(second)):
            print(f"   flaky: {run}: {name}")
        second.update({name: ("ok", "") for name in compare.passes(first[unit])})
        compare.write_names(folder(run, unit) / "names", second)


def show_known(run):
    """What differed in the units that have run, with the reasons there are, else the causes."""
    known, loose = compare.read_known(run, RUNS[run].like)
    ran = [unit for unit in units(RUNS[run].suite) if (folder(run, unit) / "names").exists()]
    found = flatten(differs(run, ran))
    told = {name: known.get(name, cause) for name, cause in found.items() if name not in loose}
    for line in compare.by_reason(told):
        print(line)
    for name in sorted(compare.read_known(run)[1]):
        print(f"~ {name}")


def allowed(run):
    """Whether this Sluice takes the run's configuration; says so when not."""
    if not RUNS[run].baseline:
        return True
    (OUT / run).mkdir(parents=True, exist_ok=True)
    said = stack.refusal(RUNS[run], OUT / run)
    if said:
        print(f"\n== {run}: not run, sluice refuses its configuration\n{said}")
    return not said


def main(words):
    if words[0] == "known":
        return show_known(words[1]) or 0
    asked = {"all": ALL, "quick": list(QUICK), "sliced": SLICED}.get(words[0], [words[0]])
    if asked[0] not in RUNS:
        sys.exit(f"no run {words[0]}; there are all, quick, sliced, {', '.join(RUNS)}")
    begun, same, wrong = time.monotonic(), 0, 0
    work = {run: QUICK[run] if words[0] == "quick" else words[1:] or units(RUNS[run].suite)
            for run in asked if allowed(run)}
    direct = {(RUNS[run].baseline, unit) for run, of in work.items() for unit in of if RUNS[run].baseline}
    pool([task for task in direct if not (folder(*task) / "time").exists()])
    pool([(run, unit) for run, of in work.items() for unit in of])
    for run, of in work.items():
        if RUNS[run].baseline:
            once_more(run, of)
            counts = report(run, of)
            same, wrong = same + counts[0], wrong + counts[1]
        else:
            print(f"{run}: {compare.totals(gather(run, of))}")
    wrong += len(asked) - len(work)
    print(f"\n{same} pass as directly, {wrong} differ and should not; {time.monotonic() - begun:.0f} s; logs in {OUT}")
    return 1 if wrong else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    sys.exit(main(sys.argv[1:]))
