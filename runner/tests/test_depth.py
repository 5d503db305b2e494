"""Guests under hypervisors of our own: --depth, with the real visor and its guests."""
import os
import unittest

from tests.test_runner import RUNNER, Bench
from traplib import deviations

VISOR = RUNNER.parent / os.environ.get("B", "build/release") / "visor"
CASES = ("sensitive.sgdt.long.cpl0", "sensitive.cpuid.long.cpl3")
# What nested paging changes (results/deviations/nested.txt), and so tells the depths apart.
PDPTE = "sensitive.mov_cr3_r.prot32.cpl0.pae_reserved"


class Depth(Bench):
    def setUp(self):
        super().setUp()
        self.lines = self.path / "deviations"
        self.lines.mkdir()
        self.environment = dict(os.environ, VISOR=str(VISOR), TRAPLINE_DEVIATIONS=str(self.lines))
        self.environment.pop("TRAPLINE_GUESTS", None)

    def run_at(self, depth, *words, target=("soft:amd", "soft:intel"), status=0):
        targets = [word for one in target for word in ("--target", one)]
        return self.trapline("run", "-q", "--depth", depth, *targets, *words, status=status, cwd=RUNNER.parent)

    def test_recorded_and_same_ids(self):
        self.run_at(0, *CASES)
        ids = set(self.last().ends)
        self.run_at(2, *CASES)
        self.assertEqual(self.last().header["depth"], 2)
        self.assertEqual(set(self.last().ends), ids)
        self.assertEqual(set(self.verdicts().values()), {"PASS"})

    def test_exits_are_judged_too(self):
        self.run_at(1, "sensitive.cpuid.long.cpl3", target=("soft:amd",))
        self.assertTrue(any(end.get("exits") for end in self.last().ends.values()))
        self.run_at(0, "sensitive.cpuid.long.cpl3", target=("soft:amd",))
        self.assertFalse(any(end.get("exits") for end in self.last().ends.values()))

    def test_processor_without_the_extension(self):
        done = self.run_at(1, "sensitive.sgdt.long.cpl0", target=("soft:amd,-svm",), status=3)
        self.assertEqual(set(self.verdicts().values()), {"NOTSUP"})
        for end in self.last().ends.values():
            self.assertIn("AMD-V (cpuid.80000001.0.ecx[2]=0)", end["why"])
            self.assertIn("VT-x (cpuid.1.0.ecx[5]=0)", end["why"])
        self.assertIn("did not run", done.stdout + done.stderr)
        self.run_at(1, "sensitive.sgdt.long.cpl0", "--skip-missing", target=("soft:amd,-svm",))

    def test_deviations_of_a_depth(self):
        self.run_at(0, PDPTE, target=("soft:amd",))
        self.run_at(1, PDPTE, target=("soft:amd",), status=1)
        line = self.lines / "x.txt"
        line.write_text(f"vendor=amd depth=2 | {PDPTE} | SHUTDOWN | another depth\n", encoding="utf-8")
        self.run_at(1, PDPTE, target=("soft:amd",), status=1)
        line.write_text(f"vendor=amd depth=1 | {PDPTE} | SHUTDOWN | APM 2 15.25.10\n", encoding="utf-8")
        self.run_at(1, PDPTE, target=("soft:amd",))
        (end,) = self.last().ends.values()
        self.assertEqual((end["verdict"], end["expected"]), ("FAIL", True))
        self.assertIn("x.txt:1", end["deviation"])
        self.run_at(0, PDPTE, target=("soft:amd",))  # the line is about nothing there

    def test_resumed_at_the_depth_it_had(self):
        self.run_at(1, PDPTE, target=("soft:amd",), status=1)
        self.trapline("run", "-q", "--rerun-failed", "last", status=1, cwd=RUNNER.parent)
        self.assertEqual(self.last().header["depth"], 1)


if __name__ == "__main__":
    unittest.main()
