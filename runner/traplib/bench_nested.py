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


def run(depth, count):
    """(instructions, seconds) of the guest's loop, and of all else, which is the same for every @count."""
    command = [str(paths.visor()), "run", "--cpu", "amd", "--depth", str(depth), "--statistics", "--append",
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
        say(f"nested, depth {depth}")
        rows = [Row("nested", f"depth {depth}", unit, TIME, says) for unit, says in
                (("insns", "instructions from CPUID in the guest to the one behind it, AMD-V"),
                 ("ns", "the same in nanoseconds of the host"))]
        for _ in range(repeats):
            few, many = run(depth, FEW[depth]), run(depth, MANY[depth])
            rounds = MANY[depth] - FEW[depth]
            rows[0].add("soft", (many[0] - few[0]) / rounds - (LOOP - 1))
            rows[1].add("soft", (many[1] - few[1]) * 1e9 / rounds)
        yield from rows
