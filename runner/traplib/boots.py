"""Runs cases on a foreign machine, and prints their records as visor does (hypervisor/cli/JSON.md).

One boot runs as many cases as it can; `visor judge` reads what the machine prints and turns it into
records. A boot that ends early (a case left the machine changed, shut it down, hung or crashed it) is
followed by another one for the cases that are left. A machine that does not come to its first case at
all is tried again with that case alone, and then gives it its verdict.
"""

import collections
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time

from . import linux_kvm, machines, paths
from .errors import UsageError
from .results import DUMP

REFUSED = "the hypervisor cannot run"
BARREN = 3       # boots in a row that came to no case: then the machine does not boot this guest
WORDS = 50       # lines of a machine's standard error that are kept
CHUNK = 1 << 16


class Boot:
    """One start of the machine, and the judge that reads what it prints."""

    def __init__(self, machine, image, words, folder):
        self.machine, self.folder = machine, folder
        self.ended, self.words, self.half = None, collections.deque(maxlen=WORDS), b""
        reader, self.teller = os.pipe()
        self.process = subprocess.Popen(machine.command(image, words, folder), cwd=folder, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        self.judge_words = tempfile.TemporaryFile()
        self.judge = subprocess.Popen([str(paths.visor()), "judge", "--json", "--ended", f"@/dev/fd/{reader}",
                                       str(image)], stdin=subprocess.PIPE if machine.noise else self.process.stdout,
                                      stdout=subprocess.PIPE, stderr=self.judge_words, pass_fds=[reader])
        if machine.noise:
            threading.Thread(target=self._filter, args=(machine.noise,), daemon=True).start()
        else:
            self.process.stdout.close()
        os.close(reader)
        self.waiter = os.pidfd_open(self.process.pid)
        self.started = set()  # cases
        self.begun = self.touched = time.monotonic()
        self.patience = machines.BOOT

    def _filter(self, noise):
        """Takes what the machine itself prints out of what the guest prints."""
        with self.process.stdout, self.judge.stdin:
            try:
                for line in self.process.stdout:
                    if not noise.match(line):
                        self.judge.stdin.write(line)
                        self.judge.stdin.flush()
            except BrokenPipeError:
                pass

    def kill(self, ended):
        """Ends the machine from outside; @ended is how that counts."""
        self.ended = self.ended or ended
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def records(self, timeout):
        """Yields the judge's lines as they come; the machine is ended when it is silent too long."""
        selector = selectors.DefaultSelector()
        selector.register(self.judge.stdout, selectors.EVENT_READ, self._judged)
        selector.register(self.process.stderr, selectors.EVENT_READ, self._heard)
        selector.register(self.waiter, selectors.EVENT_READ, self._gone)
        buffer = b""
        while True:
            left = self.touched + self.patience - time.monotonic()
            for key, _ in selector.select(max(0.0, min(left, 1.0))):
                data = key.data()
                if data is None:
                    selector.unregister(key.fileobj)
                    if key.data == self._judged:
                        return
                elif data:
                    self.patience, self.touched = timeout, time.monotonic()
                    *lines, buffer = (buffer + data).split(b"\n")
                    yield from lines
            if time.monotonic() > self.touched + self.patience and self.ended is None:
                self.kill("timeout")

    def _judged(self):
        return os.read(self.judge.stdout.fileno(), CHUNK) or None

    def _heard(self):
        """Standard error of the machine: its last words, and those that mean that nothing more will come."""
        data = os.read(self.process.stderr.fileno(), CHUNK)
        *lines, self.half = (self.half[-CHUNK:] + data).split(b"\n")
        for line in lines:
            line = line.decode("utf-8", "replace").strip()
            if line:
                self.words.append(line)
            if any(word in line for word in self.machine.fatal_words):
                self.kill("crash")
        return b"" if data else None

    def _gone(self):
        """The machine has ended: tells the judge how."""
        self.kill("")  # what it may have started
        status = self.process.wait()
        self.ended = self.ended or self.machine.ending(status, self.folder)
        self.status = status
        os.write(self.teller, self.ended.encode() + b"\n")
        os.close(self.teller)
        self.teller = None
        return None

    def close(self):
        """Waits for both; the judge's status and its last words."""
        self.kill("crash")
        self.process.wait()
        self.process.stderr.close()
        os.close(self.waiter)
        if self.teller is not None:
            os.close(self.teller)
        self.judge.stdout.close()
        status = self.judge.wait()
        self.judge_words.seek(0)
        words = self.judge_words.read(CHUNK).decode("utf-8", "replace").strip()
        self.judge_words.close()
        return status, words

    def last_words(self):
        """Why it ended, as far as it said so."""
        if self.machine.told(self.folder):
            return self.machine.told(self.folder)
        told = [line for line in self.words if any(word in line for word in self.machine.fatal_words)]
        return told[0] if told else self.words[-1] if self.words else ""


    def end(self):
        """How it ended, for a case that was open then."""
        status = self.process.returncode
        return ", ".join(filter(None, (describe(status) if self.ended == "crash" and status != -signal.SIGKILL else "",
                                       self.last_words())))


class Runner:
    """All boots that a list of cases needs."""

    def __init__(self, machine, image, cases, timeout, out):
        self.machine, self.image, self.timeout, self.out = machine, os.path.abspath(image), timeout, out
        self.left = dict((case_id, index) for index, case_id in cases)
        self.described, self.boot, self.barren = False, None, 0

    def say(self, **record):
        """Prints a record."""
        self.out.write(DUMP(record).encode() + b"\n")

    def verdict(self, case_id, verdict, why):
        """Prints the records of a case that the machine never came to."""
        self.say(t="start", id=case_id)
        self.say(t="end", id=case_id, verdict=verdict, got="", want=[], why=why)
        self.left.pop(case_id)

    def run(self):
        """Runs all cases."""
        missing = self.machine.missing()
        if missing:
            self.refuse(missing)
        while self.left:
            cases = [(index, case_id) for case_id, index in self.left.items()]
            before = len(self.left)
            words, _ = self.machine.select(cases[:1] if self.barren else cases)
            with tempfile.TemporaryDirectory(prefix="trapline-boot-") as folder:
                try:
                    self.boot = Boot(self.machine, self.image, words, folder)
                except OSError as error:
                    raise UsageError(f"{self.machine.name}: {error.strerror}: {error.filename}") from error
                for line in self.boot.records(self.timeout):
                    self.take(line)
                self.finish(before)
            self.out.flush()

    def refuse(self, why):
        """The machine cannot run what it should: all that is left is NOTSUP."""
        self.say(t="run", engine=self.machine.kind, cpu=self.machine.cpu, missing=why)
        for case_id in list(self.left):
            self.verdict(case_id, "NOTSUP", why)

    def take(self, line):
        """One record of the judge: passes on those of cases that were asked for."""
        record = json.loads(line)
        kind = record["t"]
        if kind == "run" and not self.described:
            self.described = True
            record.update(engine=self.machine.kind, cpu=self.machine.cpu, program=self.machine.version())
            self.say(**record)
        elif kind == "start":
            if record["id"] in self.boot.started:  # the machine was reset, and would go on so for ever
                self.boot.kill("shutdown")
            self.boot.started.add(record["id"])
            if record["id"] in self.left:
                self.out.write(line + b"\n")
                self.out.flush()
        elif kind == "end" and record["id"] in self.left:
            self.left.pop(record["id"])
            if record["verdict"] in ("CRASH", "TIMEOUT") and self.boot.end():
                record["why"] += ": " + self.boot.end()
                line = DUMP(record).encode()
            self.out.write(line + b"\n")
            self.out.flush()

    def finish(self, before):
        """After a boot: what it means that it came to nothing."""
        boot, self.boot = self.boot, None
        status, words = boot.close()
        if len(self.left) < before:
            self.barren = 0
            return
        if self.machine.depth and REFUSED in words:
            self.refuse(words[words.index(REFUSED):].splitlines()[0])
            return
        refusal = self.machine.refusal(boot.words)
        if refusal:
            raise UsageError(f"{self.machine.name}: {refusal}")
        self.barren += 1
        if self.barren < 2:
            return  # once more, with the first case alone
        why = self.reason(boot, status, words)
        verdict = {"timeout": "TIMEOUT", "crash": "CRASH"}.get(boot.ended, "ERROR")
        for case_id in list(self.left)[:1 if self.barren < BARREN else None]:
            self.verdict(case_id, verdict, why)

    def reason(self, boot, status, words):
        """Why a boot came to no case."""
        said = boot.last_words() or (words.splitlines() or [""])[-1] if status == 2 else boot.last_words()
        how = {"timeout": f"said nothing for {boot.patience:g} s and was ended", "shutdown": "shut down",
               "crash": f"died ({describe(boot.process.returncode)})"}.get(boot.ended, "ended")
        return f"{self.machine.name} {how} before it came to this case" + (f": {said}" if said else "")


def describe(status):
    """An exit status in words."""
    return f"signal {-status}" if status < 0 else f"status {status}"


def read_list(path):
    """[(index, id)] of a file of cases."""
    try:
        with open(path, encoding="utf-8") as file:
            pairs = [line.split() for line in file if line.strip()]
        return [(int(index), case_id) for index, case_id in pairs]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or 'expected lines of INDEX ID'}") from error


def command_boot(options):
    """trapline boot"""
    if linux_kvm.matches(options.target):
        return linux_kvm.boot(options)
    machine = machines.parse(options.target)
    if not machine:
        raise UsageError(f"--target {options.target}: not a foreign machine")
    if options.move:
        raise UsageError(f"--move: {options.target} cannot move a guest; visor's engines can")
    machine.smp, machine.depth = options.smp, options.depth
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=CHUNK)
    runner = Runner(machine, options.image, read_list(options.cases), options.timeout, out)

    def stop(number, _frame):
        if runner.boot:
            runner.boot.kill("crash")
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        runner.run()
        out.flush()
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)
    finally:
        if runner.boot:
            runner.boot.kill("crash")
    return 0
