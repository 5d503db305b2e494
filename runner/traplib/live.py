"""Live moves: a guest that runs is sent from one visor to another, and how long that took is put into the run's file."""

import os
import subprocess
import tempfile
import time

from . import paths
from .errors import HarnessError, UsageError
from .qmp import Control

GUEST = "kernel=dirty count={fill} pages={pages}"
PAGES = (0, 16, 128, 512)  # written at each of 100 ticks a second, in turn
FILL, MEMORY = 24, "64M"   # MiB in use, and memory
PATIENCE = 60.0
PROFILES = ("amd", "intel")


def guest():
    """The guest's file. UsageError where it is not built."""
    path = (paths.TREE / "build" / "bench" / "bench.elf") if paths.TREE else paths.SHARE / "bench" / "bench.elf"
    if not path.is_file():
        raise UsageError(f"{paths.shown(path)}: the guest is not built: `make build/bench/bench.elf` does it")
    return path


class Machine:
    """One running machine, with what the guest says on its first line."""

    def __init__(self, command, folder, **more):
        os.makedirs(folder, exist_ok=True)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True, **more)
        self.path, self.control = os.path.join(folder, "control"), None

    def connect(self):
        """Opens its control socket."""
        self.control = Control(self.path, self.process)

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


def move(commands, limits):
    """
    Boots a guest on one machine and moves it to another: what query-migrate says in the end.

    @commands(folder, uri): the command lines of both, with their control sockets called `control` in folder/a and
    folder/b, the second of which waits at @uri.
    """
    with tempfile.TemporaryDirectory(prefix="trapline-move-") as folder:
        uri = f"unix:{folder}/stream"
        machines = [Machine(command, f"{folder}/{name}") for name, command in zip("ab", commands(folder, uri))]
        source, target = machines
        try:
            source.connect()
            target.connect()
            source.wait_begin()
            source.control.ask("migrate-set-parameters", **limits)
            time.sleep(0.1)  # so that the guest is at its work
            source.control.ask("migrate", uri=uri)
            return wait_end(source)
        finally:
            for machine in machines:
                machine.close()


def wait_end(source):
    """Waits for a migration that has begun; its figures. HarnessError where it did not succeed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        figures = source.control.ask("query-migrate")
        if figures["status"] in ("completed", "failed", "cancelled") or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    if figures["status"] != "completed":
        raise HarnessError(f"{source.process.args[0]}: the migration ended as {figures['status']}: "
                           f"{figures.get('error-desc', '')}")
    return figures


def visor(cpu, memory, append):
    """commands of move() for two visors."""
    def commands(folder, uri):
        line = [str(paths.visor()), "run"]
        return (line + ["--cpu", cpu, "--control", f"unix:{folder}/a/control", "--mem", memory, "--append", append, str(guest())],
                line + ["--cpu", cpu, "--control", f"unix:{folder}/b/control", "--incoming", uri])
    return commands


def moves(count):
    """Records of @count live moves, on both profiles and at several rates of writing in turn."""
    for number in range(count):
        cpu, pages = PROFILES[number % len(PROFILES)], PAGES[number // len(PROFILES) % len(PAGES)]
        figures = move(visor(cpu, MEMORY, GUEST.format(fill=FILL, pages=pages)), {})
        yield {"t": "move", "target": f"soft:{cpu}", "pages": pages * 100, "total_ns": figures["total-time-ns"],
               "downtime_ns": figures["downtime-ns"], "bytes": figures["ram"]["transferred"],
               "rounds": [{"began_ns": one["began-ns"], "took_ns": one["took-ns"], "pages": one["pages"],
                           "bytes": one["bytes"], "dirty": one["dirty"]} for one in figures["rounds"]]}
