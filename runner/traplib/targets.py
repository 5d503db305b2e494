"""Targets: what boots a guest and hands back its report, by the name that a user gives it."""

import re
import subprocess

from . import paths
from .errors import HarnessError, UsageError

DEFAULT = ("soft",)
SOFT_PROFILES = ("amd", "intel")
SPELLINGS = "soft, soft:PROFILE or soft:PROFILE,+feature,-feature"


class Target:
    """visor with an engine and a CPU profile."""

    def __init__(self, engine, cpu):
        self.engine, self.cpu = engine, cpu
        self.name = f"{engine}:{cpu}"

    def command(self, image, policy, cases=None, program=None):
        """The command line that runs @cases (a list of ids or one @FILE; None: all) of @image."""
        line = [str(program or paths.visor()), "run", "--engine", self.engine, "--cpu", self.cpu]
        if policy.timeout:
            line += ["--timeout", f"{policy.timeout:g}"]
        if policy.max_insns:
            line += ["--max-insns", str(policy.max_insns)]
        if cases is not None:
            line += ["--cases", cases]
        return line + [str(image)]

    def reproduction(self, image, policy, case_id):
        """One line for a shell that runs a single case again and writes its instructions to a file."""
        line = self.command(paths.shown(image), policy, case_id, paths.shown(paths.visor()))
        return line[:-1] + ["--trace", "trace.txt", line[-1]]


def parse(words):
    """The targets of `--target` options. `soft` alone means each of its profiles."""
    found = {}
    for word in words or DEFAULT:
        match = re.fullmatch(r"soft(?::(.+))?", word)
        if not match:
            raise UsageError(f"--target {word}: no such target; known: {SPELLINGS}")
        for cpu in [match[1]] if match[1] else SOFT_PROFILES:
            target = Target("soft", cpu)
            found.setdefault(target.name, target)
    return list(found.values())


def describe():
    """What `visor info` says of the engines on this machine."""
    command = [str(paths.visor()), "info"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(f"{command[0]} info: {error}") from error
