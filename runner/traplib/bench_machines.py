"""The machines that `make bench` compares: each starts the same guest file with a command line.

A guest prints `begin` and `end NAME INSTRUCTIONS` on the debug console; what is measured is the time
between the two lines. Where a machine is missing on this host, `why_missing` says so.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time

from . import machines, paths
from .errors import HarnessError
from .probe import ask

PATIENCE = 60.0  # seconds for one start


class Sample:
    """One measurement: seconds between the two lines, and what the guest counted in them."""

    def __init__(self, seconds, counted):
        self.seconds, self.counted = seconds, counted


def watch(process):
    """Reads the guest's lines until its `end`; None where there is none."""
    begun = None
    for line in process.stdout:
        now = time.perf_counter()
        if line.startswith(b"begin"):
            begun = now
        elif line.startswith(b"end ") and begun is not None:
            return Sample(now - begun, int(line.split()[2]))
    return None


def kill(process):
    """Ends a process and whatever it started, by the only signal that all of them heed."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(command, folder=None):
    """Runs one guest to its end; the sample. HarnessError where it does not report one."""
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    timer = threading.Timer(PATIENCE, kill, [process])
    timer.start()
    try:
        sample = watch(process)
        process.stdout.read()
        process.wait()
    finally:
        timer.cancel()
        kill(process)
        process.stdout.close()
    if sample is None:
        raise HarnessError(f"{command[0]}: the guest did not come to its end ({' '.join(map(str, command))})")
    return sample


class Soft:
    """visor with the software CPU."""

    name = "soft"
    why_missing = ""

    def __init__(self, guest):
        self.command = [str(paths.visor()), "run", "--cpu", "amd", "--mem", f"{machines.MEMORY}M",
                        "--max-insns", str(10 ** 12), "--timeout", str(PATIENCE), "--append"]
        self.guest = guest
        self.version = (ask(str(paths.visor()), "--version")[0] or "").strip()

    def measure(self, line):
        """Boots the guest with @line."""
        return run(self.command + [line, str(self.guest)])


class Foreign:
    """A machine that no one here wrote."""

    def __init__(self, name, machine, guest):
        self.name, self.machine, self.guest = name, machine, guest
        self.why_missing = machine.missing()
        self.version = "" if self.why_missing else machine.version()

    def measure(self, line):
        """Boots the guest with @line."""
        with tempfile.TemporaryDirectory(prefix="trapline-bench-") as folder:
            return run(self.machine.command(self.guest, line, folder), folder)


def all_machines(guest):
    """Every machine, whether it is here or not."""
    return [Soft(guest), Foreign("QEMU", machines.Qemu("tcg", None), guest),
            Foreign("Bochs", machines.Bochs(None), guest)]
