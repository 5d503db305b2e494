"""Mutants: the software CPU with one check or gate broken must fail some case that passed before.

A mutant is a name of `visor run --list-breaks`: MNEMONIC.GATE is a gate of a row of opcodes.def, any other name a
check of checks.def. A clean run with --coverage tells which of them mattered to which case; a case to which one did
not matter does the same without it, so only the others are run again.

In a run's file a mutant is a case of the suite `mutant`: PASS where some case noticed it, FAIL where none did and
nothing says why, SKIP where results/equivalent_mutants does. So reports, shards, --resume and merge are those of
every other run.
"""

import collections
import fnmatch
import json
import shlex
import subprocess
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from . import paths, policy
from .errors import HarnessError, UsageError

# instructions that the tables divide, by the mnemonic that opcodes.def has for all of them
ALIASES = {"mov_cr": ("mov_cr*", "mov_r_cr*"), "mov_dr": ("mov_dr*", "mov_r_dr*"), "push": ("push_*",), "pop": ("pop_*",),
           "mov": ("mov_?s_r", "mov_r_?s"), "call": ("call_far",), "jmp": ("jmp_far",), "int": ("int_n",)}
LIMIT = 300  # seconds for a process: a mutant that makes visor itself loop is not killed by it
LIMIT_MOVED = 1800
INSNS_MOVED = 120000  # of a case that is moved: more than any takes where nothing is lost
EXPLAINED = "equivalent_mutants"
SUITE = "mutant"   # what stands before a mutant's name in its id
ON = "soft"        # the target of its records: all profiles together decide
END = b'{"t":"end"'

# Besides the profiles as they are: without what a listed instruction may lack, so that the gate that asks for its
# CPUID bit shows.
# AVX goes with XSAVE, and a lack of AVX2 shows only where AVX is there.
WITHOUT = ("pku", "fma", "f16c", "xsavec", "xsaves", "xsaveopt", "xgetbv1", "invpcid", "rdtscp", "rdpid", "fsgsbase",
           "syscall", "sep", "smap", "monitor", "rdrand", "rdseed", "umip", "avx2", "bmi1", "bmi2",
           "aes", "pclmulqdq", "sha")
BARE = ",-".join(WITHOUT)
DEFAULT_TARGETS = ("soft", f"soft:amd,-{BARE},-avx,-sse4a,-xsave,-wbnoinvd,-monitorx,-rdpru,-xsaveerptr", f"soft:intel,-{BARE}")

# With --move the mutants are others: fields of the state that is moved, and the ways in which written pages are logged. A suite is
# enough for them, and the processors have all that is state.
MOVED = ("STATE:*", "LOG_*")
MOVED_SUITE = "migration"
MOVED_TARGETS = ("soft:amd,+kvmclock", "soft:intel,+kvmclock")

# What becomes of a mutant: the verdict of its record, and whether that is as it should be.
STATES = {"killed": ("PASS", True), "survived": ("FAIL", False), "equivalent": ("SKIP", True),
          "stale": ("FAIL", False),      # killed, though said to be equivalent
          "unreached": ("SKIP", True)}   # a check that matters to no case, and that no suite answers for


def listed(options):
    """What `visor run --list-breaks` names, with more options."""
    done = subprocess.run([str(paths.visor()), "run", "--list-breaks", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"visor run --list-breaks: {done.stderr.strip()}")
    return done.stdout.split()


def names(moving=()):
    """All mutants, in their order. @moving: the options of the machines whose guests are moved; none: no guest is."""
    found = listed([])
    if not moving:
        return [name for name in found if not is_moved(name)]
    states = [name for options in moving for name in listed(options)]
    return list(dict.fromkeys(states + [name for name in found if is_moved(name)]))


def default_targets(move):
    """The targets of a command line that names none."""
    return MOVED_TARGETS if move else DEFAULT_TARGETS


def is_moved(name):
    """Whether a mutant shows only where guests are moved."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in MOVED)


def explained():
    """{pattern: reason} of the survivors that are known to change nothing."""
    path = (paths.TREE or paths.SHARE) / "results" / EXPLAINED
    found = {}
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            pattern, _, reason_ = line.partition(" ")
            if not reason_.strip():
                raise UsageError(f"{paths.shown(path)}:{number}: {pattern}: no reason")
            found[pattern] = reason_.strip()
    return found


def reason(name, known):
    """Why a mutant is known to change nothing, or None."""
    return next((why for pattern, why in known.items() if fnmatch.fnmatchcase(name, pattern)), None)


def is_gate(name):
    """Whether a mutant is a gate of opcodes.def, not a check of checks.def or a field of a state."""
    return "." in name and not is_moved(name)


def concerns(name, instructions):
    """Whether a gate belongs to one of these instructions, by the names that the tables give them."""
    insn = name.partition(".")[0].lower().replace(" ", "_")
    patterns = (insn,) + ALIASES.get(insn, ())
    return any(fnmatch.fnmatchcase(one, pattern) for one in instructions for pattern in patterns)


def select(patterns, gates=False, checks=False, moving=()):
    """The mutants that the words of a command line name, in their order. @moving: as for names()."""
    chosen = [name for name in names(moving) if (not patterns or any(fnmatch.fnmatchcase(name, word) for word in patterns))]
    for word in patterns:
        if not any(fnmatch.fnmatchcase(name, word) for name in chosen):
            raise UsageError(f"{word}: there is no such mutant; visor run --list-breaks names them")
    return [name for name in chosen if not (gates and not is_gate(name)) and not (checks and is_gate(name))]


class Visors:
    """Processes of visor, from several threads; kill() ends them all, and no more are started."""

    def __init__(self):
        self.lock, self.running, self.closed = threading.Lock(), set(), False

    def run(self, target, suite, ids, options):
        """(lines, status) of some cases (None: all) with more options; status None: it took too long."""
        with tempfile.NamedTemporaryFile("w", prefix="trapline-cases-", suffix=".txt") as file:
            if ids is not None:
                file.write("\n".join(ids) + "\n")
                file.flush()
            command = target.command(suite.image, policy.load(suite.name, max_insns=INSNS_MOVED if target.move else None), "@" + file.name if ids is not None else None)
            command[2:2] = ["--json", *options]
            with self.lock:
                if self.closed:
                    return [], None
                # A session of its own: an interrupt on the terminal is for us, and must not end a case half-way.
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE, start_new_session=True)
                self.running.add(process)
            try:
                out, err = process.communicate(timeout=LIMIT_MOVED if target.move else LIMIT)
                status = process.returncode
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                status = None
            finally:
                with self.lock:
                    self.running.discard(process)
        if status == 2:
            raise UsageError(err.decode("utf-8", "replace").strip().splitlines()[-1])
        if status == 3 and not self.closed:
            raise HarnessError(f"{target.name}: {err.decode('utf-8', 'replace').strip()[-300:]}")
        return out.splitlines(), status

    def kill(self):
        """Ends all of them."""
        with self.lock:
            self.closed = True
            for process in self.running:
                process.kill()


class Place:
    """A suite on a target: what passed there without a mutant, and to which cases each mutant mattered."""

    def __init__(self, target, suite, cases=None):
        self.target, self.suite = target, suite
        self.ids = cases and [one for one in suite.cases if any(fnmatch.fnmatchcase(one, pattern) for pattern in cases)]
        self.passed, self.reached, self.record = 0, {}, None

    def learn(self, visors):
        """The clean run."""
        lines, status = visors.run(self.target, self.suite, self.ids, ["--coverage"])
        if status is None and not visors.closed:
            raise HarnessError(f"{self.target.name}: no end within {LIMIT_MOVED if self.target.move else LIMIT} seconds")
        for line in lines:
            if line.startswith(b'{"t":"run"'):
                self.record = {**json.loads(line), "t": "target", "target": self.target.name}
            if not line.startswith(END):
                continue
            end = json.loads(line)
            if end["verdict"] != "PASS":
                continue
            self.passed += 1
            for name in dict.fromkeys(end["reached"]):
                self.reached.setdefault(name, []).append(end["id"])
        if not self.record and not visors.closed:
            raise HarnessError(f"{self.target.name}: no case of {self.suite.name} was run")


class Hunt:
    """Judges mutants, and keeps what noticed each."""

    def __init__(self, targets, suites, jobs, cases=None):
        for target in targets:
            if target.engine != "soft":
                raise UsageError(f"--target {target.name}: only the software CPU can be broken")
        self.places = [place for suite in suites for target in targets for place in [Place(target, suite, cases)]
                       if place.ids is None or place.ids]
        if not self.places:
            raise UsageError("--cases: no case is called that")
        answers = {suite.name: policy.answers(suite.name) for suite in suites}
        self.instructions = {case["insn"].lower() for suite in suites if answers[suite.name].gates
                             for case in suite.cases.values()}
        self.checks = [pattern for one in answers.values() for pattern in one.checks]
        self.jobs, self.visors, self.why_stopped = jobs, Visors(), None
        self.known = explained()

    def stop(self, why):
        """Ends cleanly: what is known already stays, what runs is dropped."""
        self.why_stopped = self.why_stopped or why
        self.visors.kill()

    def learn(self):
        """The clean runs. Returns the records of what ran where."""
        with ThreadPoolExecutor(self.jobs) as pool:
            for _ in pool.map(lambda place: place.learn(self.visors), self.places):
                pass
        return [place.record for place in self.places if place.record]

    def moving(self):
        """The options of the machines whose guests are moved, each kind once; none: no guest is."""
        kinds = {(place.target.cpu, policy.load(place.suite.name).devices, str(place.suite.image)): place.target.move for place in self.places}
        return [["--move", move, "--cpu", cpu, *("--" + device for device in devices), *([image] if "disk-image" in devices else [])]
                for (cpu, devices, image), move in kinds.items() if move]

    def matters(self, name):
        """Whether a mutant mattered to any case."""
        return any(name in place.reached for place in self.places)

    def concerned(self, chosen):
        """(those of the mutants that some case should notice, checks that are nobody's)

        A mutant that matters to a case should be noticed, and one that a suite answers for.
        """
        mine = [name for name in chosen if self.matters(name) or self.answered(name)]
        return mine, [name for name in chosen if not is_gate(name) and name not in set(mine)]

    def answered(self, name):
        """Whether a suite answers for a mutant (policy.Answers)."""
        if is_gate(name) and concerns(name, self.instructions):
            return True
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.checks if is_gate(pattern) == is_gate(name))

    def judge(self, name):
        """The end record of a mutant."""
        counts, tried, broke = collections.Counter(), 0, None
        for place in self.places:
            ids = place.reached.get(name)
            if not ids:
                continue
            tried += len(ids)
            killer, found, status = self.attempt(name, place, ids)
            if killer:
                return self.record(name, "stale" if reason(name, self.known) else "killed", tried,
                                   {"target": place.target.name, "id": killer["id"], "got": killer["got"]})
            counts.update(verdict for verdict in found.values() if verdict != "PASS")
            broke = broke or (f"visor {ended(status)} on {place.target.name}" if status not in (0, 1) else None)
        state = "equivalent" if reason(name, self.known) else "survived"
        return self.record(name, state, tried, None, counts, broke)

    def attempt(self, name, place, ids):
        """(the end of the first of these cases that fails, {id: verdict}, status) with a mutant on one target.

        A mutant to which no case at all is indifferent, and with which none passes, ruins the guest rather than one
        promise, and is not killed; but for those of moves, where whatever is not as it was says that something was lost.
        """
        options = ["--break", name]
        killer, found, status = self.ends(place, ids, options + ["--fail-fast"])
        if is_moved(name):  # a state that is lost may well ruin everything
            return killer, found, status
        if killer and len(ids) == place.passed:
            killer, found, status = self.ends(place, ids, options)
            killer = killer if "PASS" in found.values() else None
        return killer, found, status

    def ends(self, place, ids, options):
        """(the first end with FAIL or None, {id: verdict}, status) of some cases."""
        lines, status = self.visors.run(place.target, place.suite, ids, options)
        found, killer = {}, None
        for line in lines:
            if line.startswith(END) and line.endswith(b"}"):
                end = json.loads(line)
                found[end["id"]] = end["verdict"]
                noticed = end["verdict"] != "PASS" if place.target.move else end["verdict"] == "FAIL"
                killer = killer or (end if noticed else None)
        return killer, found, status

    def record(self, name, state, tried, killer, counts=None, broke=None):
        """The end record of a mutant that came to @state."""
        verdict, expected = STATES[state]
        why = reason(name, self.known) or ""
        if killer:
            got = f"{killer['id']} on {killer['target']}: {killer['got']}"
            why = why and f"results/{EXPLAINED} says that it changes nothing: {why}"
        elif not tried:
            got = "matters to no case"
        else:
            others = "".join(f", {count} {verdict_}" for verdict_, count in (counts or {}).items())
            got = f"matters to {tried} cases, and none fails{others}" + (f"; {broke}" if broke else "")
        end = {"t": "end", "target": ON, "id": f"{SUITE}.{name}", "verdict": verdict, "expected": expected, "got": got,
               "want": ["some case fails"], "why": why, "mutant": state, "cases": tried}
        if killer:
            end["by"] = {"target": killer["target"], "id": killer["id"]}
        return end

    def unreached(self, name):
        """The end record of a check that mattered to no case, and that no suite answers for."""
        return self.record(name, "unreached", 0, None)

    def run(self, chosen, started, ended_, deadline=None):
        """Judges mutants, several at once: calls started(name) and ended_(record) as things happen."""
        waiting, running = collections.deque(chosen), {}
        ends_at = time.monotonic() + deadline if deadline else None
        pool = ThreadPoolExecutor(self.jobs)
        try:
            while (waiting or running) and not self.why_stopped:
                while waiting and len(running) < self.jobs:
                    name = waiting.popleft()
                    started(name)
                    running[pool.submit(self.judge, name)] = name
                done, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    if not self.why_stopped:
                        ended_(future.result())
                if ends_at and time.monotonic() >= ends_at and (waiting or running):
                    self.stop("the deadline of the run has passed")
        finally:
            self.visors.kill()
            pool.shutdown()


def ended(status):
    """How a process that should have ended with 0 or 1 did end."""
    return (f"had no end within {LIMIT} seconds" if status is None else f"died of signal {-status}" if status < 0 else
            f"ended with status {status}")


def case_record(name):
    """The record that stands for a mutant where a suite has cases."""
    return {"t": "case", "id": f"{SUITE}.{name}", "insn": name.partition(".")[0] if is_gate(name) else "", "mode": "",
            "cpl": 0, "class": "", "want": [{"when": "always", "outcome": ["some case fails"]}], "cite": []}


def reproduction(options):
    """A shell line that judges one mutant, {mutant}, again."""
    words = [word for key in ("suite", "target") for one in getattr(options, key) or () for word in (f"--{key}", one)]
    words += ["--move", options.move] if options.move else []
    words += [word for pattern in options.cases or () for word in ("--cases", pattern)]
    return shlex.join([paths.shown(paths.program()), "mutants", *words]) + " {mutant}"


def of_run(run):
    """{state: [(name, end)]} of a run of mutants, in order."""
    found = {state: [] for state in STATES}
    for (_, case_id), end in run.ends.items():
        if "mutant" in end:
            found[end["mutant"]].append((case_id.partition(".")[2], end))
    return found


def lines(run):
    """What became of the mutants, for a terminal."""
    found = of_run(run)
    for state, words in (("survived", "survived"), ("stale", f"killed, though results/{EXPLAINED} explains it:")):
        for name, end in found[state]:
            yield f"{words} {name}: {end['got']}"
    if found["unreached"]:
        yield (f"{len(found['unreached'])} checks matter to no case of {', '.join(run.header['mutants']['suites'])}: "
               + " ".join(name for name, _ in found["unreached"]))
    for kind, test in (("gates", is_gate), ("states", is_moved), ("checks", lambda name: not is_gate(name) and not is_moved(name))):
        some = {state: sum(test(name) for name, _ in ends) for state, ends in found.items()}
        if total(some):
            yield f"{kind}: {counts_in_words(some)}"
    yield counts_in_words({state: len(ends) for state, ends in found.items()})


def total(counts):
    """How many mutants were judged."""
    return sum(counts.values()) - counts["unreached"]


def counts_in_words(counts):
    """How many were killed, and which share of those that change something."""
    killed, survived = counts["killed"] + counts["stale"], counts["survived"]
    share = f" ({100 * killed / (killed + survived):.1f}% of what changes something is killed)" if killed else ""
    return f"{total(counts)} mutants: {killed} killed, {counts['equivalent']} equivalent, {survived} survived{share}"
