"""When a mutant counts as killed, and how a run of mutants is kept, stopped, resumed, divided and merged."""

import json
import re
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import test_runner  # noqa: E402
from traplib import html, mutants, results  # noqa: E402


class Hunting(test_runner.Bench):
    """A guest whose lines say which checks matter to a case, and what becomes of it with one broken."""

    def setUp(self):
        super().setUp()
        self.environment["TRAPLINE_SUITES"] = self.folder.name
        self.answers('checks = ["*"]')

    def answers(self, text):
        (self.path / "s.toml").write_text(f"[mutants]\n{text}\n", encoding="utf-8")

    def broken(self, *names):
        (self.path / "broken").write_text("\n".join(names) + "\n", encoding="utf-8")

    def mutants(self, *words, status=None, targets=("soft:amd",)):
        chosen = [word for target in targets for word in ("--target", target)]
        return self.trapline("mutants", "-j1", *chosen, "--results", self.path / "runs", *words, status=status)

    def resume(self, status):
        return self.mutants("--resume", "last", targets=(), status=status)

    def states(self):
        return {case_id: end["mutant"] for (_, case_id), end in self.last().ends.items()}

    def asked(self):
        """What visor was started for: [(mutant, cases)]."""
        return [tuple(line.split()) for line in (self.path / "s.elf.log").read_text(encoding="utf-8").splitlines()]


class Judging(Hunting):
    def test_a_failure_kills_and_nothing_else(self):
        self.guest("""a.long.cpl0 PASS KILLED:FAIL ERRS:ERROR LATE:PASS
                      b.long.cpl0 PASS HANGS:TIMEOUT LATE:FAIL""")
        self.broken("KILLED", "ERRS", "HANGS", "LATE")
        out = self.mutants(status=1).stdout
        self.assertEqual(self.states(), {"mutant.KILLED": "killed", "mutant.ERRS": "survived",
                                         "mutant.HANGS": "survived", "mutant.LATE": "killed"})
        self.assertIn("survived ERRS: matters to 1 cases, and none fails, 1 ERROR", out)
        self.assertIn("4 mutants: 2 killed, 0 equivalent, 2 survived (50.0%", out)
        end = self.last().ends["soft", "mutant.LATE"]
        self.assertEqual(end["by"], {"target": "soft:amd", "id": "s.b.long.cpl0"})

    def test_a_mutant_that_kills_visor_is_not_killed(self):
        self.guest("a.long.cpl0 PASS DEADLY:DIE\nb.long.cpl0 PASS")
        self.broken("DEADLY")
        self.assertIn("visor died of signal 6 on soft:amd", self.mutants(status=1).stdout)

    def test_only_cases_that_it_matters_to_are_run(self):
        self.guest("a.long.cpl0 PASS ONE:PASS\nb.long.cpl0 PASS ONE:PASS TWO:FAIL\nc.long.cpl0 PASS")
        self.broken("ONE", "TWO", "NONE")
        self.mutants(status=1)
        self.assertEqual(self.asked(), [("-", "all"), ("ONE", "s.a.long.cpl0,s.b.long.cpl0"), ("TWO", "s.b.long.cpl0")])

    def test_a_case_that_failed_before_does_not_kill(self):
        self.guest("a.long.cpl0 FAIL ONE:FAIL\nb.long.cpl0 PASS TWO:FAIL\nc.long.cpl0 PASS")
        self.broken("ONE", "TWO")
        self.mutants(status=1)
        self.assertEqual(self.states(), {"mutant.ONE": "survived", "mutant.TWO": "killed"})

    def test_everything_at_once_does_not_kill(self):
        self.guest("a.long.cpl0 PASS RUIN:FAIL MUCH:FAIL\nb.long.cpl0 PASS RUIN:FAIL MUCH:PASS")
        self.broken("RUIN", "MUCH")
        self.mutants(status=1)
        self.assertEqual(self.states(), {"mutant.RUIN": "survived", "mutant.MUCH": "killed"})

    def test_each_target_is_asked(self):
        self.guest("a.long.cpl0 PASS ONE:FAIL\nb.long.cpl0 PASS")
        self.broken("ONE")
        self.mutants(status=0, targets=("soft:poor", "soft:amd"))
        self.assertEqual(self.last().ends["soft", "mutant.ONE"]["by"]["target"], "soft:amd")
        self.assertEqual(self.asked(), [("-", "all"), ("-", "all"), ("ONE", "s.a.long.cpl0")])

    def test_only_the_software_cpu_can_be_broken(self):
        self.guest("a.long.cpl0 PASS")
        self.broken("ONE")
        self.assertIn("only the software CPU", self.mutants(status=2, targets=("exec:x=true {image} {append}",)).stderr)


class Choosing(Hunting):
    def setUp(self):
        super().setUp()
        self.guest("sgdt.long.cpl0 PASS SGDT.UMIP:FAIL CHECK:FAIL\nhlt.long.cpl0 PASS\nint_n.long.cpl0 PASS")
        self.broken("CHECK", "OTHER", "SGDT.UMIP", "HLT.CPL0", "INT.LOCK", "VMRUN.CPL0")

    def chosen(self, *words, status=0):
        return self.mutants("--dry-run", *words, status=status).stdout.split()

    def test_gates_and_checks_that_the_suite_answers_for(self):
        self.answers('gates = true\nchecks = ["CHECK", "OTH*"]')
        self.assertEqual(self.chosen(), ["CHECK", "OTHER", "SGDT.UMIP", "HLT.CPL0", "INT.LOCK"])
        self.assertEqual(self.chosen("--gates"), ["SGDT.UMIP", "HLT.CPL0", "INT.LOCK"])
        self.assertEqual(self.chosen("--checks"), ["CHECK", "OTHER"])
        self.assertEqual(self.chosen("*.CPL0"), ["HLT.CPL0"])

    def test_wrong_words(self):
        self.assertIn("NOTHING", self.mutants("NOTHING", status=2).stderr)
        self.assertIn("4/3", self.mutants("--shard", "4/3", status=2).stderr)
        self.mutants("VMRUN.CPL0", status=5)
        self.answers("gates = true")
        self.mutants("VMRUN.CPL0", status=5)
        self.mutants("HLT.CPL0", status=1)

    def test_a_suite_answers_for_what_matters_to_its_cases(self):
        self.answers("")
        out = self.mutants(status=0).stdout
        self.assertEqual(self.states(), {"mutant.CHECK": "killed", "mutant.OTHER": "unreached",
                                         "mutant.SGDT.UMIP": "killed"})
        self.assertIn("1 checks matter to no case of s: OTHER\n", out)
        self.assertIn("2 mutants: 2 killed, 0 equivalent, 0 survived", out)
        self.mutants("OTHER", status=1)
        self.mutants("OTH*", status=5)

    def test_wrong_answers(self):
        for text in ("gates = 1", 'checks = "X"', "chekcs = []", "checks = ["):
            self.answers(text)
            self.assertIn("s.toml", self.mutants(status=2).stderr)


class Explaining(Hunting):
    """With results/equivalent_mutants as it is in the tree: LDS.MODES is explained there."""

    def test_what_is_explained_is_no_failure_until_it_is_killed(self):
        self.broken("LDS.MODES")
        self.guest("lds.long.cpl0 PASS LDS.MODES:PASS\nb.long.cpl0 PASS")
        self.mutants(status=0)
        self.assertEqual(self.states(), {"mutant.LDS.MODES": "equivalent"})
        self.assertIn("VEX", self.last().ends["soft", "mutant.LDS.MODES"]["why"])
        self.mutants("--skip-explained", status=5)
        self.guest("lds.long.cpl0 PASS LDS.MODES:FAIL\nb.long.cpl0 PASS")
        self.assertIn("killed, though results/equivalent_mutants explains it: LDS.MODES", self.mutants(status=1).stdout)
        self.assertEqual(self.states(), {"mutant.LDS.MODES": "stale"})

    def test_a_line_without_a_reason_is_refused(self):
        with mock.patch.object(mutants, "paths") as paths:
            paths.TREE = self.path
            paths.shown = str
            (self.path / "results").mkdir()
            (self.path / "results" / "equivalent_mutants").write_text("# text\n\nONE\n", encoding="utf-8")
            self.assertRaisesRegex(mutants.UsageError, "3: ONE: no reason", mutants.explained)


class Keeping(Hunting):
    NAMES = [f"M{number:02}" for number in range(12)]

    def setUp(self):
        super().setUp()
        self.guest("".join(f"c{name.lower()}.long.cpl0 PASS {name}:{'PASS' if name == 'M05' else 'FAIL'}\n"
                           for name in self.NAMES))
        self.broken(*self.NAMES)

    def test_records_are_those_of_the_schema(self):
        self.mutants(status=1)
        documented = (test_runner.RUNNER / "SCHEMA.md").read_text(encoding="utf-8")
        kinds = []
        for line in self.last().path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            kinds.append(record["t"])
            for name in record if record["t"] in ("run", "end") else ():
                self.assertIn(f"`{name}`", documented)
            for name in record["mutants"] if record["t"] == "run" else ():
                self.assertIn(f"`{name}`", re.search(r"`mutants` \{([^}]*)\}", documented)[1])
        self.assertEqual(kinds, ["run"] + ["case"] * 12 + ["target"] + ["start", "end"] * 12 + ["done"])
        for state in mutants.STATES:
            self.assertIn(f"`{state}`", documented)

    def test_shards_are_a_partition_and_merge(self):
        runs = []
        for number in (1, 2, 3):
            self.mutants("--shard", f"{number}/3", status=1 if number == 3 else 0)
            runs.append(self.last().path.parent.name)
            self.assertEqual(len(self.states()), 4)
        out = self.trapline("merge", *runs, status=1).stdout
        self.assertEqual(sorted(self.states()), [f"mutant.{name}" for name in self.NAMES])
        self.assertIn("12 mutants: 11 killed, 0 equivalent, 1 survived", out)

    def test_cases_and_mutants_do_not_merge(self):
        self.mutants("M00", status=0)
        one = self.last().path.parent.name
        self.trapline("run", "--target", "soft:amd", status=0)
        self.assertIn("cannot be merged", self.trapline("merge", one, "last", status=2).stderr)

    def test_a_killed_run_resumes(self):
        self.mutants("--shard", "1/2", status=0)
        path = self.last().path
        before, whole = path.read_bytes(), self.states()
        lines = before.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-5]) + lines[-5][:20])
        self.assertIn("trapline mutants --resume", self.trapline("report", status=3).stderr)
        self.assertEqual(len(self.states()), 4)
        (self.path / "s.elf.log").unlink()
        self.resume(status=0)
        self.assertEqual(self.states(), whole)
        self.assertEqual([name for name, _ in self.asked()], ["-", "M08", "M10"])

    def test_resume_takes_everything_from_the_run(self):
        self.mutants("M0[1-3]", "--suite", "s", status=0)
        self.assertIn("--resume takes", self.mutants("--resume", "last", status=2).stderr)
        self.resume(status=0)
        self.assertEqual(len(self.states()), 3)
        self.assertIn("mutants --resume", self.trapline("run", "--resume", "last", status=2).stderr)
        self.trapline("run", "--target", "soft:amd", status=0)
        self.assertIn("not a run of mutants", self.resume(status=2).stderr)

    def slow(self):
        self.guest("".join(f"c{name.lower()}.long.cpl0 PASS {name}:SLOW\n" for name in self.NAMES))

    def test_an_interrupt_keeps_what_was_judged(self):
        self.slow()
        process = subprocess.Popen(self.command("mutants", "-j1", "--target", "soft:amd", "--results", self.path / "runs"),
                                   env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(b"stopped: interrupted", err)
        self.assertTrue(0 < len(self.states()) < 12)
        self.assertFalse(self.last().done)
        self.resume(status=1)
        self.assertEqual(len(self.states()), 12)

    def test_a_deadline_keeps_what_was_judged(self):
        self.slow()
        self.mutants("--deadline", "1", status=3)
        self.assertTrue(0 < len(self.states()) < 12)

    def test_reports(self):
        self.mutants("--junit", self.path / "j.xml", status=1)
        page = (self.last().path.parent / "report.html").read_text(encoding="utf-8")
        for words in ("Survived: a test to write", "M05", "12 mutants: 11 killed", "s.cm00.long.cpl0 on soft:amd",
                      "mutants --target soft:amd M05"):
            self.assertIn(words, page)
        self.assertIn('failures="1"', (self.path / "j.xml").read_text(encoding="utf-8"))
        self.assertNotIn("<script>alert", page)
        out = self.mutants("--ktap", status=1).stdout
        self.assertIn("  not ok 6 mutant.M05\n", out)
        self.assertEqual(set(html.MUTANT_STATES), set(mutants.STATES))

    def test_the_progress_is_for_people_alone(self):
        self.assertEqual(self.mutants("-q", status=1).stderr, "")
        self.assertIn("12/12 mutants", self.mutants(status=1).stderr)


if __name__ == "__main__":
    unittest.main()
