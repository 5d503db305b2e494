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
RECALLED = r'(,\s*NOT_LOOKED_UP)?$'
BUG = re.compile(rf'{STRING},\s*([\w. ]+),\s*{STRING},\s*((?:{STRING}\s*)+){RECALLED}', re.S)
LEFT = re.compile(rf'{STRING},\s*((?:{STRING}\s*)+){RECALLED}', re.S)
# Suites of which one vendor has what they are about; the other suites' cases run everywhere until one fails.
PROFILES = {"svm": ("soft:amd",), "vmx": ("soft:intel",)}
EVERYWHERE = ("soft:amd", "soft:intel", "soft:intel,-vmx")


class Bug:
    """A row of published.def; `verdict` once it was run: caught, missed, or why it could not be tried."""

    def __init__(self, reference, name, case, what, looked_up=True):
        self.reference, self.name, self.case, self.what, self.looked_up = reference, name, case, what, looked_up
        self.verdict = ""

    def named(self):
        return named(self.reference, self.looked_up)


def named(reference, looked_up):
    """A reference, and whether anyone has seen it."""
    return reference if looked_up else f"{reference} (not looked up)"


def text(words):
    """The strings of C behind one another as one."""
    return "".join(re.findall(STRING, words))


def table(path=None):
    """(bugs, [(reference, why, looked up)] of those that are untested)."""
    path = path or (paths.TREE or paths.SHARE) / "suites" / "published.def"
    source = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    bugs, untested = [], []
    for kind, row in ROW.findall(source):
        match = (BUG if kind == "PUBLISHED" else LEFT).match(row.strip())
        if not match:
            raise UsageError(f"{paths.shown(path)}: not a row: {kind}({row.split(',')[0]}, …)")
        if kind == "PUBLISHED":
            bugs.append(Bug(match[1], match[2].strip(), match[3], text(match[4]), not match[6]))
        else:
            untested.append((match[1], text(match[2]), not match[4]))
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


def verdicts(visors, target, suite, ids, options):
    """{id: verdict} of some cases under some options, in one process."""
    lines, _ = visors.run(target, suite, ids, options)
    return {end["id"]: end["verdict"] for end in map(json.loads, (line for line in lines if line.startswith(mutants.END)))}


def whole(visors, machines, suites, bugs):
    """{(suite, target name, id): verdict} of all cases without a mistake."""
    found = {}
    for name, suite in suites.items():
        ids = sorted({bug.case for bug in bugs if bug.case in suite.catalog.cases})
        for target in machines[name] if ids else ():
            found |= {(name, target.name, case): end for case, end in verdicts(visors, target, suite, ids, []).items()}
    return found


def judge(visors, machines, suites, passes, bug):
    """Runs the case with the mistake, on the profiles on which it passes without, until it fails."""
    suite = suites.get(bug.case.partition(".")[0])
    if suite is None or bug.case not in suite.catalog.cases:
        bug.verdict = "no such case"
        return bug
    bug.verdict = "the case does not pass"
    for target in machines[suite.name]:
        if passes.get((suite.name, target.name, bug.case)) != "PASS":
            continue
        broken = verdicts(visors, target, suite, [bug.case], ["--break", bug.name])
        bug.verdict = "caught" if broken.get(bug.case) == "FAIL" else "missed"
        if bug.verdict == "caught":
            break
    return bug


class Suite:
    """What mutants.Visors wants of a suite."""

    def __init__(self, name, image):
        self.name, self.image, self.catalog = name, image, load(name, image)


def run(bugs, jobs):
    """Judges all of them."""
    known = set(mutants.names())
    for bug in bugs:
        if bug.name not in known:
            raise UsageError(f"{bug.reference}: {bug.name}: no name of visor run --list-breaks")
    wanted = {bug.case.partition(".")[0] for bug in bugs}
    suites = {name: Suite(name, image) for name, image in paths.images().items() if name in wanted}
    machines = {name: [target for word in PROFILES.get(name, EVERYWHERE) for target in targets.parse([word])]
                for name in wanted}
    visors = mutants.Visors()
    passes = whole(visors, machines, suites, bugs)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda bug: judge(visors, machines, suites, passes, bug), bugs))
