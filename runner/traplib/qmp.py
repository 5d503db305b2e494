"""A machine's control socket: JSON commands in QMP's manner, of visor and of QEMU."""

import json
import socket
import time

from .errors import HarnessError

PATIENCE = 120.0  # seconds for the socket to be there, and for an answer


class Refused(HarnessError):
    """The machine answered with an error; its text."""


class Gone(HarnessError):
    """The machine has ended."""


class Control:
    """A connection. @process is the machine's: where it ends before the socket is there, Gone is raised."""

    def __init__(self, path, process, patience=PATIENCE):
        deadline = time.monotonic() + patience
        self.socket, self.file = socket.socket(socket.AF_UNIX), None
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError as error:
                if process.poll() is not None:
                    self.close()
                    raise Gone(f"{process.args[0]} ended with status {process.returncode}") from error
                if time.monotonic() > deadline:
                    self.close()
                    raise HarnessError(f"{process.args[0]}: {path}: {error.strerror}") from error
                time.sleep(0.005)
        self.socket.settimeout(patience)
        self.file = self.socket.makefile("rb")
        self._line()
        self.ask("qmp_capabilities")

    def _line(self):
        try:
            line = self.file.readline()
        except OSError as error:
            raise Gone(f"the control socket: {error.strerror or error}") from error
        if not line:
            raise Gone("the machine has ended")
        return json.loads(line)

    def ask(self, command, **arguments):
        """What @command returns; events before it are passed over."""
        try:
            self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        except OSError as error:
            raise Gone(f"{command}: {error.strerror or error}") from error
        while True:
            answer = self._line()
            if "error" in answer:
                raise Refused(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        """Ends the connection."""
        if self.file:
            self.file.close()
        self.socket.close()
