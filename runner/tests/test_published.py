"""The table of published bugs, as `trapline published` reads it."""
import pathlib
import tempfile
import unittest

from traplib import published
from traplib.errors import UsageError

ROWS = '''/* PUBLISHED("in a comment", NONE, "x", "y") */
PUBLISHED("CVE-1", HLT.CPL0, "sensitive.hlt.prot32.cpl3",
	  "one "
	  "thing")
PUBLISHED("xen: a fix (of something)", LGDT.CPL0, "sensitive.lgdt.prot32.cpl3", "another", NOT_LOOKED_UP)
UNTESTED("CVE-2", "nothing to see")
UNTESTED("CVE-3", "nor here", NOT_LOOKED_UP)
'''


class Table(unittest.TestCase):
    def read(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "published.def"
            path.write_text(text, encoding="utf-8")
            return published.table(path)

    def test_rows(self):
        bugs, untested = self.read(ROWS)
        self.assertEqual([(bug.named(), bug.name, bug.case, bug.what) for bug in bugs],
                         [("CVE-1", "HLT.CPL0", "sensitive.hlt.prot32.cpl3", "one thing"),
                          ("xen: a fix (of something) (not looked up)", "LGDT.CPL0", "sensitive.lgdt.prot32.cpl3", "another")])
        self.assertEqual(untested, [("CVE-2", "nothing to see", True), ("CVE-3", "nor here", False)])

    def test_mistakes(self):
        for text in ('PUBLISHED("CVE-1", HLT.CPL0, "a", "b", MAYBE)\n', 'UNTESTED("CVE-1")\n', 'UNTESTED("CVE-1", "a") more\n'):
            with self.subTest(text=text), self.assertRaises(UsageError):
                self.read(text)

    def test_our_own(self):
        bugs, untested = published.table()
        self.assertGreater(len({bug.reference for bug in bugs}), 40)
        references = [bug.reference for bug in bugs] + [reference for reference, _, _ in untested]
        for reference in references:
            with self.subTest(reference=reference):
                self.assertRegex(reference, r"^(CVE-\d{4}-\d{4,}|XSA-\d+|(linux|xen|qemu|bochs|virtualbox): \S.*)$")


if __name__ == "__main__":
    unittest.main()
