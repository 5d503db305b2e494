"""Guests that are moved between two visors: what arrives is what was sent, and whatever goes wrong, one side at most has it."""
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

VISOR = os.path.join(os.environ.get("B", "build/release"), "visor")
GUEST = "build/live/live.elf"
LIMIT = 60  # seconds: nothing here takes so long unless it hangs
# A guest that is busy for a second or two, and one that waits without end behind a few rounds.
BUSY = "fill=3000 write=300 rounds=600 say=100 work=300"
LONG = "fill=3000 write=300 rounds=6000 say=1000 work=300"  # still there when something has come about
IDLE = "fill=3000 write=10 rounds=3 idle"


class Refused(Exception):
    """The monitor has answered with an error."""


class Control:
    """A client of a visor's control socket."""

    def __init__(self, path, process=None):
        end = time.monotonic() + LIMIT
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > end or (process and process.poll() is not None):
                    raise
                time.sleep(0.005)
        self.socket.settimeout(LIMIT)
        self.lines = self.socket.makefile("rb")
        self.events = []
        self.greeting = json.loads(self.lines.readline())
        self.do("qmp_capabilities")

    def read(self):
        """The next answer; events are kept."""
        while True:
            line = self.lines.readline()
            if not line:
                raise EOFError("the control socket was closed")
            message = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)

    def do(self, name, /, **arguments):
        """The answer to a command."""
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        message = self.read()
        if "error" in message:
            raise Refused(message["error"]["desc"])
        return message["return"]

    def capable(self, *names):
        """Switches capabilities on."""
        self.do("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])

    def status(self):
        """Of the guest."""
        return self.do("query-status")["status"]

    def wait(self, *states):
        """The answer of query-migrate, once its status is one of these."""
        end = time.monotonic() + LIMIT
        while True:
            answer = self.do("query-migrate")
            if answer.get("status") in states:
                return answer
            if time.monotonic() > end:
                raise TimeoutError(f"still {answer}")
            time.sleep(0.01)

    def wait_status(self, *states):
        """Until the guest's status is one of these."""
        end = time.monotonic() + LIMIT
        while self.status() not in states:
            if time.monotonic() > end:
                raise TimeoutError(f"still {self.status()}")
            time.sleep(0.01)

    def names(self):
        """Names of the events so far, once all that are under way have come."""
        self.do("query-status")
        return [event["event"] for event in self.events]

    def close(self):
        """Leaves."""
        self.lines.close()
        self.socket.close()


class Visor:
    """A visor with a control socket."""

    count = 0

    def __init__(self, folder, *words, **more):
        Visor.count += 1
        path = os.path.join(folder, f"control{Visor.count}")
        self.process = subprocess.Popen([VISOR, "run", "--control", f"unix:{path}", *words], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **more)
        self.path = path
        self.read = b""
        try:
            self.control = Control(path, self.process)
        except BaseException:
            self.kill()
            raise

    def wait_line(self, start):
        """Until the guest has printed a line that begins so."""
        while not any(line.startswith(start) for line in self.read.decode().splitlines()):
            line = self.process.stdout.readline()
            if not line:
                raise EOFError("the guest has ended")
            self.read += line

    def end(self):
        """(standard output, standard error, exit code) of one that ends by itself."""
        out, err = self.process.communicate(timeout=LIMIT)
        self.control.close()
        return (self.read + out).decode(), err.decode(), self.process.returncode

    def quit(self):
        """The same of one that is told to."""
        try:
            self.control.do("quit")
        except (EOFError, OSError):
            pass
        return self.end()

    def kill(self):
        """At once, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Case(unittest.TestCase):
    """What the tests share: a folder, and visors that do not outlive them."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.visors = []
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(lambda: [visor.kill() for visor in self.visors])

    def path(self, name):
        """A file of this test."""
        return os.path.join(self.folder, name)

    def visor(self, *words, **more):
        """Starts one."""
        visor = Visor(self.folder, *words, **more)
        self.visors.append(visor)
        return visor

    def source(self, append=BUSY, *words, **more):
        """One with a guest, which has filled its memory."""
        visor = self.visor("--mem", "64M", "--append", append, *words, GUEST, **more)
        visor.wait_line("all" if "idle" in append else "filled")
        return visor

    def destination(self, uri, *words, **more):
        """One that waits for a guest."""
        return self.visor("--incoming", uri, *words, **more)

    def alone(self, append=BUSY, *words):
        """What the guest prints that is never moved."""
        done = subprocess.run([VISOR, "run", "--mem", "64M", "--append", append, *words, GUEST], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=LIMIT, check=False)
        return done.stdout.decode(), done.returncode

    def assert_moved(self, source, destination, append=BUSY):
        """The guest has ended at the destination as it would have ended alone."""
        here = source.quit()
        there = destination.end()
        wanted = self.alone(append)
        self.assertEqual((here[0] + there[0], there[2]), wanted, there[1])
        self.assertEqual(here[2], 0, here[1])
        self.assertIn("the guest was sent: ", here[1])


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


class Monitor(Case):
    """What clients say."""

    def talk(self, visor, text, wanted):
        """Sends bytes on a connection of their own, and gives back that many answers behind the greeting."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(visor.path)
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as lines:
                answers = [json.loads(line) for line in lines]
        self.assertIn("QMP", answers[0])
        self.assertEqual(len(answers), wanted + 1, answers)
        return answers[1:]

    def test_talk(self):
        visor = self.source(IDLE)
        ready = b'{"execute":"qmp_capabilities"}'
        self.assertEqual(self.talk(visor, ready, 1), [{"return": {}}])
        first = self.talk(visor, b'{"execute":"stop"}', 1)[0]
        self.assertEqual(first["error"]["class"], "CommandNotFound")
        answers = self.talk(visor, ready + b'{"execute":"query-status","id":[1,{"x":null}]}\n{"execute":"no-such"}', 3)
        self.assertEqual(answers[1]["id"], [1, {"x": None}])
        self.assertEqual(answers[1]["return"]["status"], "running")
        self.assertEqual(answers[2]["error"]["class"], "CommandNotFound")
        for text in (b'{"execute":1}', b'{}', b'{"execute":"stop","argument":{}}', b'{"execute":"stop","arguments":[]}',
                     b'{"execute":"stop","arguments":{"x":1}}', b'{"execute":"migrate"}', b'{"execute":"migrate","arguments":{"uri":7}}',
                     b'{"execute":"migrate-set-parameters","arguments":{"downtime-limit":-1}}',
                     b'{"execute":"migrate-set-parameters","arguments":{"multifd-compression":"zlib"}}',
                     b'{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"xbzrle","state":true}]}}',
                     b'{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"return-path","state":false}]}}',
                     b'{"execute":"migrate-recover","arguments":{"uri":"unix:x"}}', b'{"execute":"migrate-pause"}',
                     b'{"a":}', b'{"execute":"stop","execute":"cont"}'):
            with self.subTest(text=text):
                self.assertEqual(self.talk(visor, ready + text, 2)[1]["error"]["class"], "GenericError")
        names = {row["name"] for row in visor.control.do("query-commands")}
        self.assertLessEqual({"stop", "cont", "quit", "migrate", "query-migrate", "migrate_cancel"}, names)
        self.assertEqual(visor.quit()[2], 0)

    def test_hostile(self):
        """Nonsense costs nothing: the guest and other clients go on."""
        visor = self.source()
        ready = b'{"execute":"qmp_capabilities"}\n'
        answers = self.talk(visor, ready + b"\0\1\2garbage\n" + b"[" * 5000 + b"\n" + b'{"a":' * 200 + b"\n" +
                            b'{"x":"' + b"y" * 300000 + b"\n" + b'{"execute":"query-status"}', 6)
        self.assertEqual([next(iter(answer)) for answer in answers], ["return"] + ["error"] * 4 + ["return"])
        clients = []
        for _ in range(30):
            client = socket.socket(socket.AF_UNIX)
            client.connect(visor.path)
            clients.append(client)
        for client in clients:
            client.close()
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(visor.path)
            deaf.settimeout(0.2)
            try:
                while True:
                    deaf.sendall(ready + b'{"execute":"query-commands"}\n' * 1000)
            except (TimeoutError, OSError):
                pass
        self.assertIn(visor.control.status(), ("running", "paused"))
        self.assertEqual(visor.end()[::2], self.alone())

    def test_stop_and_go(self):
        visor = self.source()
        visor.control.do("stop")
        self.assertFalse(visor.control.do("query-status")["running"])
        visor.control.do("stop")
        visor.control.do("cont")
        self.assertEqual([name for name in visor.control.names() if name in ("STOP", "RESUME")], ["STOP", "RESUME"])
        self.assertEqual(visor.end()[::2], self.alone())

    def test_reset_and_signal(self):
        visor = self.source(IDLE)
        visor.control.do("system_reset")
        visor.read = b""
        visor.wait_line("all pages")
        self.assertIn("RESET", visor.control.names())
        visor.control.do("system_powerdown")
        self.assertIn("POWERDOWN", visor.control.names())
        visor.process.send_signal(signal.SIGTERM)
        self.assertEqual(visor.end()[2], 128 + signal.SIGTERM)
        visor = self.source(IDLE)
        visor.control.do("inject-nmi")  # for which it has no gate
        self.assertEqual(visor.end()[2], 6)
        waits = self.destination("defer")
        waits.process.send_signal(signal.SIGINT)
        self.assertEqual(waits.end()[2], 128 + signal.SIGINT)
        waits = self.destination("unix:" + self.path("move"))
        self.assertEqual(waits.quit()[2], 0)


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


class Relay:
    """Stands between two visors, and keeps the last word of the destination to itself."""

    READY = 65

    def __init__(self, path, to):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.to = to

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def cut_at_running(self):
        """Passes everything on, up to READY from the one side and hand-over from the other."""
        source, _ = self.listener.accept()
        with source, socket.socket(socket.AF_UNIX) as destination:
            destination.connect(self.to)
            back = b""
            while True:
                ready, _, _ = select.select([source, destination], [], [], LIMIT)
                if destination in ready:
                    got = destination.recv(1 << 16)
                    if self.says_running(back + got):
                        return
                    back += got
                    source.sendall(got)
                if source in ready:
                    destination.sendall(source.recv(1 << 20))

    def pass_slowly(self, rate):
        """Takes all that the source has at once, and hands on so many bytes a second of it; until the source leaves."""
        source, _ = self.listener.accept()
        with source, socket.socket(socket.AF_UNIX) as destination:
            destination.connect(self.to)
            held, here = bytearray(), True
            while here or held:
                ready, _, _ = select.select([source, destination] if here else [], [], [], 0 if held else LIMIT)
                if source in ready:
                    got = source.recv(1 << 20)
                    here = bool(got)
                    held += got
                if destination in ready:
                    source.sendall(destination.recv(1 << 16))
                elif held:
                    time.sleep(min(len(held), 1 << 16) / rate)
                    destination.sendall(held[:1 << 16])
                    del held[:1 << 16]

    def says_running(self, back):
        """Whether a stream has come to the section RUNNING."""
        at = 40
        while at + 24 <= len(back):
            kind, size = struct.unpack_from("<II", back, at)
            if kind == self.READY + 1:
                return True
            at += 24 + (size + 8 if size else 0)
        return False


def open_in(visor, path):
    """Whether a process has a file open."""
    folder = f"/proc/{visor.process.pid}/fd"
    return any(os.path.realpath(os.path.join(folder, name)) == os.path.realpath(path) for name in os.listdir(folder))


if __name__ == "__main__":
    unittest.main()
