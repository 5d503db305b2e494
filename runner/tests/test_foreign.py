"""Foreign machines and deviations, with a machine that behaves as badly as each test wants."""

import os
import random
import shutil
import unittest

from tests.test_runner import RUNNER, Bench
from traplib import bochs, deviations, machines, patterns
from traplib.errors import UsageError
from traplib.selection import Selection

FAKE = RUNNER / "tests" / "fake_machine"


class Foreign(Bench):
    def setUp(self):
        super().setUp()
        self.boots = self.path / "boots"
        self.target = f"exec:fake={FAKE} {{image}} {{append}} boots={self.boots}"

    def started(self):
        return self.boots.read_text(encoding="utf-8").splitlines()

    def run_cases(self, text, *words, status=1, target=None):
        self.guest(text)
        return self.trapline("run", "-q", "-j1", "--target", target or self.target, *words, status=status)


class Booting(Foreign):
    def test_many_cases_in_one_boot(self):
        self.run_cases("\n".join(f"a{i}.long.cpl0 PASS" for i in range(50)), status=0)
        self.assertEqual(self.started(), ["index=0-49"])
        self.assertEqual(set(self.verdicts().values()), {"PASS"})

    def test_selection_by_place(self):
        self.guest("\n".join(f"a{i}.long.cpl0 PASS" for i in range(6)))
        self.trapline("run", "-q", "-j1", "s.a0", "s.a2", "s.a3", "--target", self.target, status=0)
        self.assertEqual(self.started(), ["index=0,2-3"])

    def test_death_costs_one_case(self):
        done = self.run_cases("a.long.cpl0 PASS\nb.long.cpl0 DIE\nc.long.cpl0 WORDS\nd.long.cpl0 OFF\ne.long.cpl0 PASS")
        self.assertEqual(list(self.verdicts().values()), ["PASS", "CRASH", "CRASH", "ERROR", "PASS"])
        self.assertEqual(self.started(), ["index=0-4", "index=2-4", "index=3-4", "index=4"])
        self.assertIn("signal 6", done.stdout)
        self.assertIn("fake: internal error", done.stdout)

    def test_hang_costs_one_case(self):
        self.run_cases("a.long.cpl0 PASS\nb.long.cpl0 HANG\nc.long.cpl0 PASS", "--timeout", "0.5")
        self.assertEqual(list(self.verdicts().values()), ["PASS", "TIMEOUT", "PASS"])

    def test_reset_costs_one_case(self):
        self.run_cases("a.long.cpl0 PASS\nb.long.cpl0 RESET\nc.long.cpl0 PASS\nd.long.cpl0 RESET\ne.long.cpl0 PASS")
        self.assertEqual(list(self.verdicts().values()), ["PASS", "FAIL", "PASS", "FAIL", "PASS"])
        self.assertEqual(self.started(), ["index=0-4", "index=2-4", "index=4"])

    def test_dirty_baseline_ends_the_boot(self):
        self.run_cases("a.long.cpl0 DIRTY\nb.long.cpl0 PASS", status=0)
        self.assertEqual(self.started(), ["index=0-1", "index=1"])

    def test_machine_that_does_not_boot(self):
        done = self.run_cases("\n".join(f"a{i}.long.cpl0 PASS" for i in range(9)), target=self.target + " mute=1")
        self.assertEqual(self.started(), ["index=0-8", "index=0", "index=1"])
        self.assertEqual(len(self.verdicts()), 9)
        self.assertNotIn("PASS", self.verdicts().values())
        self.assertIn("no bootable device", done.stdout)

    def test_machine_that_ignores_its_command_line(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 PASS\nc.long.cpl0 PASS")
        self.trapline("run", "-q", "-j1", "s.b", "--target", self.target + " all=1", status=0)
        self.assertEqual(list(self.verdicts()), ["s.b.long.cpl0"])

    def test_reproduction_is_the_machines_own_command(self):
        out = self.run_cases("a.long.cpl0 FAIL").stdout
        self.assertIn(f"again   {FAKE} ", out)
        self.assertIn("cases=s.a.long.cpl0", out)
        self.assertIn("judge", out)


class BadTargets(Foreign):
    def one_line(self, target, *words):
        self.guest("a.long.cpl0 PASS")
        done = self.trapline("run", "-q", "--target", target, status=2)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_templates_without_their_fields(self):
        self.one_line("exec:vmm {append}", "no {image}")
        self.one_line("exec:vmm {image}", "neither {append}")
        self.one_line("exec:vmm {image} {append} {memory}", "{memory} is no field")
        self.one_line("exec:vmm {image} {append} {cpu}", "{cpu} needs a CPU")
        self.one_line("exec:vmm/host=vmm {image} {append}", "no {cpu}")
        self.one_line("exec:vmm '{image} {append}", "No closing quotation")
        self.one_line("exec:vmm {image {append}", "exec:")

    def test_missing_programs_are_not_supported_and_the_run_is_incomplete(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 PASS")
        self.environment["PATH"] = self.folder.name
        for name in ("python3", "env"):
            (self.path / name).symlink_to(shutil.which(name))
        for target, word in (("qemu-tcg", "qemu-system-x86_64 is not installed"), ("bochs", "bochs is not installed"),
                             ("exec:/no/such/vmm {image} {append}", "there is no such program")):
            done = self.trapline("run", "-q", "--target", target, status=3)
            self.assertEqual([line for line in done.stderr.splitlines() if "did not run: " in line and word in line],
                             done.stderr.splitlines())
            self.assertEqual(list(self.verdicts().values()), ["NOTSUP", "NOTSUP"])
            self.assertTrue(all(word in end["why"] for end in self.last().ends.values()))
            self.assertIn("incomplete", (self.last().path.parent / "report.html").read_text(encoding="utf-8"))
            self.trapline("report", status=3)
            self.trapline("run", "-q", "--skip-missing", "--target", target, status=0)
            self.assertEqual(list(self.verdicts().values()), ["NOTSUP", "NOTSUP"])

    def test_missing_beside_what_is_there_and_what_fails(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 FAIL")
        gone = "exec:/no/such/vmm {image} {append}"
        for words, status in ((["s.a"], 3), (["s.a", "--skip-missing"], 0), (["s.b"], 3), (["s.b", "--skip-missing"], 1)):
            self.trapline("run", "-q", "-j1", "--target", "soft:amd", "--target", gone, *words, status=status)
            self.assertEqual(len(self.last().ends), 2)

    def test_what_was_missing_is_resumed(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 PASS")
        machine = self.path / "machine"
        self.trapline("run", "-q", "--target", "soft:amd", "--target", f"exec:m={machine} {{image}} {{append}}", status=3)
        machine.symlink_to(FAKE)
        self.trapline("run", "-q", "--resume", "last", status=0)
        self.assertEqual(set(self.verdicts("exec:m").values()), {"PASS"})

    def test_old_and_unknown(self):
        fake = self.path / "qemu-system-x86_64"
        fake.write_text("#!/bin/sh\n[ $1 = --version ] && echo QEMU emulator version $OLD && exit\n"
                        "echo \"$0: unable to find CPU model 'x'\" >&2; exit 1\n", encoding="utf-8")
        fake.chmod(0o755)
        self.environment["PATH"] = self.folder.name + ":" + os.environ["PATH"]
        self.guest("a.long.cpl0 PASS")
        self.environment["OLD"] = "2.1.0"
        done = self.trapline("run", "-q", "--target", "qemu-tcg", status=3)
        self.assertRegex(done.stderr, r"\Atrapline: qemu-tcg:max did not run: .*2.1.0 is too old: 5.0 is the oldest.*\n\Z")
        self.assertIn("too old", next(iter(self.last().ends.values()))["why"])
        self.environment["OLD"] = "8.0.0"
        self.one_line("qemu-tcg:x", "unable to find CPU model")

    def test_old_bochs(self):
        fake = self.path / "bochs"
        fake.write_text("#!/bin/sh\necho Bochs x86 Emulator 2.1.1\n", encoding="utf-8")
        fake.chmod(0o755)
        self.environment["PATH"] = self.folder.name + ":" + os.environ["PATH"]
        self.guest("a.long.cpl0 PASS")
        done = self.trapline("run", "-q", "--target", "bochs", status=3)
        self.assertRegex(done.stderr, r"\Atrapline: bochs:\S+ did not run: .*2.1.1 is too old: 2.6 is the oldest.*\n\Z")

    def test_programs_that_hang_or_die_when_asked_for_their_version(self):
        self.environment["PATH"] = self.folder.name + ":" + os.environ["PATH"]
        self.environment["TRAPLINE_PROBE_SECONDS"] = "0.3"
        self.guest("a.long.cpl0 PASS")
        for program, target in (("qemu-system-x86_64", "qemu-tcg"), ("bochs", "bochs")):
            fake = self.path / program
            for text, words in (("sleep 60", "said nothing for 0.3 s"), ("kill -9 $$", "died (signal 9)")):
                fake.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
                fake.chmod(0o755)
                done = self.trapline("run", "-q", "--target", target, status=3)
                self.assertIn(words, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    @unittest.skipUnless(shutil.which("bochs"), "bochs is not installed")
    def test_unknown_bochs_model(self):
        self.one_line("bochs:nosuch", "there is no such processor")
        self.assertIn("ryzen", bochs.models())

    def test_ranges(self):
        self.assertEqual(machines.ranges([0, 1, 2, 5, 7, 8]), "0-2,5,7-8")
        self.assertEqual(machines.ranges([]), "")
        machine = machines.parse("qemu-tcg")
        cases = [(index, f"s.a{index}") for index in range(0, 20000, 2)]
        words, count = machine.select(cases)
        self.assertLessEqual(len(words), machines.APPEND_MAX)
        self.assertGreater(count, 1000)
        self.assertEqual(words.count(","), count - 1)


class Deviating(Foreign):
    def setUp(self):
        super().setUp()
        self.lines = self.path / "deviations"
        self.lines.mkdir()
        self.environment["TRAPLINE_DEVIATIONS"] = str(self.lines)

    def write(self, *lines):
        (self.lines / "fake.txt").write_text("# comment\n\n" + "\n".join(lines) + "\n", encoding="utf-8")

    CASES = "a.long.cpl0 RF\nb.long.cpl0 PASS\nc.long.cpl0 OFF\nd.long.cpl0 DIE"

    def test_what_is_written_down_is_expected(self):
        self.write("target=exec:fake | s.a | only rf=0x0 vector=6 | SDM 3A 18.3: RF",
                   "target=exec:* vendor=intel | *.c.* | ERROR | x", "family=6 model=85 stepping=4 | s.d | CRASH | y",
                   "cpuid.7.0.ecx[2]=0 | s | CRASH | never", "vendor=amd | s | PASS | never")
        out = self.run_cases(self.CASES, status=0).stdout
        self.assertIn("1 passed, 1 failed, 1 errors, 1 crashed; 3 known deviations", out)
        self.assertEqual(self.verdicts()["s.a.long.cpl0"], "FAIL")
        self.assertIn("fake.txt:3: SDM", self.last().ends["exec:fake", "s.a.long.cpl0"]["deviation"])

    def test_another_outcome_is_not(self):
        self.write("target=* | s.a | only rf=0x0 | not all", "target=* | s.c s.d | RUNS* or FAULT vector=6* | x")
        self.run_cases(self.CASES)
        self.assertEqual([end["expected"] for end in self.last().ends.values()], [False, True, False, False])

    def test_outcome_globs(self):
        self.write("target=* | s.a | RUNS* or FAULT vector=6* | x")
        self.run_cases("a.long.cpl0 FAIL\nb.long.cpl0 PASS", status=0)

    def test_unexpected_pass_and_stale_line(self):
        self.write("target=* | s.b | RUNS* | was wrong once", "target=* | s.e | some RUNS* | too")
        done = self.run_cases("a.long.cpl0 PASS\nb.long.cpl0 PASS\ne.long.cpl0 PASS")
        self.assertIn("it passes, though", done.stdout)
        self.assertIn("stale   ", done.stdout)
        self.assertEqual([one["where"].split(":")[-1] for one in self.last().stale], ["3", "4"])
        self.trapline("run", "-q", "-j1", "s.a", "--target", self.target, status=0)
        self.assertEqual(self.last().stale, [])

    def test_proposals_explain_nothing(self):
        self.run_cases(self.CASES, "--update-deviations")
        text = (self.lines / "exec.txt").read_text(encoding="utf-8")
        self.assertEqual(len(text.splitlines()), 3)
        self.assertIn("target=exec:fake | s.a | only rf=0x0 vector=6 | ? 1 cases", text)
        self.assertIn("| CRASH it died* |", text)
        self.run_cases(self.CASES)
        self.assertEqual([end["expected"] for end in self.last().ends.values()], [False, True, False, False])
        (self.lines / "exec.txt").write_text(text.replace("| ? ", "| because "), encoding="utf-8")
        self.run_cases(self.CASES, status=0)

    def test_verdicts_with_their_reason(self):
        self.write("target=* | s.c | ERROR *switched itself off* | x", "target=* | s.d | CRASH *signal 6* | x")
        self.run_cases("c.long.cpl0 OFF\nd.long.cpl0 DIE")
        self.assertEqual([end["expected"] for end in self.last().ends.values()], [False, True])

    def test_a_line_may_go_on(self):
        self.write("target=* |", "  s.a", "\ts.z | RUNS* or FAULT vector=6*", "# comment", "  | it goes on")
        self.run_cases("a.long.cpl0 FAIL", status=0)
        self.assertTrue(self.last().ends["exec:fake", "s.a.long.cpl0"]["deviation"].endswith(": it goes on"))

    def test_patterns_take_what_they_should_and_no_more(self):
        every = [f"s.{insn}.{mode}.cpl{cpl}{rest}" for insn in ("a", "a.m", "b", "c") for rest in ("", ".x", ".x.y")
                 for mode, levels in (("real", "0"), ("long", "0123"), ("compat", "0123")) for cpl in levels]
        matcher, random_ = patterns.Matcher(every), random.Random(1)
        for count in list(range(1, 20)) + [len(every)]:
            wanted = set(random_.sample(every, count))
            neutral = set(random_.sample(every, 5)) - wanted
            words = patterns.cover(wanted, neutral, matcher)
            taken = {one for one in every if Selection(words).matches(one)}
            self.assertLessEqual(wanted, taken)
            self.assertLessEqual(taken, wanted | neutral)
        self.assertEqual(patterns.cover({i for i in every if ".long." in i and i.endswith(".x")}, (), matcher),
                         ["s.*.long.cpl?.x"])

    def test_syntax_errors(self):
        self.guest("a.long.cpl0 PASS")
        for line, words in (("target=* | s.a | RUNS*", "expected WHERE"), ("planet=mars | s | RUNS | x", "planet=mars"),
                            ("target=* | s | runs | x", "runs"), ("target=* | s | only | x", "only"),
                            ("target= | s | RUNS | x", "target="), ("target=* | !s | RUNS | x", "ids or patterns"),
                            ("cpuid.7.0.ecx[2]=5 | s | RUNS | x", "0 or 1"), ("target=* | s | RUNS or | x", "")):
            self.write(line)
            done = self.trapline("run", "-q", "--target", self.target, status=2)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertIn("fake.txt:3", done.stderr)
            self.assertIn(words, done.stderr)
        (self.lines / "fake.txt").write_bytes(b"\xff\xfe")
        self.assertIn("fake.txt", self.trapline("run", "-q", status=2).stderr)

    def test_patterns_of_proposals(self):
        self.assertEqual(deviations.pattern_of("s.sgdt.m.long.cpl3.umip.ac"), "s.sgdt.m.*.cpl?.umip.ac")
        self.assertEqual(deviations.pattern_of("s.sgdt.real.cpl0"), "s.sgdt.*.cpl?")
        self.assertEqual(deviations.pattern_of("other"), "other")


class Comparing(Bench):
    def run_once(self, text, *words, status=0):
        self.guest(text)
        self.trapline("run", "-q", "-j1", "--target", "soft:amd", *words, status=status)
        return self.last().path.parent.name

    def test_two_runs(self):
        before = self.run_once("a.long.cpl0 PASS\nb.long.cpl0 FAIL\nc.long.cpl0 PASS\nd.long.cpl0 PASS", status=1)
        after = self.run_once("a.long.cpl0 FAIL\nb.long.cpl0 PASS\nd.long.cpl0 NOTSUP\ne.long.cpl0 PASS", status=1)
        out = self.trapline("compare", before, after, status=1).stdout
        for words in ("regressed (1)", "s.a.long.cpl0: PASS RUNS -> FAIL RUNS", "fixed (1)", "new (1)", "gone (1)",
                      "different (1)", "1 regressed, 1 fixed, 1 new, 1 gone, 0 flaky, 1 different; 0 the same"):
            self.assertIn(words, out)
        self.trapline("compare", before, before, status=0)
        self.trapline("compare", before, "nosuch", status=2)

    def test_a_new_failure_is_bad_and_a_new_pass_is_not(self):
        one = self.run_once("a.long.cpl0 PASS")
        self.trapline("compare", one, self.run_once("a.long.cpl0 PASS\nb.long.cpl0 PASS"), status=0)
        self.trapline("compare", one, self.run_once("a.long.cpl0 PASS\nb.long.cpl0 FAIL", status=1), status=1)

    def test_two_targets(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 PASS/FAIL")
        self.trapline("run", "-q", "-j1", status=1)
        out = self.trapline("compare", "@soft:amd", "last@soft:intel", status=1).stdout
        self.assertIn("target: soft:amd -> soft:intel", out)
        self.assertIn("regressed (1)", out)
        self.trapline("compare", "@soft:amd", "last", status=2)
        self.trapline("compare", "@soft:none", "@soft:amd", status=2)

    def test_merge_of_shards(self):
        text = "\n".join(f"a{i}.long.cpl0 PASS" for i in range(5)) + "\nb.long.cpl0 FAIL"
        names = [self.run_once(text, "--shard", f"{i}/2", status=i - 1) for i in (1, 2)]
        self.trapline("merge", *names, status=1)
        self.assertEqual(len(self.last().ends), 6)
        self.assertEqual(self.last().header["merged"], names)
        self.assertTrue(self.last().done)
        self.trapline("merge", names[0], "nosuch", status=2)

    def test_repeat_tells_the_distribution(self):
        self.guest("a.long.cpl0 FAIL/PASS\nb.long.cpl0 PASS")
        out = self.trapline("run", "-q", "-j1", "--target", "soft:amd", "--repeat", "5", status=1).stdout
        self.assertIn("flaky   s.a.long.cpl0 on soft:amd: 1 x FAIL", out)
        self.assertIn("4 x PASS RUNS", out)
        self.assertEqual(self.verdicts()["s.a.long.cpl0"], "FAIL")

    def test_bisect_run(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 FAIL")
        run = ["--target", "soft:amd", "--results", str(self.path / "runs")]
        for words, status in ((["--build", "true", "s.a"], 0), (["--build", "", "s.b"], 1), (["--build", "false", "s.a"], 125),
                              (["--build", "true", "s.nosuch"], 125)):
            self.trapline("bisect-run", *words, *run, status=status)


class Committed(unittest.TestCase):
    def test_every_line_can_be_read(self):
        known = deviations.load(RUNNER.parent / "results" / "deviations")
        for line in known.open_lines():
            self.fail(f"{line.where}: no reason yet")

    def test_bad_line(self):
        with self.assertRaises(UsageError):
            deviations.Line("f:1", "x")


if __name__ == "__main__":
    unittest.main()
