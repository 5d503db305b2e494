"""Runs cases: one process of the target for many cases, several processes at once.

A process reports each case as it happens. When one dies or falls silent, the case that it was
in gets the verdict, and a new process goes on with those that are left, so a case never costs
another one its result.
"""

import collections
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time

from .errors import HarnessError, UsageError
from .results import line_of, parse
from .verdicts import EXPECTED

CHUNK = 1 << 16
LINE_MAX = 1 << 20
PARTING = 3.0    # seconds that a process has to end its machine
RESTARTS = 1000  # of one job: a target that dies on everything is a broken target


class Job:
    """Cases of one suite on one target, in their order."""

    def __init__(self, target, suite, policy, ids, attempt=1, repeat=1):
        self.target, self.suite, self.policy = target, suite, policy
        self.ids = collections.deque(ids)
        self.whole = len(ids) == len(suite.cases)
        self.attempt, self.repeat, self.restarts = attempt, repeat, 0


class Process:
    """One running process of a job."""

    def __init__(self, job):
        self.job, self.current, self.buffer, self.hung = job, None, b"", False
        self.errors = tempfile.TemporaryFile()
        self.list = None
        if not job.whole or job.restarts or job.target.gentle:
            self.list = tempfile.NamedTemporaryFile("w", prefix="trapline-cases-", suffix=".txt")
            places = job.suite.places
            self.list.write("".join(job.target.list_line(places[i], i) + "\n" for i in job.ids))
            self.list.flush()
        command = job.target.process(job.suite.image, job.policy, self.list and self.list.name)
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=self.errors, start_new_session=True)
        except OSError as error:
            raise HarnessError(f"{command[0]}: {error.strerror}") from error
        self.pipe = self.process.stdout.fileno()
        self.patience = job.target.silence(job.policy)
        self.touched = time.monotonic()

    def kill(self):
        """Ends it and whatever it started."""
        if self.job.target.gentle:
            self.process.terminate()
            try:
                self.process.wait(PARTING)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self):
        """Waits for it; its exit status and its last words."""
        status = self.process.wait()
        self.process.stdout.close()
        self.errors.seek(0)
        words = self.errors.read(CHUNK).decode("utf-8", "replace").strip()
        self.errors.close()
        if self.list:
            self.list.close()
        return status, words


class Output:
    """What the lines of a process become: records, their lines, and the ends among them."""

    def __init__(self):
        self.records, self.lines, self.ends = [], [], []

    def add(self, record, line=None, tail=None):
        """Adds a record. @line: the target's own, to which "target" and @tail are added as they stand."""
        head = b'{"t":"%b",' % record["t"].encode()
        self.records.append(record)
        if line and line.startswith(head) and line.endswith(b"}"):
            self.lines.append(b'%b"target":"%b",%b%b}\n' % (head, record["target"].encode(), line[len(head):-1], tail))
        else:
            self.lines.append(line_of(record))


def records_of(process, lines):
    """The records of a target's lines; HarnessError at the first that is none."""
    try:
        records = parse(lines)
    except ValueError:
        records = map(parse_one, lines)
    for record, line in zip(records, lines):
        if not isinstance(record, dict) or "t" not in record:
            raise HarnessError(f"{process.job.target.name}: not a record: {line[:200]!r}")
        yield record


def parse_one(line):
    """The record of a line, or None."""
    try:
        return json.loads(line)
    except ValueError:
        return None


class Executor:
    """Runs jobs, at most @parallel processes at once, and writes their records."""

    def __init__(self, writer, progress, parallel, known, fail_fast=False, deadline=None):
        self.writer, self.progress, self.parallel = writer, progress, parallel
        self.known = known  # deviations
        self.fail_fast = fail_fast
        self.deadline = time.monotonic() + deadline if deadline else None
        self.why_stopped = None  # set: nothing more is started, and the run is incomplete
        self.ends = {}           # (target, id): last end record
        self.selector = selectors.DefaultSelector()
        self.described = set()

    def stop(self, why):
        """Ends cleanly: what was run is kept."""
        self.why_stopped = self.why_stopped or why

    def run(self, jobs):
        """Runs all jobs, or until something stops it."""
        waiting, running = collections.deque(jobs), set()
        try:
            while (waiting or running) and not self.why_stopped:
                while waiting and len(running) < self.parallel:
                    running.add(self._start(waiting.popleft()))
                for key, _ in self.selector.select(self._patience(running)):
                    process = key.data
                    if not self._read(process):
                        running.discard(process)
                        self._ended(process, waiting)
                self._check_clocks(running)
        finally:
            for process in running:
                process.kill()
                self.selector.unregister(process.pipe)
                process.close()

    def _start(self, job):
        process = Process(job)
        self.selector.register(process.pipe, selectors.EVENT_READ, process)
        return process

    def _patience(self, running):
        """Seconds to wait for output: short, as a signal's handler cannot end the wait."""
        ends = [process.touched + process.patience for process in running]
        if self.deadline:
            ends.append(self.deadline)
        return max(0.0, min(min(ends) - time.monotonic(), 0.25))

    def _check_clocks(self, running):
        now = time.monotonic()
        if self.deadline and now >= self.deadline:
            self.stop("the deadline of the run has passed")
        for process in running:
            if now - process.touched > process.patience:
                process.hung = True
                process.touched = now
                process.kill()

    def _read(self, process):
        """Takes what the process has written. False at its end."""
        data = os.read(process.pipe, CHUNK)
        if not data:
            return False
        process.touched = time.monotonic()
        *lines, process.buffer = (process.buffer + data).split(b"\n")
        if len(process.buffer) > LINE_MAX:
            raise HarnessError(f"{process.job.target.name}: a line of more than {LINE_MAX} bytes")
        out = Output()
        try:
            for record, line in zip(records_of(process, lines), lines):
                self._take(process, record, line, out)
        finally:
            self.writer.lines(out.records, out.lines)
        bad = sum(not record["expected"] for record in out.ends)
        self.progress.add(len(out.ends), bad)
        if bad and self.fail_fast:
            self.stop("--fail-fast, and a case was not as expected")
        return True

    def _take(self, process, record, line, out):
        """One record of a process, which came as @line: appends what it becomes to @out."""
        job, kind = process.job, record["t"]
        if kind == "start":
            process.current = record["id"]
            record["target"] = job.target.name
            out.add(record, line, b"")
        elif kind == "end":
            self._end(process, record, line, out)
        elif kind == "run" and (job.target.name, job.suite.name) not in self.described:
            self.described.add((job.target.name, job.suite.name))
            self.known.meet(job.target.name, record, self.writer.run.header["host"])
            out.add({**record, "t": "target", "target": job.target.name})

    def _end(self, process, record, line, out):
        """The end of a case, by the target (@line) or by us (None)."""
        job = process.job
        if job.ids and job.ids[0] == record["id"]:
            job.ids.popleft()
        else:
            try:
                job.ids.remove(record["id"])
            except ValueError:
                raise HarnessError(f"{job.target.name}: reports {record['id']}, which was not asked for") from None
        process.current = None
        record["target"] = job.target.name
        record["expected"] = record["verdict"] in EXPECTED
        line = self._known(record, line)
        tail = b',"expected":true' if record["expected"] else b',"expected":false'
        if job.attempt > 1:
            record["attempt"] = job.attempt
            tail += b',"attempt":%d' % job.attempt
        if job.repeat > 1:
            record["repeat"] = job.repeat
            tail += b',"repeat":%d' % job.repeat
        out.add(record, line, tail)
        out.ends.append(record)
        self.ends[job.target.name, record["id"]] = record

    def _known(self, record, line):
        """Holds the end of a case against the deviations. Its line, or None where it is another now."""
        if not self.known.by_target.get(record["target"]):
            return line
        record["expected"], why = self.known.judge(record)
        if not why:
            return line
        record["deviation"] = f"{why.where}: {why.reason}"
        if record["verdict"] == "PASS":
            record["why"] = f"it passes, though {why.where} says that it does not"
        return None

    def _ended(self, process, waiting):
        """A process has closed its output: by its own will, or not."""
        job = process.job
        self.selector.unregister(process.pipe)
        status, words = process.close()
        if not job.ids:
            return
        last = words.splitlines()[-1] if words else ""
        if status == 2:
            raise UsageError(last.removeprefix("trapline: ") or f"{job.target.name}: refused its command line")
        hung = process.hung
        if process.current is None and not hung:
            raise HarnessError(f"{job.target.name}: ended with status {status} and "
                               f"{len(job.ids)} cases left: {last or 'no message'}")
        job.restarts += 1
        if job.restarts > RESTARTS:
            raise HarnessError(f"{job.target.name}: died {RESTARTS} times in {job.suite.name}")
        why = ("the target fell silent" if hung else
               f"the target died of signal {-status}" if status < 0 else f"the target ended with status {status}")
        case_id = process.current or job.ids[0]
        out = Output()
        self._end(process, {"t": "end", "id": case_id, "verdict": "TIMEOUT" if hung else "CRASH", "got": "",
                            "want": [], "why": why + (f": {last}" if last else "")}, None, out)
        self.writer.lines(out.records, out.lines)
        self.progress.add(1, 1)
        if self.fail_fast:
            self.stop("--fail-fast, and a case was not as expected")
        if job.ids:
            waiting.appendleft(job)
