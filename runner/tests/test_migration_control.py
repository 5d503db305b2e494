"""The control socket: what it answers, and that nobody who speaks to it harms the guest."""
import json
import signal
import socket
import unittest

from tests.moving import IDLE, LIMIT, Case


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


if __name__ == "__main__":
    unittest.main()
