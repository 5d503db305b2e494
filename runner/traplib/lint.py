"""Holds the suites against their own rules, without running a case.

The generator checks the rows (citations, keys, the inventory) when a guest is built, and again
here; then what landed in the guest's ELF file is looked at, which is all that a user has who
installed it.
"""

import re
import subprocess

from . import catalog, paths

ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+\Z")
MODES = ("real", "vm86", "prot16", "prot32", "compat", "long")
CPLS = {"real": (0,), "vm86": (3,)}
STATES = ("untested", "not_encodable")


def cpls(mode):
    """The privilege levels that a mode has."""
    return CPLS.get(mode, (0, 1, 2, 3))


def generator_errors(suite):
    """What the generator's own check says, in a tree that has built it."""
    program = paths.TREE and paths.TREE / "build" / "host" / f"expand-{suite.name}"
    if not program or not program.is_file():
        return []
    done = subprocess.run([str(program), "--lint"], capture_output=True, text=True, check=False, cwd=paths.TREE)
    if done.returncode == 0:
        return []
    return done.stderr.splitlines() or [f"{suite.name}: the generator ended with status {done.returncode}"]


def suite_errors(suite):
    """Rows without a citation or an expectation, bad ids, and empty cells of the inventory."""
    errors, filled = [], {}
    for case in suite.cases.values():
        if not ID.match(case["id"]) or not case["id"].startswith(suite.name + "."):
            errors.append(f"{case['id']}: not an id of {suite.name} (small letters, digits and _ between dots)")
        if not case["cite"]:
            errors.append(f"{case['id']}: no citation")
        if not case["want"]:
            errors.append(f"{case['id']}: no expectation")
        filled.setdefault(case["insn"], set()).add((case["mode"], case["cpl"]))
    for cell in suite.cells:
        if cell["state"] not in STATES or (cell["state"] == "untested" and not cell.get("reason")):
            errors.append(f"{cell['insn']} {cell['mode']} cpl{cell['cpl']}: untested without a reason")
        filled.setdefault(cell["insn"], set()).add((cell["mode"], cell["cpl"]))
    if not suite.cells:
        return errors  # a suite without an inventory (the library's own tests)
    for insn, cells in sorted(filled.items()):
        for mode in MODES:
            for cpl in cpls(mode):
                if (mode, cpl) not in cells:
                    errors.append(f"{insn} {mode} cpl{cpl}: empty cell: neither a case nor a reason")
    return errors


def check(names):
    """All errors of the named suites (all when empty), a line each."""
    errors, images = [], paths.images()
    for name, image in images.items():
        if names and name not in names:
            continue
        suite = catalog.load(name, image)
        if suite.cases:
            errors += generator_errors(suite) + suite_errors(suite)
    return errors
