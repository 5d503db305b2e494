/*
 * smi.c: stories of system-management mode: SMIs by the local APIC and by port B2H, what a handler finds and
 * may change, what RSM refuses.
 *
 * SDM 3C 31; APM 2 10. The map of the state-save area is the vendor's; where a machine has the other one, its
 * revision says so, and the stories that only change something go by that.
 */
#include "interrupts/smi.h"

#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/machine.h"
#include "lib/story.h"

extern const uint8_t smi_handler[], smi_handler_end[], smi_raise_wait[], smi_raise_end[], smi_shadowed[];
bool smi_raise(volatile uint32_t *icr, uint32_t command, volatile uint32_t *count);
void smi_shadows(volatile uint32_t *count, uint32_t until);

struct smi_box {
	uint32_t count;  /* of SMIs */
	uint32_t during; /* what it was while one was handled, behind the IPI */
	uint32_t send;   /* command for ICR, once; 0: none */
	uint32_t nested; /* while one is handled */
	uint32_t pae;    /* CR3 with which PAE paging is on for a moment in the handler; 0: none */
	uint32_t unused;
	struct {
		uint32_t address, value;
	} poke[16];
};

static volatile struct smi_box *const box = (volatile struct smi_box *)SMI_BOX;

/* Offsets from SMBASE (SDM 3C table 31-3, APM 2 table 10-1). */
struct map {
	uint32_t cr0, cr3, cr4, efer, rflags, rip, dr7, rbx, r8, r12, r15, smbase, restart, cs_attributes;
};
static const struct map intel = {
	.cr0 = 0xfff8,
	.cr3 = 0xfff0,
	.cr4 = 0xfe40,
	.efer = 0xffe0,
	.rflags = 0xffe8,
	.rip = 0xffd8,
	.dr7 = 0xffc8,
	.rbx = 0xff74,
	.r8 = 0xff54,
	.r12 = 0xff34,
	.r15 = 0xff1c,
	.smbase = 0xfef8,
	.restart = 0xff00,
};
static const struct map amd = {
	.cr0 = 0xff58,
	.cr3 = 0xff50,
	.cr4 = 0xff48,
	.efer = 0xfed0,
	.rflags = 0xff70,
	.rip = 0xff78,
	.dr7 = 0xff60,
	.rbx = 0xffe0,
	.r8 = 0xffb8,
	.r12 = 0xff98,
	.r15 = 0xff80,
	.smbase = 0xff00,
	.restart = 0xfec8,
	.cs_attributes = 0xfe12,
};
#define REVISION     0xfefcu
#define CAN_RESTART  (1u << 16)
#define CAN_MOVE     (1u << 17)
#define AMD_REVISION 0x64u

static uint64_t saved(uint32_t base, uint32_t offset, unsigned bytes)
{
	uint64_t value = 0;

	machine_copy(&value, (const void *)(uintptr_t)(base + offset), bytes);
	return value;
}

static const struct map *map_by_revision(void)
{
	return (saved(SMI_BASE, REVISION, 4) & 0xff) == AMD_REVISION ? &amd : &intel;
}

static unsigned poked;

static void poke(uint32_t offset, uint32_t value)
{
	box->poke[poked].address = SMI_BASE + offset;
	box->poke[poked++].value = value;
}

static void put_handler(uint32_t base)
{
	machine_copy((void *)(uintptr_t)(base + SMI_ENTRY), smi_handler,
		     (size_t)(smi_handler_end - smi_handler));
}

/* An SMI to this processor; whether its registers came back. */
static bool raise_here(void)
{
	apic_write(APIC_ICR_HIGH, apic_id() << 24);
	return smi_raise((volatile uint32_t *)(uintptr_t)(APIC_PAGE + APIC_ICR), ICR_SMI | ICR_ASSERT,
			 &box->count);
}

/* Puts the handler where SMIs go, and tries one: there may be firmware that has moved SMBASE and locked it.
 */
static bool smi_story(void)
{
	if (!story_apic_mode())
		return false;
	poked = 0;
	machine_fill((void *)(uintptr_t)SMI_BOX, 0, sizeof(*box));
	put_handler(SMI_BASE);
	raise_here();
	return story_needs(box->count == 1, "no SMI by ICR comes to SMBASE 30000H");
}

/* What is saved, and that all of it comes back. */
STORY(smi_state)
{
	const struct map *map = machine.intel ? &intel : &amd;
	uint64_t rip;

	if (!smi_story())
		return;
	story_check("registers_back", 1, raise_here());
	story_check("count", 2, box->count);
	rip = saved(SMI_BASE, map->rip, 8);
	story_check("rip", 1, rip >= (uintptr_t)smi_raise_wait && rip < (uintptr_t)smi_raise_end);
	story_check("rbx", 0x1122334455667788, saved(SMI_BASE, map->rbx, 8));
	story_check("r8", 0x0123456789abcdef, saved(SMI_BASE, map->r8, 8));
	story_check("r12", 0x8899aabbccddeeff, saved(SMI_BASE, map->r12, 8));
	story_check("r15", 0x5566778899aabbcc, saved(SMI_BASE, map->r15, 8));
	story_check("cr0", machine_read_cr0(), saved(SMI_BASE, map->cr0, 8));
	story_check("cr3", machine_read_cr3(), saved(SMI_BASE, map->cr3, 8));
	story_check("efer", machine_read_msr(0xc0000080), saved(SMI_BASE, map->efer, 8));
	story_check("dr7", 0x400, saved(SMI_BASE, map->dr7, 8));
	story_check("if", 0, saved(SMI_BASE, map->rflags, 8) & 0x200);
	story_check("smbase", SMI_BASE, saved(SMI_BASE, map->smbase, 4));
	story_check("can_move", CAN_MOVE, saved(SMI_BASE, REVISION, 4) & CAN_MOVE);
}

/* A handler's changes are what RSM loads. */
STORY(smi_changes)
{
	const struct map *map;

	if (!smi_story())
		return;
	map = map_by_revision();
	poke(map->rbx, 0x99999999);
	story_check("other_rbx", 0, raise_here());
	story_check("rbx", 0x1122334499999999, saved(SMI_BASE, map->rbx, 8));
	story_check("registers_back", 1, raise_here());
}

/* In SMM an SMI waits for RSM, as an NMI does (@mode). */
STORY(smi_waits)
{
	bool nmi = GIVEN(mode);

	if (!smi_story())
		return;
	box->send = (nmi ? ICR_NMI : ICR_SMI) | ICR_ASSERT;
	raise_here();
	story_pause(1000);
	story_check("during", 2, box->during);
	story_check("nmi", nmi, story_count(2));
	story_check("smi", nmi ? 2 : 3, box->count);
}

#define SHADOWS 24u /* SMIs at places that the turns of the processors choose */

static void send_smis(void *argument)
{
	const struct map *map = map_by_revision();
	unsigned *behind = argument;

	for (uint32_t n = box->count; n < SHADOWS; n++) {
		apic_send(cpus_apic_id(0), ICR_SMI | ICR_ASSERT);
		for (unsigned i = 0; i < 1000000 && box->count == n; i++)
			story_pause(1);
		*behind += saved(SMI_BASE, map->rip, 8) == (uintptr_t)smi_shadowed;
		story_pause(n);
	}
}

/* No SMI behind MOV SS: of many at all places none is there. */
STORY(smi_shadow)
{
	static unsigned behind;

	if (!smi_story() || !cpus_needs(2))
		return;
	behind = 0;
	cpus_tell(1, send_smis, &behind);
	smi_shadows(&box->count, SHADOWS);
	story_check("back", 1, cpus_wait(1));
	story_check("count", SHADOWS, box->count);
	story_check("behind_mov_ss", 0, behind);
}

static volatile unsigned woken;

static void halt(void *argument)
{
	(void)argument;
	__asm__ volatile("hlt" : : : "memory");
	woken++;
}

/* A processor that was halted halts again, unless the handler clears the auto-HALT restart field (@mode). */
STORY(smi_halted)
{
	const struct map *map;
	bool goes_on = GIVEN(mode);

	if (!smi_story() || !cpus_needs(2))
		return;
	map = map_by_revision();
	woken = 0;
	cpus_tell(1, halt, NULL);
	story_pause(20000);
	if (goes_on)
		poke(map->restart, 0);
	apic_send(cpus_apic_id(1), ICR_SMI | ICR_ASSERT);
	for (unsigned i = 0; i < 1000 && box->count == 1; i++)
		story_pause(1000);
	story_check("count", 2, box->count);
	story_pause(20000);
	story_check("goes_on", goes_on, woken);
	if (!goes_on)
		apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT);
	story_check("back", 1, cpus_wait(1));
}

/* The next SMI comes where SMBASE was moved to. */
STORY(smi_moved)
{
	const struct map *map;

	if (!smi_story() ||
	    !story_needs(saved(SMI_BASE, REVISION, 4) & CAN_MOVE, "no SMBASE relocation (revision bit 17)"))
		return;
	map = map_by_revision();
	put_handler(SMI_OTHER);
	poke(map->smbase, SMI_OTHER);
	raise_here();
	story_check("moving", 2, box->count);
	machine_fill((void *)(uintptr_t)(SMI_OTHER + 0xfe00), 0, 0x200);
	box->poke[0].address = SMI_OTHER + map->smbase;
	box->poke[0].value = SMI_BASE;
	story_check("registers_back", 1, raise_here());
	story_check("moved", 3, box->count);
	story_check("there", 0x1122334455667788, saved(SMI_OTHER, map->rbx, 8));
	raise_here();
	story_check("back", 4, box->count);
	story_check("here", SMI_BASE, saved(SMI_BASE, map->smbase, 4));
}

/* ---- an I/O instruction that raises its own SMI: port B2H, which a PIIX4 makes one of ---- */

static bool port_raises(void)
{
	for (uint32_t function = 0; function < 256; function++) {
		uint32_t at = 0x80000000u | function << 8;

		machine_out32(0xcf8, at);
		if (machine_in32(0xcfc) != 0x71138086)
			continue;
		machine_out32(0xcf8, at | 0x58);
		machine_out32(0xcfc, machine_in32(0xcfc) | 1u << 25);
		return true;
	}
	return false;
}

/* FFH in the I/O instruction restart field: it is executed once more. */
STORY(smi_io_restart)
{
	const struct map *map;
	bool restart = GIVEN(mode);

	if (!smi_story() || !story_needs(port_raises(), "no PIIX4 power management (8086:7113)") ||
	    !story_needs(saved(SMI_BASE, REVISION, 4) & CAN_RESTART, "no I/O restart (revision bit 16)"))
		return;
	machine_out8(0xb2, 0x41);
	if (!story_needs(box->count == 2, "port b2H raises no SMI"))
		return;
	map = map_by_revision();
	if (restart)
		poke(map->restart, 0xff);
	machine_out8(0xb2, 0x42);
	story_check("count", restart ? 4 : 3, box->count);
}

/* ---- what RSM refuses: shutdown ---- */

/* Resumes at the spin, in protected mode without IA-32e mode. */
static void leave_long_mode(const struct map *map, uint32_t cr0)
{
	*(volatile uint16_t *)SMI_SPIN = 0xfeeb;
	poke(map->efer, 0);
	poke(map->efer + 4, 0);
	poke(map->cr0, cr0);
	poke(map->rip, SMI_SPIN);
	poke(map->rip + 4, 0);
}

/* The registers hold good PDPTEs, which the handler has loaded; CR3 leads to others. */
static void refuse_pdptes(const struct map *map)
{
	volatile uint64_t *pdpt = (volatile uint64_t *)SMI_PDPT, *pd = pdpt + 512;

	for (unsigned i = 0; i < 8; i++)
		pdpt[i] = 0;
	pdpt[0] = pdpt[4] = (SMI_PDPT + 0x1000) | 1;
	pdpt[7] = 0x1e7;
	pd[0] = 0x83;
	box->pae = SMI_PDPT;
	leave_long_mode(map, (uint32_t)machine_read_cr0());
	poke(map->cr3, SMI_PDPT + 0x20);
	poke(map->cr3 + 4, 0);
}

static bool has_vmx(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return r[2] >> 5 & 1;
}

STORY(rsm_refuses)
{
	const struct map *map;
	uint32_t cr0 = (uint32_t)machine_read_cr0(), cr4 = (uint32_t)machine_read_cr4();
	uint32_t efer = (uint32_t)machine_read_msr(0xc0000080);

	if (!smi_story())
		return;
	map = map_by_revision();
	switch (GIVEN(index)) {
	case 0: poke(map->cr0, (cr0 | 1u << 29) & ~(1u << 30)); break;
	case 1: poke(map->cr0 + 4, 1); break;
	case 2: poke(map->cr0, cr0 & ~1u); break;
	case 3: poke(map->cr4, cr4 | 1u << 31); break;
	case 4: poke(map->efer + 4, 1u << 31); break;
	case 5: poke(map->efer, efer & ~(1u << 8)); break; /* LME */
	case 6: poke(map->cr4, cr4 & ~(1u << 5)); break;   /* PAE */
	case 7:
		leave_long_mode(map, cr0 & ~(1u << 31));
		poke(map->cr4, cr4 | 1u << 17);
		break;
	case 8: poke(map->dr7 + 4, 1); break;
	case 9: refuse_pdptes(map); break;
	case 10: /* VMXE, which entering SMM has cleared */
		if (!story_needs(has_vmx(), "cpuid.1.0.ecx[5]=0"))
			return;
		poke(map->cr4, cr4 | 1u << 13);
		break;
	}
	if (GIVEN(index) == 8 && machine.intel) {
		story_check("registers_back", 1, raise_here());
		return;
	}
	raise_here();
	story_check("shuts_down", 1, 0);
}
