"""Published bugs: each names a case that passes, and fails where the same mistake is planted in the software CPU."""

import fnmatch
import json
import re
from concurrent.futures import ThreadPoolExecutor

from . import mutants, paths, targets
from .catalog import load
from .errors import UsageError

ROW = re.compile(r'^(PUBLISHED|UNTESTED)\((.*?)\)$', re.M | re.S)
STRING = r'"((?:[^"\\]|\\.)*)"'
BUG = re.compile(rf'{STRING},\s*([\w. ]+),\s*{STRING},\s*((?:{STRING}\s*)+)$', re.S)
LEFT = re.compile(rf'{STRING},\s*((?:{STRING}\s*)+)$', re.S)


class Bug:
    """A row of published.def; `verdict` once it was run: caught, missed, or why it could not be tried."""

    def __init__(self, reference, name, case, what):
        self.reference, self.name, self.case, self.what = reference, name, case, what
        self.verdict = ""


def text(words):
    """The strings of C behind one another as one."""
    return "".join(re.findall(STRING, words))


def table(path=None):
    """(bugs, [(reference, why)] of those that are untested)."""
    path = path or (paths.TREE or paths.SHARE) / "suites" / "published.def"
    source = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    bugs, untested = [], []
    for kind, row in ROW.findall(source):
        match = (BUG if kind == "PUBLISHED" else LEFT).match(row.strip())
        if not match:
            raise UsageError(f"{paths.shown(path)}: not a row: {kind}({row.split(',')[0]}, …)")
        if kind == "PUBLISHED":
            bugs.append(Bug(match[1], match[2].strip(), match[3], text(match[4])))
        else:
            untested.append((match[1], text(match[2])))
    if source.count("PUBLISHED(") + source.count("UNTESTED(") != len(bugs) + len(untested):
        raise UsageError(f"{paths.shown(path)}: a row that is none: each ends in a line's last parenthesis")
    return bugs, untested


def select(bugs, patterns):
    """Those whose reference, break or case a pattern matches; all without one."""
    chosen = [bug for bug in bugs if not patterns or any(fnmatch.fnmatchcase(word, pattern) for pattern in patterns
                                                         for word in (bug.reference, bug.name, bug.case))]
    if not chosen:
        raise UsageError(f"{' '.join(patterns)}: no published bug of that reference, break or case")
    return chosen


def verdict(visors, target, suite, bug, options):
    """The case's verdict under some options, or None."""
    lines, _ = visors.run(target, suite, [bug.case], options)
    ends = [json.loads(line) for line in lines if line.startswith(mutants.END)]
    return ends[0]["verdict"] if ends else None


def judge(visors, machines, suites, bug):
    """Runs the case with and without the mistake, on the profile that has what it needs."""
    suite = suites.get(bug.case.partition(".")[0])
    if suite is None or bug.case not in suite.catalog.cases:
        bug.verdict = "no such case"
        return bug
    for target in machines:
        if verdict(visors, target, suite, bug, []) != "PASS":
            bug.verdict = bug.verdict or "the case does not pass"
            continue
        bug.verdict = "caught" if verdict(visors, target, suite, bug, ["--break", bug.name]) == "FAIL" else "missed"
        if bug.verdict == "caught":
            break
    return bug


class Suite:
    """What mutants.Visors wants of a suite."""

    def __init__(self, name, image):
        self.name, self.image, self.catalog = name, image, load(name, image)


def run(bugs, jobs):
    """Judges all of them, two processes of visor each."""
    known = set(mutants.names())
    for bug in bugs:
        if bug.name not in known:
            raise UsageError(f"{bug.reference}: {bug.name}: no name of visor run --list-breaks")
    wanted = {bug.case.partition(".")[0] for bug in bugs}
    suites = {name: Suite(name, image) for name, image in paths.images().items() if name in wanted}
    machines = [target for word in ("soft", "soft:intel") for target in targets.parse([word])]
    visors = mutants.Visors()
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda bug: judge(visors, machines, suites, bug), bugs))
