"""The hostile guest under the real visor: no result is lost, and signals and full disks end cleanly."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

RUNNER = Path(__file__).resolve().parent.parent
TREE = RUNNER.parent
sys.path.insert(0, str(RUNNER))

from traplib import paths, results  # noqa: E402

GUESTS = TREE / "build" / "hostile"
GUEST = GUESTS / "hostile.elf"


class Hostile(unittest.TestCase):
    """A folder for results, and commands on the hostile guest."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="trapline-test-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        self.environment = dict(os.environ, TRAPLINE_GUESTS=str(GUESTS))
        self.visor = str(paths.visor())

    def trapline(self, *words):
        return [sys.executable, str(RUNNER / "trapline"), "run", "--results", str(self.path), "-q", *words]

    def run_(self, command, **more):
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=self.environment,
                              timeout=120, check=False, stdin=subprocess.DEVNULL, **more)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def one_line(self, text, *words):
        self.assertEqual(len(text.strip().splitlines()), 1, text)
        for word in words:
            self.assertIn(word, text)

    def records(self, text):
        return [json.loads(line) for line in text.splitlines()]


class Results(Hostile):
    def test_no_result_is_lost(self):
        done = self.run_(self.trapline("--target", "soft:amd", "-j2", "hostile"))
        self.assertEqual(done.returncode, 1, done.stderr)
        run = results.Run.read(results.find("last", self.path))
        self.assertTrue(run.done)
        self.assertFalse(run.open)
        self.assertEqual(len(run.ends), len(run.suites["hostile"]))
        for (_, case_id), end in run.ends.items():
            if case_id.endswith(".after"):
                self.assertEqual(end["verdict"], "PASS", case_id)
        page = (run.path.parent / "report.html").read_text(encoding="utf-8")
        self.assertNotIn("<script>alert", page)
        self.assertNotIn("\x1b", done.stdout)

    def test_a_device_that_is_none_is_not_supported(self):
        done = self.run_(self.trapline("--target", "kvm:/dev/null", "hostile"))
        self.assertEqual(done.returncode, 3, done.stderr)  # it was named, so the run is incomplete without it
        run = results.Run.read(results.find("last", self.path))
        self.assertEqual(len(run.ends), len(run.suites["hostile"]))
        for end in run.ends.values():
            self.assertEqual((end["verdict"], end["why"]), ("NOTSUP", "/dev/null is not a KVM device"))

    def test_every_record_is_json(self):
        done = self.run_([self.visor, "run", "--json", "--cases", "hostile.print_*", str(GUEST)])
        records = self.records(done.stdout)
        self.assertEqual(records[0]["t"], "run")
        self.assertEqual(records[-1]["t"], "done")
        self.assertEqual(sum(r["t"] == "start" for r in records), sum(r["t"] == "end" for r in records))

    def test_wall_clock_ends_a_case(self):
        done = self.run_([self.visor, "run", "--json", "--timeout", "0.2", "--max-insns", "1000000000000", "--cases",
                          "hostile.wrong_want.long.cpl0,hostile.wrong_want.long.cpl0.after", str(GUEST)])
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual([r["verdict"] for r in self.records(done.stdout) if r["t"] == "end"], ["TIMEOUT", "PASS"])


class Signals(Hostile):
    def stop(self, command, number, started):
        """Starts @command, waits for @started() and sends the signal. (exit status, stdout, stderr)"""
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, text=True)
        try:
            deadline = time.monotonic() + 60
            while not started():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        self.assertNotIn("Traceback", err)
        return process.returncode, out, err

    def file_grows(self):
        files = list(self.path.glob("*/results.jsonl"))
        return bool(files) and b'"t":"end"' in files[0].read_bytes()

    ENDLESS = ("--max-insns", "1000000000000", "--timeout", "500")

    def test_visor_stops_on_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            out = self.path / f"out{number}"
            command = f'exec "{self.visor}" run --json {" ".join(self.ENDLESS)} "{GUEST}" >"{out}"'
            status, _, err = self.stop(["/bin/sh", "-c", command], number,
                                       lambda out=out: out.exists() and b'"t":"start"' in out.read_bytes())
            self.assertEqual(status, 128 + number, err)
            records = self.records(out.read_text(encoding="utf-8"))
            self.assertEqual(records[-1]["t"], "done")
            self.assertFalse(records[-1]["complete"])

    def test_trapline_keeps_results_on_a_signal(self):
        # A good case first, then one without an end.
        command = self.trapline("--target", "soft:amd", "-j1", *self.ENDLESS, "hostile.wrong_want.long.cpl0",
                                "hostile.pause.real.cpl0.after")
        for number in (signal.SIGINT, signal.SIGTERM):
            status, _, err = self.stop(command, number, self.file_grows)
            self.assertEqual(status, 128 + number, err)
            run = results.Run.read(results.find("last", self.path))
            self.assertFalse(run.done)
            self.assertEqual([end["verdict"] for end in run.ends.values()], ["PASS"])
            self.assertEqual(len(run.open), 1)
            (run.path).unlink()

    def test_killed_trapline_leaves_a_file_that_can_be_resumed(self):
        # The visor that it leaves behind ends by its own time limit.
        command = self.trapline("--target", "soft:amd", "-j1", "--max-insns", "1000000000000", "--timeout", "5",
                                "hostile.wrong_want.long.cpl0", "hostile.pause.real.cpl0.after")
        status, _, _ = self.stop(command, signal.SIGKILL, self.file_grows)
        self.assertEqual(status, -signal.SIGKILL)
        done = self.run_([sys.executable, str(RUNNER / "trapline"), "run", "--results", str(self.path), "-q",
                          "--resume", "last"])
        self.assertEqual(done.returncode, 1, done.stderr)
        run = results.Run.read(results.find("last", self.path))
        self.assertTrue(run.done)
        self.assertEqual(sorted(end["verdict"] for end in run.ends.values()), ["FAIL", "PASS", "PASS"])

    def test_visor_that_is_killed_costs_its_case(self):
        # What kills it is the limit on its own time.
        def limit():
            resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        done = self.run_([self.visor, "run", "--json", *self.ENDLESS, str(GUEST)], preexec_fn=limit)
        self.assertLess(done.returncode, 0)
        self.assertEqual(self.records(done.stdout)[-1]["t"], "start")


class Files(Hostile):
    def test_full_disk(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with open(self.path / "out", "wb") as out:
            done = subprocess.run([self.visor, "run", "--json", str(GUEST)], stdout=out, stderr=subprocess.PIPE,
                                  text=True, preexec_fn=limit, timeout=60, check=False)
        self.assertEqual(done.returncode, 3)
        self.one_line(done.stderr, "standard output", "File too large")

    def test_closed_output(self):
        for command in ([self.visor, "run", "--json", str(GUEST)], [self.visor, "list", str(GUEST)]):
            done = subprocess.run(["/bin/sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 3)
            self.one_line(done.stderr, "standard output")

    def test_output_that_nobody_reads(self):
        done = subprocess.run(["/bin/sh", "-c", '{ "$@"; echo $? >&2; } | head -c 10 >/dev/null', "sh", self.visor, "run",
                               "--json", str(GUEST)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.stderr.splitlines()[-1], "3", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 2, done.stderr)

    def test_cut_images(self):
        data = GUEST.read_bytes()
        image = self.path / "cut.elf"
        headers, = struct.unpack_from("<Q", data, 40)  # of sections, the last thing in the file but for what fills it up
        size, count = struct.unpack_from("<2H", data, 58)
        end = headers + size * count
        self.assertLess(len(data) - end, 512)
        for size in (0, 1, 4, 63, 64, 100, 4096, end // 2, end - 1):
            image.write_bytes(data[:size])
            done = self.run_([self.visor, "run", "--json", str(image)])
            self.assertEqual(done.returncode, 2, size)
            self.one_line(done.stderr, str(image))
            self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    unittest.main()
