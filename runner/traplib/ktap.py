"""KTAP version 1 of a run, as the kernel's tools read it: a subtest for each target and suite."""

from . import summary


def lines(run):
    """The run as KTAP, a line each."""
    groups = {}
    for (target, case_id), end in run.ends.items():
        groups.setdefault((case_id.split(".")[0], target), []).append((case_id, end))
    yield "KTAP version 1"
    yield f"1..{len(groups)}"
    for number, ((suite, target), ends) in enumerate(groups.items(), 1):
        yield "  KTAP version 1"
        yield f"  # Subtest: {suite} on {target}"
        yield f"  1..{len(ends)}"
        good = True
        for index, (case_id, end) in enumerate(ends, 1):
            good = good and end["expected"]
            if not end["expected"]:
                for line in summary.failure_lines(run, target, case_id, end)[1:]:
                    yield summary.clean(f"  # {line.strip()}")
            skip = f" # SKIP {end['got'] or end['verdict']}" if end["verdict"] in ("SKIP", "NOTSUP") else ""
            yield summary.clean(f"  {'ok' if end['expected'] else 'not ok'} {index} {case_id}{skip}")
        yield f"{'ok' if good else 'not ok'} {number} {suite} on {target}"
