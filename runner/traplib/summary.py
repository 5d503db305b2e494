"""What a run was, in words for a terminal."""

from . import catalog, mutants, verdicts

SHOWN = 20  # failures printed in full; the report has all


def failures(run):
    """[(target, id, record)] of what was not as expected, in the order of the run."""
    return [(target, case_id, end) for (target, case_id), end in run.ends.items() if not end["expected"]]


def case_of(run, case_id):
    """The case record of an id, or an empty one."""
    return run.suites.get(case_id.split(".")[0], {}).get(case_id, {"want": [], "cite": []})


def wanted(case, end):
    """What the case should have done on this target."""
    return " or ".join(end["want"]) if end["want"] else catalog.expectation(case["want"])


def failure_lines(run, target, case_id, end):
    """A failure for people: wanted, got, citation, reproduction."""
    case = case_of(run, case_id)
    lines = [f"{end['verdict']} {case_id} on {target}",
             f"  wanted  {wanted(case, end)}",
             f"  got     {end['got'] or '-'}"]
    if end.get("why"):
        lines.append(f"  why     {end['why']}")
    lines.append(f"  says    {catalog.citation(case['cite']) or '-'}")
    lines.append(f"  again   {reproduction(run, target, case_id)}")
    return lines


def reproduction(run, target, case_id):
    """The shell line that runs one case of the run again."""
    template = run.header.get("reproduce", {}).get(target, {}).get(case_id.split(".")[0], "")
    return template.replace("{id}", case_id).replace("{mutant}", case_id.partition(".")[2])


def clean(text):
    """Guest output is hostile: nothing but printable characters reaches a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def by_target(run):
    """{(target, suite): counts}, targets in the order of the command line."""
    groups = {}
    for (target, case_id), end in run.ends.items():
        groups.setdefault((target, case_id.split(".")[0]), []).append(end["verdict"])
    order = {name: index for index, name in enumerate(run.header["targets"])}
    ordered = sorted(groups, key=lambda key: (order.get(key[0], len(order)), key[1]))
    return {key: verdicts.counts(groups[key]) for key in ordered}


def distribution(ends):
    """How often which outcome came: in their order where they are few, else as counts."""
    if len(ends) <= 3 and len({end["got"] for end in ends if end["verdict"] == "PASS"}) < 2:
        return ", ".join(end["verdict"] for end in ends)
    seen = {}
    for end in ends:
        words = f"{end['verdict']} {end['got']}".strip()
        seen[words] = seen.get(words, 0) + 1
    return ", ".join(f"{count} x {words}" for words, count in seen.items())


def known_by_target(run):
    """{(target, suite): how many cases did what a deviation says}, without zeros."""
    found = {}
    for (target, case_id), end in run.ends.items():
        if end["expected"] and end.get("deviation"):
            key = target, case_id.split(".")[0]
            found[key] = found.get(key, 0) + 1
    return found


def lines(run, color=False):
    """The whole summary, a line each."""
    bad = failures(run)
    if "mutants" in run.header:
        return [paint(clean(line), color) for line in mutants.lines(run)]
    result = []
    for target, case_id, end in bad[:SHOWN]:
        result += failure_lines(run, target, case_id, end) + [""]
    if len(bad) > SHOWN:
        result += [f"and {len(bad) - SHOWN} more; the report has them all", ""]
    for target, case_id in run.flaky():
        seen = distribution(run.attempts[target, case_id])
        result.append(f"flaky   {case_id} on {target}: {seen}")
    result += [f"stale   {one['where']}: it explains nothing any more: {one['line']}" for one in run.stale]
    unexpected = {(target, case_id.split(".")[0]) for target, case_id, _ in bad}
    known = known_by_target(run)
    for key, count in by_target(run).items():
        words = verdicts.words(count) + (f"; {known[key]} known deviations" if key in known else "")
        result.append(f"{'not ok' if key in unexpected else 'ok'}  {key[1]} on {key[0]}: {words}")
    return [paint(clean(line), color) for line in result]


def paint(line, color):
    """The line with its verdict in colour."""
    code = "32" if line.startswith("ok ") else "31" if line.startswith(("not ok ", *verdicts.BAD)) else ""
    if not color or not code:
        return line
    head, space, rest = line.partition("  " if "  " in line else " ")
    return f"\x1b[{code}m{head}\x1b[0m{space}{rest}"
