/* acpi.c: finds and walks the ACPI tables. */
#include "pc.h"

static uint32_t get(const uint8_t *from, unsigned size)
{
	uint32_t value = 0;

	copy(&value, from, size);
	return value;
}

static bool sums(const uint8_t *from, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *from++);
	return sum == 0;
}

static const uint8_t *find_rsdp(void)
{
	for (uintptr_t address = 0xe0000; address < 0x100000; address += 16)
		if (same(at(address), "RSD PTR ", 8) && sums(at(address), 20))
			return at(address);
	return NULL;
}

const uint8_t *acpi_table(const char *signature)
{
	const uint8_t *rsdp = find_rsdp(), *rsdt = rsdp ? at(get(rsdp + 16, 4)) : NULL;

	if (!rsdt || !same(rsdt, "RSDT", 4) || !sums(rsdt, get(rsdt + 4, 4)))
		return NULL;
	for (uint32_t i = 36; i < get(rsdt + 4, 4); i += 4) {
		const uint8_t *table = at(get(rsdt + i, 4));

		if (same(table, signature, 4) && sums(table, get(table + 4, 4)))
			return table;
	}
	return NULL;
}

static void walk_madt(const uint8_t *madt)
{
	unsigned cpus = 0;

	print_number("MADT: local APIC", get(madt + 36, 4));
	for (uint32_t i = 44; i < get(madt + 4, 4); i += madt[i + 1]) {
		const uint8_t *entry = madt + i;

		cpus += entry[0] == 0 && (entry[4] & 1);
		if (entry[0] == 1)
			print_number("MADT: I/O APIC", get(entry + 4, 4));
		if (entry[0] == 2 && entry[3] == 0)
			print_number("MADT: IRQ 0", get(entry + 4, 4));
		if (entry[0] == 2 && entry[3] == 9)
			print_number("MADT: SCI's flags", get(entry + 8, 2));
	}
	print_number("MADT: CPUs", cpus);
}

void test_acpi(void)
{
	const uint8_t *fadt = acpi_table("FACP"), *madt = acpi_table("APIC"), *hpet = acpi_table("HPET");
	const uint8_t *dsdt;

	check("ACPI: RSDP", find_rsdp() != NULL);
	check("ACPI: FADT", fadt != NULL);
	check("ACPI: MADT", madt != NULL);
	check("ACPI: HPET", hpet != NULL);
	if (!fadt || !madt || !hpet)
		return;
	dsdt = at(get(fadt + 40, 4));
	check("ACPI: DSDT", same(dsdt, "DSDT", 4) && sums(dsdt, get(dsdt + 4, 4)));
	check("ACPI: FACS", same(at(get(fadt + 36, 4)), "FACS", 4));
	print_number("FADT: SCI", get(fadt + 46, 2));
	print_number("FADT: PM1a control", get(fadt + 64, 4));
	print_number("FADT: PM timer", get(fadt + 76, 4));
	print_number("HPET: address", get(hpet + 44, 4));
	walk_madt(madt);
	/* ACPI mode, by the command port. */
	if (!(inw(get(fadt + 64, 4)) & 1)) {
		outb(get(fadt + 48, 4), fadt[52]);
		while (!(inw(get(fadt + 64, 4)) & 1))
			;
	}
	check("ACPI: enabled", true);
}

/* The first element of \_S3 or \_S5, by its bytes: NameOp, name, PackageOp, length, count, then an integer of one
 * byte. */
unsigned acpi_sleep_type(const char *name)
{
	const uint8_t *fadt = acpi_table("FACP"), *dsdt = at(get(fadt + 40, 4));

	for (uint32_t i = 36; i + 8 < get(dsdt + 4, 4); i++) {
		const uint8_t *package = dsdt + i + 4;

		if (!same(dsdt + i, name, 4) || package[0] != 0x12)
			continue;
		package += 2 + (package[1] >> 6) + 1; /* length, count */
		return package[0] == 0x0a ? package[1] : package[0];
	}
	return 0xff;
}

void acpi_power_off(void)
{
	const uint8_t *fadt = acpi_table("FACP");

	if (!fadt) {
		check("FADT", false);
		return;
	}
	print("switching off\n");
	outw(get(fadt + 64, 4), 0x2000 | acpi_sleep_type("_S5_") << 10);
	for (;;)
		__asm__ volatile("hlt");
}
