"""What `make bench` measures. Each function yields rows; competitors take turns, so that what else the host
does meets all of them alike, and a row holds medians."""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import catalog, paths
from .bench_linux import linux
from .bench_machines import PATIENCE, kill
from .bench_migration import migration
from .bench_nested import nested
from .bench_row import RATE, TIME, Row, say
from .errors import HarnessError
from .results import FILE

SPAN = 0.25        # seconds that one sample of a kernel should take
SHORT = 0.02       # shorter ones say nothing about speed
COUNT_MAX = 10 ** 9
BOOTS = 15         # cases that are booted one by one under QEMU
BLOCK = 4 << 20    # bytes of a round of the movs and stos kernels (guests/bench)


# ---- kernels: the same guest file on each machine ----


class Kernel:
    """One kernel: its group, what a sample comes to, and a count that every machine gets through at once."""

    def __init__(self, name, count, unit, value, says="", most=COUNT_MAX):
        self.name, self.count, self.unit, self.value, self.says, self.most = name, count, unit, value, says, most
        self.better = TIME if unit == "ns" else RATE


def millions(sample, _count):
    """Instructions a second, in millions."""
    return sample.counted / sample.seconds / 1e6


def nanoseconds_each(sample, _count):
    """Nanoseconds an instruction."""
    return sample.seconds * 1e9 / sample.counted


def nanoseconds_round(sample, count):
    """Nanoseconds a round."""
    return sample.seconds * 1e9 / count


def gigabytes(sample, _count):
    """Bytes a second, in 10^9: these kernels count bytes."""
    return sample.counted / sample.seconds / 1e9


KERNELS = [
    Kernel("alu", 200000, "MIPS", millions, "arithmetic and logic in registers"),
    Kernel("branch", 200000, "MIPS", millions, "branches that cannot be foreseen"),
    Kernel("memory", 2, "MIPS", millions, "a load and a store on each line of 8 MiB"),
    Kernel("calls", 50000, "MIPS", millions, "calls, stack and short strings"),
    Kernel("sse2", 100000, "MIPS", millions, "scalar SSE2"),
    Kernel("exits", 20000, "MIPS", millions, "CPUID, RDMSR, IN, MOV CR0"),
]
COLD = [Kernel("cold", 2, "ns", nanoseconds_each, "an instruction that runs once", 400)]
COSTS = [
    Kernel("cr3", 20000, "ns", nanoseconds_round, "MOV to CR3, and 7 instructions with 3 walks behind it"),
    Kernel("fault", 20000, "ns", nanoseconds_round, "#PF and IRET, and 4 more instructions"),
    Kernel("cpuid", 20000, "ns", nanoseconds_round, "CPUID, and 4 more instructions"),
]
STRINGS = [
    Kernel("movs", 10, "GB/s", gigabytes, "REP MOVSQ of 4 MiB; host: memmove()"),
    Kernel("stos", 10, "GB/s", gigabytes, "REP STOSQ of 4 MiB; host: memset()"),
]


def calibrated(kernel, machine):
    """A count with which a sample takes about SPAN seconds, and what the guest counted with the first one."""
    count, first = kernel.count, None
    while True:
        sample = machine.measure(f"kernel={kernel.name} count={count}")
        first = first or sample.counted
        if count >= kernel.most or sample.seconds >= SHORT:
            break
        count = min(count * 8, kernel.most)
    return max(1, min(kernel.most, round(count * SPAN / sample.seconds))), first


def kernel_row(group, kernel, machines, repeats):
    """Runs one kernel on all machines, in turns."""
    say(f"{group}: {kernel.name}")
    row = Row(group, kernel.name, kernel.unit, kernel.better, kernel.says)
    plan = {machine: calibrated(kernel, machine) for machine in machines}
    if len({first for _, first in plan.values()}) > 1:
        raise HarnessError(f"kernel {kernel.name}: the machines do not count the same: " +
                           ", ".join(f"{machine.name} {first}" for machine, (_, first) in plan.items()))
    for _ in range(repeats):
        for machine, (count, _) in plan.items():
            row.add(machine.name, kernel.value(machine.measure(f"kernel={kernel.name} count={count}"), count))
        if kernel in STRINGS:
            row.add("host", host_string(kernel.name))
    return row


def host_string(name):
    """What the host's C library copies or fills, GB/s: blocks as far apart as the kernel's."""
    room = ctypes.create_string_buffer(2 * BLOCK)
    start, rounds = ctypes.addressof(room), 50
    ctypes.memset(start, 1, 2 * BLOCK)
    begun = time.perf_counter()
    for _ in range(rounds):
        if name == "movs":
            ctypes.memmove(start + BLOCK, start, BLOCK)
        else:
            ctypes.memset(start, 0, BLOCK)
    return rounds * BLOCK / (time.perf_counter() - begun) / 1e9


def kernels(machines, repeats):
    """Instructions a second of what computes."""
    for kernel in KERNELS:
        yield kernel_row("kernels", kernel, machines, repeats)


def cold(machines, repeats):
    """Code that runs once, which is what test guests are."""
    for kernel in COLD:
        yield kernel_row("cold", kernel, machines, repeats)


def costs(machines, repeats):
    """What single events cost; then strings beside the host's own."""
    for kernel in COSTS + STRINGS:
        yield kernel_row("costs", kernel, machines, repeats)


# ---- cases ----


def pinned(command, core):
    """Runs a command on one core, without its output; seconds, and its exit status."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        kill(process)
        output, _ = process.communicate()
        raise HarnessError(f"{command[0]}: not done after {PATIENCE:g} s") from None
    return time.perf_counter() - start, process.returncode, output


def run_cases(core):
    """Cases a second of `trapline run sensitive -j1`, report included."""
    with tempfile.TemporaryDirectory(prefix="trapline-bench-") as folder:
        seconds, status, output = pinned(
            [sys.executable, str(paths.RUNNER / "trapline"), "run", "sensitive", "-j1", "-q", "--results", folder],
            core)
        files = list(Path(folder).glob(f"*/{FILE}"))
        if status not in (0, 1) or len(files) != 1:
            raise HarnessError(f"trapline run sensitive: status {status}: {output.decode(errors='replace')[-500:]}")
        with open(files[0], encoding="utf-8") as file:
            selected = json.loads(file.readline())["selected"]
    return selected / seconds


def sample_ids(suite):
    """A few cases of the suite, from its whole length."""
    ids = list(catalog.load(suite.stem, suite).cases)
    return ids[len(ids) // (2 * BOOTS)::max(1, len(ids) // BOOTS)][:BOOTS]


def boot_case(qemu, suite, case_id, core):
    """Cases a second where each is booted under QEMU."""
    seconds, _, output = pinned(qemu.machine.command(suite, f"cases={case_id}", ""), core)
    if case_id.encode() not in output:
        raise HarnessError(f"{qemu.name}: {case_id} did not run: {output.decode(errors='replace')[-500:]}")
    return 1 / seconds


def cases(machines, repeats):
    """Whole runs of the suite on one core; beside them a boot of QEMU for each case."""
    suite, core = paths.guests() / "sensitive.elf", max(os.sched_getaffinity(0))
    qemu = next((machine for machine in machines if machine.name == "QEMU"), None)
    ids = sample_ids(suite) if qemu else []
    row = Row("cases", "cases/s", "cases/s", RATE, "trapline run sensitive -j1 on one core; QEMU: a boot for each case")
    for turn in range(repeats):
        say(f"cases: run {turn + 1} of {repeats}")
        row.add("soft", run_cases(core))
        for case_id in ids[turn::repeats]:
            row.add(qemu.name, boot_case(qemu, suite, case_id, core))
    yield row


# ---- restore ----


def restore(_machines, repeats):
    """What the way back to a snapshot costs by the pages that were written."""
    say("restore")
    program, rows = paths.build() / "hypervisor" / "vm" / "restore_bench", {}
    for _ in range(repeats):
        done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HarnessError(f"{program}: {done.stderr.strip()}")
        for pages, nanoseconds in map(str.split, done.stdout.splitlines()):
            row = rows.setdefault(pages, Row("restore", f"{pages} page{'s' * (pages != '1')}", "µs", TIME,
                                             "snapshot restored where a case has written so many pages"))
            row.add("soft", int(nanoseconds) / 1e3)
    yield from rows.values()


GROUPS = {"cases": cases, "restore": restore, "kernels": kernels, "cold": cold, "costs": costs,
          "nested": nested, "linux": linux, "migration": migration}
