"""Tests of bench: what it makes of its samples, not how fast anything is."""

import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traplib import bench_main, bochs  # noqa: E402
from traplib.bench_machines import Foreign, Sample, run  # noqa: E402
from traplib.bench_measure import RATE, TIME, Kernel, Row, calibrated, millions  # noqa: E402
from traplib.errors import HarnessError  # noqa: E402


def row(better, soft, other):
    """A row of two competitors."""
    made = Row("kernels", "alu", "MIPS", better)
    for value in soft:
        made.add("soft", value)
    for value in other:
        made.add("Bochs", value)
    return made


class Rows(unittest.TestCase):
    def test_a_ratio_is_how_many_times_as_fast_we_are(self):
        self.assertEqual(row(RATE, [300, 100, 200], [50]).ratio("Bochs"), 4)
        self.assertEqual(row(TIME, [30, 10, 20], [60]).ratio("Bochs"), 3)
        self.assertIsNone(row(RATE, [1], []).ratio("Bochs"))

    def test_what_is_missing_has_no_column(self):
        lines = bench_main.table([row(RATE, [100], [50])])
        self.assertEqual(lines[0].split(), ["soft", "Bochs", "/Bochs"])
        self.assertEqual(lines[2].split(), ["alu", "MIPS", "100.0", "50.0", "2.00x"])


class FakeMachine:
    """Takes a microsecond a round and counts two instructions in it."""

    name = "fake"

    def measure(self, line):
        count = int(line.split("count=")[1])
        return Sample(count * 1e-6, 2 * count)


class Kernels(unittest.TestCase):
    def test_counts_grow_until_a_sample_says_something(self):
        count, first = calibrated(Kernel("alu", 100, "MIPS", millions), FakeMachine())
        self.assertEqual((count, first), (250000, 200))

    def test_counts_stay_below_what_a_kernel_can_do(self):
        self.assertEqual(calibrated(Kernel("cold", 2, "ns", millions, "", 40), FakeMachine())[0], 40)

    def test_the_time_between_the_lines_counts(self):
        sample = run(["sh", "-c", "sleep 0.2; echo begin; sleep 0.4; echo end alu 77; sleep 0.2"])
        self.assertEqual(sample.counted, 77)
        self.assertGreater(sample.seconds, 0.2)  # of 0.4: the machine may be slow to notice the first line

    def test_a_guest_without_an_end_is_an_error(self):
        with self.assertRaises(HarnessError):
            run(["sh", "-c", "echo begin"])


class Missing(unittest.TestCase):
    def test_a_machine_that_is_not_here_says_so(self):
        class Absent:
            def missing(self):
                return "is not installed"

        self.assertEqual(Foreign("QEMU", Absent(), Path("guest.elf")).why_missing, "is not installed")


class Image(unittest.TestCase):
    def test_bochs_gets_the_guest_at_its_address_without_the_hole(self):
        flat = struct.pack("<8I", 0x1badb002, 0x10002, 0, 0x100000, 0x100000, 0, 0, 0x100040) + b"guest"
        image = bochs.image(flat, "kernel=alu", 128 << 20)
        self.assertEqual(image[bochs.HOLE.start:], flat)
        entry, information, memory = struct.unpack_from("<3I", image, bochs.START)
        self.assertEqual((entry, memory), (0x100040, 128 << 20))
        line = struct.unpack_from("<I", image, information + 16)[0]
        self.assertEqual(image[line:line + 11], b"kernel=alu\0")


if __name__ == "__main__":
    unittest.main()
