"""What a run's names say against a direct server's and against the list of known differences."""

from pathlib import Path

KNOWN = Path(__file__).parent / "known"


def read_names(file):
    """{name: status}; a test that passes and then fails to clean up has failed."""
    names = {}
    for line in file.read_text().splitlines():
        status, name = line.split("\t", 1)
        if names.get(name) != "failed":
            names[name] = status
    return names


def read_known(run):
    """{name: reason} and the names that may pass or fail. `# reason` heads the names under it; a
    name after `~ ` is one that the clock decides, and is neither asked to fail nor to pass."""
    known, loose, reason = {}, set(), ""
    file = KNOWN / f"{run}.txt"
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("# "):
            reason = line[2:]
        elif line.startswith("~ "):
            loose.add(line[2:])
        elif line.strip():
            known[line] = reason
    return known, loose


def differs(direct, got):
    """The names that pass directly and not here, with what became of them."""
    return {
        name: got.get(name, "missing")
        for name, status in direct.items()
        if status == "ok" and got.get(name) != "ok"
    }


def totals(names):
    states = list(names.values())
    return " / ".join(str(states.count(state)) for state in ("ok", "failed", "skipped"))


def verdict(run, direct, got):
    """Prints it; true when every difference is known and every known one is still there."""
    known, loose = read_known(run)
    found = differs(direct, got)
    new = {name: status for name, status in found.items() if name not in known and name not in loose}
    gone = [name for name in known if direct.get(name) == "ok" and name not in found]
    print(f"   {len(found)} names pass directly and not here, {len(found) - len(new)} of them known")
    for name, status in new.items():
        print(f"   {status:8} {name}")
    for name in gone:
        print(f"   passes now: take it out of {KNOWN.name}/{run}.txt: {name}")
    return not new and not gone
