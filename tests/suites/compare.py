"""What a run's names say against a direct server's and against the list of known differences."""

import re
from pathlib import Path

KNOWN = Path(__file__).parents[2] / "docs" / "redis-suites"
SHOWN = 300  # lines of names on the screen; more are told by their reasons


def read_names(file):
    """{name: (status, cause)}; a test that passes and then fails to clean up has failed."""
    names = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        status, name, cause = line.split("\t", 2)
        if names.get(name, "")[:1] != ("failed",):
            names[name] = (status, cause)
    return names


def write_names(file, names):
    file.write_text("".join(f"{status}\t{name}\t{cause}\n" for name, (status, cause) in names.items()))


def passes(names):
    return {name for name, (status, _) in names.items() if status == "ok"}


def read_known(run, like=""):
    """{name: reason} and the names that may pass or fail. `# reason` heads the names under it; a
    name after `~ ` is one that the clock decides, and is neither asked to fail nor to pass. So is
    every name in the list of `like`, a run that is asked by itself."""
    known, loose, reason = {}, set(), ""
    file = KNOWN / f"{run}.txt"
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("# "):
            reason = line[2:]
        elif line.startswith("~ "):
            loose.add(line[2:])
        elif line.strip():
            known[line] = reason
    if like:
        others = read_known(like)
        loose |= (others[0].keys() | others[1]) - known.keys()
    return known, loose


def differs(direct, got):
    """{name: cause} of one unit's names that pass directly and not here."""
    last = [cause for status, cause in got.values() if status == "failed"]
    never = f"never ran, after: {last[-1]}" if last else "never ran"
    lost = passes(direct) - passes(got)
    return {name: got[name][1] or "not run" if name in got else never for name in sorted(lost)}


def totals(names):
    states = [status for status, _ in names.values()]
    return " / ".join(str(states.count(state)) for state in ("ok", "failed", "skipped"))


def by_reason(names):
    """Lines for a list of known differences: each reason, the most frequent first, and its names.
    A cause that is an error of Sluice's is cut to that, and all numbers are one."""
    groups = {}
    for name, cause in names.items():
        ours = re.search(r"'[A-Z|]+' is (not supported yet|disabled)|sluice: .*", cause)
        reason = re.sub(r"\d+", "N", ours[0] if ours else cause)[:160]
        groups.setdefault(reason, []).append(name)
    for reason, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"# {reason}"
        yield from group


def verdict(run, like, direct, found, out):
    """Prints it, and writes all of it to out/differs.txt; how many names differ that are not known,
    or are known to and do not."""
    known, loose = read_known(run, like)
    new = {name: cause for name, cause in found.items() if name not in known and name not in loose}
    gone = sorted(known.keys() & passes(direct) - found.keys())
    print(f"   {len(found)} names pass directly and not here, {len(found) - len(new)} of them known")
    lines = list(by_reason(new))
    (out / "differs.txt").write_text("\n".join([*lines, ""]))
    for line in lines if len(lines) <= SHOWN else [line for line in lines if line.startswith("# ")]:
        print("   " + line)
    if len(lines) > SHOWN:
        print(f"   the names are in {out / 'differs.txt'}")
    for name in gone:
        print(f"   passes now, take it out of {KNOWN.name}/{run}.txt: {name}")
    return len(new) + len(gone)
