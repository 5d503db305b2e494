"""Cases with what they expect and who says so, for people and for programs. Records are those of the results file."""

import csv
import io

from . import catalog, results

COLUMNS = ("id", "insn", "mode", "cpl", "class", "expectation", "citation")


def for_people(cases):
    """A line each."""
    return "".join(f"{case['id']}\t{catalog.expectation(case['want'])}\t{catalog.citation(case['cite'])}\n" for case in cases)


def as_json(cases):
    """JSON lines."""
    return "".join(results.DUMP(case) + "\n" for case in cases)


def as_csv(cases):
    """CSV with a line of names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for case in cases:
        writer.writerow({**case, "expectation": catalog.expectation(case["want"]),
                         "citation": catalog.citation(case["cite"])})
    return out.getvalue()
