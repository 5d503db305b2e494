"""Two visors, a guest that is moved between them, and what stands in its way."""
import json
import os
import select
import shutil
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
