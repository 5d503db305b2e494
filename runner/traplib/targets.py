"""Targets: what boots a guest and hands back its report, by the name that a user gives it.

A target is a process that prints records (hypervisor/cli/JSON.md) for the cases that a list names. visor
does that itself; for a machine that only boots a guest, `trapline boot` does it around the machine.
"""

import re
import shlex
import subprocess
import sys

from . import linux_kvm, machines, paths
from .errors import HarnessError, UsageError

DEFAULT = ("soft",)
SOFT_PROFILES = ("amd", "intel")
SPELLINGS = ("soft[:PROFILE[,+feature,-feature]], kvm[:DEVICE], linux-kvm[:PROFILE][=FOLDER], qemu-tcg[:CPU], "
             "qemu-kvm[:CPU], bochs[:MODEL], "
             "exec:[NAME[/CPU]=]COMMAND with {image} and {append} or {cases}, and {cpu} where there is a CPU")
SLOWER = 4     # times, at most, that a case takes with one more hypervisor of ours
GRACE = 5.0  # seconds beyond the target's own limit for a case before its process counts as hung


class Visor:
    """visor with an engine and, under soft, a CPU profile."""

    gentle = False  # its process may be killed at once: nothing outlives it

    def __init__(self, engine, cpu):
        self.engine, self.cpu, self.depth, self.move = engine, cpu, 0, None
        self.name = f"{engine}:{cpu}" if cpu else engine

    def command(self, image, policy, cases=None, program=None):
        """The command line that runs @cases (a list of ids or one @FILE; None: all) of @image."""
        line = [str(program or paths.visor()), "run", "--engine", self.engine]
        if self.cpu:
            line += ["--cpu", self.cpu]
        if policy.timeout:
            line += ["--timeout", f"{self.limit(policy):g}"]
        if policy.max_insns and self.engine == "soft":  # a device does not count
            line += ["--max-insns", str(policy.max_insns)]
        if policy.smp > 1:
            line += ["--smp", str(policy.smp)]
        if self.depth:
            line += ["--depth", str(self.depth)]
        line += ["--" + device for device in policy.devices]
        if self.move:
            line += ["--move", self.move]
        if cases is not None:
            line += ["--cases", cases]
        return line + [str(image)]

    def process(self, image, policy, listed):
        """The command line of a process that prints the records of the cases in the file @listed (None: all)."""
        line = self.command(image, policy, "@" + listed if listed else None)
        return line[:2] + ["--json"] + line[2:]

    @staticmethod
    def list_line(_index, case_id):
        """A line of the file of cases."""
        return case_id

    def limit(self, policy):
        """Seconds of wall clock for a case: each hypervisor of ours above the machine costs its share."""
        return policy.timeout * SLOWER ** self.depth

    def silence(self, policy):
        """Seconds without a record after which the process counts as hung."""
        return self.limit(policy) + GRACE

    def reproduction(self, image, policy, case_id):
        """One line for a shell that runs a single case again and writes its instructions to a file."""
        line = self.command(paths.shown(image), policy, case_id, paths.shown(paths.visor()))
        return shlex.join(line[:-1] + ["--trace", "trace.txt", line[-1]])


class Foreign:
    """A machine that no one here wrote: it boots the guest with a command line, many cases at a time."""

    gentle = True  # its process has a machine to end before it dies
    engine = cpu = move = None

    def __init__(self, machine):
        self.machine, self.name = machine, machine.name

    @property
    def depth(self):
        """Hypervisors of ours between the machine and the guest."""
        return self.machine.depth

    @depth.setter
    def depth(self, depth):
        self.machine.depth = depth

    def process(self, image, policy, listed):
        """As above; @listed is never None, as a machine is given its cases by place."""
        return [sys.executable, str(paths.program()), "boot", "--target", self.machine.spelling, "--timeout",
                f"{policy.foreign_timeout:g}", "--smp", str(policy.smp), "--depth", str(self.depth), "--cases", listed, str(image)]

    @staticmethod
    def list_line(index, case_id):
        """As above."""
        return f"{index} {case_id}"

    @staticmethod
    def silence(policy):
        """As above: a start of the machine included."""
        return policy.foreign_timeout + machines.BOOT + GRACE

    def reproduction(self, image, policy, case_id):
        """One line for a shell that boots the machine for a single case and judges what it prints."""
        self.machine.smp = policy.smp
        command = self.machine.shell(paths.shown(image), case_id)
        if command is None:
            depth = ["--depth", str(self.depth)] if self.depth else []
            return shlex.join([paths.shown(paths.program()), "run", case_id, "--target", self.machine.spelling, *depth])
        return f"{command} | {shlex.join([paths.shown(paths.visor()), 'judge', paths.shown(image)])}"


class LinuxKvm(Visor):
    """KVM of a Linux that runs on our own machine: visor in it, with the engine kvm."""

    gentle = True  # its process has a machine to end before it dies

    def __init__(self, spelling, cpu):
        super().__init__("kvm", cpu)
        self.spelling, self.name = spelling, spelling.partition("=")[0]

    def process(self, image, policy, listed):
        move = ["--move", self.move] if self.move else []
        return [sys.executable, str(paths.program()), "boot", "--target", self.spelling, "--smp", str(policy.smp),
                "--depth", str(self.depth), *move, "--cases", listed, str(image)]

    @staticmethod
    def silence(policy):
        """As above: a start of the machine included, and that its time is slower than ours."""
        return linux_kvm.BOOT + linux_kvm.TIMEOUT * linux_kvm.SLOWER + GRACE

    def reproduction(self, image, policy, case_id):
        more = ["--depth", str(self.depth)] if self.depth else []
        more += ["--move", self.move] if self.move else []
        return shlex.join([paths.shown(paths.program()), "run", case_id, "--target", self.spelling, *more])


def parse_one(word):
    """The targets of one --target."""
    match = re.fullmatch(r"soft(?::(.+))?", word)
    if match:
        return [Visor("soft", cpu) for cpu in ([match[1]] if match[1] else SOFT_PROFILES)]
    if linux_kvm.matches(word):
        return [LinuxKvm(*one) for one in linux_kvm.spellings(word)]
    machine = machines.parse(word)
    if isinstance(machine, machines.Engine) and not machine.missing():
        return [Visor(word, None)]
    if not machine:
        raise UsageError(f"--target {word}: no such target; known: {SPELLINGS}")
    return [Foreign(machine)]


def parse(words, depth=0, move=None):
    """The targets of `--target` options. `soft` alone means each of its profiles. @move: the guests are moved meanwhile."""
    found = {}
    for word in words or DEFAULT:
        for target in parse_one(word):
            target.depth = depth
            if move and not isinstance(target, Visor):
                raise UsageError(f"--move: {target.name} cannot move a guest; visor's engines can")
            target.move = move
            found.setdefault(target.name, target)
    return list(found.values())


def describe():
    """What is here: the engines, as `visor info` tells them, and the foreign machines."""
    command = [str(paths.visor()), "info"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"{command[0]} info: {error}") from error
    lines = []
    for machine in map(machines.parse, machines.KNOWN):
        missing = machine.missing()
        lines.append(f"{machine.kind}  " + (f"missing: {missing}" if missing else
                                            f"available: {machine.version()}; default CPU: {machine.cpu}"))
    lines.append("linux-kvm  " + linux_kvm.describe())
    lines.append("exec:COMMAND  any other machine, by the command that boots a guest on it")
    return told + "\n".join(lines) + "\n"
