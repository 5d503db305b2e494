"""The policy of a suite: suites/NAME.toml, overridden by the command line."""

import tomllib

from . import paths
from .errors import UsageError

KNOWN = {"run": {"timeout": (int, float), "max_insns": int, "targets": list, "foreign_timeout": (int, float),
                 "smp": int, "devices": list},
         "mutants": {"gates": bool, "checks": list}}


DEVICES = ("disk-image", "entropy", "virtio-console")


class Policy:
    """Limits of a case, the machine that it needs, and the targets that a run without --target means."""

    def __init__(self, timeout=10.0, max_insns=0, targets=(), foreign_timeout=None, smp=1, devices=()):
        self.timeout = timeout      # seconds of wall clock for one case
        self.max_insns = max_insns  # instructions for one case; 0: visor's default
        self.targets = tuple(targets)
        self.smp = smp              # processors of the machine
        self.devices = tuple(devices)  # what a machine of visor has besides, by the name of its option
        # the same where only the clock tells a case that hangs from one that is slow: each hang costs this much
        self.foreign_timeout = foreign_timeout or timeout


def section(suite, name):
    """The keys of one section of a suite's file; a suite without a file has none."""
    path = paths.suites() / f"{suite}.toml"
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")).get(name, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{paths.shown(path)}: {error}") from error
    known = KNOWN[name]
    for device in values.get("devices", ()):
        if device not in DEVICES:
            raise UsageError(f"{paths.shown(path)}: [run] devices: there is no {device!r}; known: {', '.join(DEVICES)}")
    for key, value in values.items():
        if key not in known or not isinstance(value, known[key]) or isinstance(value, bool) != (known[key] is bool):
            raise UsageError(f"{paths.shown(path)}: [{name}] {key} = {value!r}: unknown key or wrong type; "
                             f"known: {', '.join(known)}")
    return values


def load(suite, timeout=None, max_insns=None):
    """Reads the policy of @suite; a suite without a file has the defaults."""
    values = section(suite, "run")
    if timeout is not None:
        values["timeout"] = values["foreign_timeout"] = timeout
    if max_insns is not None:
        values["max_insns"] = max_insns
    return Policy(**values)


class Answers:
    """Which mutants a suite answers for, whether or not they matter to one of its cases."""

    def __init__(self, gates=False, checks=()):
        self.gates = gates           # the gates of every instruction that has a case
        self.checks = tuple(checks)  # patterns of names of checks, and of gates


def answers(suite):
    """What the [mutants] section of @suite says."""
    return Answers(**section(suite, "mutants"))
