#!/usr/bin/env python3
"""Tests the generator with a small suite of its own: what --lint must catch, ids, bytes and outcomes.

The generator's sources are copied beside a table of three instructions and compiled once; each
test then compiles its rows against them.
"""

import os
import shlex
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SUITES = pathlib.Path(__file__).resolve().parent
TREE = SUITES.parent
SOURCES = ("expand", "given", "says", "cell", "encode", "emit", "inventory", "tables")

INSTRUCTIONS = """
INSN(SGDT, .suite = "test", .name = "sgdt", .bytes = "0F 01 /0", .operand = OPERAND_WRITE, .size = 6, .size_long = 10,
     .class = CLASS_BEHAVIOUR, .conditions = "lock umip")
INSN(SLDT_R64, .suite = "test", .name = "sldt", .form = "r64", .bytes = "o64 0F 00 /0", .operand = OPERAND_REGISTER,
     .class = CLASS_BEHAVIOUR, .modes = WHERE_MODE(MODE_LONG))
INSN(JMP, .suite = "test", .name = "jmp", .bytes = "o16 EA iw:16", .class = CLASS_CONTROL,
     .modes = WHERE_MODE(MODE_PROT16) | WHERE_MODE(MODE_PROT32))
"""

MANUALS = """
MANUAL_SDM(SGDT, "2B", "4.3:SGDT", "store the GDTR")
MANUAL_SDM(UNUSED, "2B", "4.3:UNUSED", "a clause without cases")
"""

GOOD = """
TRAP(SGDT, EVERYWHERE, ALWAYS, (RUNS, MEMORY(2, DATA, LOADED(gdtr_limit))), SDM(SGDT))
TRAP(SGDT, EVERYWHERE, LOCK, FAULT(UD), SDM(SGDT))
TRAP(SGDT, CPL0, CR4(UMIP), RUNS, SDM(SGDT))
TRAP(SGDT, ABOVE0, CR4(UMIP), FAULT(GP, 0), SDM(SGDT))
TRAP(SLDT_R64, LONG, ALWAYS, (RUNS, GPR32(rax, LOADED(ldtr))), SDM(SGDT))
TRAP(JMP, EVERYWHERE, IMMEDIATE(0x12345678), (ON(AMD), FAULT(GP, 0x1234), ON(ELSE), RUNS, EFFECT(rip, 1)), SDM(SGDT))
"""


class Generator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for path in [*SUITES.glob("*.c"), *SUITES.glob("*.h"), *SUITES.glob("*.def")]:
            shutil.copy(path, cls.folder)
        (cls.folder / "instructions.def").write_text(INSTRUCTIONS)
        (cls.folder / "manuals.def").write_text(MANUALS)
        cls.objects = [cls.compile(name) for name in SOURCES]

    @classmethod
    def compile(cls, name):
        target = cls.folder / f"{name}.o"
        subprocess.run([*shlex.split(os.environ.get("CC", "gcc")), "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O0",
                        f"-I{TREE / 'hypervisor'}", "-c", "-o", target, cls.folder / f"{name}.c"],
                       check=True, cwd=cls.folder)
        return target

    def run_rows(self, rows, *arguments):
        """Expands @rows; (exit code, standard error, standard output)."""
        (self.folder / "rows.def").write_text(rows)
        (self.folder / "suite.c").write_text(
            '#include "notation.h"\nconst char suite_name[] = "test";\n'
            "void suite_rows(struct suite *suite)\n{\n\tstatic struct cell cell;\n\tstruct cell *x = &cell;\n\n"
            '\tx->suite = suite;\n#include "rows.def"\n}\n')
        program = self.folder / "expand"
        subprocess.run([*shlex.split(os.environ.get("CC", "gcc")), "-o", program, self.compile("suite"), *self.objects], check=True)
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, done.stdout

    def refused(self, rows, words):
        """@rows are refused by --lint, with @words in one of the lines."""
        code, errors, _ = self.run_rows(rows, "--lint")
        self.assertEqual(code, 1, errors)
        self.assertRegex(errors, words)

    def section(self, rows):
        path = self.folder / "section.txt"
        code, errors, _ = self.run_rows(rows, "--section", str(path))
        self.assertEqual(code, 0, errors)
        return path.read_text()

    def table(self, rows):
        """{id: bytes} of the case table."""
        path = self.folder / "table.c"
        code, errors, _ = self.run_rows(rows, "--table", str(path))
        self.assertEqual(code, 0, errors)
        found = re.findall(r'^\{"([^"]+)", \S+, \d+, \d+, \d+, \d+, \d+, \{([^}]*)\}', path.read_text(), re.M)
        return {name: bytes(int(word, 16) for word in words.split(",") if word.strip()) for name, words in found}

    def test_good_rows_pass(self):
        code, errors, output = self.run_rows(GOOD, "--lint")
        self.assertEqual((code, errors), (0, ""))
        self.assertIn("test: 66 cases", output)

    def test_a_removed_row_leaves_an_empty_cell(self):
        for line in GOOD.strip().splitlines():
            with self.subTest(line):
                self.refused(GOOD.replace(line, ""), r"(sgdt|sldt|jmp) (prot32|long) cpl\d (-|lock|umip): no case")

    def test_a_missing_citation(self):
        self.refused(GOOD.replace("FAULT(UD), SDM(SGDT))", "FAULT(UD), (void)0)"),
                     r"rows\.def:3: the row has no citation")

    def test_an_unknown_key(self):
        self.refused(GOOD.replace("FAULT(UD), SDM(SGDT)", "FAULT(UD), SDM(NOWHERE)"),
                     r"rows\.def:3: unknown citation SDM_NOWHERE")

    def test_a_duplicate_id(self):
        rows = GOOD + "TRAP(SGDT, LONG | CPL2, LOCK, FAULT(UD), SDM(SGDT))\n"
        self.refused(rows, r"rows\.def:\d+: duplicate id test\.sgdt\.long\.cpl2\.lock, as from .*rows\.def:\d+")

    def test_a_duplicate_stops_generation_too(self):
        code, errors, _ = self.run_rows(GOOD + GOOD, "--section", "/dev/null")
        self.assertEqual(code, 1)
        self.assertIn("duplicate id", errors)

    def test_a_story(self):
        rows = GOOD + 'TELL(tale, (GIVE(vector, 0x41), GIVE_AS("quick", mode, 1)), SDM(SGDT))\n'
        code, errors, _ = self.run_rows(rows, "--lint")
        self.assertEqual((code, errors), (0, ""))
        self.refused(GOOD + "TELL(tale, GIVE(vector, 1), (void)0)\n", "the row has no citation")
        twice = "TELL(tale, GIVE(vector, 1), SDM(SGDT))\n"
        self.refused(GOOD + twice + twice, r"duplicate id test\.tale\.long\.cpl0\.vector1")

    def test_a_row_without_cases(self):
        self.refused(GOOD + "TRAP(SGDT, REAL | CPL3, ALWAYS, RUNS, SDM(SGDT))\n", "the row makes no case")

    def test_an_unknown_condition(self):
        self.refused(GOOD + 'TRAP(SGDT, LONG, COND("moon"), RUNS, SDM(SGDT))\n', "unknown condition 'moon'")

    def test_untested_needs_a_reason(self):
        rows = GOOD.replace("TRAP(SGDT, EVERYWHERE, LOCK, FAULT(UD), SDM(SGDT))", 'UNTESTED(SGDT, EVERYWHERE, "lock", "")')
        self.refused(rows, "untested without a reason")

    def test_untested_fills_its_cell_alone(self):
        row = "TRAP(SGDT, EVERYWHERE, LOCK, FAULT(UD), SDM(SGDT))"
        rows = GOOD.replace(row, 'UNTESTED(SGDT, EVERYWHERE, "lock", "no time")')
        self.assertEqual(self.run_rows(rows, "--lint")[0], 0)
        self.assertIn("cell sgdt long 3 lock untested no time\n", self.section(rows))
        self.refused(GOOD.replace(row, 'UNTESTED(SGDT, LONG, "lock", "no time")'), "sgdt prot32 cpl0 lock: no case")

    def test_two_outcomes_need_or(self):
        self.refused(GOOD.replace("FAULT(UD)", "(RUNS, FAULT(UD))"), "two outcomes without ON or OR")

    def test_modes_without_the_form_are_not_encodable(self):
        self.assertIn("cell jmp long 0 - not_encodable\n", self.section(GOOD))

    def test_the_section_counts_its_cases(self):
        text = self.section(GOOD)
        self.assertTrue(text.startswith("trapline-cases 1 test 66\n"))
        self.assertTrue(text.endswith("\nend\n"))
        self.assertEqual(len(re.findall(r"^case ", text, re.M)), 66)

    def test_an_error_code_is_promised_outside_real_mode(self):
        text = self.section(GOOD.replace("CPL0, CR4(UMIP), RUNS", "CPL0, CR4(UMIP), FAULT(GP, 0)"))
        self.assertIn("case test.sgdt.real.cpl0.umip sgdt real 0 behaviour\nwant always FAULT vector=13\n", text)
        self.assertIn("case test.sgdt.long.cpl0.umip sgdt long 0 behaviour\nwant always FAULT vector=13 error=0x0\n", text)

    def test_outcomes_by_processor_name_the_same_effects(self):
        text = self.section(GOOD)
        self.assertIn("want vendor=amd FAULT vector=13 error=0x1234 rip=0x3000\nwant always RUNS rip=0x1\n", text)

    def test_bytes(self):
        table = self.table(GOOD)
        self.assertEqual(table["test.sgdt.prot16.cpl0"], b"\x0f\x01\x07")       # [BX]
        self.assertEqual(table["test.sgdt.prot32.cpl0"], b"\x0f\x01\x03")       # [EBX]
        self.assertEqual(table["test.sgdt.long.cpl0.lock"], b"\xf0\x0f\x01\x03")
        self.assertEqual(table["test.sldt.r64.long.cpl0"], b"\x48\x0f\x00\xc0")
        self.assertEqual(table["test.jmp.prot16.cpl0"], b"\xea\x78\x56\x34\x12")
        self.assertEqual(table["test.jmp.prot32.cpl0"], b"\x66\xea\x78\x56\x34\x12")

    def test_conditions_stand_in_their_order(self):
        rows = GOOD + "TRAP(SGDT, LONG | CPL1, (CR4(UMIP), LOCK), FAULT(UD), SDM(SGDT))\n"
        self.assertIn("case test.sgdt.long.cpl1.lock.umip ", self.section(rows))

    def test_clauses_without_cases_are_counted(self):
        _, _, output = self.run_rows(GOOD, "--clauses")
        self.assertIn("SDM_SGDT SDM 2B 4.3:SGDT 66\n", output)
        self.assertIn("SDM_UNUSED SDM 2B 4.3:UNUSED 0\n", output)


class PagingInventory(unittest.TestCase):
    """The products of suites/paging leave no cell empty, and say which where they do."""

    def lint(self, change):
        """Standard error of the paging suite's --lint with its tables as @change(folder) leaves them."""
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "suites"
            shutil.copytree(SUITES, copy)
            change(copy / "paging")
            program = copy / "expand"
            sources = [copy / f"{name}.c" for name in SOURCES] + sorted((copy / "paging").glob("*.c"))
            subprocess.run([os.environ.get("CC", "gcc").split()[-1], "-std=gnu17", "-O0", f"-I{TREE / 'hypervisor'}",
                            f"-I{copy}", "-o", program, *sources], check=True)
            return subprocess.run([program, "--lint"], capture_output=True, text=True, check=False).stderr

    def test_as_it_is(self):
        self.assertEqual(self.lint(lambda folder: None), "")

    def test_an_entry_without_a_product(self):
        def change(folder):
            table = folder / "product.def"
            table.write_text(table.read_text().replace("PRODUCT(5L_2M, PDPTE, RIGHTS_NX | PTE_A)\n", ""))

        errors = self.lint(change)
        self.assertIn("l5_2m pdpte write cpl3: no case with wp = 0", errors)
        self.assertNotIn("l4_2m", errors)

    def test_an_entry_without_reserved_bits(self):
        def change(folder):
            table = folder / "unusable.def"
            table.write_text(table.read_text().replace("UNUSABLE(32_4M, PDE, BITS(21, 21))", "UNUSABLE(32_4M, PDE, 0)"))

        self.assertIn("b32_4m pde read cpl0: no case with reserved = 1", self.lint(change))


if __name__ == "__main__":
    unittest.main()
