"""`trapline migration-faults`: moves a guest with a fault at a random place each time, and says what became of it.

Two visors and a relay between them, which cuts, stalls, half-closes, flips, drops, repeats or makes up bytes, or kills a
side, when so many bytes have passed. The guest counts ticks aloud and looks at every page that it wrote, so that what
became of it can be heard: where it runs, since when, and whether it lost anything.
"""

import collections
import os
import random
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from . import live, paths
from .errors import EXIT_EXPECTED, EXIT_UNEXPECTED, HarnessError, UsageError
from .qmp import Control, Gone, Refused

GUEST = "kernel=dirty count={memory} pages={pages} beat=2"
MEMORY = "32M"
LARGE, SHORT = "4G", 2 << 30  # of a guest, and what a destination has that is short of memory
PATIENCE = 30.0  # seconds for anything that must come
QUIET = 0.5      # seconds in which a running guest says something; 25 beats
CHUNK = 1 << 16
TAIL = 96 << 10  # bytes at the end in which state and hand-over lie

# What may become of the guest, and where it then is.
CLASSES = {
    "moved": "the destination runs it, the source has ended or keeps it paused",
    "kept": "the source runs it, the destination never did",
    "held": "handed over without an answer: the source keeps it paused, and runs it after cont",
    "recovered": "post-copy paused, and went on over a new connection",
    "lost": "the side that had it was killed",
}
FAULTS = {  # what may follow: a set of classes
    "none": {"moved"},
    "cut": {"moved", "kept", "held"},
    "half_close": {"moved", "kept", "held"},
    "half_close_answer": {"moved", "kept", "held"},
    "cut_answer": {"moved", "kept", "held"},
    "stall": {"moved", "kept", "held"},
    "stall_answer": {"moved", "kept", "held"},
    "flip": {"moved", "kept", "held"},
    "drop": {"kept", "held"},
    "repeat": {"moved", "kept", "held"},
    "insert": {"moved", "kept", "held"},
    "version": {"kept"},
    "kill_source": {"moved", "lost"},
    "kill_destination": {"kept", "held", "lost"},
    "memory_short": {"kept"},
    "disk_full": {"kept"},
    "postcopy_cut": {"moved", "kept", "held", "recovered"},
    "postcopy_kill_source": {"moved", "lost"},
    "postcopy_kill_destination": {"kept", "held", "lost"},
}


class Side(threading.Thread):
    """One visor, and what its guest says."""

    def __init__(self, words, folder, name, memory_short=False):
        super().__init__(daemon=True)
        self.path = os.path.join(folder, name)
        command = [str(paths.visor()), "run", "--control", f"unix:{self.path}", *words]
        limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (SHORT, SHORT))) if memory_short else None
        self.errors = open(os.path.join(folder, name + ".log"), "w+b")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        preexec_fn=limit)
        self.beats, self.lost, self.begun = [], [], threading.Event()
        self.control = None
        self.start()

    def run(self):
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == [b"begin"]:
                self.begun.set()
            elif words[:1] == [b"beat"] and len(words) == 2:
                self.beats.append((time.monotonic(), int(words[1])))
            elif words[:1] == [b"lost"]:
                self.lost.append(line.decode("utf-8", "replace").strip())

    def alive(self):
        """Whether the process is there."""
        return self.process.poll() is None

    def connect(self):
        """Opens its control socket; False where it has ended before."""
        try:
            self.control = Control(self.path, self.process, PATIENCE)
        except Gone:
            return False
        return True

    def ask(self, command, **arguments):
        """What @command returns; None where the visor is gone; {"error": text} where it refuses."""
        try:
            return self.control and self.control.ask(command, **arguments)
        except Refused as error:
            return {"error": str(error)}
        except Gone:
            return None

    def status(self):
        """(of the machine, of its migration, why)."""
        machine, migration = self.ask("query-status") or {}, self.ask("query-migrate") or {}
        return machine.get("status", "gone"), migration.get("status", "none"), migration.get("error-desc", "")

    def beats_since(self, moment):
        """Ticks that it has said since then."""
        return [tick for when, tick in list(self.beats) if when >= moment]

    def words(self):
        """The last line of its standard error."""
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode("utf-8", "replace").splitlines() if line.startswith("visor:")]
        return lines[-1] if lines else ""

    def kill(self):
        """At once, as by a power cut."""
        self.process.kill()

    def close(self):
        """Ends it and all that belongs to it."""
        self.process.kill()
        self.process.wait()
        self.join(PATIENCE)
        for file in (self.control, self.process.stdin, self.process.stdout, self.errors):
            if file:
                file.close()


class Relay(threading.Thread):
    """Carries bytes both ways between the source's connection and the destination's, until its fault."""

    def __init__(self, listen, target, fault, at, rng, strike):
        super().__init__(daemon=True)
        self.target, self.fault, self.at, self.rng, self.strike = target, fault, at, rng, strike
        self.backwards = fault.endswith("_answer")
        self.passed = {True: 0, False: 0}  # bytes, by whether they are for the source
        self.struck, self.stalled, self.over = False, False, False
        self.recent = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(listen)
        self.listener.listen(8)
        self.listener.settimeout(PATIENCE)
        self.start()

    def run(self):
        try:
            source, _ = self.listener.accept()
        except OSError:
            return
        destination = socket.socket(socket.AF_UNIX)
        try:
            destination.connect(self.target)
            self.carry(source, destination)
        except OSError:
            pass
        finally:
            source.close()
            destination.close()
            self.over = True

    def carry(self, source, destination):
        """Until one side ends."""
        selector = selectors.DefaultSelector()
        selector.register(source, selectors.EVENT_READ, (destination, False))
        selector.register(destination, selectors.EVENT_READ, (source, True))
        while not self.over:
            for key, _ in selector.select(0.05):
                to, backwards = key.data
                if self.stalled:
                    time.sleep(0.02)
                    continue
                data = key.fileobj.recv(CHUNK)
                if not data:
                    return
                out = self.touch(data, backwards, source, destination)
                if out is None:
                    return
                if out:
                    to.sendall(out)

    def touch(self, data, backwards, source, destination):
        """What goes on of @data; None: nothing more at all."""
        before = self.passed[backwards]
        self.passed[backwards] += len(data)
        place = self.at - before
        if self.struck or backwards != self.backwards or not 0 <= place < len(data):
            if not backwards:
                self.recent = (self.recent + data)[-4096:]
            return data
        self.struck = True
        kind = self.fault.removesuffix("_answer")
        head, tail = data[:place], data[place:]
        if kind in ("cut", "postcopy_cut"):
            (source if backwards else destination).sendall(head)
            return None
        if kind == "half_close":
            to = source if backwards else destination
            to.sendall(head)
            to.shutdown(socket.SHUT_WR)
            self.stalled = True
            return b""
        if kind == "stall":
            self.stalled = True
            return head
        if kind == "flip":
            return head + bytes([tail[0] ^ 1 << self.rng.randrange(8)]) + tail[1:]
        if kind == "drop":
            return head + tail[self.rng.randrange(1, 64):]
        if kind == "repeat":
            again = (self.recent + head)[-self.rng.randrange(16, 4096):]
            return head + again + tail
        if kind == "insert":
            return head + self.rng.randbytes(self.rng.randrange(1, 8192)) + tail
        self.strike()
        return data

    def close(self):
        """Ends it."""
        self.over = True
        self.listener.close()
        self.join(PATIENCE)


class Trial:
    """One migration."""

    def __init__(self, number, seed, lengths):
        self.rng = random.Random(f"{seed}/{number}")
        self.number, self.fault = number, self.rng.choice([name for name in FAULTS if name != "none"] if lengths else ["none"])
        self.pages = self.rng.choice((0, 4, 64)) if lengths else 0
        self.at = self.place(lengths) if lengths else 1 << 62
        self.source = self.destination = self.relay = None
        self.verdict, self.why, self.told = None, "", ""

    def place(self, lengths):
        """A byte at which it strikes: anywhere, in the state and hand-over at the end, or at the very beginning."""
        length = lengths[self.fault.endswith("_answer")]
        if self.fault == "version":
            return self.rng.randrange(4, 8)
        if length <= 64:
            return self.rng.randrange(length)
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.randrange(length)
        if kind < 0.9:
            self.pages = 0  # so that the length is what was measured
            return max(0, length - 1 - int(min(TAIL, length) * self.rng.random() ** 2))
        return self.rng.randrange(min(4096, length))

    def strike(self):
        """What the relay asks for beyond bytes."""
        if self.fault.endswith("kill_source"):
            self.source.kill()
        elif self.fault.endswith("kill_destination"):
            self.destination.kill()

    def run(self):
        """The class of what happened; None with self.why where that is none."""
        with tempfile.TemporaryDirectory(prefix="trapline-faults-") as folder:
            try:
                self.migrate(folder)
                self.judge(folder)
            finally:
                for part in (self.relay, self.source, self.destination):
                    if part:
                        part.close()
        return self.verdict

    def migrate(self, folder):
        """Until nothing goes on by itself."""
        short = self.fault == "memory_short"
        self.source = Side(["--mem", LARGE if short else MEMORY, "--append", GUEST.format(memory=4, pages=self.pages), str(live.guest())], folder, "source")
        receive = os.path.join(folder, "receive")
        self.destination = Side(["--incoming", f"unix:{receive}"], folder, "destination", short)
        if not self.source.connect() or not self.source.begun.wait(PATIENCE):
            raise HarnessError(f"the source did not begin: {self.source.words()}")
        self.destination.connect()
        uri = f"unix:{os.path.join(folder, 'relay')}"
        if self.fault == "disk_full":
            uri = "file:/dev/full"
        else:
            kind = "flip" if self.fault == "version" else self.fault
            self.relay = Relay(os.path.join(folder, "relay"), receive, kind, self.at, self.rng, self.strike)
        if self.fault.startswith("postcopy"):
            capability = [{"capability": "postcopy-ram", "state": True}]
            for side in (self.source, self.destination):
                side.ask("migrate-set-capabilities", capabilities=capability)
            self.source.ask("migrate-set-parameters", **{"max-bandwidth": 20 << 20})
        answer = self.source.ask("migrate", uri=uri)
        if answer and "error" in answer:
            raise HarnessError(answer["error"])
        if self.fault.startswith("postcopy"):
            time.sleep(self.rng.random() * 0.1)
            self.source.ask("migrate-start-postcopy")
        self.settle()

    def settle(self):
        """Waits for an end; a side that a stall holds up is told to give up, as its user would."""
        deadline, stalled = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            status = self.source.status()[1] if self.source.alive() else "gone"
            if status not in ("setup", "active", "device", "pre-switchover", "postcopy-active", "cancelling"):
                return
            if self.relay and self.relay.stalled:
                stalled = stalled or time.monotonic()
                if time.monotonic() > stalled + 0.3:
                    self.source.ask("migrate_cancel")
                    self.relay.over = time.monotonic() > stalled + 0.6
            time.sleep(0.01)
        self.why = "it never ended"

    def judge(self, folder):
        """Where the guest is now."""
        if self.why:
            return
        moment = time.monotonic()
        time.sleep(QUIET)
        source, destination = (side.beats_since(moment + 0.1) for side in (self.source, self.destination))
        status = self.source.status() if self.source.alive() else ("gone", "gone", "")
        self.told = status[2]
        if source and destination:
            self.why = "both sides run"
        elif status[1] == "postcopy-paused" and self.destination.alive():
            self.recover(folder)
        elif destination:  # after the switch it runs on with the pages that it has
            alone = not self.source.alive() and self.destination.status()[1].startswith("postcopy")
            self.verdict = "lost" if alone else "moved"
        elif source:
            self.verdict = "kept"
        elif status[0] in ("paused", "postmigrate") and status[1] == "failed":
            self.resume(status)
        else:
            self.gone(status)
        self.check(moment)

    def resume(self, status):
        """A hand-over that nobody has acknowledged: the guest goes on by cont, once the destination is gone."""
        if not status[2]:
            self.why = "the source is paused and does not say why"
            return
        self.destination.kill()
        self.destination.process.wait()
        moment = time.monotonic()
        answer = self.source.ask("cont")
        time.sleep(QUIET)
        if answer is None or "error" in answer or not self.source.beats_since(moment):
            self.why = f"cont does not bring the guest back: {answer}"
            return
        self.verdict = "held"

    def recover(self, folder):
        """Post-copy goes on over a new connection."""
        again = f"unix:{os.path.join(folder, 'again')}"
        for side, command, arguments in ((self.destination, "migrate-recover", {"uri": again}),
                                         (self.source, "migrate", {"uri": again, "resume": True})):
            answer = side.ask(command, **arguments)
            if answer is None or "error" in answer:
                self.why = f"{command}: {answer}"
                return
        moment, deadline = time.monotonic(), time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.source.status()[1] != "completed":
            time.sleep(0.01)
        time.sleep(QUIET)
        if self.source.status()[1] != "completed" or not self.destination.beats_since(moment):
            self.why = f"post-copy did not recover: {self.source.status()}, {self.destination.status()}"
            return
        self.verdict = "recovered"

    def gone(self, status):
        """Nobody runs it: only where the side that had it was killed."""
        if "kill" not in self.fault or self.source.alive() and self.destination.alive():
            self.why = f"nobody runs it: source {status}, destination {self.destination.status()}: " \
                       f"{self.source.words()} {self.destination.words()}"
            return
        self.verdict = "lost"

    def check(self, moment):
        """That nothing of the guest is lost, its clock went on, and the class is one that the fault allows."""
        before = [tick for when, tick in self.source.beats if when < moment]
        after = self.destination.beats[0][1] if self.destination.beats else None
        if self.source.lost or self.destination.lost:
            self.why = f"memory: {(self.source.lost + self.destination.lost)[0]}"
        elif after and before and after < max(before) and self.verdict in ("moved", "recovered"):
            self.why = f"it went back from tick {max(before)} to {after}"
        elif self.verdict and self.verdict not in FAULTS[self.fault] | ({"moved"} if not self.struck() else set()):
            self.why = f"{self.verdict}, which {self.fault} does not allow"
        elif self.verdict == "kept" and self.destination.beats:
            self.why = "the destination ran it for a while"
        if self.why:
            self.verdict = None

    def struck(self):
        """Whether the fault came to be; a stream that ends before has none."""
        return self.relay is None or self.relay.struck or self.fault == "memory_short"

    def line(self):
        """For the log."""
        return f"{self.number:4} {self.fault:26} at {self.at:<10} pages {self.pages:<3} " + \
            (self.verdict or f"WRONG: {self.why}") + ("" if self.struck() else " (it came too late)") + \
            (f": {self.told}" if self.told else "")


def measure(seed):
    """Bytes of a migration without a fault, by direction."""
    trial = Trial(0, seed, None)
    if trial.run() != "moved":
        raise HarnessError(f"a migration without a fault: {trial.why or trial.verdict}")
    return {backwards: max(count, 1) for backwards, count in trial.relay.passed.items()}


def command_migration_faults(options):
    """trapline migration-faults"""
    if options.count < 1:
        raise UsageError("--count: expected 1 or more")
    live.guest()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that no visor stays behind
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    lengths = measure(seed)
    counts, wrong = collections.Counter(), 0
    numbers = [options.only] if options.only else range(1, options.count + 1)
    print(f"seed {seed}; {lengths[False]} bytes there, {lengths[True]} back")
    for number in numbers:
        trial = Trial(number, seed, lengths)
        trial.run()
        counts[trial.verdict or "wrong"] += 1
        wrong += trial.verdict is None
        if options.verbose or trial.verdict is None:
            print(trial.line(), flush=True)
        elif sys.stderr.isatty():
            print(f"\r{number}/{options.count}, {wrong} wrong", end="", file=sys.stderr, flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:5} {name}: {CLASSES.get(name, f'see above; again: --seed {seed} --only N')}")
    return EXIT_UNEXPECTED if wrong else EXIT_EXPECTED
