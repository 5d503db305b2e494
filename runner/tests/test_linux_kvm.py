"""The target linux-kvm, but for the boot itself, which `make check-linux` does."""

import os
import tempfile
import unittest

from traplib import linux_guest, linux_kvm, targets
from traplib.errors import UsageError


class Spelling(unittest.TestCase):
    def test_both_profiles(self):
        self.assertEqual([target.name for target in targets.parse(["linux-kvm"])], ["linux-kvm:amd", "linux-kvm:intel"])

    def test_a_profile_with_features_and_a_folder(self):
        target, = targets.parse(["linux-kvm:amd,-avic=/my/linux"])
        self.assertEqual((target.name, target.cpu), ("linux-kvm:amd,-avic", "amd,-avic"))
        self.assertEqual(linux_kvm.split(target.spelling), ("amd,-avic", "/my/linux"))

    def test_unknown_profile(self):
        with self.assertRaisesRegex(UsageError, "mips: no such profile"):
            targets.parse(["linux-kvm:mips"])

    def test_others_are_no_such_target(self):
        for word in ("linux-kvmx", "kvm", "linux", "soft:amd"):
            self.assertFalse(linux_kvm.matches(word), word)

    def test_the_command_names_the_list(self):
        policy = type("Policy", (), {"smp": 2, "timeout": 1.0})
        line = targets.parse(["linux-kvm:intel"])[0].process("image.elf", policy, "list.txt")
        self.assertEqual(line[line.index("--cases") + 1], "list.txt")
        self.assertEqual(line[line.index("--smp") + 1], "2")


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name, content=None):
        path = os.path.join(self.folder.name, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        return path

    def test_disk_is_whole_sectors(self):
        for size in (0, 1, 511, 512, 513):
            self.assertEqual(linux_kvm.disk(self.path("a", bytes(size)), self.path("b")), size)
            self.assertEqual(os.path.getsize(self.path("b")), max(512, -(-size // 512) * 512))

    def test_list_of_ids(self):
        linux_kvm.case_list(self.path("list", b"suite.a.long\n\nsuite.b.real\n"), self.path("out"))
        with open(self.path("out"), encoding="ascii") as file:
            self.assertEqual(file.read(), "suite.a.long\nsuite.b.real\n")

    def test_folder_without_a_kernel(self):
        with self.assertRaisesRegex(UsageError, "no boot/vmlinuz-"):
            linux_kvm.tree_of(self.folder.name)

    def test_folders_of_the_initramfs_come_outer_ones_first(self):
        self.assertEqual(linux_guest._folders(["usr/lib/x.so", "bin/sh"]), ["bin", "usr", "usr/lib"])


if __name__ == "__main__":
    unittest.main()
