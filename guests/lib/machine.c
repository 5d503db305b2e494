#include "lib/machine.h"

#include "x86/control_device.h"
#include "x86/l1.h"

struct machine machine;

void machine_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	uint32_t highest = leaf >= 0x80000000u ? machine.max_extended_leaf : machine.max_leaf;

	out[0] = out[1] = out[2] = out[3] = 0;
	if (leaf > highest && !(leaf >= 0x40000000u && leaf < 0x50000000u))
		return;
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(leaf), "c"(subleaf));
}

static void machine_call_l1(uint32_t call, uint32_t address, uint32_t size, uint32_t out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(L1_LEAF), "c"(call), "b"(address), "d"(size)
			 : "memory");
}

void machine_tell_l1(uint32_t address, uint32_t size)
{
	uint32_t out[4];

	if (machine.l1)
		machine_call_l1(size ? L1_CALL_BEGIN : L1_CALL_END, address, size, out);
}

static bool serial_present(void)
{
	machine_out8(SERIAL1_PORT + 7, 0x5a); /* the scratch register keeps what it is given */
	return machine_in8(SERIAL1_PORT + 7) == 0x5a;
}

void machine_probe(void)
{
	uint32_t r[4];

	machine.max_extended_leaf = 0x80000000u;
	machine_cpuid(0, 0, r);
	machine.max_leaf = r[0];
	machine.intel = r[1] == 0x756e6547 && r[3] == 0x49656e69 && r[2] == 0x6c65746e;
	machine_cpuid(0x80000000u, 0, r);
	machine.max_extended_leaf = r[0];
	machine_cpuid(1, 0, r);
	machine.sysenter = r[3] >> 11 & 1;
	machine.xsave = r[2] >> 26 & 1;
	machine_cpuid(7, 0, r);
	machine.pku = r[2] >> 3 & 1;
	machine.tsc_aux = r[2] >> 22 & 1;
	machine_cpuid(0x80000001u, 0, r);
	machine.syscall = r[3] >> 11 & 1;
	machine.tsc_aux |= r[3] >> 27 & 1;

	machine_call_l1(L1_CALL_IDENTIFY, 0, 0, r);
	machine.l1 = r[0] == L1_SIGNATURE;
	machine.control_device = machine_in32(CONTROL_PORT_SIGNATURE) == CONTROL_SIGNATURE;
	machine.console = machine_in8(DEBUG_CONSOLE_PORT) == DEBUG_CONSOLE_PORT;
	machine.serial = !machine.control_device && serial_present();
}
