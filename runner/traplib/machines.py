"""Machines that no one here wrote, each by the command line that boots a guest on it.

A machine knows how it is started, why it cannot be (missing), and how it ended (ending). What a guest
prints goes to the machine's standard output; boots.py does the rest.
"""

import os
import re
import shlex
import shutil
import string
import subprocess
from pathlib import Path

from . import bochs, paths
from .probe import ask, unusable
from .errors import HarnessError, UsageError

BOOT = 60.0       # seconds until the guest begins its report: a BIOS under a slow KVM takes several
MEMORY = 128      # MiB
APPEND_MAX = 8192  # bytes of a command line that every loader takes
KNOWN = ("qemu-tcg", "qemu-kvm", "bochs")


def ranges(indices):
    """[0, 1, 2, 5] as "0-2,5"."""
    parts, first, last = [], None, None
    for index in indices:
        if last is not None and index == last + 1:
            last = index
            continue
        if last is not None:
            parts.append((first, last))
        first = last = index
    if last is not None:
        parts.append((first, last))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


class Machine:
    """What all have in common. A case is (index in the image, id)."""

    kind = name = spelling = cpu = ""
    smp = 1           # processors
    depth = 0         # hypervisors of ours between it and the guest
    noise = None      # what begins a line that the machine itself prints where the guest does
    fatal_words = ()  # lines on standard error after which a machine stands still for ever

    def missing(self):
        """Why it cannot run here, or an empty text."""
        return ""

    def version(self):
        """What it says of itself."""
        return ""

    def select(self, cases):
        """(command line, number of cases): for as many of the first of @cases as a command line holds."""
        count = len(cases)
        while True:
            words = "index=" + ranges(index for index, _ in cases[:count])
            if len(words) <= APPEND_MAX:
                return words, count
            count = max(1, count * APPEND_MAX // len(words) - 1)

    def command(self, image, words, folder):
        """The command that boots @image with the command line @words; files may go to @folder."""
        raise NotImplementedError

    def shell(self, image, case_id):
        """One shell line that boots @image for one case; None where it takes more than a line."""
        raise NotImplementedError

    def ending(self, status, folder):
        """How a machine ended that was not killed (exit, shutdown, crash), by its exit status."""
        del folder
        return "crash" if status else "exit"

    def told(self, folder):
        """Why it gave up, as far as it left that in @folder."""
        del folder
        return ""

    def refusal(self, words):
        """The line of its last @words that says that the user asked for something that is not there, or None."""
        del words
        return None


class Qemu(Machine):
    """QEMU with its translator or with KVM. Its microvm starts a guest in a third of the time of a PC."""

    program = "qemu-system-x86_64"
    oldest = (5, 0)
    fatal_words = ("qemu: fatal", "KVM internal error", "KVM: entry failed", "hardware error")

    def __init__(self, accelerator, cpu):
        self.accelerator, self.kind, self.cpu = accelerator, f"qemu-{accelerator}", cpu or "max"
        self.name = f"{self.kind}:{self.cpu}"
        self.spelling = self.name

    def version(self):
        return ((ask(self.program, "--version")[0] or "").splitlines() or [""])[0].strip()

    def missing(self):
        why = unusable(self.program, "qemu-system-x86", ask(self.program, "--version"),
                       r"QEMU emulator version (\d+)\.(\d+)\S*", self.oldest)
        return why or (kvm_missing() if self.accelerator == "kvm" else "")

    def command(self, image, words, folder):
        cpu = self.cpu
        if self.accelerator == "kvm" and re.match(r"(max|host)\b", cpu) and "arch-capabilities" not in cpu:
            cpu += ",-arch-capabilities"  # a KVM without the MSR makes QEMU abort
        return [self.program, "-machine", "microvm,x-option-roms=off", "-nodefaults", "-no-user-config", "-display",
                "none", "-no-reboot", "-accel", self.accelerator, "-cpu", cpu, "-m", str(MEMORY), "-smp",
                str(self.smp), "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev", "-debugcon", "stdio",
                *self.boots(str(image), words)]

    def boots(self, image, words):
        """The options that name the guest: itself, or as the module of a hypervisor of ours."""
        if not self.depth:
            return ["-kernel", image, "-append", words]
        return ["-kernel", str(paths.hypervisor()), "-initrd", image, "-append", f"l1.depth={self.depth} {words}"]

    def shell(self, image, case_id):
        return shlex.join(self.command(image, "cases=", "")) + case_id

    def ending(self, status, folder):
        # The debug-exit port gives odd statuses; -no-reboot makes a shutdown or a reset an exit with 0.
        return "shutdown" if status == 0 else "exit" if status > 1 and status & 1 else "crash"

    def refusal(self, words):
        return next((line for line in words if re.search(r"unable to find CPU model|Property .* not found|"
                                                         r"Expected key=value", line)), None)


def kvm_missing():
    """Why /dev/kvm cannot be used."""
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm: permission denied (the group kvm would give it)"
    return ""


class Bochs(Machine):
    """Bochs, started from a ROM of our own."""

    kind = "bochs"
    noise = re.compile(rb"\(\d+\)\.\[|bx_dbg_read_linear: ")  # where its debugger was at the end

    def __init__(self, cpu):
        self.cpu = cpu or bochs.DEFAULT_MODEL
        self.name = self.spelling = f"bochs:{self.cpu}"

    def version(self):
        return bochs.version() or ""

    def missing(self):
        return bochs.missing(self.cpu)

    def command(self, image, words, folder):
        if not self.depth:
            return bochs.prepare(folder, Path(image).with_suffix(".bin"), words, self.cpu, MEMORY << 20, self.smp)
        return bochs.prepare(folder, paths.hypervisor().with_suffix(".bin"), f"l1.depth={self.depth} {words}", self.cpu,
                             MEMORY << 20, self.smp, image)

    def shell(self, image, case_id):
        return None

    def ending(self, status, folder):
        return bochs.ending(folder)

    def told(self, folder):
        return bochs.panic(folder)


class Exec(Machine):
    """Any other machine, by a command template."""

    kind = "exec"
    FIELDS = ("image", "append", "cases", "cpu")

    def __init__(self, text):
        named = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:/([^=\s]+))?=(.*)", text, re.DOTALL)
        label, self.cpu, template = named.groups() if named else (None, None, text)
        self.spelling = f"exec:{text}"
        try:
            self.words = shlex.split(template)
            fields = {field for word in self.words for _, field, _, _ in string.Formatter().parse(word)
                      if field is not None}
        except ValueError as error:
            raise UsageError(f"--target {self.spelling}: {error}") from error
        unknown = fields - set(self.FIELDS)
        if unknown:
            raise UsageError(f"--target {self.spelling}: {{{min(unknown)}}} is no field; known: "
                             f"{', '.join(self.FIELDS)} (a brace stands as {{{{)")
        if "image" not in fields:
            raise UsageError(f"--target {self.spelling}: the command has no {{image}}")
        if not fields & {"append", "cases"}:
            raise UsageError(f"--target {self.spelling}: the command has neither {{append}} (the guest's command "
                             "line) nor {cases} (ids, with commas between them)")
        if ("cpu" in fields) != bool(self.cpu):
            raise UsageError(f"--target {self.spelling}: " + ("{cpu} needs a CPU: exec:NAME/CPU=COMMAND"
                             if "cpu" in fields else "a CPU is given, but the command has no {cpu}"))
        self.fields = fields
        self.name = f"exec:{label or Path(self.words[0]).name}" + (f"/{self.cpu}" if self.cpu else "")

    def missing(self):
        if self.depth:
            return "a command does not say how a guest gets modules; give it the hypervisor and --depth 0"
        return "" if shutil.which(self.words[0]) else f"{self.words[0]}: there is no such program"

    def select(self, cases):
        if "append" in self.fields:
            return super().select(cases)
        count, size = 1, len(cases[0][1])
        while count < len(cases) and size + 1 + len(cases[count][1]) <= APPEND_MAX:
            size += 1 + len(cases[count][1])
            count += 1
        return ",".join(case_id for _, case_id in cases[:count]), count

    def command(self, image, words, folder):
        values = {"image": str(image), "append": words, "cases": words, "cpu": self.cpu}
        return [word.format(**values) for word in self.words]

    def shell(self, image, case_id):
        words = case_id if "cases" in self.fields else "cases=" + case_id
        return shlex.join(self.command(image, words, "")).replace("'{id}'", "{id}")

    def ending(self, status, folder):
        return "crash" if status < 0 else "exit"


class Engine(Machine):
    """An engine of visor that is missing here, as which it is told case by case; else visor runs it itself."""

    cpu = "host"

    def __init__(self, word):
        self.kind = self.name = self.spelling = word

    def missing(self):
        command = [str(paths.visor()), "info", "--engine", self.kind]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise HarnessError(f"{command[0]}: {error.strerror}") from error
        if told.returncode == 0:
            return ""
        _, found, reason = told.stdout.strip().partition(" missing: ")
        if not found:
            raise HarnessError(f"{shlex.join(command)}: {told.stderr.strip()}")
        return reason

    def shell(self, image, case_id):
        return None


def parse(word):
    """The machine of a --target, or None where it is none of these."""
    if re.fullmatch(r"kvm(:.+)?", word):
        return Engine(word)
    match = re.fullmatch(r"qemu-(tcg|kvm)(?::(.+))?", word)
    if match:
        return Qemu(match[1], match[2])
    match = re.fullmatch(r"bochs(?::(\w+))?", word)
    if match:
        return Bochs(match[1])
    if word.startswith("exec:"):
        return Exec(word[len("exec:"):])
    return None
