"""Guests as people write them for QEMU's PC (guests/pc): visor prints what QEMU prints, and ends as it does."""
import os
import shutil
import subprocess
import unittest

VISOR = os.path.join(os.environ.get("B", "build/release"), "visor")
QEMU = "qemu-system-x86_64"
TESTS = "boot devices pic ioapic lapic hpet rtc smp acpi"
# Words of the command line, and the exit status that the PC's contract gives.
ENDINGS = {"exit1": 43, "exit2": 45, "exit4": 47, "poweroff": 0, "sleep": 65, "no-such-test": 3}
# How visor tells ends apart that QEMU, told not to reboot, does not.
RESETS = {"8042": 4, "cf9": 4, "port92": 4, "triple-fault": 6}


def image(bits):
    """The guest's file, of 32 or 64 bits."""
    return f"build/pc/pc{bits}.elf"


def run(command):
    """(what it printed, exit status)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60,
                          check=False)
    return done.stdout.decode(errors="replace"), done.returncode


def visor(bits, append, *more, smp=4):
    """The guest under visor."""
    return run([VISOR, "run", "--mem", "512M", "--smp", str(smp), "--timeout", "20", *more, "--append", append,
                image(bits)])


def qemu(bits, append, smp=4):
    """The guest under QEMU."""
    return run([QEMU, "-machine", "pc", "-accel", "tcg", "-icount", "shift=0,sleep=off", "-m", "512M", "-smp", str(smp), "-nodefaults",
                "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev",
                "-kernel", image(bits), "-append", append])


class Pc(unittest.TestCase):
    """The acceptance of the virtual PC."""

    def test_all_pass(self):
        for bits in (32, 64):
            for more in ((), ("--cpu", "intel"), ("--seed", "7")):
                with self.subTest(bits=bits, more=more):
                    output, status = visor(bits, TESTS, *more)
                    self.assertEqual(status, 1, output)
                    self.assertNotIn("FAIL", output)
                    self.assertTrue(output.endswith("PASSED\r\n"), output)

    def test_same_in_every_run(self):
        self.assertEqual(visor(64, TESTS), visor(64, TESTS))

    def test_one_processor(self):
        output, status = visor(64, TESTS, smp=1)
        self.assertEqual(status, 1, output)
        self.assertIn("fw_cfg: CPUs=0x1\r\n", output)
        self.assertIn("MADT: CPUs=0x1\r\n", output)

    def test_endings(self):
        for word, wanted in {**ENDINGS, **RESETS}.items():
            with self.subTest(word=word):
                self.assertEqual(visor(32, word)[1], wanted)

    def test_sleep_is_moved(self):
        moved = ("--move", "every=1")
        self.assertEqual(visor(64, "sleep", *moved), visor(64, "sleep"))
        output, status = visor(64, "sleep", *moved, "--break", "STATE:acpi.asleep")
        self.assertTrue(output.endswith("sleeping\r\n"), output)
        self.assertNotEqual(status, ENDINGS["sleep"])

    def test_where_nobody_answers(self):
        command = [VISOR, "run", "--timeout", "20", "--append", "nobody", image(32)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(done.stderr.splitlines(),
                         ["visor: warning: no device answers: in 0x1234 size 1 value 0xff",
                          "visor: warning: no device answers: read 0xfed40000 size 4 value 0xffffffff"])
        command.insert(2, "--open-bus")
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        command[2] = "--no-open-bus"
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr),
                         (3, "visor: no device answers: in 0x1234 size 1 value 0xff\n"))

    @unittest.skipUnless(shutil.which(QEMU), f"{QEMU} is not installed")
    def test_as_qemu(self):
        for bits in (32, 64):
            with self.subTest(bits=bits):
                self.assertEqual(visor(bits, TESTS), qemu(bits, TESTS))
        for word, wanted in ENDINGS.items():
            with self.subTest(word=word):
                self.assertEqual(qemu(32, word)[1], wanted)
        for word in RESETS:
            with self.subTest(word=word):
                self.assertEqual(qemu(32, word)[1], 0)


if __name__ == "__main__":
    unittest.main()
