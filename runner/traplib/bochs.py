"""Bochs, started from a small ROM that enters the guest as a multiboot loader would (guests/rom/reset.S).

A BIOS would need many times as long as most guests. The guest's memory is handed over as one image, which
Bochs reads contiguously: so the hole below 1 MiB is cut out of it, and the ROM touches memory in order.
"""

import struct
from pathlib import Path

from . import paths
from .errors import UsageError
from .probe import ask, unusable

PROGRAM = "bochs"
OLDEST = (2, 6)
DEFAULT_MODEL = "corei7_skylake_x"
HOLE = range(0xa0000, 0x100000)  # is no RAM
# What reset.S looks for; multiboot's information; the command line, where no guest has anything of its own.
START, INFORMATION, MODULE, LINE, LINE_MAX = 0x500, 0x600, 0x700, 0x80000, 0x10000
PAGE = 4096
LOG = "log"
# An option ROM of one block that does nothing (RETF), for the display: its own stands in a package that may not be here.
VGA_ROM = bytes((0x55, 0xaa, 1, 0xcb)) + bytes(507) + bytes((-(0x55 + 0xaa + 1 + 0xcb) & 0xff,))
# A display without a window, a debugger that goes on at once, no sound, output on the debug console, ports
# that end it. A shutdown of the processor ends it as well.
CONFIGURATION = """display_library: rfb, options="timeout=0"
plugin_ctrl: speaker=0, gameport=0, parallel=0, unmapped=1
cpu: model={model}, count={smp}, ips=10000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={memory}
romimage: file={rom}, address=0xffff0000
vgaromimage: file=vga.rom
optramimage1: file=ram.img, address=0
clock: sync=none
port_e9_hack: enabled=1
com1: enabled=1, mode=null
com2: enabled=1, mode=null
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
"""


def version():
    """What it says of itself; empty where it is not here."""
    text = ask(PROGRAM, "--help")[0] or ""
    return next((line.strip() for line in text.splitlines() if "Emulator" in line), "Bochs, of no known version" if text else "")


def models():
    """The processors that it knows."""
    _, _, names = (ask(PROGRAM, "--help", "cpu")[0] or "").partition("Supported CPU models:")
    return [line.strip() for line in names.splitlines() if line.strip().isidentifier()]


def rom():
    """The ROM's path."""
    return (paths.TREE / "build" / "guests" / "rom" if paths.TREE else paths.SHARE / "guests") / "reset.bin"


def missing(model):
    """Why no guest can be started, or an empty text. UsageError where it knows no such processor."""
    why = unusable(PROGRAM, "bochs", ask(PROGRAM, "--help"), r"Bochs x86 Emulator (\d+)\.(\d+)\S*", OLDEST)
    if why:
        return why
    known = models()
    if known and model not in known:
        raise UsageError(f"bochs:{model}: there is no such processor in it; bochs --help cpu names them")
    return "" if rom().is_file() else f"{rom()}: there is no such file; run `make` first"


def add_module(data, end, module):
    """Puts a multiboot module behind the guest, whose memory ends at @end, and tells of it."""
    start = -(-end // PAGE) * PAGE
    data.extend(bytes(start - len(data)))
    data.extend(module)
    flags, = struct.unpack_from("<I", data, INFORMATION)
    struct.pack_into("<I", data, INFORMATION, flags | 8)
    struct.pack_into("<2I", data, INFORMATION + 20, 1, MODULE)
    struct.pack_into("<4I", data, MODULE, start, start + len(module), 0, 0)


def image(flat, line, memory, module=b""):
    """The guest in memory, as a multiboot loader leaves it, by the addresses of its header, with a module."""
    header = flat.find(struct.pack("<I", 0x1badb002))
    if header < 0:
        raise UsageError("the flat image has no multiboot header")
    header_address, load_address, _, end, entry = struct.unpack_from("<5I", flat, header + 12)
    at = header_address - header
    if at != load_address or at < HOLE.stop:
        raise UsageError("the flat image does not begin at its load address")
    data = bytearray(at + len(flat))
    struct.pack_into("<3I", data, START, entry, INFORMATION, memory)
    # Flags: sizes of memory (in KiB, below and above 1 MiB) and command line are valid.
    struct.pack_into("<5I", data, INFORMATION, 5, 640, (memory >> 10) - 1024, 0, LINE)
    text = line.encode("ascii", "replace")[:LINE_MAX] + b"\0"
    data[LINE:LINE + len(text)] = text
    data[at:] = flat
    if module:
        add_module(data, end, module)
    del data[HOLE.start:HOLE.stop]
    return data


def prepare(folder, flat, line, model=DEFAULT_MODEL, memory=128 << 20, smp=1, module=None):
    """Writes the files of one start of the flat image in the file @flat to @folder, with the file @module for it;
    the command, to run there."""
    folder = Path(folder)
    try:
        data = image(Path(flat).read_bytes(), line, memory, Path(module).read_bytes() if module else b"")
    except OSError as error:
        raise UsageError(f"{flat}: {error.strerror}; objcopy -O binary makes it of the guest") from error
    (folder / "ram.img").write_bytes(data)
    (folder / "vga.rom").write_bytes(VGA_ROM)
    (folder / "rc").write_text("c\n", encoding="ascii")
    (folder / "bochsrc").write_text(CONFIGURATION.format(model=model, smp=smp, memory=memory >> 20, rom=rom(), log=LOG),
                                    encoding="utf-8")
    return [PROGRAM, "-q", "-f", "bochsrc", "-rc", "rc"]


def panic(folder):
    """The line in which it said why it gave up, or an empty text."""
    try:
        lines = (Path(folder) / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(">>PANIC<<")[1].strip() for line in lines if ">>PANIC<<" in line), "")


def ending(folder):
    """How it ended, by its log, as its exit status is always the same: exit, shutdown or crash."""
    words = panic(folder)
    if "no resolution" in words:
        return "shutdown"
    return "crash" if words and "shutdown requested" not in words else "exit"
