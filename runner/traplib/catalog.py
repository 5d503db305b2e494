"""The cases that the guests hold, as `visor list --json` tells them. Nothing is run."""

import subprocess

from . import paths, results
from .errors import HarnessError, UsageError


class Suite:
    """One guest: its image, its cases by id in their order, its cells, and the lines (bytes) that say so."""

    def __init__(self, name, image, lines):
        self.name, self.image, self.lines = name, image, lines
        self.records, self.cases, self.cells, self.clauses = results.parse(lines), {}, [], []
        for record in self.records:
            if record["t"] == "case":
                self.cases[record["id"]] = record
            elif record["t"] == "cell":
                self.cells.append(record)
            elif record["t"] == "clause":
                self.clauses.append(record)
        self.places = {case_id: place for place, case_id in enumerate(self.cases)}


def load(name, image):
    """Reads one suite from its guest."""
    command = [str(paths.visor()), "list", "--json", str(image)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        raise HarnessError(f"{command[0]}: {error.strerror}") from error
    words = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == 2:
        raise UsageError(words or f"{image}: cannot be read")
    if done.returncode:
        raise HarnessError(f"visor list {image}: status {done.returncode}: {words}")
    return Suite(name, image, done.stdout.splitlines())


def expectation(want):
    """The expectations of a case in one line, for people."""
    parts = []
    for one in want:
        outcome = " or ".join(one["outcome"])
        parts.append(outcome if one["when"] == "always" else f"{one['when']}: {outcome}")
    return "; ".join(parts)


def citation(cite):
    """The citations of a case in one line."""
    return "; ".join(f"{c['manual']} {c['volume']} {c['section']} ({c['title']})" for c in cite)
