"""The run policy of a suite: suites/NAME.toml, overridden by the command line."""

import tomllib

from . import paths
from .errors import UsageError

KNOWN = {"timeout": (int, float), "max_insns": int, "targets": list, "foreign_timeout": (int, float)}


class Policy:
    """Limits of a case, and the targets that a run without --target means."""

    def __init__(self, timeout=10.0, max_insns=0, targets=(), foreign_timeout=None):
        self.timeout = timeout      # seconds of wall clock for one case
        self.max_insns = max_insns  # instructions for one case; 0: visor's default
        self.targets = tuple(targets)
        # the same where only the clock tells a case that hangs from one that is slow: each hang costs this much
        self.foreign_timeout = foreign_timeout or timeout


def load(suite, timeout=None, max_insns=None):
    """Reads the policy of @suite; a suite without a file has the defaults."""
    path = paths.suites() / f"{suite}.toml"
    values = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8")).get("run", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{paths.shown(path)}: {error}") from error
        for key, value in values.items():
            if key not in KNOWN or not isinstance(value, KNOWN[key]) or isinstance(value, bool):
                raise UsageError(f"{paths.shown(path)}: [run] {key} = {value!r}: unknown key or wrong type; "
                                 f"known: {', '.join(KNOWN)}")
    if timeout is not None:
        values["timeout"] = values["foreign_timeout"] = timeout
    if max_insns is not None:
        values["max_insns"] = max_insns
    return Policy(**values)
