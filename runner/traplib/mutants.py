"""Mutants: the software CPU with one check or gate broken must fail some case that passed before.

A mutant is a name of `visor run --list-breaks`. MNEMONIC.GATE is a gate of a row of opcodes.def, and the cases
that could notice are those of that instruction; any other name is a check, which all cases may notice.
Survivors that change nothing the manual promises are written down with their reason
(results/equivalent_mutants); every other survivor is a test to write.
"""

import fnmatch
import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from . import paths, policy
from .errors import HarnessError, UsageError

# instructions that the tables divide, by the mnemonic that opcodes.def has for all of them
ALIASES = {"mov_cr": ("mov_cr*", "mov_r_cr*"), "mov_dr": ("mov_dr*", "mov_r_dr*"), "push": ("push_*",), "pop": ("pop_*",),
           "mov": ("mov_?s_r", "mov_r_?s"), "call": ("call_far",), "jmp": ("jmp_far",), "int": ("int_n",)}
LIMIT = 300  # seconds for a process: a mutant that makes visor itself loop is not killed by it
EXPLAINED = "equivalent_mutants"

# Besides the profiles as they are: without what a listed instruction may lack, so that the gate that asks for its
# CPUID bit shows.
WITHOUT = ("pku", "xsaves", "xsavec", "xsaveopt", "xgetbv1", "xsave", "invpcid", "rdtscp", "rdpid", "fsgsbase", "syscall",
           "sep", "smap", "monitor", "rdrand", "rdseed", "umip")
BARE = ",-".join(WITHOUT)
DEFAULT_TARGETS = ("soft", f"soft:amd,-{BARE},-wbnoinvd,-monitorx,-rdpru,-xsaveerptr", f"soft:intel,-{BARE}")


def names():
    """All mutants, in their order."""
    done = subprocess.run([str(paths.visor()), "run", "--list-breaks"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"visor run --list-breaks: {done.stderr.strip()}")
    return done.stdout.split()


def explained():
    """{pattern: reason} of the survivors that are known to change nothing."""
    path = (paths.TREE or paths.SHARE) / "results" / EXPLAINED
    found = {}
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            pattern, _, reason = line.partition(" ")
            if not reason.strip():
                raise UsageError(f"{paths.shown(path)}:{number}: {pattern}: no reason")
            found[pattern] = reason.strip()
    return found


def reason(name, known):
    """Why a mutant is known to change nothing, or None."""
    return next((why for pattern, why in known.items() if fnmatch.fnmatchcase(name, pattern)), None)


_BY_INSTRUCTION = {}


def by_instruction(suite):
    """{instruction: ids of its cases} of a suite, made once."""
    if id(suite) not in _BY_INSTRUCTION:
        found = {}
        for case_id, case in suite.cases.items():
            found.setdefault(case["insn"], []).append(case_id)
        _BY_INSTRUCTION[id(suite)] = suite, found  # the suite stays, and with it its id
    return _BY_INSTRUCTION[id(suite)][1]


def concerned(name, suites):
    """{suite name: ids that could notice this mutant, or None for all of them}"""
    mnemonic, dot, _ = name.partition(".")
    if not dot:
        return {suite.name: None for suite in suites}
    insn = mnemonic.lower().replace(" ", "_")
    patterns = (insn,) + ALIASES.get(insn, ())
    chosen = {}
    for suite in suites:
        ids = [case_id for name_, ids_ in by_instruction(suite).items()
               if any(fnmatch.fnmatchcase(name_, pattern) for pattern in patterns) for case_id in ids_]
        if ids:
            chosen[suite.name] = ids
    return chosen


def verdicts(target, suite, ids, mutant=None, fail_fast=False):
    """{id: verdict} of a run of some cases (None: all), with a mutant or without, up to the first that fails if asked."""
    with tempfile.NamedTemporaryFile("w", prefix="trapline-cases-", suffix=".txt") as file:
        cases = None
        if ids is not None:
            file.write("\n".join(ids) + "\n")
            file.flush()
            cases = "@" + file.name
        command = target.command(suite.image, policy.load(suite.name), cases)
        command[2:2] = ["--json"] + (["--break", mutant] if mutant else []) + (["--fail-fast"] if fail_fast else [])
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            if mutant:
                return {}
            raise HarnessError(f"{target.name}: no end within {LIMIT} seconds") from error
    if done.returncode == 2:
        raise UsageError(done.stderr.strip().splitlines()[-1])
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"t":"end"'):
            record = json.loads(line)
            found[record["id"]] = record["verdict"]
    if not found:
        raise HarnessError(f"{target.name} with {mutant}: no case was run: {done.stderr.strip()[-300:]}")
    return found


class Hunt:
    """Runs mutants, and keeps what killed each."""

    def __init__(self, targets, suites, jobs):
        for target in targets:
            if target.engine != "soft":
                raise UsageError(f"--target {target.name}: only the software CPU can be broken")
        self.targets, self.suites, self.jobs = targets, suites, jobs
        self.clean = {}

    def baseline(self):
        """The verdicts without a mutant, once for each target and suite."""
        pairs = [(target, suite) for target in self.targets for suite in self.suites]
        with ThreadPoolExecutor(self.jobs) as pool:
            for (target, suite), found in zip(pairs, pool.map(lambda p: verdicts(*p, None), pairs)):
                self.clean[target.name, suite.name] = found

    def killers(self, name):
        """The first (target, id) that passed and now fails, or None."""
        for suite_name, ids in concerned(name, self.suites).items():
            suite = next(s for s in self.suites if s.name == suite_name)
            # The gate that asks for a CPUID bit shows where the bit is absent: those targets stand last.
            for target in reversed(self.targets) if name.endswith(".FEATURE") else self.targets:
                case_id = self.killer(name, target, suite, ids)
                if case_id:
                    return target.name, case_id
        return None

    def killer(self, name, target, suite, ids):
        """The first of some cases (None: all) of one target that passed and now fails, or None.

        A mutant with which no case passes at all ruins the guest rather than one promise, and is not killed.
        """
        clean = self.clean[target.name, suite.name]
        if ids is not None or "FAIL" in clean.values():
            ids = [case_id for case_id in ids or clean if clean.get(case_id) == "PASS"]
            if not ids:
                return None
        found = verdicts(target, suite, ids, name, fail_fast=True)
        case_id = next((case_id for case_id, verdict in found.items() if verdict == "FAIL"), None)
        if case_id and "." not in name and "PASS" not in found.values():
            found = verdicts(target, suite, ids, name)
            return case_id if "PASS" in found.values() else None
        return case_id

    def run(self, chosen):
        """Yields (name, killer or None) in order."""
        self.baseline()
        with ThreadPoolExecutor(self.jobs) as pool:
            yield from zip(chosen, pool.map(self.killers, chosen))


def select(patterns, suites, gates_only):
    """The mutants to run: those that match a pattern (all without one) and that some case could notice."""
    chosen = [name for name in names()
              if (not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
              and not (gates_only and "." not in name)]
    if patterns and not chosen:
        raise UsageError(f"{patterns[0]}: there is no such mutant; visor run --list-breaks names them")
    return [name for name in chosen if concerned(name, suites)]
