#include "dev/mptable.h"

#include <string.h>

#define LAPIC_BASE     0xfee00000u
#define IOAPIC_BASE    0xfec00000u
#define LAPIC_VERSION  0x14
#define IOAPIC_VERSION 0x11

#define POINTER_SIZE  16u
#define POINTER_SUM   10u
#define HEADER_SIZE   44u
#define HEADER_LENGTH 4u
#define HEADER_SUM    7u
#define HEADER_COUNT  34u

enum entry { PROCESSOR, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT };
enum interrupt { INTERRUPT, NMI, SMI, EXTINT };
enum bus { BUS_PCI, BUS_ISA };

#define CPU_ENABLED 1u
#define CPU_BSP     2u
#define CPU_FPU     0x001u /* feature flags: CPUID's */
#define CPU_APIC    0x200u
#define LEVEL_HIGH  0x000d /* polarity and trigger mode; 0: as the bus has it */
#define ALL_APICS   0xff
#define TIMER_INPUT 2u /* where the board leads IRQ 0 to */

struct writer {
	uint8_t *to;
	size_t size;
	unsigned entries;
};

static void put(struct writer *writer, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		writer->to[writer->size++] = (uint8_t)(value >> (8 * i));
}

static void put_text(struct writer *writer, const char *text, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		put(writer, *text ? (uint8_t)*text++ : ' ', 1);
}

static void begin_entry(struct writer *writer, enum entry type)
{
	put(writer, type, 1);
	writer->entries++;
}

static uint8_t sum_of(const uint8_t *at, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *at++);
	return sum;
}

/* ---- entries (4.3) ---- */

static void put_processor(struct writer *writer, unsigned id)
{
	begin_entry(writer, PROCESSOR);
	put(writer, id, 1);
	put(writer, LAPIC_VERSION, 1);
	put(writer, CPU_ENABLED | (id == 0 ? CPU_BSP : 0), 1);
	put(writer, 0, 4); /* signature: CPUID tells */
	put(writer, CPU_FPU | CPU_APIC, 4);
	put(writer, 0, 8);
}

static void put_bus(struct writer *writer, enum bus id, const char *name)
{
	begin_entry(writer, BUS);
	put(writer, id, 1);
	put_text(writer, name, 6);
}

static void put_ioapic(struct writer *writer)
{
	begin_entry(writer, IOAPIC);
	put(writer, 0, 1);
	put(writer, IOAPIC_VERSION, 1);
	put(writer, 1, 1); /* usable */
	put(writer, IOAPIC_BASE, 4);
}

/* Both kinds are laid out alike; @to is an I/O APIC or a local APIC, @input of it. */
static void put_interrupt(struct writer *writer, enum entry entry, enum interrupt type, unsigned flags,
			  enum bus bus, unsigned irq, unsigned to, unsigned input)
{
	begin_entry(writer, entry);
	put(writer, type, 1);
	put(writer, flags, 2);
	put(writer, bus, 1);
	put(writer, irq, 1);
	put(writer, to, 1);
	put(writer, input, 1);
}

static uint32_t put_pci_interrupts(struct writer *writer, const struct mptable_config *config)
{
	uint32_t used = 0;

	for (unsigned pin = 0; pin < 128; pin++) {
		unsigned irq = config->pci_irq(pin / 4, pin % 4);

		put_interrupt(writer, IO_INTERRUPT, INTERRUPT, LEVEL_HIGH, BUS_PCI, pin, 0, irq);
		used |= 1u << irq;
	}
	return used;
}

/* Line 2 is where the 8259As meet; lines that PCI has are not ISA's. */
static void put_isa_interrupts(struct writer *writer, uint32_t taken)
{
	for (unsigned irq = 0; irq < 16; irq++)
		if (irq != 2 && !(taken >> irq & 1))
			put_interrupt(writer, IO_INTERRUPT, INTERRUPT, 0, BUS_ISA, irq, 0,
				      irq ? irq : TIMER_INPUT);
}

/* ---- the whole ---- */

static void put_pointer(struct writer *writer, uint32_t table)
{
	put_text(writer, "_MP_", 4);
	put(writer, table, 4);
	put(writer, POINTER_SIZE / 16, 1);
	put(writer, 4, 1); /* version 1.4 */
	put(writer, 0, 1);
	put(writer, 0, 5); /* there is a table; virtual wire mode */
	writer->to[POINTER_SUM] = (uint8_t)-sum_of(writer->to, POINTER_SIZE);
}

static void put_header(struct writer *writer)
{
	put_text(writer, "PCMP", 4);
	put(writer, 0, 2);
	put(writer, 4, 1);
	put(writer, 0, 1);
	put_text(writer, "TRAPLINE", 8);
	put_text(writer, "PC", 12);
	put(writer, 0, 8); /* no table of a maker; number of entries */
	put(writer, LAPIC_BASE, 4);
	put(writer, 0, 4);
}

size_t mptable_make(const struct mptable_config *config, uint32_t base, uint8_t to[MPTABLE_SIZE_MAX])
{
	struct writer writer = {.to = to};
	uint8_t *table = to + POINTER_SIZE;
	size_t length;

	put_pointer(&writer, base + POINTER_SIZE);
	put_header(&writer);
	for (unsigned i = 0; i < config->cpus; i++)
		put_processor(&writer, i);
	put_bus(&writer, BUS_PCI, "PCI");
	put_bus(&writer, BUS_ISA, "ISA");
	put_ioapic(&writer);
	put_isa_interrupts(&writer, put_pci_interrupts(&writer, config));
	put_interrupt(&writer, LOCAL_INTERRUPT, EXTINT, 0, BUS_ISA, 0, 0, 0);
	put_interrupt(&writer, LOCAL_INTERRUPT, NMI, 0, BUS_ISA, 0, ALL_APICS, 1);
	length = writer.size - POINTER_SIZE;
	memcpy(table + HEADER_LENGTH, &(uint16_t){(uint16_t)length}, 2);
	memcpy(table + HEADER_COUNT, &(uint16_t){(uint16_t)writer.entries}, 2);
	table[HEADER_SUM] = (uint8_t)-sum_of(table, length);
	return writer.size;
}
