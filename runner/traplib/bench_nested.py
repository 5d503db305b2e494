"""What an exit of a guest costs that is reflected to the hypervisor right above it: CPUID, at each depth."""

import re
import subprocess
import time

from . import paths
from .bench_row import TIME, Row, say
from .errors import HarnessError

DEPTHS = (1, 2, 3)
FEW, MANY = {1: 1000, 2: 1000, 3: 200}, {1: 51000, 2: 11000, 3: 2200}
LOOP = 5  # instructions of a round of the guest's loop, CPUID among them
EXTENSIONS = (("amd", "AMD-V"), ("intel", "VT-x"))


def run(profile, depth, count):
    """(instructions, seconds) of the guest's loop, and of all else, which is the same for every @count."""
    command = [str(paths.visor()), "run", "--cpu", profile, "--depth", str(depth), "--statistics", "--append",
               f"kernel=cpuid count={count}", str(paths.TREE / "build" / "bench" / "bench.elf")]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    spent = time.monotonic() - began
    counted = re.search(r"^statistic instructions (\d+)$", done.stderr, re.MULTILINE)
    if not counted or "end " not in done.stdout + done.stderr:
        raise HarnessError(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return int(counted[1]), spent


def nested(_machines, repeats):
    """Instructions of the hypervisors and the guest, and nanoseconds of the host, for one exit and back."""
    for depth in DEPTHS:
        for profile, extension in EXTENSIONS:
            say(f"nested, {extension}, depth {depth}")
            yield from measured(profile, extension, depth, repeats)


def measured(profile, extension, depth, repeats):
    rows = [Row("nested", f"{extension} {depth}", unit, TIME, says) for unit, says in
            (("insns", f"{extension}, depth {depth}: instructions from CPUID in the guest to the one behind it"),
             ("ns", "the same in nanoseconds of the host"))]
    for _ in range(repeats):
        few, many = run(profile, depth, FEW[depth]), run(profile, depth, MANY[depth])
        rounds = MANY[depth] - FEW[depth]
        rows[0].add("soft", (many[0] - few[0]) / rounds - (LOOP - 1))
        rows[1].add("soft", (many[1] - few[1]) * 1e9 / rounds)
    return rows
