"""The results file of a run: JSON lines, appended as they happen. The schema is in ../SCHEMA.md."""

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path

from . import paths
from .errors import HarnessError, UsageError

SCHEMA = 1
FILE = "results.jsonl"
BATCH = 1000  # lines that are parsed together
DUMP = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def commit():
    """The commit of the source tree, with "+" when it has changes; "" outside a tree."""
    if not paths.TREE:
        return ""
    git = ["git", "-C", str(paths.TREE)]
    try:
        head = subprocess.run(git + ["rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(git + ["status", "--porcelain", "-uno"], capture_output=True, text=True,
                               check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if dirty else "")


def host():
    """What this machine is, as far as results depend on it."""
    model = microcode = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read()
        model = (re.search(r"^model name\s*: (.*)$", text, re.M) or ["", ""])[1]
        microcode = (re.search(r"^microcode\s*: (.*)$", text, re.M) or ["", ""])[1]
    except OSError:
        pass
    return {"kernel": platform.release(), "machine": platform.machine(), "cpu": model, "microcode": microcode}


class Writer:
    """Appends records to a run's file. A write that fails names the file and ends the run.

    run: what a reader of the file would see.
    """

    def __init__(self, folder, run=None):
        create = run is None
        self.folder, self.path = Path(folder), Path(folder) / FILE
        self.run = run or Run(self.path)
        try:
            if create:
                self.folder.mkdir(parents=True)
            self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
            if not create:
                self._drop_partial_line()
        except OSError as error:
            raise UsageError(f"{paths.shown(self.path)}: {error.strerror}") from error

    def _drop_partial_line(self):
        """A run that was killed may have left half a line: a new record must not be glued to it."""
        whole = self.path.read_bytes().rfind(b"\n") + 1
        os.truncate(self.path, whole)

    def lines(self, records, lines):
        """Appends records, given with their lines (bytes, newline included)."""
        for record in records:
            self.run.take(record)
        self._write(b"".join(lines))

    def record(self, **fields):
        """Appends one record."""
        self.lines([fields], [line_of(fields)])

    def _write(self, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view):]
        except OSError as error:
            raise HarnessError(f"{paths.shown(self.path)}: {error.strerror}; the results before are kept") from error

    def close(self):
        os.close(self.fd)


def line_of(record):
    """A record as a line of the file."""
    return (DUMP(record) + "\n").encode()


def parse(lines):
    """The records of lines that hold one each: a single text for the reader, which is much faster than many."""
    records = json.loads(b"[" + b",".join(lines) + b"]")
    if len(records) != len(lines):
        raise ValueError("more than one record in a line")
    return records


def new_folder(parent):
    """A name for a new run: the time to the second, and a number where that is taken."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parent, number = Path(parent), 1
    folder = parent / stamp
    while folder.exists():
        number += 1
        folder = parent / f"{stamp}-{number}"
    return folder


def find(run, parent):
    """The results file that RUN names: a folder, its name under @parent, a file, or `last`."""
    if run == "last":
        runs = sorted(path.parent for path in Path(parent).glob(f"*/{FILE}"))
        if not runs:
            raise UsageError(f"{paths.shown(parent)}: there are no runs here yet")
        return runs[-1] / FILE
    for path in (Path(run), Path(run) / FILE, Path(parent) / run / FILE):
        if path.is_file():
            return path
    raise UsageError(f"{run}: there is no such run")


class Run:
    """A results file, read back by read(), or as it is written by a Writer.

    header: the `run` record. suites: {suite: {id: case record}}. cells: [cell records]. clauses: {key: clause record}.
    targets: {target: target record}. ends: {(target, id): the last `end` record}.
    attempts: {(target, id): [all of them]}. done: whether the run came to its end.
    open: {(target, id)} started and never ended. stale: [stale records]. moves: [live moves].
    """

    def __init__(self, path):
        self.path = Path(path)
        self.header, self.suites, self.cells, self.clauses, self.targets = None, {}, [], {}, {}
        self.ends, self.attempts, self.open, self.done, self.stale = {}, {}, set(), False, []
        self.moves = []

    @classmethod
    def read(cls, path):
        """The run whose file is @path."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise UsageError(f"{paths.shown(path)}: {error.strerror}") from error
        run, lines, number = cls(path), data.split(b"\n"), 0
        lines.pop()  # empty, or half a line of a run that was killed
        for start in range(0, len(lines), BATCH):
            batch = lines[start:start + BATCH]
            try:
                records = parse(batch)
            except ValueError:
                records = map(json.loads, batch)  # which finds the line
            number = start + 1
            try:
                for record in records:
                    run.take(record)
                    number += 1
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{paths.shown(path)}:{number}: not a results record ({error})") from error
        if run.header is None:
            raise UsageError(f"{paths.shown(path)}: not a results file: it does not begin with a run record")
        return run

    def take(self, record):
        """Adds one record."""
        kind = record["t"]
        if self.header is None:
            if kind != "run" or record["schema"] != SCHEMA:
                raise ValueError(f"expected a run record of schema {SCHEMA}")
            self.header = record
        elif kind == "start":
            self.open.add((record["target"], record["id"]))
        elif kind == "end":
            key = record["target"], record["id"]
            record["verdict"], record["expected"], record["got"], record["want"]  # must be there
            self.open.discard(key)
            if not record.get("repeat") or self.ends[key]["expected"]:  # of repeats, the worst counts
                self.ends[key] = record
            self.attempts.setdefault(key, []).append(record)
        elif kind == "case":
            self.suites.setdefault(record["id"].split(".")[0], {})[record["id"]] = record
        elif kind == "cell":
            self.cells.append(record)
        elif kind == "clause":
            self.clauses[record["key"]] = record
        elif kind == "stale":
            self.stale.append(record)
        elif kind == "move":
            self.moves.append(record)
        elif kind == "target":
            self.targets[record["target"]] = record
        elif kind == "done":
            self.done = record["complete"]

    def missing(self):
        """{target: why it cannot run here}, of those that were asked for."""
        return {name: record["missing"] for name, record in self.targets.items() if record.get("missing")}

    def flaky(self):
        """Keys whose attempts did not all have the same outcome."""
        return [key for key, all_ in self.attempts.items()
                if len(all_) > 1 and len({(one["verdict"], one["got"]) for one in all_}) > 1]
