"""Deviations: where a target is known to do something else than the manuals promise.

results/deviations/*.txt, a line each: WHERE | CASES | SEEN | REASON (results/README.md has the words). A
case that does what a line says is as expected, and still stands in the results with its verdict. A line
whose reason is yet to be given (it begins with a question mark) explains nothing.
"""

import fnmatch
import os
import re
import textwrap
from pathlib import Path

from . import paths, patterns
from .errors import HarnessError, UsageError
from .selection import Selection
from .verdicts import BAD, VERDICTS

FOLDER = "deviations"
KEYS = ("target", "vendor", "family", "model", "stepping", "microcode", "kernel", "program", "depth", "move")
CPUID = re.compile(r"cpuid\.([0-9a-f]+)\.([0-9a-f]+)\.(e[abcd]x)\[(\d+)\]\Z")
REGISTERS = {"eax": 2, "ebx": 3, "ecx": 4, "edx": 5}


class Facts:
    """What the predicates may ask of a target: its records' own words, and what its CPUID says."""

    def __init__(self, target, record, host, depth=0, move=None):
        self.cpuid = {(line[0], line[1]): line for line in record.get("cpuid") or ()}
        signature = self.cpuid.get((1, 0), [0] * 6)[2]
        family, model = signature >> 8 & 15, signature >> 4 & 15
        self.values = {"target": target, "vendor": record.get("vendor", ""),
                       "family": family + (signature >> 20 & 0xff if family == 15 else 0),
                       "model": model + (signature >> 12 & 0xf0 if family in (6, 15) else 0),
                       "stepping": signature & 15, "program": record.get("program") or record.get("visor", ""),
                       "depth": depth, "move": move or "", "kernel": host.get("kernel", ""), "microcode": host.get("microcode", "")}

    @property
    def moved_to(self):
        """The engine to which a guest goes and from which it comes back: what that does, the guest sees as well."""
        there = re.search(r"(?:^|,)to=(.+)", self.values["move"])
        return (there[1],) if there else ()

    def holds(self, key, value):
        """Whether one KEY=VALUE of a predicate holds."""
        bit = CPUID.match(key)
        if not bit:
            return any(fnmatch.fnmatchcase(str(one), value) for one in (self.values[key], *(self.moved_to if key == "target" else ())))
        line = self.cpuid.get((int(bit[1], 16), int(bit[2], 16)), [0] * 6)
        return line[REGISTERS[bit[3]]] >> int(bit[4]) & 1 == int(value)


class Line:
    """One deviation."""

    def __init__(self, where, text):
        self.where, self.text = where, text
        parts = [part.strip() for part in text.split("|", 3)]
        if len(parts) != 4 or not all(parts):
            raise self.wrong("expected WHERE | CASES | SEEN | REASON")
        self.predicate = [self._condition(word) for word in parts[0].split()]
        self.cases = Selection(parts[1].split())
        if not self.cases.add or any(word.startswith("@") for word in parts[1].split()):
            raise self.wrong("expected ids or patterns in CASES")
        self.some, seen = parts[2].startswith("some "), parts[2].removeprefix("some ")
        self.seen = [self._seen(one) for one in re.split(r"\s+or(?:\s+|\Z)", seen)]
        self.reason = parts[3]
        self.open = self.reason.startswith("?")
        self.met = self.explained = self.passed = 0  # cases that it is about; that it explained; that passed

    def wrong(self, why):
        """The error of this line."""
        return UsageError(f"{self.where}: {why}")

    def _condition(self, word):
        key, equals, value = word.partition("=")
        if not equals or not value or not (key in KEYS or CPUID.match(key)):
            raise self.wrong(f"{word}: unknown predicate; known: {', '.join(KEYS)}, cpuid.LEAF.SUBLEAF.REG[BIT]")
        if CPUID.match(key) and value not in ("0", "1"):
            raise self.wrong(f"{word}: expected 0 or 1")
        return key, value

    def _seen(self, text):
        if not text:
            raise self.wrong("an empty alternative in SEEN")
        verdict, _, words = text.partition(" ")
        if verdict in VERDICTS:
            why = re.compile(fnmatch.translate(words.strip().replace("[", "[[]") or "*"))
            return lambda end: end["verdict"] == verdict and bool(why.match(end.get("why", "")))
        if text.startswith("only "):
            globs = text.split()[1:]
            if not globs:
                raise self.wrong("`only` names no effect")
            return lambda end: "differs" in end and all(any(fnmatch.fnmatchcase(effect, glob.replace("[", "[[]"))
                                                            for glob in globs) for effect in end["differs"])
        if not text[0].isupper():
            raise self.wrong(f"{text}: neither an outcome, nor `only EFFECT…`, nor a verdict")
        pattern = re.compile(fnmatch.translate(text.replace("[", "[[]")))
        return lambda end: end["verdict"] == "FAIL" and bool(pattern.match(end["got"]))

    def applies(self, facts):
        """Whether it is about this target."""
        return all(facts.holds(key, value) for key, value in self.predicate)

    def explains(self, end):
        """Whether what a case did is what the line says."""
        return not self.open and any(seen(end) for seen in self.seen)


class Deviations:
    """All lines, and which of them a run needed."""

    def __init__(self, lines, depth=0, move=None):
        self.lines, self.by_target, self.depth, self.move = lines, {}, depth, move

    def meet(self, target, record, host):
        """A target has said what it is: finds the lines about it."""
        facts = Facts(target, record, host, self.depth, self.move)
        self.by_target[target] = [line for line in self.lines if line.applies(facts)]

    def judge(self, end):
        """Whether a case that has ended is as expected: (expected, the line that says so or is at odds, or None)."""
        bad, odd = end["verdict"] in BAD, None
        for line in self.by_target.get(end["target"], ()):
            if not line.cases.matches(end["id"]):
                continue
            line.met += 1
            if bad and line.explains(end):
                line.explained += 1
                return True, line
            if end["verdict"] == "PASS" and not line.some and not line.open:
                line.passed += 1
                odd = odd or line
        return not bad and odd is None, odd

    def stale(self, targets, all_ids, ran):
        """Lines about these targets whose cases were all run and that explained none of them."""
        found = []
        for line in {id(line): line for target in targets for line in self.by_target.get(target, ())}.values():
            about = [case_id for case_id in all_ids if line.cases.matches(case_id)]
            if not line.explained and not line.open and about and all(case_id in ran for case_id in about):
                found.append(line)
        return found

    def open_lines(self):
        """Lines whose reason is yet to be given."""
        return [line for line in self.lines if line.open]


def folder():
    """Where the files are."""
    if "TRAPLINE_DEVIATIONS" in os.environ:
        return Path(os.environ["TRAPLINE_DEVIATIONS"])
    return (paths.TREE or paths.SHARE) / "results" / FOLDER


def load(where=None, depth=0, move=None):
    """Reads all files, for a run at @depth whose guests are moved as @move says."""
    lines = []
    for path in sorted((where or folder()).glob("*.txt")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{paths.shown(path)}: {getattr(error, 'strerror', None) or error}") from error
        lines += [Line(f"{paths.shown(path)}:{number}", line) for number, line in joined(text)]
    return Deviations(lines, depth, move)


def joined(text):
    """[(number, line)] of a file: what begins with a blank goes on with the line before."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and found:
            found[-1] = found[-1][0], f"{found[-1][1]} {line.strip()}"
        else:
            found.append((number, line))
    return found


# ---- proposals ----

LONG = re.compile(r"0x[0-9a-f]{5,}")  # addresses and counters, which another build or machine has elsewhere

def condition_of(case_id):
    """sensitive.sgdt.long.cpl3.umip as (sensitive.sgdt, umip): without its mode and privilege level."""
    match = re.match(r"(.*?)\.(?:real|vm86|prot16|prot32|compat|long)\.cpl\d(?:\.(.*))?\Z", case_id)
    return (match[1], match[2] or "") if match else (case_id, None)


def seen_of(end):
    """What a case did, in the words of SEEN."""
    if end["verdict"] != "FAIL":
        head = re.split(r": |0x", end.get("why", ""))[0].replace(" or ", "*")
        return f"{end['verdict']} {head}*" if head else end["verdict"]
    if "differs" in end:
        return "only " + " ".join(sorted({LONG.sub("*", effect) for effect in end["differs"]}))
    head = re.match(r"(FAULT vector=\d+(?: error=\w+)?|\w+)(.*)", end["got"], re.DOTALL)
    return head[1] + (" *" if head[2] else "") if head else "*"


def pattern_of(case_id):
    """All cases of an instruction and condition, whatever the mode and level."""
    head, condition = condition_of(case_id)
    if condition is None:
        return case_id
    return f"{head}.*.cpl?" + (f".{condition}" if condition else "")


def propose(ends):
    """Lines for what is not explained: [((target, seen), ids, patterns)], most cases first.

    The patterns take no case that passed.
    """
    groups, passed, matchers = {}, {}, {}
    for (target, case_id), end in ends.items():
        matchers.setdefault(target, []).append(case_id)
        if not end["expected"] and end["verdict"] != "PASS":
            groups.setdefault((target, seen_of(end)), []).append(case_id)
        elif end["verdict"] in ("NOTSUP", "SKIP"):
            passed.setdefault(target, set()).add(case_id)
    matchers = {target: patterns.Matcher(ids) for target, ids in matchers.items()}
    return [(key, ids, patterns.cover(ids, passed.get(key[0], ()), matchers[key[0]]))
            for key, ids in sorted(groups.items(), key=lambda group: -len(group[1]))]


def written(where, cases, seen, reason):
    """A line of a file, in several where it is long."""
    return "\n".join(textwrap.wrap(f"{where} | {' '.join(cases)} | {seen} | {reason}", 118, subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False))


def update(ends, where=None, depth=0, move=None):
    """Appends proposals to the files of their targets, each marked as needing a reason. How many."""
    where, count = where or folder(), 0
    try:
        where.mkdir(parents=True, exist_ok=True)
        for (target, seen), ids, cases in propose(ends):
            path = where / (re.sub(r"[^A-Za-z0-9-]+", "_", target.split(":")[0]) + ".txt")
            line = written(f"target={target}" + (f" depth={depth}" if depth else "") + (f" move={move}" if move else ""), cases, seen, f"? {len(ids)} cases, the first {ids[0]}: why?")
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            count += 1
    except OSError as error:
        raise HarnessError(f"{error.filename}: {error.strerror}") from error
    return count
