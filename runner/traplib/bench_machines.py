"""The machines that `make bench` compares: each starts the same guest file with a command line.

A guest prints `begin` and `end NAME INSTRUCTIONS` on the debug console; what is measured is the time
between the two lines. Where a machine is missing on this host, `why_missing` says so.
"""

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import paths
from .errors import HarnessError

MEMORY = 128 << 20
PATIENCE = 60.0  # seconds for one start


class Sample:
    """One measurement: seconds between the two lines, and what the guest counted in them."""

    def __init__(self, seconds, counted):
        self.seconds, self.counted = seconds, counted


def words(*command):
    """The first line that a command prints, or "" where it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.splitlines() or [""])[0]


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
        self.command = [str(paths.visor()), "run", "--cpu", "amd", "--mem", f"{MEMORY >> 20}M",
                        "--max-insns", str(10 ** 12), "--timeout", str(PATIENCE), "--append"]
        self.guest = guest
        self.version = words(str(paths.visor()), "--version")

    def measure(self, line):
        """Boots the guest with @line."""
        return run(self.command + [line, str(self.guest)])

    def close(self):
        """Nothing is kept."""


class Qemu:
    """QEMU's translator."""

    name = "QEMU"
    program = "qemu-system-x86_64"
    machine = ["-machine", "microvm,x-option-roms=off", "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY >> 20),
               "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]

    def __init__(self, guest):
        self.guest = guest
        self.version = words(self.program, "--version")
        self.why_missing = "" if self.version else f"{self.program} is not installed"

    def measure(self, line):
        """Boots the guest with @line."""
        return run([self.program, *self.machine, "-debugcon", "stdio", "-kernel", str(self.guest), "-append", line])

    def close(self):
        """Nothing is kept."""


class Bochs:
    """Bochs, started from a ROM of our own: a BIOS would need many times as long as a kernel."""

    name = "Bochs"
    program = "bochs"
    # Its text mode, a debugger that goes on at once, no sound, output on the debug console, ports that end it.
    CONFIGURATION = """display_library: rfb, options="timeout=0"
plugin_ctrl: speaker=0, gameport=0, parallel=0, unmapped=1
cpu: model=corei7_skylake_x, count=1, ips=10000000
memory: guest={memory}, host={memory}
romimage: file={rom}, address=0xffff0000
optramimage1: file=ram.img, address=0
clock: sync=none
port_e9_hack: enabled=1
log: log
panic: action=fatal
error: action=ignore
info: action=ignore
"""
    HOLE = range(0xa0000, 0x100000)     # is no RAM: left out of the image, which is read contiguously
    START, INFORMATION, LINE = 0x500, 0x600, 0x700  # what reset.S looks for; multiboot's; the command line

    def __init__(self, guest):
        self.version = next((line.strip() for line in self._help() if "Emulator" in line), "")
        self.why_missing = "" if shutil.which(self.program) else f"{self.program} is not installed"
        self.folder = Path(tempfile.mkdtemp(prefix="trapline-bochs-"))
        self.flat = guest.with_suffix(".bin")
        rom = paths.TREE / "build" / "guests" / "rom" / "reset.bin"
        (self.folder / "rc").write_text("c\n", encoding="ascii")
        (self.folder / "bochsrc").write_text(self.CONFIGURATION.format(rom=rom, memory=MEMORY >> 20), encoding="utf-8")

    def _help(self):
        try:
            return subprocess.run([self.program, "--help"], capture_output=True, text=True, errors="replace",
                                  check=False, timeout=PATIENCE).stdout.splitlines()
        except (OSError, subprocess.TimeoutExpired):
            return []

    def _image(self, line):
        """The guest in memory, as a multiboot loader leaves it, by the addresses of its header."""
        flat = self.flat.read_bytes()
        header = flat.index(struct.pack("<I", 0x1badb002))
        header_address, load_address, _, _, entry = struct.unpack_from("<5I", flat, header + 12)
        at = header_address - header
        if at != load_address:
            raise HarnessError(f"{self.flat}: does not begin at its load address")
        image = bytearray(at + len(flat))
        struct.pack_into("<3I", image, self.START, entry, self.INFORMATION, MEMORY)
        # Flags: sizes of memory (in KiB, below and above 1 MiB) and command line are valid.
        struct.pack_into("<5I", image, self.INFORMATION, 5, 640, (MEMORY >> 10) - 1024, 0, self.LINE)
        image[self.LINE:self.LINE + len(line) + 1] = line.encode() + b"\0"
        image[at:] = flat
        del image[self.HOLE.start:self.HOLE.stop]
        return image

    def measure(self, line):
        """Boots the guest with @line."""
        (self.folder / "ram.img").write_bytes(self._image(line))
        return run([self.program, "-q", "-f", "bochsrc", "-rc", "rc"], self.folder)

    def close(self):
        """Removes its files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def all_machines(guest):
    """Every machine, whether it is here or not."""
    return [machine(guest) for machine in (Soft, Qemu, Bochs)]
