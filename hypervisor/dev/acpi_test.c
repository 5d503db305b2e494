/* The tables walked as software walks them, and read by ACPICA's iasl where it is installed. */
#include <stdio.h>
#include <unistd.h>

#include "dev/test_bench.h"

#include "dev/acpi.h"

#define BASE 0xf0000u

struct session {
	struct acpi acpi;
	uint8_t memory[ACPI_SIZE_MAX + 64];
	unsigned cpus;
	bool hpet;
};

static unsigned pci_irq(unsigned slot, unsigned pin) { return (slot + pin) % 2 ? 11 : 10; }

static struct session *make(unsigned cpus, bool hpet)
{
	struct session *s = calloc(1, sizeof(*s));
	struct acpi_config config = {
		.cpus = cpus, .hpet = hpet, .pci_memory = 0xc0000000, .pci_irq = pci_irq};

	s->cpus = cpus;
	s->hpet = hpet;
	assert_true(acpi_make(&s->acpi, &config));
	assert_true(acpi_size(&s->acpi) <= sizeof(s->memory));
	acpi_place(&s->acpi, BASE, s->memory);
	return s;
}

static uint64_t number(const uint8_t *at, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, at, size);
	return value;
}

static uint8_t sum(const uint8_t *at, size_t size)
{
	uint8_t value = 0;

	while (size--)
		value = (uint8_t)(value + *at++);
	return value;
}

static const uint8_t *at(const struct session *s, uint64_t address)
{
	assert_true(address >= BASE && address < BASE + acpi_size(&s->acpi));
	return s->memory + (address - BASE);
}

static size_t length(const uint8_t *table) { return number(table + 4, 4); }

/* A table of the RSDT or, by 8 bytes, the XSDT. */
static const uint8_t *find(const struct session *s, const char *signature, unsigned size)
{
	const uint8_t *root = at(s, size == 4 ? number(s->memory + 16, 4) : number(s->memory + 24, 8));

	assert_memory_equal(root, size == 4 ? "RSDT" : "XSDT", 4);
	assert_int_equal(sum(root, length(root)), 0);
	for (size_t i = 36; i < length(root); i += size) {
		const uint8_t *table = at(s, number(root + i, size));

		assert_int_equal(sum(table, length(table)), 0);
		if (memcmp(table, signature, 4) == 0)
			return table;
	}
	return NULL;
}

static const uint8_t *dsdt(const struct session *s) { return at(s, number(find(s, "FACP", 8) + 140, 8)); }

static void roots(void **state)
{
	struct session *s = make(4, true);

	(void)state;
	assert_memory_equal(s->memory, "RSD PTR ", 8);
	assert_int_equal(sum(s->memory, 20), 0);
	assert_int_equal(sum(s->memory, 36), 0);
	assert_int_equal(s->memory[15], 2);
	for (unsigned size = 4; size <= 8; size += 4) {
		assert_non_null(find(s, "FACP", size));
		assert_non_null(find(s, "APIC", size));
		assert_non_null(find(s, "HPET", size));
		assert_null(find(s, "MCFG", size));
	}
	free(s);
	s = make(1, false);
	assert_null(find(s, "HPET", 4));
	free(s);
}

static void fadt(void **state)
{
	struct session *s = make(1, true);
	const uint8_t *table = find(s, "FACP", 4), *facs = at(s, number(table + 36, 4));

	(void)state;
	assert_int_equal(length(table), 244);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal((facs - s->memory) % 64, 0);
	assert_int_equal(length(facs), 64);
	assert_int_equal(number(table + 40, 4), number(table + 140, 8));
	assert_memory_equal(dsdt(s), "DSDT", 4);
	assert_int_equal(sum(dsdt(s), length(dsdt(s))), 0);
	assert_int_equal(number(table + 46, 2), 9);     /* SCI */
	assert_int_equal(number(table + 48, 4), 0xb2);  /* SMI_CMD */
	assert_int_equal(number(table + 56, 4), 0x600); /* PM1a_EVT */
	assert_int_equal(number(table + 64, 4), 0x604); /* PM1a_CNT */
	assert_int_equal(number(table + 76, 4), 0x608); /* PM_TMR */
	assert_int_equal(table[88], 4);
	assert_int_equal(table[89], 2);
	assert_int_equal(table[91], 4);
	assert_int_equal(table[108], 0x32);                      /* CENTURY */
	assert_int_equal(number(table + 112, 4) & 0x500, 0x400); /* a reset register, 24 bits of timer */
	assert_int_equal(table[116], 1);
	assert_int_equal(number(table + 120, 8), 0xcf9);
	assert_int_equal(table[128], 0x0f);
	assert_int_equal(number(table + 152, 8), 0x600);
	assert_int_equal(number(table + 176, 8), 0x604);
	assert_int_equal(number(table + 212, 8), 0x608);
	free(s);
}

static void madt(void **state)
{
	struct session *s = make(64, true);
	const uint8_t *table = find(s, "APIC", 8);
	unsigned cpus = 0, ioapics = 0, nmis = 0;
	uint32_t overrides = 0;

	(void)state;
	assert_int_equal(number(table + 36, 4), 0xfee00000);
	for (size_t i = 44; i < length(table); i += table[i + 1]) {
		const uint8_t *entry = table + i;

		switch (entry[0]) {
		case 0:
			assert_int_equal(entry[3], cpus++);
			assert_int_equal(number(entry + 4, 4), 1);
			break;
		case 1:
			ioapics++;
			assert_int_equal(number(entry + 4, 4), 0xfec00000);
			assert_int_equal(number(entry + 8, 4), 0);
			break;
		case 2:
			overrides |= 1u << entry[3];
			assert_int_equal(number(entry + 4, 4), entry[3] ? entry[3] : 2);
			assert_int_equal(number(entry + 8, 2), entry[3] ? 0xd : 0);
			break;
		case 4:
			nmis++;
			assert_int_equal(entry[2], 0xff);
			assert_int_equal(entry[5], 1);
			break;
		default: fail_msg("entry of type %u", entry[0]);
		}
	}
	assert_int_equal(cpus, 64);
	assert_int_equal(ioapics, 1);
	assert_int_equal(nmis, 1);
	assert_int_equal(overrides, 1u | 1u << 9 | 1u << 10 | 1u << 11);
	free(s);
}

/* A firmware's run of the script makes what acpi_place() makes. */
static void loader(void **state)
{
	struct session *s = make(4, true);
	uint8_t *mine = calloc(1, sizeof(s->memory));
	uint64_t base;

	(void)state;
	memcpy(mine, s->acpi.rsdp, ACPI_RSDP_SIZE);
	memcpy(mine + 64, s->acpi.tables, s->acpi.size);
	for (unsigned i = 0; i < s->acpi.commands; i++) {
		const uint8_t *command = s->acpi.loader[i];
		uint8_t *file = mine + (strcmp((const char *)command + 4, "etc/acpi/rsdp") ? 64 : 0);
		uint8_t *to;

		switch (number(command, 4)) {
		case 1: assert_true(i < 2); break;
		case 2:
			to = file + number(command + 116, 4);
			assert_string_equal((const char *)command + 60, "etc/acpi/tables");
			base = number(to, command[120]) + BASE + 64;
			memcpy(to, &base, command[120]);
			break;
		case 3:
			to = file + number(command + 60, 4);
			*to = 0;
			*to = (uint8_t)-sum(file + number(command + 64, 4), number(command + 68, 4));
			break;
		default: fail();
		}
	}
	assert_memory_equal(mine, s->memory, acpi_size(&s->acpi));
	free(mine);
	free(s);
}

/* ---- iasl ---- */

static char folder[64];

static void run(const char *command, char *output, size_t size)
{
	FILE *pipe = popen(command, "r");
	size_t got;

	assert_non_null(pipe);
	got = fread(output, 1, size - 1, pipe);
	output[got] = 0;
	pclose(pipe);
}

static void write_table(const char *name, const uint8_t *table)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.dat", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(table, 1, length(table), file), length(table));
	fclose(file);
}

static void assert_has(const char *text, const char *word)
{
	if (!strstr(text, word))
		fail_msg("\"%s\" is not in:\n%s", word, text);
}

static void disassemble(const struct session *s, char *text, size_t size)
{
	char command[512];

	write_table("dsdt", dsdt(s));
	write_table("facp", find(s, "FACP", 8));
	write_table("apic", find(s, "APIC", 8));
	write_table("hpet", find(s, "HPET", 8));
	snprintf(command, sizeof(command),
		 "cd %s && for i in dsdt facp apic hpet; do iasl -d $i.dat 2>&1; done", folder);
	run(command, text, size);
	if (strstr(text, "rror") || strstr(text, "arning"))
		fail_msg("%s", text);
	/* What it has read must compile again, without an error or a remark on the tables' contents. */
	snprintf(command, sizeof(command),
		 "cd %s && for i in dsdt facp apic hpet; do iasl -p again $i.dsl 2>&1; done", folder);
	run(command, text, size);
	if (strstr(text, "Error ") || strstr(text, "Warning "))
		fail_msg("%s", text);
	assert_has(text, "0 Errors, 0 Warnings");
	snprintf(command, sizeof(command), "cat %s/*.dsl | tr '\\n' ' ' | tr -s ' '", folder);
	run(command, text, size);
}

static void read_by_iasl(void **state)
{
	struct session *s = make(3, true);
	static char text[1 << 18];
	char command[128];

	(void)state;
	if (system("command -v iasl >/dev/null") != 0)
		skip();
	strcpy(folder, "/tmp/acpi_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	disassemble(s, text, sizeof(text));
	assert_has(text, "Device (C002)");
	assert_has(text, "EisaId (\"PNP0A03\")");
	assert_has(text, "EisaId (\"PNP0501\")");
	assert_has(text, "Name (\\_S5, Package (0x04)");
	assert_has(text, "IRQNoFlags () {4}");
	assert_has(text, "0xC0000000, // Range Minimum");
	assert_has(text, "0xFEBFFFFF, // Range Maximum");
	assert_has(text, "0x0001FFFF, One, Zero, 0x0A");
	assert_has(text, "Reset Register");
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(roots),  cmocka_unit_test(fadt),         cmocka_unit_test(madt),
		cmocka_unit_test(loader), cmocka_unit_test(read_by_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
