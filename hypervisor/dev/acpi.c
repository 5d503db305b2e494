#include "dev/acpi.h"

#include <string.h>

#include "dev/acpi_pm.h"
#include "dev/aml.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/rtc.h"

#define LAPIC_BASE  0xfee00000u
#define IOAPIC_BASE 0xfec00000u

#define HEADER_SIZE   36u
#define HEADER_LENGTH 4u
#define HEADER_SUM    9u
#define RSDP_ROOM     64u /* in front of the tables, which want to be aligned */

#define OEM_ID    "TRPLN "
#define OEM_TABLE "TRAPLINE"
#define CREATOR   "TRPL"

/* ---- bytes ---- */

static void put(struct acpi *acpi, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size && acpi->size < sizeof(acpi->tables); i++)
		acpi->tables[acpi->size++] = (uint8_t)(value >> (8 * i));
}

static void put_text(struct acpi *acpi, const char *text)
{
	while (*text)
		put(acpi, (uint8_t)*text++, 1);
}

static void align(struct acpi *acpi, unsigned to)
{
	while (acpi->size % to)
		put(acpi, 0, 1);
}

static void set32(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint8_t sum_of(const uint8_t *at, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *at++);
	return sum;
}

/* A pointer to a table, which becomes an address once the place is known. */
static void put_pointer(struct acpi *acpi, size_t target, unsigned size)
{
	acpi->pointer[acpi->pointers++] =
		(struct acpi_pointer){.offset = (uint16_t)acpi->size, .size = (uint8_t)size};
	put(acpi, target, size);
}

/* ---- tables ---- */

/* Begins a table at the next 16 bytes; returns where. */
static size_t begin(struct acpi *acpi, const char *signature, unsigned revision)
{
	size_t at;

	align(acpi, 16);
	at = acpi->size;
	put_text(acpi, signature);
	put(acpi, 0, 4); /* length */
	put(acpi, revision, 1);
	put(acpi, 0, 1); /* checksum */
	put_text(acpi, OEM_ID);
	put_text(acpi, OEM_TABLE);
	put(acpi, 1, 4);
	put_text(acpi, CREATOR);
	put(acpi, 1, 4);
	return at;
}

static void end(struct acpi *acpi, size_t at)
{
	set32(acpi->tables + at + HEADER_LENGTH, acpi->size - at);
	acpi->sum[acpi->sums++] =
		(struct acpi_sum){.offset = (uint16_t)at, .size = (uint16_t)(acpi->size - at)};
}

/* Firmware control structure: no waking vector yet, and a global lock that nobody but the guest takes. */
static size_t make_facs(struct acpi *acpi)
{
	size_t at;

	align(acpi, 64);
	at = acpi->size;
	put_text(acpi, "FACS");
	put(acpi, 64, 4);
	for (unsigned i = 0; i < 6; i++)
		put(acpi, 0, 4);
	put(acpi, 2, 1); /* version */
	while (acpi->size < at + 64)
		put(acpi, 0, 1);
	return at;
}

/* Generic address structure (section 5.2.3.2). */
static void put_gas(struct acpi *acpi, bool io, unsigned bits, unsigned access, uint64_t address)
{
	put(acpi, address ? io : 0, 1);
	put(acpi, address ? bits : 0, 1);
	put(acpi, 0, 1);
	put(acpi, address ? access : 0, 1);
	put(acpi, address, 8);
}

enum { ACCESS_BYTE = 1, ACCESS_WORD, ACCESS_DWORD };

#define FADT_WBINVD          (1u << 0)
#define FADT_PROC_C1         (1u << 2)
#define FADT_NO_SLEEP_BUTTON (1u << 5) /* as fixed hardware; the power button is */
#define FADT_RESET_REGISTER  (1u << 10)
#define FADT_HEADLESS        (1u << 12)
#define BOOT_LEGACY_DEVICES  0x1u
#define BOOT_8042            0x2u
#define BOOT_NO_VGA          0x4u
#define RESET_PORT           0xcf9
#define RESET_VALUE          0x0f

/* The FADT's fields up to and with its flags (section 5.2.9). */
static void put_fadt_blocks(struct acpi *acpi)
{
	put(acpi, 0, 1);
	put(acpi, 0, 1); /* preferred power management profile: not specified */
	put(acpi, ACPI_SCI, 2);
	put(acpi, ACPI_APM_PORT, 4);
	put(acpi, ACPI_APM_ENABLE, 1);
	put(acpi, ACPI_APM_DISABLE, 1);
	put(acpi, 0, 2); /* S4BIOS, processor performance: none */
	put(acpi, ACPI_PM1_EVENT, 4);
	put(acpi, 0, 4); /* PM1b */
	put(acpi, ACPI_PM1_CONTROL, 4);
	put(acpi, 0, 4);
	put(acpi, 0, 4); /* PM2 */
	put(acpi, ACPI_PM_TIMER, 4);
	put(acpi, 0, 4); /* GPE0 */
	put(acpi, 0, 4);
	put(acpi, 4, 1); /* lengths: PM1 event, control, PM2, timer, GPE0, GPE1; GPE1's base */
	put(acpi, 2, 1);
	put(acpi, 0, 1);
	put(acpi, 4, 1);
	put(acpi, 0, 3);
	put(acpi, 0, 1);     /* _CST */
	put(acpi, 0xfff, 2); /* C2 and C3 are not there */
	put(acpi, 0xfff, 2);
	put(acpi, 0, 4); /* flush size and stride: WBINVD works */
	put(acpi, 0, 2); /* duty cycle */
	put(acpi, 0, 2); /* day and month alarm: none */
	put(acpi, RTC_CENTURY, 1);
	put(acpi, BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA, 2);
	put(acpi, 0, 1);
	put(acpi,
	    FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_RESET_REGISTER | FADT_HEADLESS,
	    4);
}

static size_t make_fadt(struct acpi *acpi, size_t facs, size_t dsdt)
{
	size_t at = begin(acpi, "FACP", 3);

	put_pointer(acpi, facs, 4);
	put_pointer(acpi, dsdt, 4);
	put_fadt_blocks(acpi);
	put_gas(acpi, true, 8, ACCESS_BYTE, RESET_PORT);
	put(acpi, RESET_VALUE, 1);
	put(acpi, 0, 3);
	put(acpi, 0, 8); /* the 64-bit address of the FACS: the one above counts */
	put_pointer(acpi, dsdt, 8);
	put_gas(acpi, true, 32, ACCESS_WORD, ACPI_PM1_EVENT);
	put_gas(acpi, true, 0, 0, 0);
	put_gas(acpi, true, 16, ACCESS_WORD, ACPI_PM1_CONTROL);
	put_gas(acpi, true, 0, 0, 0);
	put_gas(acpi, true, 0, 0, 0);
	put_gas(acpi, true, 32, ACCESS_DWORD, ACPI_PM_TIMER);
	put_gas(acpi, true, 0, 0, 0);
	put_gas(acpi, true, 0, 0, 0);
	end(acpi, at);
	return at;
}

#define LEVEL_HIGH 0x000d /* trigger and polarity of an override: level, active high */

static void put_override(struct acpi *acpi, unsigned irq, unsigned input, unsigned flags)
{
	put(acpi, 2, 1);
	put(acpi, 10, 1);
	put(acpi, 0, 1); /* ISA */
	put(acpi, irq, 1);
	put(acpi, input, 4);
	put(acpi, flags, 2);
}

static uint32_t pci_irqs(const struct acpi_config *config)
{
	uint32_t irqs = 0;

	for (unsigned pin = 0; pin < 128; pin++)
		irqs |= 1u << config->pci_irq(pin / 4, pin % 4);
	return irqs;
}

static size_t make_madt(struct acpi *acpi, const struct acpi_config *config)
{
	size_t at = begin(acpi, "APIC", 3);
	uint32_t level = pci_irqs(config) | 1u << ACPI_SCI;

	put(acpi, LAPIC_BASE, 4);
	put(acpi, 1, 4); /* there are 8259As as well */
	for (unsigned i = 0; i < config->cpus; i++) {
		put(acpi, 0, 1);
		put(acpi, 8, 1);
		put(acpi, i, 1); /* _UID */
		put(acpi, i, 1); /* APIC id */
		put(acpi, 1, 4); /* enabled */
	}
	put(acpi, 1, 1);
	put(acpi, 12, 1);
	put(acpi, 0, 2);
	put(acpi, IOAPIC_BASE, 4);
	put(acpi, 0, 4);
	put_override(acpi, 0, 2, 0);
	for (unsigned irq = 0; irq < 16; irq++)
		if (level >> irq & 1)
			put_override(acpi, irq, irq, LEVEL_HIGH);
	put(acpi, 4, 1); /* NMI on LINT1 of every processor */
	put(acpi, 6, 1);
	put(acpi, 0xff, 1);
	put(acpi, 0, 2);
	put(acpi, 1, 1);
	end(acpi, at);
	return at;
}

static size_t make_hpet(struct acpi *acpi)
{
	size_t at = begin(acpi, "HPET", 1);

	put(acpi, HPET_ID, 4);
	put_gas(acpi, false, 64, 0, HPET_BASE);
	put(acpi, 0, 1); /* sequence number */
	put(acpi, 0, 2); /* minimum tick in periodic mode: any */
	put(acpi, 0, 1); /* page protection: none */
	end(acpi, at);
	return at;
}

/* ---- the DSDT ---- */

static void describe_cpus(struct aml *aml, unsigned cpus)
{
	for (unsigned i = 0; i < cpus; i++) {
		const char name[5] = {'C', (char)('0' + i / 100), (char)('0' + i / 10 % 10),
				      (char)('0' + i % 10), 0};
		aml_mark device = aml_open_device(aml, name);

		aml_name(aml, "_HID");
		aml_string(aml, "ACPI0007");
		aml_name_integer(aml, "_UID", i);
		aml_close(aml, device);
	}
}

/* A device of the ISA bus: up to two port ranges, and an interrupt (0: none). */
struct isa_device {
	const char *name, *id;
	uint16_t first, first2;
	uint8_t count, count2, irq;
};

static const struct isa_device isa_devices[] = {
	{.name = "COM1", .id = "PNP0501", .first = 0x3f8, .count = 8, .irq = 4},
	{.name = "RTC", .id = "PNP0B00", .first = 0x70, .count = 2, .irq = 8},
	{.name = "KBD", .id = "PNP0303", .first = 0x60, .count = 1, .first2 = 0x64, .count2 = 1, .irq = 1},
	{.name = "TIMR", .id = "PNP0100", .first = 0x40, .count = 4},
	{.name = "PIC", .id = "PNP0000", .first = 0x20, .count = 2, .first2 = 0xa0, .count2 = 2, .irq = 2},
	{.name = "DMAC", .id = "PNP0200", .first = 0x00, .count = 16, .first2 = 0xc0, .count2 = 32},
	{.name = "SPKR", .id = "PNP0800", .first = 0x61, .count = 1},
};

static void describe_isa(struct aml *aml)
{
	for (unsigned i = 0; i < sizeof(isa_devices) / sizeof(isa_devices[0]); i++) {
		const struct isa_device *isa = &isa_devices[i];
		aml_mark device = aml_open_device(aml, isa->name), resources;

		aml_name_eisa_id(aml, "_HID", isa->id);
		if (strcmp(isa->name, "COM1") == 0)
			aml_name_integer(aml, "_UID", 1);
		resources = aml_open_resources(aml, "_CRS");
		aml_io(aml, isa->first, isa->count);
		if (isa->count2)
			aml_io(aml, isa->first2, isa->count2);
		if (isa->irq)
			aml_irq(aml, isa->irq);
		aml_close_resources(aml, resources);
		aml_close(aml, device);
	}
}

static void describe_fw_cfg(struct aml *aml)
{
	aml_mark device = aml_open_device(aml, "FWCF"), resources;

	aml_name(aml, "_HID");
	aml_string(aml, "QEMU0002");
	aml_name_integer(aml, "_STA", 0x0b);
	resources = aml_open_resources(aml, "_CRS");
	aml_io(aml, FW_CFG_PORT, 12);
	aml_close_resources(aml, resources);
	aml_close(aml, device);
}

/* What is decoded and belongs to no device above, so that nobody puts anything there. */
static void describe_motherboard(struct aml *aml)
{
	static const struct {
		uint16_t first;
		uint8_t count;
	} ports[] = {{0x80, 16}, {0x92, 1},   {0xb2, 2},    {0xe0, 12},  {0xf4, 4},
		     {0x4d0, 2}, {0x600, 12}, {0x2000, 24}, {0x5450, 16}};
	aml_mark device = aml_open_device(aml, "MBRD"), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0C02");
	resources = aml_open_resources(aml, "_CRS");
	for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
		aml_io(aml, ports[i].first, ports[i].count);
	aml_memory32(aml, 0xff000000, 0x10000); /* dev/testdev.h */
	aml_close_resources(aml, resources);
	aml_close(aml, device);
}

static void describe_hpet(struct aml *aml)
{
	aml_mark device = aml_open_device(aml, "HPET"), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0103");
	aml_name_integer(aml, "_UID", 0);
	resources = aml_open_resources(aml, "_CRS");
	aml_memory32(aml, HPET_BASE, HPET_SIZE);
	aml_close_resources(aml, resources);
	aml_close(aml, device);
}

/* _PRT: each pin of each slot leads to an input of the interrupt controllers, whose numbers are the same in
 * both. */
static void describe_routing(struct aml *aml, const struct acpi_config *config)
{
	aml_mark package, entry;

	aml_name(aml, "_PRT");
	package = aml_open_package(aml, 128);
	for (unsigned i = 0; i < 128; i++) {
		entry = aml_open_package(aml, 4);
		aml_integer(aml, (uint64_t)(i / 4) << 16 | 0xffff);
		aml_integer(aml, i % 4);
		aml_integer(aml, 0);
		aml_integer(aml, config->pci_irq(i / 4, i % 4));
		aml_close(aml, entry);
	}
	aml_close(aml, package);
}

/* The bridge's windows: ports that legacy devices do not have, and the hole up to the I/O APIC. */
static void describe_pci(struct aml *aml, const struct acpi_config *config)
{
	aml_mark bridge = aml_open_device(aml, "PCI0"), resources, isa;

	aml_name_eisa_id(aml, "_HID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_BBN", 0);
	resources = aml_open_resources(aml, "_CRS");
	aml_bus_window(aml, 0, 0);
	aml_io(aml, 0xcf8, 8);
	aml_io_window(aml, 0, 0xcf7);
	aml_io_window(aml, 0xc000, 0xfeff);
	aml_memory_window(aml, config->pci_memory, IOAPIC_BASE - 1);
	aml_close_resources(aml, resources);
	describe_routing(aml, config);
	isa = aml_open_device(aml, "ISA");
	aml_name_integer(aml, "_ADR", 0x00010000);
	describe_isa(aml);
	aml_close(aml, isa);
	aml_close(aml, bridge);
}

static void describe_sleep(struct aml *aml, const char *name, unsigned type)
{
	aml_mark package;

	aml_name(aml, name);
	package = aml_open_package(aml, 4);
	aml_integer(aml, type); /* SLP_TYP for PM1a and PM1b */
	aml_integer(aml, type);
	aml_integer(aml, 0);
	aml_integer(aml, 0);
	aml_close(aml, package);
}

/* Revision 2: integers have 64 bits. */
static size_t make_dsdt(struct acpi *acpi, const struct acpi_config *config, bool *full)
{
	size_t at = begin(acpi, "DSDT", 2);
	struct aml aml = {.at = acpi->tables + acpi->size, .room = sizeof(acpi->tables) - acpi->size};
	aml_mark scope = aml_open_scope(&aml, "\\_SB");

	describe_cpus(&aml, config->cpus);
	describe_pci(&aml, config);
	describe_fw_cfg(&aml);
	describe_motherboard(&aml);
	if (config->hpet)
		describe_hpet(&aml);
	aml_close(&aml, scope);
	describe_sleep(&aml, "\\_S3", ACPI_SLEEP_S3);
	describe_sleep(&aml, "\\_S5", ACPI_SLEEP_OFF);
	acpi->size += aml.size;
	*full = aml.full;
	end(acpi, at);
	return at;
}

/* ---- roots ---- */

static size_t make_root(struct acpi *acpi, const char *signature, const size_t *table, unsigned tables,
			unsigned size)
{
	size_t at = begin(acpi, signature, 1);

	for (unsigned i = 0; i < tables; i++)
		put_pointer(acpi, table[i], size);
	end(acpi, at);
	return at;
}

static void make_rsdp(struct acpi *acpi, size_t rsdt, size_t xsdt)
{
	memcpy(acpi->rsdp, "RSD PTR ", 8);
	memcpy(acpi->rsdp + 9, OEM_ID, 6);
	acpi->rsdp[15] = 2; /* revision */
	set32(acpi->rsdp + 16, rsdt);
	set32(acpi->rsdp + 20, ACPI_RSDP_SIZE);
	set32(acpi->rsdp + 24, xsdt);
	acpi->pointer[acpi->pointers++] = (struct acpi_pointer){.in_rsdp = true, .offset = 16, .size = 4};
	acpi->pointer[acpi->pointers++] = (struct acpi_pointer){.in_rsdp = true, .offset = 24, .size = 8};
}

/* ---- the loader's script ---- */

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"

enum { COMMAND_ALLOCATE = 1, COMMAND_POINTER, COMMAND_CHECKSUM };
enum { ZONE_HIGH = 1, ZONE_FSEG };

static uint8_t *command(struct acpi *acpi, uint32_t kind, const char *file)
{
	uint8_t *at = acpi->loader[acpi->commands++];

	set32(at, kind);
	memcpy(at + 4, file, strlen(file));
	return at;
}

static void command_allocate(struct acpi *acpi, const char *file, uint32_t alignment, uint8_t zone)
{
	uint8_t *at = command(acpi, COMMAND_ALLOCATE, file);

	set32(at + 60, alignment);
	at[64] = zone;
}

static void command_checksum(struct acpi *acpi, const char *file, uint32_t result, uint32_t start,
			     uint32_t size)
{
	uint8_t *at = command(acpi, COMMAND_CHECKSUM, file);

	set32(at + 60, result);
	set32(at + 64, start);
	set32(at + 68, size);
}

static void make_loader(struct acpi *acpi)
{
	command_allocate(acpi, RSDP_FILE, 16, ZONE_FSEG);
	command_allocate(acpi, TABLES_FILE, 64, ZONE_HIGH);
	for (unsigned i = 0; i < acpi->pointers; i++) {
		const struct acpi_pointer *pointer = &acpi->pointer[i];
		uint8_t *at = command(acpi, COMMAND_POINTER, pointer->in_rsdp ? RSDP_FILE : TABLES_FILE);

		memcpy(at + 60, TABLES_FILE, strlen(TABLES_FILE));
		set32(at + 116, pointer->offset);
		at[120] = pointer->size;
	}
	for (unsigned i = 0; i < acpi->sums; i++)
		command_checksum(acpi, TABLES_FILE, acpi->sum[i].offset + HEADER_SUM, acpi->sum[i].offset,
				 acpi->sum[i].size);
	command_checksum(acpi, RSDP_FILE, 8, 0, 20);
	command_checksum(acpi, RSDP_FILE, 32, 0, ACPI_RSDP_SIZE);
}

/* ---- all of it ---- */

bool acpi_make(struct acpi *acpi, const struct acpi_config *config)
{
	size_t facs, dsdt, table[3], rsdt, xsdt;
	unsigned tables = 0;
	bool full;

	memset(acpi, 0, sizeof(*acpi));
	facs = acpi->facs = make_facs(acpi);
	dsdt = make_dsdt(acpi, config, &full);
	table[tables++] = make_fadt(acpi, facs, dsdt);
	table[tables++] = make_madt(acpi, config);
	if (config->hpet)
		table[tables++] = make_hpet(acpi);
	rsdt = make_root(acpi, "RSDT", table, tables, 4);
	xsdt = make_root(acpi, "XSDT", table, tables, 8);
	make_rsdp(acpi, rsdt, xsdt);
	make_loader(acpi);
	return !full && acpi->size < sizeof(acpi->tables);
}

#define FACS_WAKING_VECTOR 12u

size_t acpi_waking_vector(const struct acpi *acpi) { return RSDP_ROOM + acpi->facs + FACS_WAKING_VECTOR; }

size_t acpi_size(const struct acpi *acpi) { return RSDP_ROOM + acpi->size; }

void acpi_place(const struct acpi *acpi, uint64_t base, uint8_t *to)
{
	uint8_t *tables = to + RSDP_ROOM;

	memset(to, 0, RSDP_ROOM);
	memcpy(to, acpi->rsdp, ACPI_RSDP_SIZE);
	memcpy(tables, acpi->tables, acpi->size);
	for (unsigned i = 0; i < acpi->pointers; i++) {
		const struct acpi_pointer *pointer = &acpi->pointer[i];
		uint8_t *at = (pointer->in_rsdp ? to : tables) + pointer->offset;
		uint64_t value = 0;

		memcpy(&value, at, pointer->size);
		value += base + RSDP_ROOM;
		memcpy(at, &value, pointer->size);
	}
	for (unsigned i = 0; i < acpi->sums; i++) {
		uint8_t *at = tables + acpi->sum[i].offset;

		at[HEADER_SUM] = (uint8_t)-sum_of(at, acpi->sum[i].size);
	}
	to[8] = (uint8_t)-sum_of(to, 20);
	to[32] = (uint8_t)-sum_of(to, ACPI_RSDP_SIZE);
}
