"""The runner against a visor that behaves as badly as each test wants."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

RUNNER = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(RUNNER))

from traplib import execute, results, selection  # noqa: E402
from traplib.errors import UsageError  # noqa: E402


class Bench(unittest.TestCase):
    """A folder with a fake guest `s`, and the command line run in it."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="trapline-test-")
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)
        self.environment = dict(os.environ, VISOR=str(RUNNER / "tests" / "fake_visor"),
                                TRAPLINE_GUESTS=self.folder.name)

    def guest(self, text):
        lines = [f"s.{line.strip()}" for line in text.strip().splitlines()]
        (self.path / "s.elf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def command(self, *words):
        return [sys.executable, str(RUNNER / "trapline"), *map(str, words)]

    def trapline(self, *words, status=None, **more):
        if words[0] in ("run", "report", "compare", "merge"):
            words += ("--results", self.path / "runs")
        done = subprocess.run(self.command(*words), capture_output=True, text=True, env=self.environment,
                              timeout=60, check=False, **more)
        self.assertNotIn("Traceback", done.stderr)
        if status is not None:
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def last(self):
        return results.Run.read(results.find("last", self.path / "runs"))

    def verdicts(self, target=None):
        return {case_id: end["verdict"] for (name, case_id), end in self.last().ends.items()
                if target in (None, name)}


class Running(Bench):
    def test_all_pass(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 NOTSUP\nc.long.cpl0 SKIP")
        done = self.trapline("run", "--target", "soft:amd", status=0)
        self.assertIn("ok  s on soft:amd: 1 passed, 0 failed, 1 skipped, 1 not supported", done.stdout)
        self.assertIn("report: ", done.stdout)
        self.assertTrue(self.last().done)

    def test_soft_means_both_profiles(self):
        self.guest("a.long.cpl0 PASS")
        self.trapline("run", status=0)
        self.assertEqual(set(self.last().ends), {("soft:amd", "s.a.long.cpl0"), ("soft:intel", "s.a.long.cpl0")})

    def test_failure_says_everything(self):
        self.guest("a.long.cpl0 FAIL\nb.long.cpl0 PASS")
        out = self.trapline("run", "--target", "soft:amd", status=1).stdout
        for words in ("FAIL s.a.long.cpl0 on soft:amd", "wanted  RUNS", "got     RUNS <script>", "says    SDM 2B 4.3",
                      "again   ", "--cases s.a.long.cpl0 --trace trace.txt"):
            self.assertIn(words, out)
        self.assertNotIn("\x1b", out)

    def test_each_bad_verdict_is_unexpected(self):
        for verdict in ("FAIL", "ERROR", "TIMEOUT", "CRASH"):
            self.guest(f"a.long.cpl0 {verdict}")
            self.trapline("run", "--target", "soft:amd", status=1)

    def test_crash_costs_one_case(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 DIE\nc.long.cpl0 PASS\nd.long.cpl0 DIE")
        out = self.trapline("run", "--target", "soft:amd", "-j1", status=1).stdout
        self.assertEqual(list(self.verdicts().values()), ["PASS", "CRASH", "PASS", "CRASH"])
        self.assertIn("died of signal 6: fake: aborting", out)

    def test_hang_costs_one_case(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 HANG\nc.long.cpl0 PASS")
        self.patch_grace()
        self.trapline("run", "--target", "soft:amd", "-j1", "--timeout", "0.3", status=1)
        self.assertEqual(list(self.verdicts().values()), ["PASS", "TIMEOUT", "PASS"])

    def patch_grace(self):
        """The time that a silent process is given, made short for the test through sitecustomize."""
        (self.path / "sitecustomize.py").write_text(
            f"import sys; sys.path.insert(0, {str(RUNNER)!r})\nimport traplib.targets\ntraplib.targets.GRACE = 0.2\n",
            encoding="utf-8")
        self.environment["PYTHONPATH"] = self.folder.name

    def test_garbage_is_a_harness_failure_and_keeps_results(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 GARBAGE")
        done = self.trapline("run", "--target", "soft:amd", "-j1", status=3)
        self.assertIn("not a record", done.stderr)
        self.assertFalse(self.last().done)

    def test_target_that_gives_up(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 STOP\nc.long.cpl0 PASS")
        self.trapline("run", "--target", "soft:amd", "-j1", status=1)
        self.assertEqual(self.verdicts()["s.b.long.cpl0"], "CRASH")
        self.assertEqual(self.verdicts()["s.c.long.cpl0"], "PASS")

    def test_retries_mark_flaky(self):
        self.guest("a.long.cpl0 FAIL/PASS\nb.long.cpl0 FAIL")
        out = self.trapline("run", "--target", "soft:amd", "-j1", "--retries", "2", status=1).stdout
        self.assertEqual(self.verdicts(), {"s.a.long.cpl0": "PASS", "s.b.long.cpl0": "FAIL"})
        self.assertIn("flaky   s.a.long.cpl0 on soft:amd: FAIL, PASS", out)

    def test_fail_fast(self):
        self.guest("a.long.cpl0 FAIL\n" + "\n".join(f"b{i}.long.cpl0 SLOW" for i in range(20)))
        self.trapline("run", "--target", "soft:amd", "-j1", "--fail-fast", status=1)
        self.assertLess(len(self.verdicts()), 20)

    def test_deadline_keeps_what_was_run(self):
        self.guest("\n".join(f"a{i}.long.cpl0 SLOW" for i in range(20)))
        done = self.trapline("run", "--target", "soft:amd", "-j1", "--deadline", "0.7", status=3)
        self.assertIn("deadline", done.stderr)
        self.assertTrue(0 < len(self.verdicts()) < 20)
        self.trapline("run", "--resume", "last", status=0)
        self.assertEqual(len(self.verdicts()), 20)

    def test_interrupt_keeps_what_was_run(self):
        self.guest("\n".join(f"a{i}.long.cpl0 SLOW" for i in range(30)))
        process = subprocess.Popen(self.command("run", "--target", "soft:amd", "-j1", "--results", self.path / "runs"),
                                   env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        self.assertTrue(0 < len(self.verdicts()) < 30)

    def test_killed_run_resumes(self):
        self.guest("\n".join(f"a{i}.long.cpl0 PASS" for i in range(5)))
        self.trapline("run", "--target", "soft:amd", "-j1", status=0)
        path = self.last().path
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if b'"done"' not in line][:-3]
        path.write_bytes(b"".join(kept) + b'{"t":"end","target":"so')
        self.trapline("report", status=3)
        before = self.verdicts()
        self.trapline("run", "--resume", "last", status=0)
        self.assertLess(len(before), 5)
        self.assertEqual(len(self.verdicts()), 5)
        for line in path.read_bytes().splitlines():
            json.loads(line)

    def test_rerun_failed(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 FAIL\nc.long.cpl0 ERROR")
        self.trapline("run", "--target", "soft:amd", status=1)
        done = self.trapline("run", "--target", "soft:amd", "--rerun-failed", "last", "--dry-run", status=0)
        self.assertEqual(done.stdout.split(), ["soft:amd", "s.b.long.cpl0", "soft:amd", "s.c.long.cpl0"])

    def test_parallel_runs_each_once(self):
        self.guest("\n".join(f"a{i}.long.cpl0 PASS" for i in range(101)))
        self.trapline("run", "-j4", status=0)
        attempts = self.last().attempts
        self.assertEqual(len(attempts), 202)
        self.assertTrue(all(len(ends) == 1 for ends in attempts.values()))

    def test_shards_are_a_partition(self):
        self.guest("\n".join(f"a{i}.long.cpl0 PASS" for i in range(10)))
        seen = []
        for number in (1, 2, 3):
            done = self.trapline("run", "--target", "soft:amd", "--shard", f"{number}/3", "--dry-run", status=0)
            seen += done.stdout.split()[1::2]
        self.assertEqual(sorted(seen), sorted(f"s.a{i}.long.cpl0" for i in range(10)))


class Reading(Bench):
    def test_a_run_that_is_read_back_is_the_one_that_was_written(self):
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 FAIL/PASS\nc.long.cpl0 DIE\nd.long.cpl0 NOTSUP")
        done = self.trapline("run", "--target", "soft:amd", "--retries", "1", status=1)
        page = (self.last().path.parent / "report.html").read_bytes()
        again = self.trapline("report", status=1)
        self.assertEqual(again.stdout, done.stdout)
        self.assertEqual((self.last().path.parent / "report.html").read_bytes(), page)

    def test_a_line_keeps_what_the_target_said(self):
        out = execute.Output()
        said = b'{"t":"end","id":"s.a","got":"a \\u00e9"}'
        record = dict(json.loads(said), target="soft:amd", expected=True)
        out.add(record, said, b',"expected":true')
        self.assertEqual(json.loads(out.lines[0]), record)
        self.assertIn(b"\\u00e9", out.lines[0])
        spaced = b'{"id": "s.a", "t": "end"}'
        out.add(dict(json.loads(spaced), target="soft:amd", expected=False), spaced, b',"expected":false')
        self.assertEqual(json.loads(out.lines[1])["target"], "soft:amd")
        self.assertIs(json.loads(out.lines[1])["expected"], False)

    def test_lines_that_are_two_records_are_none(self):
        for lines in ([b"1,2", b"3"], [b"{}],[{}"], [b"{"]):
            self.assertRaises(ValueError, results.parse, lines)
        self.assertEqual(results.parse([b'{"a":1}', b"{}\r"]), [{"a": 1}, {}])


class BadInput(Bench):
    def one_line(self, done, *words):
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_nothing_selected(self):
        self.guest("a.long.cpl0 PASS")
        self.one_line(self.trapline("run", "s.b", status=5), "s.b")
        self.one_line(self.trapline("list", "nosuch.*", status=5), "nosuch.*")

    def test_unknown_target(self):
        self.guest("a.long.cpl0 PASS")
        self.one_line(self.trapline("run", "--target", "vax", status=2), "vax", "soft")
        self.one_line(self.trapline("run", "--target", "soft:bad", status=2), "there is no such profile")

    def test_bad_words(self):
        self.guest("a.long.cpl0 PASS")
        self.one_line(self.trapline("run", "--shard", "4/3", status=2), "4/3")
        self.one_line(self.trapline("run", "--resume", "nosuch", status=2), "nosuch")
        self.one_line(self.trapline("run", "@" + str(self.path / "none"), status=2), "none")
        self.trapline("run", "--frobnicate", status=2)

    def test_no_guests(self):
        self.one_line(self.trapline("list", status=2), self.folder.name)

    def test_unwritable_results(self):
        self.guest("a.long.cpl0 PASS")
        (self.path / "runs").write_text("a file")
        self.one_line(self.trapline("run", "-q", status=2), "runs", "Not a directory")

    def test_full_disk_keeps_results(self):
        self.guest("\n".join(f"a{i}.long.cpl0 PASS" for i in range(500)))
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        done = self.trapline("run", "-q", "--target", "soft:amd", status=3, preexec_fn=limit)
        self.one_line(done, "results.jsonl", "File too large")
        self.assertGreater(len(self.last().ends), 0)

    def test_damaged_results(self):
        folder = self.path / "runs" / "x"
        folder.mkdir(parents=True)
        for text, words in (("", "run record"), ("{}\n", ":1:"), ("nonsense\n", ":1:"), ('{"t":"run","schema":9}\n', "schema"),
                            ('{"t":"run","schema":1,"run":"x"}\n{"t":"end","id":"a"}\n', ":2:"), ("[]\n", ":1:")):
            (folder / "results.jsonl").write_text(text, encoding="utf-8")
            self.one_line(self.trapline("report", "x", status=2), "results.jsonl", words)


class Outputs(Bench):
    def setUp(self):
        super().setUp()
        self.guest("a.long.cpl0 PASS\nb.long.cpl0 FAIL\nc.long.cpl0 NOTSUP\nd.long.cpl0 DIE")

    def test_junit(self):
        self.trapline("run", "--target", "soft:amd", "-j1", "--junit", self.path / "j.xml", status=1)
        suite = ElementTree.parse(self.path / "j.xml").getroot().find("testsuite")
        self.assertEqual([suite.get(k) for k in ("tests", "failures", "errors", "skipped")], ["4", "1", "1", "1"])
        self.assertIn("wanted", suite.find("testcase/failure").text)

    def test_ktap(self):
        out = self.trapline("run", "--target", "soft:amd", "-j1", "--ktap", status=1).stdout.splitlines()
        self.assertEqual(out[:5], ["KTAP version 1", "1..1", "  KTAP version 1", "  # Subtest: s on soft:amd", "  1..4"])
        self.assertEqual([line.split()[0] for line in out if line.startswith("  ok") or line.startswith("  not")],
                         ["ok", "not", "ok", "not"])
        self.assertIn("# SKIP", "".join(out))
        self.assertEqual(out[-1], "not ok 1 s on soft:amd")

    def test_html_escapes_and_locks(self):
        self.trapline("run", "--target", "soft:amd", "-j1", status=1)
        page = (self.last().path.parent / "report.html").read_text(encoding="utf-8")
        self.assertNotIn("<script>alert", page)
        self.assertIn("&lt;script&gt;alert(1)", page)
        self.assertNotIn("<b>b", page)
        self.assertIn("default-src 'none'", page)
        for words in ("s.b.long.cpl0", "needs SMM", "not encodable", "--trace trace.txt"):
            self.assertIn(words, page)

    def test_list_runs_nothing(self):
        out = self.trapline("list", status=0).stdout.splitlines()
        self.assertEqual(out[0], "s.a.long.cpl0\tRUNS\tSDM 2B 4.3 (<b>a)")
        self.assertEqual(len(out), 4)
        self.assertIn("needs SMM", self.trapline("list", "--untested", status=0).stdout)
        self.assertFalse((self.path / "runs").exists())

    def test_list_for_programs(self):
        rows = [json.loads(line) for line in self.trapline("list", "--untested", "--json", status=0).stdout.splitlines()]
        self.assertEqual(rows, [
            {"t": "untested", "suite": "s", "insn": "RSM", "mode": "long", "cpl": 0, "condition": "-",
             "state": "untested", "reason": "needs SMM", "clauses": ["SDM_RSM"]},
            {"t": "clause", "key": "SDM_RSM", "manual": "SDM", "volume": "2B", "section": "4.3:RSM", "title": "leave SMM"}])
        rows = list(csv.DictReader(self.trapline("list", "--untested", "--csv", status=0).stdout.splitlines()))
        self.assertEqual([row["t"] for row in rows], ["untested", "clause"])
        self.assertEqual(rows[0]["clauses"], "SDM_RSM")
        rows = self.trapline("list", "--untested", "--json", "s.RSM.long", status=0).stdout.splitlines()
        self.assertEqual(len(rows), 1)
        self.trapline("list", "--untested", "--json", "s.nosuch", status=5)
        cases = [json.loads(line) for line in self.trapline("list", "--json", status=0).stdout.splitlines()]
        self.assertEqual((cases[0]["id"], cases[0]["cite"][0]["section"]), ("s.a.long.cpl0", "4.3"))
        rows = list(csv.DictReader(self.trapline("list", "--csv", "s.a", status=0).stdout.splitlines()))
        self.assertEqual((rows[0]["id"], rows[0]["expectation"]), ("s.a.long.cpl0", "RUNS"))

    def test_untested_clauses_in_the_report(self):
        self.trapline("run", "--target", "soft:amd", "-j1", status=1)
        page = (self.last().path.parent / "report.html").read_text(encoding="utf-8")
        self.assertIn("Clauses that no case cites <small>1<", page)
        self.assertIn("<small>SDM_RSM</small>", page)
        self.assertNotIn("SDM_A", page)

    def test_lint_finds_empty_cells(self):
        done = self.trapline("lint", status=1)
        self.assertIn("A real cpl0: empty cell", done.stderr)

    def test_schema_of_records(self):
        self.trapline("run", "--target", "soft:amd", "-j1", status=1)
        fields = {"run": {"schema", "trapline", "run", "commit", "command", "select", "targets", "shard", "selected",
                          "host", "reproduce"},
                  "case": {"id", "insn", "mode", "cpl", "class", "want", "cite"},
                  "cell": {"insn", "mode", "cpl", "condition", "state", "reason"},
                  "clause": {"key", "manual", "volume", "section", "title"},
                  "target": {"target", "visor", "image", "digest", "suite", "cases"},
                  "start": {"target", "id"},
                  "end": {"target", "id", "verdict", "expected", "got", "want", "why"},
                  "done": {"complete", "why"}}
        documented = (RUNNER / "SCHEMA.md").read_text(encoding="utf-8")
        seen = set()
        for line in self.last().path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            seen.add(record["t"])
            self.assertLessEqual(fields[record["t"]], set(record))
            for name in fields[record["t"]]:
                self.assertIn(f"`{name}`", documented)
        self.assertEqual(seen, set(fields))


class Selecting(unittest.TestCase):
    IDS = ("s.sgdt.long.cpl0", "s.sgdt.long.cpl3.umip", "s.sgdtx.real.cpl0", "t.hlt.long.cpl0")

    def chosen(self, *words):
        chosen = selection.Selection(words)
        return [self.IDS.index(i) for i in self.IDS if chosen.matches(i)]

    def test_words(self):
        self.assertEqual(self.chosen(), [0, 1, 2, 3])
        self.assertEqual(self.chosen("s"), [0, 1, 2])
        self.assertEqual(self.chosen("s.sgdt"), [0, 1])
        self.assertEqual(self.chosen("*.cpl3.umip"), [1])
        self.assertEqual(self.chosen("!s.sgdt"), [2, 3])
        self.assertEqual(self.chosen("s", "!*.real.*"), [0, 1])
        self.assertEqual(self.chosen("s.sgdt.long.cpl0"), [0])

    def test_shard_words(self):
        self.assertEqual(selection.shard([1, 2, 3], "2/2"), [2])
        for words in ("0/2", "3/2", "x", "1/0", "-1/2"):
            with self.assertRaises(UsageError):
                selection.shard([1], words)


if __name__ == "__main__":
    unittest.main()
