/*
 * What a PC's firmware leaves below 1 MiB: its data area, and an interrupt vector table. There is no BIOS here, so
 * what software may call says that it is not supported; hardware interrupts that come before anyone set a handler are
 * dropped. Only the size of conventional memory is told.
 */
#include <string.h>

#include "vm/boot_internal.h"
#include "x86/control_device.h"

/* The data area: the first serial port, where the EBDA is (paragraphs), memory below it (KiB). */
#define DATA        0x400u
#define DATA_SERIAL 0x00u
#define DATA_EBDA   0x0eu
#define DATA_MEMORY 0x13u
#define DATA_SIZE   0x15u

/* Handlers, where a PC's BIOS has its own. */
#define CODE_SEGMENT 0xf000u
#define CODE         0xf000u
#define VECTORS      0x78u /* exceptions, hardware interrupts, services; the rest is software's */
#define SERVICES     0x10u
#define SERVICES_END 0x20u
#define MEMORY_SIZE  0x12u

static const uint8_t code[] = {
	/* A service: CF in the caller's flags, AH = 86H. PUSH BP; MOV BP, SP; OR BYTE [BP + 6], 1; POP BP;
	 * MOV AH, 86H; IRET */
	0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xb4, 0x86, 0xcf,
	/* INT 12H: MOV AX, KiB; IRET */
	0xb8, (MEMORY_EBDA >> 10) & 0xff, MEMORY_EBDA >> 18, 0xcf,
	/* All others: IRET */
	0xcf};
enum { CODE_SERVICE = 0, CODE_MEMORY_SIZE = 11, CODE_NOTHING = 15 };

static uint32_t handler(unsigned vector)
{
	unsigned offset = CODE_NOTHING;

	if (vector == MEMORY_SIZE)
		offset = CODE_MEMORY_SIZE;
	else if (vector >= SERVICES && vector < SERVICES_END)
		offset = CODE_SERVICE;
	return CODE_SEGMENT << 16 | (CODE + offset);
}

static void place_vectors(struct machine *machine)
{
	uint32_t table[VECTORS];

	for (unsigned i = 0; i < VECTORS; i++)
		table[i] = handler(i);
	machine_write(machine, 0, table, sizeof(table));
	machine_write(machine, CODE_SEGMENT * 16 + CODE, code, sizeof(code));
}

void boot_place_firmware(struct machine *machine)
{
	static const uint16_t serial = SERIAL1_PORT, ebda = MEMORY_EBDA >> 4, memory = MEMORY_EBDA >> 10;
	static const uint8_t ebda_size = (0xa0000 - MEMORY_EBDA) >> 10; /* KiB, its first byte */
	uint8_t data[DATA_SIZE] = {0};

	memcpy(data + DATA_SERIAL, &serial, 2);
	memcpy(data + DATA_EBDA, &ebda, 2);
	memcpy(data + DATA_MEMORY, &memory, 2);
	machine_write(machine, DATA, data, sizeof(data));
	machine_write(machine, MEMORY_EBDA, &ebda_size, 1);
	place_vectors(machine);
}
