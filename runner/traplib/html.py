"""The HTML report of a run: one file, readable without JavaScript and from file://.

Guest output is hostile: every text goes through text(), and the Content-Security-Policy lets
nothing load or run but the style and the script that stand in the page.
"""

import base64
import collections
import hashlib
import re
from html import escape as text
from pathlib import Path

from . import catalog, deviations, html_moves, mutants, summary, untested, verdicts
from .lint import MODES, cpls

OPEN_FAILURES = 50  # shown at once; the rest unfolds
HERE = Path(__file__).resolve().parent
NAVIGATION = (("failures", "Failures"), ("sides", "Targets"), ("map", "Map"), ("moves", "Live moves"), ("clauses", "Clauses"), ("chapters", "Chapters"),
              ("untested", "Untested"), ("run", "Run"))
CELL = ("n", "run", "bad", "known", "notsup", "odd")  # counts of a cell of the map
SIDES_SHOWN = 8000  # kinds of disagreement
MODE = re.compile(r"\.(real|vm86|prot16|prot32|compat|long)\.cpl(\d)")
PROPERTIES = ("control", "efficiency")
COLUMNS = [(mode, cpl) for mode in MODES for cpl in cpls(mode)]
MUTANT_STATES = {"survived": "Survived: a test to write", "stale": "Killed, though said to change nothing",
                 "unreached": "Matter to no case of these suites", "equivalent": "Change nothing, and why",
                 "killed": "Killed, and by which case"}
MODE_NAMES = {"real": "real", "vm86": "VM86", "prot16": "16-bit", "prot32": "32-bit", "compat": "compatibility",
              "long": "64-bit"}


def digest(source):
    """The CSP source expression that allows exactly this inline text."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def write(run, path):
    """Writes the report of @run to @path."""
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    policy = f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; base-uri 'none'"
    out = ["<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n",
           f'<meta http-equiv=Content-Security-Policy content="{policy}">\n',
           "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n",
           f"<title>Trapline {text(run.header['run'])}</title>\n<style>{style}</style>\n<body>\n"]
    out += head(run)
    out += failures(run)
    if "mutants" in run.header:
        out += mutants_of(run)
    else:
        out += sides(run)
        for suite, cases in run.suites.items():
            out += map_of(run, suite, cases)
        out += html_moves.section(run)
        out += clauses(run)
    out += environment(run)
    out.append(f"<script>{script}</script>\n")
    Path(path).write_text("".join(out), encoding="utf-8", errors="backslashreplace")


def head(run):
    """Title, verdict of the whole, counts by target, navigation and the filter."""
    bad = summary.failures(run)
    missing = not run.header.get("skip_missing") and run.missing()
    state = ("incomplete" if not run.done or missing else f"{len(bad)} not as expected" if bad else "as expected")
    yield (f"<header><h1>Trapline <small>{text(run.header['run'])}</small></h1>"
           f"<p class='state {'bad' if bad or missing or not run.done else 'good'}'>{state}</p></header>\n<main>\n")
    yield "<div class=scroll><table class=counts><thead><tr><th>suite<th>target"
    yield "".join(f"<th class=n>{name.lower()}" for name in verdicts.VERDICTS)
    yield "<th class=n>known deviations<th class=n>not as expected<tbody>"
    known, unexpected = summary.known_by_target(run), collections.Counter(
        (target, case_id.split(".")[0]) for target, case_id, _ in bad)
    for (target, suite), count in summary.by_target(run).items():
        yield f"<tr><th>{text(suite)}<td>{text(target)}"
        yield "".join(f"<td class='n {name if count[name] else 'zero'}'>{count[name]}" for name in verdicts.VERDICTS)
        yield f"<td class='n{'' if known.get((target, suite)) else ' zero'}'>{known.get((target, suite), 0)}"
        yield f"<td class='n {'FAIL' if unexpected[target, suite] else 'zero'}'>{unexpected[target, suite]}"
    yield "</table></div>\n"
    links = (("failures", "Failures"), ("mutants", "Mutants"), ("run", "Run")) if "mutants" in run.header else (
        NAVIGATION if run.moves else tuple(link for link in NAVIGATION if link[0] != "moves"))
    yield "<nav>" + "".join(f"<a href=#{where}>{words}</a>" for where, words in links)
    yield (
           "<form id=filter hidden><input type=search id=words placeholder='filter: sgdt long cpl3' "
           "aria-label='filter by words of an id or a citation'>"
           "<label><input type=checkbox id=bad> only not as expected</label>"
           "<label><input type=checkbox id=odd> only where targets disagree</label>"
           "<output id=shown></output></form></nav>\n")


def failures(run):
    """What was not as expected, each with its reproduction line."""
    bad = summary.failures(run)
    yield f"<section id=failures><h2>Failures <small>{len(bad)}</small></h2>\n"
    known = sum(summary.known_by_target(run).values())
    if not bad:
        yield ("<p>Some case noticed every mutant that changes something.</p>\n" if "mutants" in run.header else
               f"<p>Nothing that is not written down; {known} known deviations from the manuals.</p>\n" if known else
               "<p>Every case did what the manuals promise.</p>\n")
    for number, (target, case_id, end) in enumerate(bad):
        if number == OPEN_FAILURES:
            yield f"<details><summary>and {len(bad) - number} more</summary>\n"
        case = summary.case_of(run, case_id)
        yield (f"<article class=f data-k='{text(case_id)} {text(target)}'><h3><b class={end['verdict']}>"
               f"{end['verdict']}</b> {text(case_id)} <small>{text(target)}</small></h3><dl>"
               f"<dt>wanted<dd><code>{text(summary.wanted(case, end))}</code>"
               f"<dt>got<dd><code>{text(summary.clean(end['got'])) or '–'}</code>")
        if end.get("why"):
            yield f"<dt>why<dd>{text(summary.clean(end['why']))}"
        if end.get("exits"):
            yield f"<dt>exits<dd><code>{text(summary.clean('; '.join(end['exits'])))}</code>"
        yield (f"<dt>says<dd>{text(catalog.citation(case['cite'])) or '–'}"
               f"<dt>again<dd><code>{text(summary.reproduction(run, target, case_id))}</code></dl></article>\n")
    if len(bad) > OPEN_FAILURES:
        yield "</details>\n"
    flaky = run.flaky()
    if flaky:
        yield f"<h3>Flaky <small>{len(flaky)}</small></h3><ul>"
        yield "".join(f"<li>{text(case_id)} <small>{text(target)}</small>" for target, case_id in flaky) + "</ul>\n"
    yield "</section>\n"


def mutants_of(run):
    """What became of each mutant, by state: those that nothing noticed first."""
    found = mutants.of_run(run)
    counts = mutants.counts_in_words({state: len(ends) for state, ends in found.items()})
    yield f"<section id=mutants><h2>Mutants <small>{text(counts)}</small></h2>\n"
    for state in ("survived", "stale", "unreached", "equivalent", "killed"):
        if not found[state]:
            continue
        is_open = " open" if state in ("survived", "stale") else ""
        yield (f"<details class=k data-k={state}{is_open}><summary><b>{MUTANT_STATES[state]}</b> "
               f"<small>{len(found[state])}</small></summary><ul>")
        for name, end in found[state]:
            bad = not end["expected"]
            yield (f"<li class={'b' if bad else 'g'}><span class={end['verdict']}>{text(name)}</span> "
                   f"<small>{text(summary.clean(end['got']))}</small> {text(end.get('why', ''))}")
        yield "</ul></details>\n"
    yield "</section>\n"


def verdicts_by_case(run):
    """{id: [(target, end)]}"""
    found = {}
    for (target, case_id), end in run.ends.items():
        found.setdefault(case_id, []).append((target, end))
    return found


def disagree(found):
    """Whether targets did different things: some what the manuals promise, some not, or not the same instead."""
    ran = [end for _, end in found if end["verdict"] not in ("NOTSUP", "SKIP")]
    return len({"" if end["verdict"] == "PASS" else f"{end['verdict']} {end['got']}" for end in ran}) > 1


def side_cell(end):
    """What one target did, for the table of targets: (class, words, title)."""
    if end is None:
        return "idle", "not run", ""
    if end["verdict"] in ("NOTSUP", "SKIP"):
        return "some", end["verdict"], end.get("why", "")
    if end["verdict"] == "PASS":
        return ("ok" if end["expected"] else "no"), "PASS", end.get("deviation", "")
    got = re.sub(r"0x[0-9a-f]{5,}", "*", summary.clean(end["got"]))
    got = got.removeprefix(end["verdict"] + " ")
    words = f"{end['verdict']} {got[:80] + '…' if len(got) > 80 else got}".strip()
    return ("un" if end["expected"] else "no"), words, end.get("deviation") or end.get("why", "")


def modes_of(ids):
    """The modes and levels of some cases: "long.cpl0123 real.cpl0"."""
    found = {}
    for mode, cpl in (match.groups() for match in map(MODE.search, ids) if match):
        found.setdefault(mode, set()).add(cpl)
    return " ".join(f"{mode}.cpl{''.join(sorted(found[mode]))}" for mode in MODES if mode in found)


def sides(run):
    """The targets side by side, where they disagree: cases that differ in mode and CPL alone in one line."""
    targets = [name for name in run.header["targets"] if any(target == name for target, _ in run.ends)]
    yield "<section id=sides><h2>Targets side by side</h2>\n"
    rows = {}
    for case_id, found in verdicts_by_case(run).items():
        if len(targets) > 1 and disagree(found):
            ends = dict(found)
            key = deviations.pattern_of(case_id), tuple(side_cell(ends.get(name)) for name in targets)
            rows.setdefault(key, []).append(case_id)
    if not rows:
        yield f"<p>{'All targets did the same.' if len(targets) > 1 else 'One target ran.'}</p></section>\n"
        return
    unexplained = {key: any(look == "no" for look, _, _ in key[1]) for key in rows}
    yield (f"<p class=legend>{sum(map(len, rows.values()))} cases in which targets disagree. "
           "<span class='c un'>n</span> a known deviation, its reason in the title; <span class='c no'>n</span> one "
           f"that nothing explains: {sum(len(ids) for key, ids in rows.items() if unexplained[key])} cases, first in the "
           "table. Otherwise it is by instruction.</p>\n<div class='scroll box'><table class=sides><thead><tr><th>cases<th class=n>n")
    yield "".join(f"<th>{text(name)}" for name in targets) + "<tbody>\n"
    ordered = sorted(rows.items(), key=lambda row: (not unexplained[row[0]], row[0][0].split(".")[:2], -len(row[1])))
    for (pattern, cells), ids in ordered[:SIDES_SHOWN]:
        bad = unexplained[pattern, cells]
        where = modes_of(ids)
        yield (f"<tr class='d {'b' if bad else 'g'}' data-k='{text(pattern)} {where} {text(' '.join(c[1] for c in cells))}'>"
               f"<th title='{text(ids[0])}'>{text(pattern)} <small>{where}</small><td class=n>{len(ids)}")
        yield "".join(f"<td class={look} title='{text(summary.clean(title))}'>{text(words)}"
                      for look, words, title in cells) + "\n"
    yield "</table></div>\n"
    if len(rows) > SIDES_SHOWN:
        yield f"<p>and {len(rows) - SIDES_SHOWN} more kinds, less common; <code>trapline compare</code> tells them.</p>"
    yield "</section>\n"


def map_of(run, suite, cases):
    """Instruction x mode x CPL, with the class of each instruction and the three properties."""
    ends, cells, classes, judged = verdicts_by_case(run), {}, {}, collections.defaultdict(collections.Counter)
    for case in cases.values():
        cell = cells.setdefault((case["insn"], case["mode"], case["cpl"]), dict.fromkeys(CELL, 0))
        classes.setdefault(case["insn"], case["class"])
        cell["n"] += 1
        cell["odd"] += disagree(ends.get(case["id"], ()))
        for _, end in ends.get(case["id"], ()):
            cell["run"] += 1
            cell["bad"] += not end["expected"]
            cell["known"] += end["expected"] and end["verdict"] in verdicts.BAD
            cell["notsup"] += end["verdict"] == "NOTSUP"
            for name in PROPERTIES:
                for state in ("held", "broken"):
                    judged[case["insn"], name][state] += end.get(name) == state
    empty = {}
    for cell in run.cells:
        classes.setdefault(cell["insn"], "")
        empty.setdefault((cell["insn"], cell["mode"], cell["cpl"]), []).append(cell)
    yield f"<section id=map><h2>Map of {text(suite)} <small>cases by instruction, mode and CPL</small></h2>\n"
    yield ("<p class=legend><span class='c ok'>n</span> as expected <span class='c no'>n</span> not as expected "
           "<span class='c un'>n</span> known deviations <span class='c some'>n</span> not supported here <span class='c idle'>n</span> not run "
           "<span class='c un'>?</span> untested <span class='c ne'>·</span> not encodable. "
           "Equivalence is judged at every depth; resource control and efficiency only where Trapline's own "
           "hypervisor sets the controls, so not at depth 0.</p>\n")
    yield "<div class=scroll><table class=map><thead><tr><th rowspan=2>instruction<th rowspan=2>class"
    yield "".join(f"<th colspan={len(cpls(mode))}>{MODE_NAMES[mode]}" for mode in MODES)
    yield "<th rowspan=2>equivalence<th rowspan=2>resource control<th rowspan=2>efficiency<tr>"
    yield "".join(f"<th>{cpl}" for _, cpl in COLUMNS) + "<tbody>\n"
    for insn in sorted(classes):
        yield map_row(insn, classes[insn], cells, empty) + "".join(property_cell(judged[insn, name]) for name in
                                                                   PROPERTIES) + "\n"
    yield "</table></div></section>\n"


def property_cell(judged):
    """Resource control or efficiency of an instruction, from what was judged of its cases."""
    if not sum(judged.values()):
        return "<td>not judged"
    if judged["broken"]:
        return f"<td class=no title='in {judged['broken']} of {sum(judged.values())} cases'>fails"
    return f"<td class=ok title='in {judged['held']} cases'>holds"


def map_row(insn, class_, cells, empty):
    """One instruction's line of the map."""
    row, bad, ran, known, odd = [], 0, 0, 0, 0
    for mode, cpl in COLUMNS:
        cell = cells.get((insn, mode, cpl))
        where = f"{insn} {mode} cpl{cpl}"
        if cell:
            bad, ran = bad + cell["bad"], ran + cell["run"]
            known, odd = known + cell["known"], odd + cell["odd"]
            look = ("no" if cell["bad"] else "idle" if not cell["run"] else "un" if cell["known"] else
                    "some" if cell["notsup"] == cell["run"] else "ok")
            shown = f"{cell['bad']}/{cell['run']}" if cell["bad"] else cell["n"]
            row.append(f"<td class='c {look}' title='{text(where)}: {cell['n']} cases, {cell['bad']} not as "
                       f"expected'>{shown}")
        elif (insn, mode, cpl) in empty:
            first = empty[insn, mode, cpl][0]
            if first["state"] == "not_encodable":
                row.append(f"<td class='c ne' title='{text(where)}: not encodable'>·")
            else:
                row.append(f"<td class='c un' title='{text(where)}: untested: {text(first.get('reason', ''))}'>?")
        else:
            row.append("<td class=c>")
    judged = "<td class=no>fails" if bad else "<td class=un>deviates" if known else "<td class=ok>holds" if ran else "<td>not run"
    return (f"<tr class='{'d ' if odd else ''}{'b' if bad else 'g'}' data-k='{text(insn.lower())}'><th>{text(insn)}<td>"
            f"{text(class_.replace('+', ', '))}{''.join(row)}{judged}")


def clauses(run):
    """The cases by clause of the manual that they cite; then what is untested."""
    ends, groups = verdicts_by_case(run), {}
    for cases in run.suites.values():
        for case in cases.values():
            for cite in case["cite"]:
                key = cite["manual"], cite["volume"], cite["section"], cite["title"]
                groups.setdefault(key, []).append(case)
    yield f"<section id=clauses><h2>By clause of the manuals <small>{len(groups)}</small></h2>\n"
    for (manual, volume, section, title), cases in sorted(groups.items()):
        bad = sum(not end["expected"] for case in cases for _, end in ends.get(case["id"], ()))
        name = f"{manual} {volume} {section}"
        yield (f"<details class=k data-k='{text(name)} {text(title)}'><summary><b>{text(name)}</b> {text(title)} "
               f"<small>{len(cases)} cases{f', <b class=FAIL>{bad} not as expected</b>' if bad else ''}</small>"
               "</summary><ul>")
        yield from clause_rows(cases, ends)
        yield "</ul></details>\n"
    yield "</section>\n"
    yield from chapters(run)
    yield from untested_section(run)


def order_of(section):
    """Sections by their numbers: 15.9 before 15.10; an instruction's page ("31.3:VMXON") behind its section."""
    number, _, page = section.partition(":")
    return [(int(part), "") if part.isdigit() else (0, part) for part in number.split(".")], page


def chapters(run):
    """By chapter of the processors' manuals: which of the sections that manuals.def names have cases, and which none."""
    cases, titles, chapter_of = {}, {}, {}
    for clause in run.clauses.values():
        titles.setdefault((clause["manual"], clause["volume"], clause["section"]), []).append(clause["title"])
    for suite in run.suites.values():
        for case in suite.values():
            for cite in case["cite"]:
                cases.setdefault((cite["manual"], cite["volume"], cite["section"]), set()).add(case["id"])
    for where in {**titles, **cases}:
        if where[0] in ("SDM", "APM"):
            chapter_of.setdefault((*where[:2], re.split("[.:]", where[2])[0]), []).append(where)
    yield (f"<section id=chapters><h2>By chapter of the manuals <small>{len(chapter_of)}</small></h2>\n"
           "<p class=legend>Sections that cases of this run's suites cite, and those that none cites. A section's "
           "title shows under the pointer.</p>\n"
           "<div class='scroll box'><table class=chapters><thead><tr><th>chapter<th class=n>with<th class=n>without"
           "<th class=n>cases<th>sections with cases<th>sections without<tbody>\n")
    for chapter, sections in sorted(chapter_of.items(), key=lambda row: (*row[0][:2], order_of(row[0][2]))):
        sections.sort(key=lambda where: order_of(where[2]))
        tested = [where for where in sections if where in cases]
        left = [where for where in sections if where not in cases]
        name = text(" ".join(chapter))
        yield (f"<tr data-k='{name}'><th>{name}<td class=n>{len(tested)}<td class='n{'' if left else ' zero'}'>{len(left)}"
               f"<td class=n>{len(set().union(*(cases[where] for where in tested)))}<td>{section_names(tested, titles)}"
               f"<td class={'some' if left else 'ok'}>{section_names(left, titles) or 'none'}\n")
    yield "</table></div></section>\n"


def section_names(sections, titles):
    """Some sections, what they are about in their titles."""
    return " ".join(f"<span title='{text('; '.join(titles.get(where, ())))}'>{text(where[2])}</span>" for where in sections)


def clause_rows(cases, ends):
    """One line for the cases of a clause that differ in mode and CPL only, and came to the same."""
    rows = {}
    for case in cases:
        where = f".{case['mode']}.cpl{case['cpl']}"
        before, _, after = case["id"].partition(where)
        found = ends.get(case["id"], ())
        seen = {end["verdict"] for _, end in found}
        verdict = ("not run" if not found else seen.pop() if len(seen) == 1 else
                   ", ".join(f"{target} {end['verdict']}" for target, end in found))
        bad = any(not end["expected"] for _, end in found)
        key = before + after, catalog.expectation(case["want"]), verdict, bad, disagree(found)
        rows.setdefault(key, {}).setdefault(case["mode"], []).append(str(case["cpl"]))
    for (name, want, verdict, bad, odd), modes in rows.items():
        where = " ".join(f"{mode}.{'' .join(levels)}" for mode, levels in modes.items())
        yield (f"<li class='{'d ' if odd else ''}{'b' if bad else 'g'}'><span class={'FAIL' if bad else 'PASS'}>{text(verdict)}</span> "
               f"{text(name)} <small>{where}</small> <code>{text(want)}</code>")


def untested_section(run):
    """The cells without a case, by their reason, with the clauses that they leave open; the clauses without a case."""
    cases = [case for suite in run.suites.values() for case in suite.values()]
    clauses = list(run.clauses.values())
    reasons = {}
    for cell in untested.cells("", cases, run.cells, clauses):
        if cell["state"] == "untested":
            reasons.setdefault(cell["reason"], []).append(cell)
    yield (f"<section id=untested><h2>Untested <small>{sum(map(len, reasons.values()))} cells; for programs: "
           "<code>trapline list --untested --json</code></small></h2>\n")
    for reason, cells in sorted(reasons.items()):
        yield f"<details class=k data-k='{text(reason)}'><summary>{text(reason)} <small>{len(cells)}</small></summary><ul>"
        yield "".join(f"<li class=g>{text(c['insn'])} {c['mode']} cpl{c['cpl']}"
                      f"{'' if c['condition'] == '-' else ' ' + text(c['condition'])} "
                      f"<small>{text(' '.join(c['clauses']))}</small>" for c in cells)
        yield "</ul></details>\n"
    open_ = untested.uncited(cases, clauses)
    if open_:
        yield f"<details class=k data-k='clauses'><summary>Clauses that no case cites <small>{len(open_)}</small></summary><ul>"
        yield "".join(f"<li class=g><b>{text(c['key'])}</b> {text(c['manual'])} {text(c['volume'])} {text(c['section'])} "
                      f"{text(c['title'])}{': ' + text(c['reason']) if 'reason' in c else ''}" for c in open_) + "</ul></details>\n"
    yield "</section>\n"


def environment(run):
    """What ran where."""
    header = run.header
    rows = [("command", " ".join(header["command"])), ("commit", header["commit"] or "–"),
            ("depth", str(header.get("depth", 0))),
            ("host", ", ".join(str(value) for value in header["host"].values() if value)),
            ("schema", str(header["schema"]))]
    for name, target in run.targets.items():
        rows.append((name, f"{target.get('program') or 'visor ' + target.get('visor', '')}, {target.get('image', '')}, {target.get('digest', '')}"))
    yield "<section id=run><h2>Run</h2><dl>"
    yield "".join(f"<dt>{text(key)}<dd><code>{text(value)}</code>" for key, value in rows) + "</dl></section>\n</main>\n"
