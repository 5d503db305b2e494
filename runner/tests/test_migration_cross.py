"""Guests that move between profiles and engines: they keep the processor that they were told, and what is lacking is named."""
import os
import re
import subprocess
import unittest

VISOR = os.path.join(os.environ.get("B", "build/release"), "visor")
GUEST = "build/guests/sensitive.elf"
MIGRATION = "build/guests/migration.elf"
TIMERS = ["timer_once*.apic_one_shot", "timer_once*.pit_one_shot", "timer_once*.hpet_one_shot", "timer_again*.pit_rate", "timer_again*.rtc_periodic",
          "timer_wakes*", "clock_forward*.pm_timer", "clock_forward*.hpet"]
# Instructions that are the same on both vendors' processors.
SAME = ["sensitive.sgdt.long.cpl0*", "sensitive.cpuid.long.cpl3*", "sensitive.lmsw.*.prot32.cpl0*"]


def visor(*arguments, timeout=120):
    """The finished process."""
    return subprocess.run([VISOR, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def kvm():
    """Why there is no kvm here, or None."""
    told = visor("info", "--engine", "kvm")
    return None if told.returncode == 0 else told.stdout.strip()


class Vendors(unittest.TestCase):
    """From one profile to the other and back, at every instruction."""

    def move(self, cpu, to, cases, every=1):
        """A run whose guest moves."""
        return visor("run", "--cpu", cpu, "--move", f"every={every},to={to}", *[w for c in cases for w in ("--cases", c)], GUEST)

    def same(self, cpu, to):
        """All cases pass as they do without moves, and the verdicts are told."""
        for case in SAME[:2]:
            alone = visor("run", "--cpu", cpu, "--cases", case, GUEST)
            moved = self.move(cpu, to, [case])
            self.assertEqual(moved.returncode, 0, case + moved.stdout[-2000:] + moved.stderr)
            self.assertEqual(moved.stdout, alone.stdout, case)

    def test_amd_to_intel(self):
        self.same("amd,common", "soft:intel")

    def test_intel_to_amd(self):
        self.same("intel,common", "soft:amd")

    def test_mask_on_both_sides(self):
        """A guest without NX finds none on a processor that has it."""
        moved = self.move("amd,common,-nx", "soft:amd", SAME[1:2])
        self.assertEqual(moved.returncode, 0, moved.stderr)
        refused = self.move("amd", "soft:amd,-nx", SAME[1:2])
        self.assertEqual(refused.returncode, 2)
        self.assertIn("features that this processor (amd,-nx) lacks: nx", refused.stderr)

    def test_refused_by_name(self):
        for cpu, to, names in (("amd", "soft:intel", ["svm", "sse4a", "clzero", "physical-address bits", "XSAVE component 9"]),
                               ("intel", "soft:amd", ["vmx", "tsc_deadline", "waitpkg", "XSAVE component 9"])):
            refused = self.move(cpu, to, SAME[:1])
            self.assertEqual(refused.returncode, 2)
            self.assertEqual(refused.stderr.count("\n"), 1)
            for name in names:
                self.assertIn(name, refused.stderr)


class Common(unittest.TestCase):
    """visor info --cpu-common tells masks that work both ways."""

    def test_profiles(self):
        lines = visor("info", "--cpu-common", "amd", "intel").stdout.splitlines()
        self.assertEqual(len(lines), 2)
        for line, to in zip(lines, ("soft:intel", "soft:amd")):
            cpu = re.fullmatch(r"--engine soft --cpu (\S+)", line).group(1)
            moved = visor("run", "--cpu", cpu, "--move", "every=50,to=" + to, "--cases", SAME[0], GUEST)
            self.assertEqual(moved.returncode, 0, moved.stderr)

    def test_wrong(self):
        told = visor("info", "--cpu-common", "amd", "nosuch")
        self.assertEqual(told.returncode, 2)
        self.assertIn("no CPU profile is called 'nosuch'", told.stderr)


@unittest.skipIf(kvm(), "no kvm")
class Engines(unittest.TestCase):
    """Between the software CPU and this host's KVM."""

    def test_what_kvm_lacks_is_named(self):
        refused = visor("run", "--cpu", "intel", "--move", "every=100,to=kvm", "--cases", SAME[0], GUEST)
        self.assertEqual(refused.returncode, 2)
        self.assertIn(" vmx ", refused.stderr)

    def test_there_and_back(self):
        """What passes on kvm alone passes on the way there, and back."""
        lines = visor("info", "--cpu-common", "amd", "kvm").stdout.splitlines()
        self.assertEqual(len(lines), 2)
        # Nothing that a feature decides: some KVMs let the host's CPUID through.
        cases = [word for kind in ("", ".lock", ".pf", ".ro", ".noncanon") for word in ("--cases", "sensitive.sgdt.long.cpl0" + kind)]
        soft, host = (line.split("--cpu ")[1] for line in lines)
        alone = visor("run", "--engine", "kvm", "--cpu", host, *cases, GUEST)
        there = visor("run", "--cpu", soft, "--move", "every=10,to=kvm", *cases, GUEST)
        back = visor("run", "--engine", "kvm", "--cpu", host, "--move", "every=10,to=soft:amd", *cases, GUEST)
        for moved in (there, back):
            self.good(moved, alone)

    def good(self, moved, alone):
        """All cases pass, but for those whose precondition is missing."""
        last = moved.stdout.splitlines()[-1:] or [""]
        self.assertEqual(last[0].split(":")[0], alone.stdout.splitlines()[-1].split(":")[0], moved.stdout + moved.stderr)
        self.assertRegex(last[0], r"cases: \d+ pass( \d+ notsup)?$", moved.stdout + moved.stderr)

    def test_timers_in_flight(self):
        """A timer that is armed under one engine comes once, and when it is due, under the other."""
        soft, host = (line.split("--cpu ")[1] for line in visor("info", "--cpu-common", "amd", "kvm").stdout.splitlines())
        cases = [word for kind in TIMERS for word in ("--cases", f"migration.{kind}")]
        machine = ["--smp", "4", "--timeout", "30", *cases, MIGRATION]
        alone = visor("run", "--engine", "kvm", "--cpu", host, *machine)
        self.good(alone, alone)
        self.good(visor("run", "--cpu", soft, "--move", "every=30,to=kvm:" + host, *machine), alone)
        self.good(visor("run", "--engine", "kvm", "--cpu", host, "--move", "every=30,to=soft:amd", *machine), alone)

    def test_kvm_clock_and_deadline(self):
        """What the local APIC and KVM's clock have MSRs for is there under kvm, where that lets us answer for MSRs."""
        if "X86_MSR_FILTER" not in visor("info", "--engine", "kvm").stdout.split("; lacks")[0]:
            self.skipTest("the device has no KVM_CAP_X86_MSR_FILTER")
        cases = [word for kind in ("kvm_wall_clock_kept*", "deadline_kept*", "apic_id_kept*", "apic_register_kept*.x2apic.svr",
                                   "timer_once*.apic_deadline") for word in ("--cases", f"migration.{kind}")]
        for move in ([], ["--move", "every=5"]):
            done = visor("run", "--engine", "kvm", "--cpu", "host,+kvmclock", "--smp", "4", *move, *cases, MIGRATION)
            self.assertRegex(done.stdout, r"cases: 5 pass\n$", done.stdout + done.stderr)
        soft, host = (line.split("--cpu ")[1] for line in visor("info", "--cpu-common", "amd,+kvmclock", "kvm:host,+kvmclock").stdout.splitlines())
        clock = ["--smp", "4", "--cases", "migration.kvm_wall*", MIGRATION]
        there = visor("run", "--cpu", soft, "--move", "every=20,to=kvm:" + host, *clock)
        self.assertRegex(there.stdout, r"cases: 1 pass\n$", there.stdout + there.stderr)
        # Some KVMs let the host's TSC through, by which this clock goes.
        alone = visor("run", "--engine", "kvm", "--cpu", "host,+kvmclock", "--cases", "migration.kvmclock*", MIGRATION)
        self.assertRegex(alone.stdout, r"cases: 1 pass\n$", alone.stdout + alone.stderr)

    def test_kvm_masks(self):
        told = visor("run", "--engine", "kvm", "--cpu", "host,+nx", "--cases", SAME[0], GUEST)
        self.assertEqual(told.returncode, 2)
        self.assertIn("can only be taken away", told.stderr)


if __name__ == "__main__":
    unittest.main()
