"""Live moves: their charts, the control socket, and what a relay with a fault does to bytes."""

import json
import os
import random
import re
import socket
import tempfile
import threading
import types
import unittest
from xml.etree import ElementTree

from traplib import html_moves, migration_faults, qmp


def made(downtime, rounds=2):
    """A move record."""
    return {"t": "move", "target": "soft:<amd>", "pages": 100, "total_ns": 40_000_000, "downtime_ns": downtime, "bytes": 1 << 20,
            "rounds": [{"began_ns": 10 ** 7 * i, "took_ns": 10 ** 6, "pages": 5, "bytes": 20480, "dirty": 1} for i in range(rounds)]}


class Charts(unittest.TestCase):
    def test_no_moves_no_section(self):
        self.assertEqual(list(html_moves.section(types.SimpleNamespace(moves=[]))), [])

    def test_every_move_is_in_one_bar(self):
        for values in ([0.5], [1.0, 1.0, 1.0], [0.001, 0.9, 12.5, 300.0, 300.0], [0.0, 5000.0]):
            picture = ElementTree.fromstring(quoted(html_moves.histogram(sorted(values))))
            counts = [int(bar.findtext("title").rsplit(": ", 1)[1]) for bar in picture.iter("rect")]
            self.assertEqual(sum(counts), len(values), values)

    def test_a_round_is_a_bar_and_so_is_the_pause(self):
        picture = ElementTree.fromstring(quoted(html_moves.timeline(made(2_000_000, 5))))
        self.assertEqual(len(list(picture.iter("rect"))), 6)

    def test_names_are_escaped(self):
        page = "".join(html_moves.section(types.SimpleNamespace(moves=[made(10 ** 6)])))
        self.assertIn("soft:&lt;amd&gt;", page)
        self.assertNotIn("<amd>", page)


def quoted(svg):
    """HTML lets attributes stand without quotes; XML does not."""
    return re.sub(r"=([^\s'>/]+)(?=[\s>/])", r"='\1'", svg)


class Machine(threading.Thread):
    """Answers on a control socket with what it was given."""

    def __init__(self, path, answers):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.answers, self.heard = answers, []
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b'{"QMP":{}}\n')
            for answer in self.answers:
                self.heard.append(json.loads(lines.readline()))
                connection.sendall(answer)
        self.listener.close()


class Asking(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "control")

    def connect(self, *answers):
        self.machine = Machine(self.path, [b'{"return":{}}\n', *answers])
        control = qmp.Control(self.path, types.SimpleNamespace(poll=lambda: None, args=["fake"]), 5)
        self.addCleanup(control.close)
        return control

    def test_events_are_passed_over(self):
        control = self.connect(b'{"event":"STOP"}\n{"return":{"status":"running"}}\n')
        self.assertEqual(control.ask("query-status"), {"status": "running"})
        self.assertEqual([one["execute"] for one in self.machine.heard], ["qmp_capabilities", "query-status"])

    def test_a_refusal_and_an_end(self):
        control = self.connect(b'{"error":{"class":"GenericError","desc":"no"}}\n')
        with self.assertRaisesRegex(qmp.Refused, "migrate: no"):
            control.ask("migrate", uri="unix:x")
        self.machine.join(5)
        with self.assertRaises(qmp.Gone):
            control.ask("query-status")

    def test_a_machine_that_ended_before(self):
        process = types.SimpleNamespace(poll=lambda: 3, returncode=3, args=["fake"])
        with self.assertRaisesRegex(qmp.Gone, "status 3"):
            qmp.Control(self.path, process, 5)


class Faults(unittest.TestCase):
    def relay(self, fault, at):
        relay = migration_faults.Relay.__new__(migration_faults.Relay)
        relay.fault, relay.at, relay.rng = fault, at, random.Random(1)
        relay.backwards, relay.passed, relay.recent = fault.endswith("_answer"), {True: 0, False: 0}, b""
        relay.struck = relay.stalled = relay.over = False
        relay.struck_by = []
        relay.strike = lambda: relay.struck_by.append(relay.passed[False])
        return relay

    def test_what_becomes_of_bytes(self):
        data = bytes(range(200))
        out = {}
        for fault in ("flip", "drop", "repeat", "insert", "stall", "kill_source"):
            relay = self.relay(fault, 300)
            self.assertEqual(relay.touch(data, False, None, None), data)  # the fault lies behind
            out[fault] = relay.touch(data, False, None, None)
            self.assertTrue(relay.struck, fault)
        self.assertEqual(sum(a != b for a, b in zip(out["flip"], data)), 1)
        self.assertEqual(out["flip"][:100], data[:100])
        self.assertLess(len(out["drop"]), 200)
        self.assertGreater(len(out["repeat"]), 200)
        self.assertGreater(len(out["insert"]), 200)
        self.assertEqual(out["stall"], data[:100])
        self.assertEqual(out["kill_source"], data)

    def test_the_other_direction_is_left_alone(self):
        relay = self.relay("flip_answer", 0)
        self.assertEqual(relay.touch(b"abc", False, None, None), b"abc")
        self.assertNotEqual(relay.touch(b"abc", True, None, None), b"abc")

    def test_a_seed_gives_the_same_trials(self):
        lengths = {False: 100000, True: 124}
        first, second = ([(trial.fault, trial.at, trial.pages) for trial in
                          (migration_faults.Trial(n, 7, lengths) for n in range(1, 300))] for _ in range(2))
        self.assertEqual(first, second)
        self.assertEqual({fault for fault, _, _ in first} | {"none"}, set(migration_faults.FAULTS))


if __name__ == "__main__":
    unittest.main()
