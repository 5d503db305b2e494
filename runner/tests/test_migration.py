"""Guests that are moved between two visors: what arrives is what was sent, in as few rounds and over as many connections as asked."""
import os
import socket
import time
import unittest

from tests.moving import BUSY, IDLE, Case, Refused, Relay, open_in


class Moves(Case):
    """Each transport."""

    def move(self, source_uri, destination_uri, append=BUSY, words=()):
        source = self.source(append, *words)
        destination = self.destination(destination_uri)
        if source_uri is None:
            source_uri = destination.control.do("query-migrate")["listens"]
        source.control.do("migrate", uri=source_uri)
        answer = source.control.wait("completed", "failed")
        self.assertEqual(answer["status"], "completed", answer)
        self.assertEqual(source.control.status(), "postmigrate")
        self.assert_moved(source, destination, append)
        return answer

    def test_unix(self):
        uri = "unix:" + self.path("move")
        answer = self.move(uri, uri)
        self.assertGreaterEqual(answer["ram"]["normal"], 3000)
        self.assertEqual(answer["ram"]["remaining"], 0)
        self.assertEqual(answer["ram"]["total"], 64 << 20)
        self.assertLess(answer["ram"]["transferred"], 64 << 20)
        self.assertLess(answer["downtime-ns"], answer["total-time-ns"])
        self.assertFalse(os.path.exists(self.path("move")))

    def test_tcp(self):
        self.move(None, "tcp:127.0.0.1:0")

    def test_several_processors(self):
        uri = "unix:" + self.path("move")
        self.move(uri, uri, words=("--smp", "3", "--seed", "5"))

    def test_back_and_forth(self):
        visors = [self.source("fill=3000 write=300 rounds=1200 say=100 work=300")]
        for number in range(3):
            uri = "unix:" + self.path(f"move{number}")
            visors.append(self.destination(uri))
            visors[-2].control.do("migrate", uri=uri)
            self.assertEqual(visors[-2].control.wait("completed", "failed")["status"], "completed")
        output = "".join(visor.quit()[0] for visor in visors[:-1])
        last = visors[-1].end()
        self.assertEqual((output + last[0], last[2]), self.alone("fill=3000 write=300 rounds=1200 say=100 work=300"))

    def test_fd(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            source = self.source(BUSY, pass_fds=[ours.fileno()])
            destination = self.destination(f"fd:{theirs.fileno()}", pass_fds=[theirs.fileno()])
            number = ours.fileno()
        source.control.do("migrate", uri=f"fd:{number}")
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assert_moved(source, destination)

    def test_channels_and_defer(self):
        source, destination = self.source(), self.destination("defer")
        address = {"transport": "socket", "type": "unix", "path": self.path("move")}
        channels = [{"channel-type": "main", "addr": address}]
        self.assertEqual(destination.control.status(), "inmigrate")
        destination.control.do("migrate-incoming", channels=channels)
        with self.assertRaisesRegex(Refused, "waited for already"):
            destination.control.do("migrate-incoming", uri="unix:x")
        while not os.path.exists(self.path("move")):
            time.sleep(0.01)
        source.control.do("migrate", channels=channels)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assert_moved(source, destination)

    def test_file(self):
        """Saved once, the guest runs on where it was, and twice from the file."""
        uri = "file:" + self.path("saved")
        source = self.source()
        source.control.do("migrate", uri=uri)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assertEqual(os.listdir(self.folder).count("saved"), 1)
        saved = source.control.do("query-migrate")["ram"]["transferred"]
        self.assertEqual(os.path.getsize(self.path("saved")), saved)
        resumed = [self.destination(uri).end(), self.destination(uri).end()]
        self.assertEqual(resumed[0][::2], resumed[1][::2])
        source.control.do("cont")
        here = source.end()
        wanted = self.alone()
        self.assertEqual(here[::2], wanted)
        self.assertTrue(wanted[0].endswith(resumed[0][0]), resumed[0])
        self.assertEqual(resumed[0][2], wanted[1])

    def test_stopped_stays_stopped(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        source.control.do("stop")
        self.assertEqual(source.control.status(), "paused")
        source.control.do("migrate", uri=uri)
        source.control.wait("completed")
        self.assertEqual(destination.control.status(), "paused")
        with self.assertRaisesRegex(Refused, "the guest is at the destination"):
            source.control.do("cont")
        destination.control.do("cont")
        self.assert_moved(source, destination)

    def test_idle(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(IDLE), self.destination(uri)
        source.control.do("migrate", uri=uri)
        source.control.wait("completed")
        self.assertEqual(destination.control.status(), "running")
        here, there = source.quit(), destination.quit()
        self.assertEqual((here[0] + there[0]).splitlines(), ["filled 3000", "all pages are as they were left, 3000"])
        self.assertEqual((here[2], there[2]), (0, 0))

    def test_disk(self):
        """It is open at one side at a time."""
        disk = self.path("disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        uri = "unix:" + self.path("move")
        source = self.source(BUSY, "--disk", disk)
        destination = self.destination(uri, "--disk", disk)
        source.control.do("migrate", uri=uri)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assertFalse(open_in(source, disk))
        self.assertTrue(open_in(destination, disk))
        source.quit()
        self.assertEqual(destination.end()[2], 1)

    def test_events(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        for visor in (source, destination):
            visor.control.capable("events")
        source.control.do("migrate", uri=uri)
        source.control.wait("completed")
        states = [event["data"]["status"] for event in source.control.events if event["event"] == "MIGRATION"]
        self.assertEqual(states, ["setup", "active", "device", "completed"])
        self.assertIn("STOP", source.control.names())


class Converges(Case):
    """Limits, and guests that write as fast as they are sent."""

    HEAVY = "fill=6000 write=6000 rounds=0 say=1 work=0"

    def test_bandwidth(self):
        uri = "unix:" + self.path("move")
        source = self.source(IDLE)
        self.destination(uri)
        source.control.do("migrate-set-parameters", max_bandwidth=16 << 20)
        source.control.do("migrate", uri=uri)
        answer = source.control.wait("completed", "failed")
        self.assertEqual(answer["status"], "completed", answer)
        self.assertGreater(answer["total-time"], 600)  # 12 MB

    def test_downtime_limit(self):
        """It goes on for as long as the limit cannot be kept, and ends once that is raised."""
        uri = "unix:" + self.path("move")
        source, destination = self.source(self.HEAVY), self.destination(uri)
        source.control.do("migrate-set-parameters", downtime_limit=0, avail_switchover_bandwidth=1 << 20)
        source.control.do("migrate", uri=uri)
        while source.control.wait("active")["ram"]["dirty-sync-count"] < 6:
            time.sleep(0.01)
        source.control.do("migrate-set-parameters", downtime_limit=2000000)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        destination.wait_line("round")
        self.assertNotIn("LOST", destination.quit()[0])

    def test_slow_connection(self):
        """What has left the source and has not come yet does not make the guest wait: it is not stopped before."""
        uri, relayed = self.path("move"), self.path("relay")
        source, destination = self.source("fill=5000 write=10 rounds=3 idle"), self.destination("unix:" + uri)
        with Relay(relayed, uri) as relay:
            source.control.do("migrate", uri="unix:" + relayed)
            relay.pass_slowly(40 << 20)
        answer = source.control.wait("completed", "failed")
        self.assertEqual(answer["status"], "completed", answer)
        self.assertGreater(answer["total-time"], 400)
        self.assertLess(answer["downtime"], 200)
        source.quit()
        destination.quit()

    def test_auto_converge(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(self.HEAVY), self.destination(uri)
        source.control.capable("auto-converge")
        source.control.do("migrate-set-parameters", downtime_limit=1, avail_switchover_bandwidth=100 << 20,
                          max_bandwidth=100 << 20)
        source.control.do("migrate", uri=uri)
        throttle = 0
        while throttle < 50:
            throttle = source.control.wait("active", "completed").get("cpu-throttle-percentage", 0)
            time.sleep(0.01)
        source.control.do("migrate-set-parameters", downtime_limit=2000000, avail_switchover_bandwidth=0)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        destination.wait_line("round")
        self.assertNotIn("LOST", destination.quit()[0])


class Channels(Case):
    """Several streams at a time."""

    def move(self, *capabilities, **parameters):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        source.control.capable("multifd", *capabilities)
        source.control.do("migrate-set-parameters", **parameters)
        source.control.do("migrate", uri=uri)
        answer = source.control.wait("completed", "failed")
        self.assertEqual(answer["status"], "completed", answer)
        self.assertGreater(answer["ram"]["multifd-bytes"], answer["ram"]["transferred"] * 0.6)
        self.assert_moved(source, destination)
        return answer["ram"]

    def test_two(self):
        self.assertGreater(self.move()["transferred"], 3000 * 4096)

    def test_many(self):
        self.move(multifd_channels=16)

    def test_zstd(self):
        ram = self.move(multifd_channels=3, multifd_compression="zstd", multifd_zstd_level=3)
        self.assertLess(ram["transferred"], ram["normal"] * 4096 / 2)

    def test_postcopy(self):
        uri = "unix:" + self.path("move")
        append = "fill=6000 write=1500 rounds=150 say=10 work=300"
        source, destination = self.source(append), self.destination(uri)
        source.control.capable("multifd", "postcopy-ram")
        source.control.do("migrate-set-parameters", max_bandwidth=4000000)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        source.control.do("migrate-start-postcopy")
        self.assertEqual(source.control.wait("completed", "failed", "postcopy-paused")["status"], "completed")
        self.assert_moved(source, destination, append)

    def test_cancel(self):
        uri = "unix:" + self.path("move")
        source, destination = self.source(), self.destination(uri)
        source.control.capable("multifd")
        source.control.do("migrate-set-parameters", max_bandwidth=1000000)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        source.control.do("migrate_cancel")
        source.control.wait("cancelled")
        self.assertEqual(destination.end()[2], 3)
        self.assertEqual(source.end()[::2], self.alone())

    def test_one_connection(self):
        source = self.source()
        source.control.capable("multifd")
        source.control.do("migrate", uri="file:" + self.path("saved"))
        self.assertIn("multifd needs several", source.control.wait("failed")["error-desc"])
        self.assertEqual(source.control.status(), "running")


if __name__ == "__main__":
    unittest.main()
