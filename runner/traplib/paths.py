"""Where the programs, guests and suites are: in the source tree, or where `make install` put them."""

import os
from pathlib import Path

from .errors import UsageError

RUNNER = Path(__file__).resolve().parent.parent
TREE = RUNNER.parent if (RUNNER.parent / "Makefile").is_file() else None
SHARE = None if TREE else RUNNER.parent                # PREFIX/share/trapline
PREFIX = None if TREE else RUNNER.parent.parent.parent


def build():
    """The tree's folder of what was built, for the MODE of the environment."""
    return TREE / "build" / os.environ.get("MODE", "release")


def visor():
    """Path of the visor program."""
    path = os.environ.get("VISOR")
    path = Path(path) if path else build() / "visor" if TREE else PREFIX / "bin" / "visor"
    if not os.access(path, os.X_OK):
        raise UsageError(f"{path}: there is no visor program here; run `make` first")
    return path


def program():
    """Path of trapline itself."""
    return RUNNER / "trapline" if TREE else PREFIX / "bin" / "trapline"


def guests():
    """Folder of the guests' ELF files, one a suite."""
    if "TRAPLINE_GUESTS" in os.environ:
        return Path(os.environ["TRAPLINE_GUESTS"])
    return TREE / "build" / "guests" if TREE else SHARE / "guests"


def hypervisor():
    """Our own hypervisor between a machine and a guest."""
    return (TREE / "build" if TREE else SHARE) / "l1" / "l1.elf"


def suites():
    """Folder of the tables and the run policies."""
    return Path(os.environ.get("TRAPLINE_SUITES") or (TREE or SHARE) / "suites")


def images():
    """{suite: path of its guest}, by name."""
    found = {path.stem: path for path in sorted(guests().glob("*.elf"))}
    if not found:
        raise UsageError(f"{guests()}: there are no guests here; run `make` first")
    return found


def default_results():
    """Folder that runs land in."""
    return TREE / "results" / "runs" if TREE else Path.cwd() / "trapline-runs"


def shown(path):
    """The path as a user would type it from here."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
