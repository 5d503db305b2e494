"""Guests that go ahead of their memory, and connections that break while it follows."""
import socket
import time
import unittest

from tests.moving import LIMIT, Case, Refused


class Postcopy(Case):
    """The guest goes ahead of its memory."""

    def begin(self, rate=20000000, append="fill=6000 write=1500 rounds=150 say=10 work=300"):
        """Two visors, the guest at the second, most of its memory at the first."""
        self.append = append
        uri = "unix:" + self.path("move")
        source, destination = self.source(append), self.destination(uri)
        source.control.capable("postcopy-ram", "events")
        source.control.do("migrate-set-parameters", max_bandwidth=4000000, max_postcopy_bandwidth=rate)
        source.control.do("migrate", uri=uri)
        source.control.wait("active")
        source.control.do("migrate-start-postcopy")
        return source, destination

    def test_completes(self):
        source, destination = self.begin(0)
        answer = source.control.wait("completed", "failed", "postcopy-paused")
        self.assertEqual(answer["status"], "completed", answer)
        states = [event["data"]["status"] for event in source.control.events if event["event"] == "MIGRATION"]
        self.assertEqual(states[-3:], ["device", "postcopy-active", "completed"])
        self.assert_moved(source, destination, self.append)

    def test_asks(self):
        """Pages that the guest waits for come first."""
        source, destination = self.begin(1000000)
        source.control.wait("postcopy-active")
        destination.wait_line("round")
        self.assertGreater(source.control.do("query-migrate")["ram"]["postcopy-requests"], 0)
        source.control.do("migrate-set-parameters", max_postcopy_bandwidth=0)
        source.control.wait("completed")
        self.assert_moved(source, destination, self.append)

    def test_pauses_and_recovers(self):
        source, destination = self.begin(500000)
        for number, breaks in enumerate((source, destination, source)):
            source.control.wait("postcopy-active")
            destination.control.wait("postcopy-active")
            with self.assertRaisesRegex(Refused, "cannot be cancelled"):
                source.control.do("migrate_cancel")
            with self.assertRaisesRegex(Refused, "no post-copy has paused"):
                destination.control.do("migrate-recover", uri="unix:" + self.path("early"))
            breaks.control.do("migrate-pause")
            self.assertIn("still here", source.control.wait("postcopy-paused")["error-desc"])
            self.assertIn("still at the source", destination.control.wait("postcopy-paused")["error-desc"])
            uri = "unix:" + self.path(f"again{number}")
            destination.control.do("migrate-recover", uri=uri)
            source.control.do("migrate", uri=uri, resume=True)
        source.control.do("migrate-set-parameters", max_postcopy_bandwidth=0)
        self.assertEqual(source.control.wait("completed", "failed")["status"], "completed")
        self.assert_moved(source, destination, self.append)

    def test_a_stranger_resumes_nothing(self):
        source, destination = self.begin(500000)
        source.control.wait("postcopy-active")
        destination.control.wait("postcopy-active")
        source.control.do("migrate-pause")
        destination.control.wait("postcopy-paused")
        path = self.path("again")
        destination.control.do("migrate-recover", uri="unix:" + path)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            stranger.sendall(b"Trapline" + bytes(100))
            deadline = time.monotonic() + LIMIT  # until then it is paused for the reason before
            while "stream" not in destination.control.wait("postcopy-paused")["error-desc"]:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        destination.control.do("migrate-recover", uri="unix:" + path)
        source.control.wait("postcopy-paused")
        source.control.do("migrate-set-parameters", max_postcopy_bandwidth=0)
        source.control.do("migrate", uri="unix:" + path, resume=True)
        source.control.wait("completed")
        self.assert_moved(source, destination, self.append)

    def test_source_killed(self):
        """The guest is lost, and the message says so; the visor still answers, and ends."""
        source, destination = self.begin(500000)
        destination.control.wait("postcopy-active")
        source.kill()
        self.assertIn("lost where the source is gone", destination.control.wait("postcopy-paused")["error-desc"])
        self.assertEqual(destination.quit()[2], 0)

    def test_destination_killed(self):
        source, destination = self.begin(500000)
        source.control.wait("postcopy-active")
        destination.kill()
        self.assertIn("lost where the destination is gone", source.control.wait("postcopy-paused")["error-desc"])
        with self.assertRaisesRegex(Refused, "at the destination"):
            source.control.do("cont")
        self.assertEqual(source.control.status(), "postmigrate")
        source.quit()

    def test_needs_a_return_path(self):
        source = self.source()
        source.control.capable("postcopy-ram")
        source.control.do("migrate", uri="file:" + self.path("saved"))
        self.assertIn("no return path", source.control.wait("failed")["error-desc"])
        self.assertEqual(source.control.status(), "running")


if __name__ == "__main__":
    unittest.main()
