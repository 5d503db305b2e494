"""`make bench`: measures, and prints one table. Nothing here fails for being slow."""

import argparse
import json
import sys
import time
from pathlib import Path

from . import paths, results
from .bench_machines import all_machines
from .bench_measure import GROUPS
from .bench_row import say
from .errors import EXIT_EXPECTED, TraplineError, UsageError

SCHEMA = 1
TITLES = {"cases": "cases a second", "restore": "restoring a snapshot", "kernels": "instructions a second",
          "cold": "code that runs once", "linux": "Debian's kernel",
          "nested": "an exit of a guest to the hypervisor above it, and back",
          "migration": "a running guest to another machine of its kind, over a unix socket",
          "costs": "single events, by round of their loop; strings"}
COLUMNS = ("soft", "QEMU", "Bochs", "host")


def number(value):
    """Three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value):
    """A ratio."""
    return "" if value is None else f"{number(value)}x"


def table(rows):
    """Lines: medians, and how many times as fast as each other one the software CPU is."""
    used = [name for name in COLUMNS if any(name in row.samples for row in rows)]
    heads = [*used, *(f"/{name}" for name in used[1:])]
    lines = [f"{'':12}{'':8}" + "".join(f"{head:>10}" for head in heads)]
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(TITLES[group])
        values = [number(row.median(name)) for name in used] + [times(row.ratio(name)) for name in used[1:]]
        lines.append(f"  {row.name:15}{row.unit:8}" + "".join(f"{value:>10}" for value in values) + f"  {row.says}")
    return lines


def write(path, rows, machines, repeats):
    """The JSON file."""
    record = {"t": "bench", "schema": SCHEMA, "commit": results.commit(), "host": results.host(), "repeats": repeats,
              "machines": {machine.name: machine.why_missing or machine.version for machine in machines},
              "rows": [row.record() for row in rows]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{paths.shown(path)}: {error.strerror}") from error


def default_path():
    """A file of its own beside the runs."""
    return paths.default_results() / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog="bench", description="Measures Trapline beside QEMU and Bochs: medians of "
                                  "several turns. `make bench` builds what it needs.")
    top.add_argument("group", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default: all")
    top.add_argument("--repeats", type=int, default=5, metavar="N", help="samples of each (default: 5)")
    top.add_argument("--json", metavar="FILE", help="where all samples go (default: results/runs/bench-TIME.json)")
    return top


def measure(options, machines):
    """The rows of the groups that were asked for."""
    present = [machine for machine in machines if not machine.why_missing]
    return [row for name in options.group or GROUPS for row in GROUPS[name](present, options.repeats)]


def bench(options):
    """Runs it all."""
    unknown = set(options.group) - set(GROUPS)
    if unknown or options.repeats < 1:
        raise UsageError(f"{min(unknown)}: there is no such group" if unknown else "--repeats: expected 1 or more")
    guest = paths.TREE and paths.TREE / "build" / "bench" / "bench.elf"
    if not guest or not guest.is_file():
        raise UsageError("the guest is not built: `make bench` does it, in the source tree")
    path = Path(options.json) if options.json else default_path()
    machines = all_machines(guest)
    for machine in machines:
        if machine.why_missing:
            say(f"left out {machine.name}: {machine.why_missing}")
    rows = measure(options, machines)
    write(path, rows, machines, options.repeats)
    print("\n".join(table(rows)))
    for machine in machines:
        print(f"{machine.name}: {machine.why_missing or machine.version}")
    print(f"samples: {paths.shown(path)}")
    return EXIT_EXPECTED


def main():
    """Runs the command line; returns the exit status."""
    try:
        return bench(parser().parse_args())
    except TraplineError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
