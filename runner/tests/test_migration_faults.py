"""Whatever goes wrong with a migration, one side at most has the guest, and the reason is told."""
import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import unittest

from tests.moving import BUSY, GUEST, LIMIT, LONG, VISOR, Case, Refused, Relay


class Faults(Case):
    """Until hand-over the source carries on; the reason is told."""

    def refused(self, *words, wanted, append=BUSY, source_words=(), uri=None, **more):
        """A destination that cannot take the guest says why, at both ends, and the guest goes on."""
        uri = uri or "unix:" + self.path("move")
        source = self.source(append, *source_words)
        destination = self.destination(uri, *words, **more)
        source.control.do("migrate", uri=uri)
        answer = source.control.wait("failed", "completed")
        self.assertEqual(answer["status"], "failed")
        self.assertRegex(answer["error-desc"], wanted)
        there = destination.end()
        self.assertEqual(there[2], 3)
        self.assertRegex(there[1], wanted)
        self.assertEqual(source.control.status(), "running")
        here = source.end()
        self.assertEqual(here[::2], self.alone(append, *source_words))
        return here

    def test_another_machine(self):
        self.refused("--mem", "128M", wanted="--mem: the guest's machine is another")
        self.refused("--smp", "2", wanted="--smp: ")

    def test_another_processor(self):
        self.refused("--cpu", "amd,-avx2", wanted="avx2")

    def test_missing_disk(self):
        disk = self.path("disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        self.refused(wanted="disks: the guest has 1, and --disk names 0", source_words=("--disk", disk))

    def test_disk_of_another_size(self):
        """Found when everything else has come: the source takes its disk back."""
        disk, other = self.path("disk"), self.path("other")
        for name, size in ((disk, 1 << 20), (other, 2 << 20)):
            with open(name, "wb") as file:
                file.truncate(size)
        self.refused("--disk", other, wanted="disk 0: it has 2097152 bytes", source_words=("--disk", disk))

    def test_memory_short(self):
        def little():
            resource.setrlimit(resource.RLIMIT_AS, (160 << 20, 160 << 20))
        uri = "unix:" + self.path("move")
        source = self.visor("--mem", "512M", "--append", BUSY, GUEST)
        destination = self.destination(uri, preexec_fn=little)
        source.control.do("migrate", uri=uri)
        self.assertRegex(source.control.wait("failed")["error-desc"], "[Mm]emory")
        self.assertEqual(source.control.status(), "running")
        self.assertEqual(destination.end()[2], 3)

    def test_full_disk(self):
        source = self.source()
        source.control.do("migrate", uri="file:/dev/full")
        self.assertRegex(source.control.wait("failed")["error-desc"], "No space left")
        self.assertEqual(source.control.status(), "running")
        self.assertEqual(source.end()[::2], self.alone())

    def test_nobody_there(self):
        source = self.source()
        source.control.do("migrate", uri="unix:" + self.path("nobody"))
        self.assertIn("No such file", source.control.wait("failed")["error-desc"])
        with self.assertRaisesRegex(Refused, "none of unix:PATH"):
            source.control.do("migrate", uri="nonsense:x")
        self.assertEqual(source.control.status(), "running")

    def test_cancel(self):
        """While it is sent, and while it waits before the switch."""
        for waits in (False, True):
            with self.subTest(waits=waits):
                uri = "unix:" + self.path("move")
                source, destination = self.source(), self.destination(uri)
                if waits:
                    source.control.capable("pause-before-switchover")
                else:
                    source.control.do("migrate-set-parameters", max_bandwidth=1000000)
                source.control.do("migrate", uri=uri)
                source.control.wait("pre-switchover" if waits else "active")
                with self.assertRaisesRegex(Refused, "under way"):
                    source.control.do("migrate", uri=uri)
                source.control.do("migrate_cancel")
                source.control.wait("cancelled")
                there = destination.end()
                self.assertEqual((there[0], there[2]), ("", 3))
                self.assertEqual(source.control.status(), "running")
                self.assertEqual(source.end()[::2], self.alone())

    def test_cancel_is_told(self):
        """The status between the two: somebody has asked, and it is not over."""
        uri = "unix:" + self.path("move")
        source, _ = self.source(), self.destination(uri)
        source.control.capable("events")
        source.control.do("migrate-set-parameters", max_bandwidth=1000000)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        source.control.do("migrate_cancel")
        source.control.do("migrate_cancel")
        source.control.wait("cancelled")
        states = [event["data"]["status"] for event in source.control.events if event["event"] == "MIGRATION"]
        self.assertEqual(states, ["setup", "active", "cancelling", "cancelled"])

    def test_cancel_while_it_connects(self):
        """To somebody who has no place for more connections, and says nothing of that."""
        for kind in ("unix", "tcp"):
            with self.subTest(kind=kind), contextlib.ExitStack() as stack:
                address = self.path("full") if kind == "unix" else ("127.0.0.1", 0)
                family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
                full = stack.enter_context(socket.socket(family))
                full.bind(address)
                full.listen(0)
                for _ in range(4):
                    other = stack.enter_context(socket.socket(family))
                    other.setblocking(False)
                    other.connect_ex(full.getsockname())
                uri = "unix:" + address if kind == "unix" else f"tcp:127.0.0.1:{full.getsockname()[1]}"
                source = self.source()
                source.control.do("migrate", uri=uri)
                time.sleep(0.2)
                self.assertEqual(source.control.do("query-migrate")["status"], "setup")
                source.control.do("migrate_cancel")
                source.control.wait("cancelled")
                self.assertEqual(source.end()[::2], self.alone())

    def test_destination_that_stays(self):
        """With exit-on-error false, a guest that does not come does not end the visor: another may."""
        source, destination = self.source("fill=3000 write=300 rounds=6000 say=1000 work=300"), self.destination("defer")
        with open(self.path("saved"), "wb") as file:
            file.write(b"x" * 100)
        destination.control.capable("events")
        destination.control.do("migrate-incoming", uri="file:" + self.path("saved"), exit_on_error=False)
        self.assertIn("no stream", destination.control.wait("failed")["error-desc"])
        self.assertEqual(destination.control.status(), "inmigrate")
        uri = "unix:" + self.path("move")
        for rate, wanted in ((1000000, "cancelled"), (0, "completed")):
            destination.control.do("migrate-incoming", uri=uri, exit_on_error=False)
            while not os.path.exists(self.path("move")):
                time.sleep(0.01)
            source.control.do("migrate-set-parameters", max_bandwidth=rate)
            source.control.do("migrate", uri=uri)
            if rate:
                destination.control.wait("active")
                source.control.do("migrate_cancel")
                source.control.wait("cancelled")
                self.assertIn("error-desc", destination.control.wait("failed"))
            self.assertEqual(source.control.wait(wanted, "failed")["status"], wanted)
        self.assertEqual(destination.control.do("query-migrate"), {"status": "completed"})
        states = [event["data"]["status"] for event in destination.control.events if event["event"] == "MIGRATION"]
        self.assertEqual(states, ["setup", "failed"] + ["setup", "active", "failed"] + ["setup", "active", "completed"])
        self.assertEqual(destination.control.status(), "running")
        source.quit()
        destination.quit()

    def test_destination_that_stays_once(self):
        """What was said with the last migrate-incoming counts, and the standard is to leave."""
        destination = self.destination("defer")
        destination.control.do("migrate-incoming", uri="file:" + self.path("none"), exit_on_error=False)
        self.assertIn("No such file", destination.control.wait("failed")["error-desc"])
        destination.control.do("migrate-incoming", uri="file:" + self.path("none"))
        self.assertEqual(destination.end()[2], 3)

    def test_pause_before_switchover(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        source.control.capable("pause-before-switchover")
        source.control.do("migrate", uri=uri)
        source.control.wait("pre-switchover")
        with self.assertRaisesRegex(Refused, "only pre-switchover"):
            source.control.do("migrate-continue", state="device")
        source.control.do("migrate-continue", state="pre-switchover")
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assert_moved(source, destination)

    def test_destination_killed(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(LONG), self.destination(uri)
        source.control.do("migrate-set-parameters", max_bandwidth=2000000)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        time.sleep(0.1)
        destination.kill()
        self.assertIn("closed the connection", source.control.wait("failed")["error-desc"])
        self.assertEqual(source.end()[::2], self.alone(LONG))

    def test_source_killed(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        source.control.do("migrate-set-parameters", max_bandwidth=2000000)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        source.kill()
        there = destination.end()
        self.assertEqual((there[0], there[2]), ("", 3))
        self.assertIn("the stream ends", there[1])

    def test_a_destination_that_stalls(self):
        """It takes nothing any more: the guest goes on."""
        uri = "unix:" + self.path("move")
        source, destination = self.source("fill=7000 write=300 rounds=6000 say=1000 work=300"), self.destination(uri)
        source.control.do("migrate-set-parameters", stall_timeout=300)
        destination.process.send_signal(signal.SIGSTOP)
        source.control.do("migrate", uri=uri)
        self.assertIn("the destination", source.control.wait("failed")["error-desc"])
        self.assertEqual(source.control.status(), "running")
        destination.process.send_signal(signal.SIGCONT)
        self.assertEqual(destination.end()[2], 3)

    def test_file_cut_or_changed(self):
        path = self.path("saved")
        source = self.source()
        source.control.do("migrate", uri="file:" + path)
        source.control.wait("completed")
        with open(path, "rb") as file:
            whole = file.read()
        for name, content, wanted in (("cut", whole[:-10], "ends"), ("shorter", whole[:len(whole) // 2], "ends"),
                                      ("flipped", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "damaged"),
                                      ("late", whole[:-60] + bytes([whole[-60] ^ 16]) + whole[-59:], "damaged|ends"),
                                      ("empty", b"", "ends"), ("other", b"x" * 100, "no stream")):
            with self.subTest(name=name):
                with open(path, "wb") as file:
                    file.write(content)
                there = subprocess.run([VISOR, "run", "--incoming", "file:" + path], stdin=subprocess.DEVNULL,
                                       capture_output=True, text=True, timeout=LIMIT, check=False)
                self.assertEqual((there.stdout, there.returncode), ("", 3))
                self.assertRegex(there.stderr, wanted)

    def test_unacknowledged(self):
        """The hand-over may have come: the guest stays stopped until somebody says cont."""
        uri, relayed = self.path("move"), self.path("relay")
        source, destination = self.source(), self.destination("unix:" + uri)
        with Relay(relayed, uri) as relay:
            source.control.do("migrate", uri="unix:" + relayed)
            relay.cut_at_running()
        answer = source.control.wait("failed")
        self.assertIn("has not said that it runs", answer["error-desc"])
        self.assertEqual(source.control.status(), "paused")
        there = destination.end()
        with self.assertRaisesRegex(Refused, "without an answer"):
            source.control.do("migrate", uri="unix:" + uri)
        source.control.do("cont")
        here = source.end()
        self.assertEqual(here[::2], self.alone())
        self.assertTrue(here[0].endswith(there[0]))


if __name__ == "__main__":
    unittest.main()
