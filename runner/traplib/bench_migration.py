"""A guest that moves from one machine to another of its kind, over a unix socket, while it writes to its memory.

visor and QEMU TCG run the same guest file, are given the same limits by the same commands, and tell the same figures.
"""

import shutil

from . import live
from .bench_row import RATE, TIME, Row, say

MEMORIES = (256, 1024)                                      # MiB, of which the guest uses three quarters
RATES = (("none", 0), ("moderate", 128), ("heavy", 1024))   # pages at each of 100 ticks a second
LIMITS = {"max-bandwidth": 10 << 30, "downtime-limit": 300}  # bytes a second, milliseconds


def visor(memory, append):
    """Two of ours, as live.move() wants them."""
    return live.visor("amd", f"{memory}M", append)


def qemu(memory, append):
    """Two of QEMU's."""
    def commands(folder, uri):
        for name in "ab":
            line = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", f"{memory}M", "-nodefaults",
                    "-no-user-config", "-display", "none", "-debugcon", "stdio", "-qmp",
                    f"unix:{folder}/{name}/control,server=on,wait=off", "-kernel", str(live.guest()), "-append", append]
            yield line + (["-incoming", uri] if name == "b" else [])
    return commands


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
                    append = live.GUEST.format(fill=memory * 3 // 4, pages=pages)
                    figures = live.move(build(memory, append), LIMITS)
                    total.add(competitor, figures["total-time"])
                    down.add(competitor, max(figures["downtime"], 0.001))
                    through.add(competitor, figures["ram"]["transferred"] / 1048.576 / max(figures["total-time"], 1))
            rows += [total, down, through]
    return rows
