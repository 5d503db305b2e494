"""A guest that moves from one machine to another of its kind, over a unix socket, while it writes to its memory.

visor and QEMU TCG run the same guest file, are given the same limits by the same commands, and tell the same figures.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

from . import paths
from .bench_row import RATE, TIME, Row, say
from .errors import HarnessError

MEMORIES = (256, 1024)                                      # MiB, of which the guest uses three quarters
RATES = (("none", 0), ("moderate", 128), ("heavy", 1024))   # pages at each of 100 ticks a second
LIMITS = {"max-bandwidth": 10 << 30, "downtime-limit": 300}  # bytes a second, milliseconds
PATIENCE = 120.0


class Control:
    """A machine's control socket: JSON commands in QMP's manner."""

    def __init__(self, path, process):
        deadline = time.monotonic() + PATIENCE
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise HarnessError(f"{process.args[0]}: no control socket: {error.strerror}") from error
                time.sleep(0.01)
        self.file = self.socket.makefile("rb")
        self.socket.settimeout(PATIENCE)
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """What @command returns."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            line = self.file.readline()
            answer = json.loads(line) if line else {"error": {"desc": "the machine has ended"}}
            if "error" in answer:
                raise HarnessError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        """Ends the connection."""
        self.file.close()
        self.socket.close()


def visor(memory, append, folder, incoming):
    """The command line of our machine."""
    line = [str(paths.visor()), "run", "--cpu", "amd", "--control", f"unix:{folder}/control"]
    if incoming:
        return line + ["--incoming", f"unix:{incoming}"]
    return line + ["--mem", f"{memory}M", "--append", append, str(paths.TREE / "build" / "bench" / "bench.elf")]


def qemu(memory, append, folder, incoming):
    """The command line of QEMU's."""
    line = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", f"{memory}M", "-nodefaults",
            "-no-user-config", "-display", "none", "-debugcon", "stdio", "-qmp", f"unix:{folder}/control,server=on,wait=off",
            "-kernel", str(paths.TREE / "build" / "bench" / "bench.elf"), "-append", append]
    return line + (["-incoming", f"unix:{incoming}"] if incoming else [])


class Machine:
    """One running machine."""

    def __init__(self, command, folder):
        os.mkdir(folder)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self.folder, self.control = folder, None

    def connect(self):
        """Opens its control socket."""
        self.control = Control(os.path.join(self.folder, "control"), self.process)

    def wait_begin(self):
        """Waits until the guest has filled its memory."""
        for line in self.process.stdout:
            if line.startswith(b"begin"):
                return
        raise HarnessError(f"{self.process.args[0]}: the guest did not begin")

    def close(self):
        """Ends it."""
        if self.control:
            self.control.close()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def move(build, memory, pages):
    """Boots a guest, moves it once; what query-migrate says in the end."""
    append = f"kernel=dirty count={memory * 3 // 4} pages={pages}"
    with tempfile.TemporaryDirectory(prefix="trapline-bench-") as folder:
        path = os.path.join(folder, "stream")
        source = Machine(build(memory, append, f"{folder}/a", None), f"{folder}/a")
        target = Machine(build(memory, append, f"{folder}/b", path), f"{folder}/b")
        try:
            source.connect()
            target.connect()
            source.wait_begin()
            source.control.ask("migrate-set-parameters", **LIMITS)
            time.sleep(0.2)
            source.control.ask("migrate", uri=f"unix:{path}")
            deadline = time.monotonic() + PATIENCE
            while True:
                figures = source.control.ask("query-migrate")
                if figures["status"] in ("completed", "failed", "cancelled") or time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            if figures["status"] != "completed":
                raise HarnessError(f"{source.process.args[0]}: the migration ended as {figures['status']}: "
                                   f"{figures.get('error-desc', '')}")
            return figures
        finally:
            source.close()
            target.close()


def migration(_machines, repeats):
    """Total time, downtime and throughput of visor and of QEMU, in turns."""
    builds = {"soft": visor, **({"QEMU": qemu} if shutil.which("qemu-system-x86_64") else {})}
    rows = []
    for memory in MEMORIES:
        for name, pages in RATES:
            rate = f"{pages * 4096 * 100 >> 20} MiB/s" if pages else "nothing"
            says = f"{memory} MiB, {rate} written: "
            total, down, through = (Row("migration", f"{memory}M {name}", unit, better, says + what) for unit, better, what in (
                ("ms", TIME, "total time"), ("ms down", TIME, "downtime"), ("MiB/s", RATE, "memory sent")))
            say(f"migration, {says.rstrip(': ')}")
            for _ in range(repeats):
                for competitor, build in builds.items():
                    figures = move(build, memory, pages)
                    total.add(competitor, figures["total-time"])
                    down.add(competitor, max(figures["downtime"], 0.001))
                    through.add(competitor, figures["ram"]["transferred"] / 1048.576 / max(figures["total-time"], 1))
            rows += [total, down, through]
    return rows
