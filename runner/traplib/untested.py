"""What no case tests: cells of the inventory with their reason, and clauses of the manuals that no case cites.

A record is {"t": "untested", suite, insn, mode, cpl, condition, state, reason, clauses [keys]} or {"t": "clause", key,
manual, volume, section, title, reason}. The clauses of a cell are those that the cases of its instruction cite most; where
the instruction has no case, the pages that bear its name.
"""

import collections
import csv
import io
import os

from . import results

COLUMNS = ("t", "suite", "insn", "mode", "cpl", "condition", "state", "reason", "clauses", "key", "manual", "volume",
           "section", "title")


def name_of(cite):
    """What makes a citation and a clause the same."""
    return cite["manual"], cite["volume"], cite["section"], cite["title"]


def clause_keys(cases, clauses):
    """{insn: [keys]}: what most of each instruction's cases cite. @cases, @clauses: records."""
    keys, counts = {name_of(clause): clause["key"] for clause in clauses}, {}
    for case in cases:
        counts.setdefault(case["insn"], collections.Counter()).update({name_of(cite) for cite in case["cite"]})
    return {insn: sorted(keys[name] for name, count in counted.items()
                         if name in keys and count == max(counted.values())) for insn, counted in counts.items()}


def page_keys(insn, clauses):
    """The pages that bear an instruction's name."""
    return [clause["key"] for clause in clauses
            if clause["section"].partition(":")[2] == insn.upper().replace("_", "-")]


def cells(suite, cases, noted, clauses):
    """The records of one suite's cells. @cases, @noted, @clauses: its records."""
    keys = clause_keys(cases, clauses)
    return [{"t": "untested", "suite": suite, "insn": cell["insn"], "mode": cell["mode"], "cpl": cell["cpl"],
             "condition": cell["condition"], "state": cell["state"], "reason": cell.get("reason", ""),
             "clauses": keys.get(cell["insn"]) or page_keys(cell["insn"], clauses)} for cell in noted]


def reasons():
    """{key: why no case cites the clause}: results/untested_clauses."""
    path = os.path.join(os.path.dirname(__file__), "..", "..", "results", "untested_clauses")
    with open(path, encoding="utf-8") as file:
        lines = [line.split(None, 1) for line in file if line.strip() and not line.startswith("#")]
    return {key: reason.strip() for key, reason in lines}


def uncited(all_cases, clauses):
    """The clauses that no case cites, each once, with the reason where there is one."""
    cited, why = {name_of(cite) for case in all_cases for cite in case["cite"]}, reasons()
    found = {clause["key"]: clause for clause in clauses if name_of(clause) not in cited}
    return [{**{field: clause[field] for field in ("t", "key", "manual", "volume", "section", "title")},
             **({"reason": why[clause["key"]]} if clause["key"] in why else {})} for clause in found.values()]


def cell_id(record):
    """How a selection names a cell: as an id, were there a case."""
    condition = "" if record["condition"] == "-" else "." + record["condition"]
    return f"{record['suite']}.{record['insn']}.{record['mode']}.cpl{record['cpl']}{condition}"


def export(suites, selection):
    """All records of these suites (catalog.Suite) whose cells @selection takes; clauses where it takes everything."""
    found = [record for suite in suites
             for record in cells(suite.name, suite.cases.values(), suite.cells, suite.clauses)
             if selection.matches(cell_id(record))]
    if not selection.add and not selection.drop:
        found += uncited([case for suite in suites for case in suite.cases.values()],
                         [clause for suite in suites for clause in suite.clauses])
    return found


def for_people(records):
    """A line each."""
    return "\n".join(
        f"{r['key']}\t{r['manual']} {r['volume']} {r['section']}\t{r.get('reason', 'no case cites it')}\t{r['title']}" if r["t"] == "clause" else
        f"{r['insn']}\t{r['mode']}\tcpl{r['cpl']}\t{r['condition']}\t{r['state']}\t{r['reason']}" for r in records) + "\n"


def as_json(records):
    """JSON lines."""
    return "".join(results.DUMP(record) + "\n" for record in records)


def as_csv(records):
    """CSV with a line of names; the keys of a cell's clauses stand in one field with blanks between them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({**record, "clauses": " ".join(record.get("clauses", ()))})
    return out.getvalue()
