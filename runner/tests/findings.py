#!/usr/bin/env python3
"""Runs the lines of results/FINDINGS.md that show a finding again, where what they need is here.

Without an argument it is only looked whether each line could run: cases that exist, targets that are known, programs and
mutants that are there. `--run` runs them all (minutes). Closes with `N passed, N failed, N skipped`.
"""
import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(RUNNER))
from traplib import catalog, machines, paths, targets  # noqa: E402
from traplib.errors import TraplineError  # noqa: E402
from traplib.selection import Selection  # noqa: E402

TREE = RUNNER.parent
SECTIONS = {"In QEMU": "qemu-tcg", "In Bochs": "bochs", "In a KVM": "kvm"}  # whose tables give ids alone
STATUS = {0, 1}


def lines():
    """[(where, command)] of the tables; ids alone become a command of their section's target."""
    section, target, found = "", None, []
    for number, line in enumerate((TREE / "results" / "FINDINGS.md").read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            section = line[3:]
            target = next((name for head, name in SECTIONS.items() if section.startswith(head)), None)
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) < 3:
            continue
        code = re.fullmatch(r"`([^`]+)`", cells[-1])
        if not code:
            continue
        words = code[1]
        if target and words.startswith(("sensitive.", "selftest.", "paging.", "interrupts.")):
            on = "bochs:ryzen" if "bochs:ryzen" in line else target
            words = f"runner/trapline run {' '.join(shlex.quote(word) for word in words.split())} --target {on}"
        if words.startswith(("runner/", "build/")):
            found.append((f"FINDINGS.md:{number}", words))
        elif section.startswith("Found by the host"):
            found.append((f"FINDINGS.md:{number}", f"unit-test {words}"))
    return found


class Known:
    """What a line may name."""

    def __init__(self):
        self.ids = [case_id for name, image in paths.images().items() for case_id in catalog.load(name, image).cases]
        listed = subprocess.run([str(paths.visor()), "run", "--list-breaks"], capture_output=True, text=True, check=True)
        self.breaks = set(listed.stdout.split())
        self.tests = (TREE / "hypervisor/cpu/insn/host_unit_test.c").read_text(encoding="utf-8")

    def cases(self, words):
        """Complaints about ids and patterns that match nothing."""
        return [f"{word} matches no case" for word in Selection(words).unused(self.ids)]


def check(words, known):
    """What is wrong with one command, a line each."""
    if words[0] == "unit-test":
        return [] if re.search(rf"\b(?:test_)?{words[1]}\b", known.tests) else [f"{words[1]} is no test"]
    wrong = []
    source = TREE / re.sub(r"^build/\w+/(.*)", r"\1.c", words[0])  # a test may not be built yet
    if not (TREE / words[0]).is_file() and not source.is_file():
        wrong.append(f"{words[0]} is not here")
    if words[:2] == ["runner/trapline", "run"]:
        options = argparse.ArgumentParser(add_help=False)
        options.add_argument("--target", action="append", default=[])
        for option in ("--depth", "--move"):
            options.add_argument(option)
        asked, rest = options.parse_known_args(words[2:])
        wrong += known.cases(rest)
        for target in asked.target:
            try:
                targets.parse_one(target)
            except TraplineError as error:
                wrong.append(str(error))
    for option, names in (("--cases", known.cases), ("--break", lambda name: [f"{one} is no mutant" for one in name
                                                                              if one not in known.breaks])):
        if option in words:
            wrong += names(words[words.index(option) + 1].split(","))
    return wrong


def missing(words):
    """Whether it asks for a machine that is not here."""
    named = [words[i + 1] for i, word in enumerate(words) if word == "--target"]
    return any(machine and machine.missing() for machine in map(machines.parse, named))


def main():
    run, count = sys.argv[1:] == ["--run"], {"passed": 0, "failed": 0, "skipped": 0}
    known, found = Known(), lines()
    for where, command in found:
        words = shlex.split(command)
        wrong = check(words, known)
        if not wrong and run and words[0] != "unit-test":
            if missing(words) or not (TREE / words[0]).is_file():
                count["skipped"] += 1
                continue
            done = subprocess.run(words + (["-q"] if words[0] == "runner/trapline" else []), capture_output=True, text=True,
                                  errors="replace", check=False, cwd=TREE)
            if done.returncode not in STATUS:
                wrong.append(f"status {done.returncode}: {done.stderr.strip()[-200:]}")
        for why in wrong:
            print(f"{where}: {why}\n  {command}")
        count["failed" if wrong else "passed"] += 1
    if len(found) < 20:
        print(f"only {len(found)} lines were found: the tables have changed their form")
        count["failed"] += 1
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


sys.exit(main())
