"""When a mutant counts as killed."""

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traplib import mutants  # noqa: E402


class Hunt(unittest.TestCase):
    """A suite of three cases; what becomes of them with the mutant is the test's."""

    CASES = {"s.sgdt.a": "sgdt", "s.sgdt.b": "sgdt", "s.hlt.c": "hlt"}

    def setUp(self):
        self.suite = SimpleNamespace(name="s", cases={i: {"insn": insn} for i, insn in self.CASES.items()})
        self.asked = []

    def hunt(self, name, broken, clean=None, targets=("one",)):
        """The killer of a mutant with which the cases of @broken, {id: verdict}, do not pass."""
        def verdicts(target, _suite, ids, mutant=None, fail_fast=False):
            found = {}
            for case_id in self.CASES:
                if ids is not None and case_id not in ids:
                    continue
                found[case_id] = broken.get(case_id, "PASS") if mutant else (clean or {}).get(case_id, "PASS")
                if fail_fast and found[case_id] == "FAIL":
                    break
            if mutant:
                self.asked.append((target.name, ids))
            return found

        hunt = mutants.Hunt([SimpleNamespace(name=target, engine="soft") for target in targets], [self.suite], 1)
        with mock.patch.object(mutants, "verdicts", verdicts):
            return dict(hunt.run([name]))[name]

    def test_a_failure_kills(self):
        self.assertEqual(self.hunt("CHECK", {"s.sgdt.b": "FAIL"}), ("one", "s.sgdt.b"))

    def test_nothing_else_kills(self):
        self.assertIsNone(self.hunt("CHECK", {}))
        for verdict in ("ERROR", "CRASH", "TIMEOUT", "NOTSUP"):
            self.assertIsNone(self.hunt("CHECK", {"s.sgdt.a": verdict}), verdict)

    def test_a_case_that_failed_before_does_not_kill(self):
        self.assertIsNone(self.hunt("CHECK", {"s.sgdt.a": "FAIL"}, clean={"s.sgdt.a": "FAIL"}))
        self.assertEqual(self.hunt("CHECK", {"s.sgdt.a": "FAIL", "s.hlt.c": "FAIL"}, clean={"s.sgdt.a": "FAIL"}),
                         ("one", "s.hlt.c"))

    def test_everything_at_once_does_not_kill(self):
        self.assertIsNone(self.hunt("CHECK", dict.fromkeys(self.CASES, "FAIL")))
        self.assertEqual(self.hunt("CHECK", dict.fromkeys(["s.sgdt.a", "s.sgdt.b"], "FAIL")), ("one", "s.sgdt.a"))

    def test_a_gate_concerns_its_instruction(self):
        self.assertEqual(self.hunt("SGDT.UMIP", {"s.sgdt.a": "FAIL", "s.sgdt.b": "FAIL"}), ("one", "s.sgdt.a"))
        self.assertEqual(self.asked, [("one", ["s.sgdt.a", "s.sgdt.b"])])
        self.assertEqual(mutants.concerned("VMRUN.CPL0", [self.suite]), {})

    def test_processors_without_the_feature_come_first_for_its_gate(self):
        self.assertEqual(self.hunt("HLT.CPL0", {"s.hlt.c": "FAIL"}, targets=("with", "without"))[0], "with")
        self.assertEqual(self.hunt("HLT.FEATURE", {"s.hlt.c": "FAIL"}, targets=("with", "without"))[0], "without")


if __name__ == "__main__":
    unittest.main()
