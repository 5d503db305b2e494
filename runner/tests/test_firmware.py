"""Firmware that others wrote, as the ROM at the reset vector: it finds the machine, its disk, and boots what is on it."""
import os
import subprocess
import tempfile
import unittest

VISOR = os.path.join(os.environ.get("B", "build/release"), "visor")
SEABIOS = "/usr/share/seabios/bios-256k.bin"

# CLI; "HI" to the first serial port; 15h to the debug exit; HLT. In real mode at 7C00h.
SECTOR = bytes.fromhex("fa ba f803 b048 ee b049 ee b00a ee ba f400 b015 ee f4")


class Firmware(unittest.TestCase):
    """A ROM with a disk."""

    @unittest.skipUnless(os.path.exists(SEABIOS), "seabios is not installed")
    def test_boots_a_disk(self):
        for cpu in ("amd", "intel"):
            with self.subTest(cpu=cpu), tempfile.NamedTemporaryFile(suffix=".img") as disk:
                disk.write(SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
                disk.flush()
                done = subprocess.run([VISOR, "run", "--cpu", cpu, "--smp", "2", "--timeout", "40", "--disk-ro", disk.name,
                                       SEABIOS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                      timeout=60, check=False)
                self.assertEqual(done.returncode, 0x15 << 1 | 1, done.stderr)
                self.assertIn(b"SeaBIOS", done.stdout)
                self.assertTrue(done.stdout.endswith(b"HI\n"), done.stdout)


if __name__ == "__main__":
    unittest.main()
