#include "migration/board.h"

#include "lib/apic.h"
#include "migration/migration.h"

#define IOAPIC 0xfec00000u
#define PIIX4_PM 0x71138086u

bool board_has_hpet(void)
{
	uint64_t id = *mmio64(HPET);

	return story_needs((id & 0xffff0000) == 0x80860000, "no HPET (fed00000H)");
}

bool board_has_pm(void)
{
	uint32_t at = pci_find(PIIX4_PM);

	if (!story_needs(at != 0, "no PIIX4 power management (8086:7113)"))
		return false;
	pci_write(at | 0x40, PM_EVENT | 1);
	pci_write(at | 0x80, pci_read(at | 0x80) | 1);
	return true;
}

bool board_has_rtc(void)
{
	unsigned was = rtc_read(0xb);

	rtc_write(0xb, 2);
	if (!story_needs(rtc_read(0xb) == 2 && rtc_read(0xd) & 0x80, "no RTC (port 70H)"))
		return false;
	rtc_write(0xb, was & 0x0f);
	(void)rtc_read(0xc);
	return true;
}

bool board_has_testdev(void)
{
	machine_out32(0xe0, 0x5aa55aa5);
	return story_needs(machine_in32(0xe0) == 0x5aa55aa5, "no pc-testdev (port e0H)");
}

bool board_has_port_61(void) { return story_needs(machine_in8(PORT_61) != 0xff, "no port 61H"); }

void board_nap(uint32_t count)
{
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x6f);
	apic_write(APIC_INITIAL_COUNT, count);
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	if (apic_bit(APIC_ISR, 0x6f))
		apic_write(APIC_EOI, 0);
}

unsigned rtc_read(unsigned index)
{
	machine_out8(0x70, (uint8_t)index);
	return machine_in8(0x71);
}

void rtc_write(unsigned index, unsigned value)
{
	machine_out8(0x70, (uint8_t)index);
	machine_out8(0x71, (uint8_t)value);
}

/* ---- the 8259As ---- */

static void end_of_interrupt(struct story_frame *frame)
{
	unsigned line = (unsigned)frame->vector - BASE;

	if (frame->vector < 32)
		return;
	if (line >= 16) {
		apic_write(APIC_EOI, 0);
		return;
	}
	if (line >= 8)
		machine_out8(SLAVE, 0x20);
	machine_out8(MASTER, 0x20);
}

static void pic_init(unsigned chip, unsigned base, unsigned cascade, unsigned masks)
{
	machine_out8((uint16_t)chip, 0x11);
	machine_out8((uint16_t)(chip + 1), (uint8_t)base);
	machine_out8((uint16_t)(chip + 1), (uint8_t)cascade);
	machine_out8((uint16_t)(chip + 1), 1);
	machine_out8((uint16_t)(chip + 1), (uint8_t)masks);
}

bool board_pic(void)
{
	if (!story_apic_mode())
		return false;
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	story_handle(end_of_interrupt);
	machine_out8(ELCR, 0);
	machine_out8(ELCR + 1, 0);
	pic_init(MASTER, BASE, 4, 0xfb);
	pic_init(SLAVE, BASE + 8, 2, 0xff);
	return true;
}

void board_pic_unmask(unsigned line)
{
	uint16_t port = (uint16_t)((line < 8 ? MASTER : SLAVE) + 1);

	machine_out8(port, (uint8_t)(machine_in8(port) & ~(1u << (line & 7))));
}

unsigned board_pic_read(unsigned chip, unsigned ocw3)
{
	machine_out8((uint16_t)chip, (uint8_t)ocw3);
	return machine_in8((uint16_t)chip);
}

/* ---- the I/O APIC ---- */

uint32_t board_ioapic_read(unsigned index)
{
	*mmio32(IOAPIC) = index;
	return *mmio32(IOAPIC + 0x10);
}

void board_ioapic_write(unsigned index, uint32_t value)
{
	*mmio32(IOAPIC) = index;
	*mmio32(IOAPIC + 0x10) = value;
}

bool board_ioapic_entry(unsigned input, uint32_t low)
{
	if (!story_needs((board_ioapic_read(1) & 0xff) >= 0x11, "no I/O APIC at fec00000H"))
		return false;
	board_ioapic_write(0x10 + 2 * input, LVT_MASKED);
	board_ioapic_write(0x11 + 2 * input, apic_id() << 24);
	board_ioapic_write(0x10 + 2 * input, low);
	return true;
}

/* ---- PCI ---- */

uint32_t pci_read(uint32_t at)
{
	machine_out32(0xcf8, 0x80000000u | (at & 0xfffc));
	return machine_in32(0xcfc);
}

void pci_write(uint32_t at, uint32_t value)
{
	machine_out32(0xcf8, 0x80000000u | (at & 0xfffc));
	machine_out32(0xcfc, value);
}

uint32_t pci_find(uint32_t id)
{
	for (uint32_t function = 0; function < 256; function++)
		if (pci_read(function << 8) == id)
			return function << 8;
	return 0;
}
