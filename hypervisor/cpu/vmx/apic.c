/* apic.c: the virtual APIC of a guest, virtual interrupts and posted interrupts (SDM 3C chapter 30). */
#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/vmx/vmx.h"
#include "x86/msr.h"

/* Offsets in the virtual-APIC page (30.1.1), and of the registers that are only passed through (30.4). */
enum vapic {
	VAPIC_ID = 0x020,
	VAPIC_VERSION = 0x030,
	VAPIC_TPR = 0x080,
	VAPIC_PPR = 0x0a0,
	VAPIC_EOI = 0x0b0,
	VAPIC_LDR = 0x0d0,
	VAPIC_DFR = 0x0e0,
	VAPIC_SVR = 0x0f0,
	VAPIC_ISR = 0x100,
	VAPIC_TMR = 0x180,
	VAPIC_IRR = 0x200,
	VAPIC_ESR = 0x280,
	VAPIC_ICR_LOW = 0x300,
	VAPIC_ICR_HIGH = 0x310,
	VAPIC_LVT_FIRST = 0x320,
	VAPIC_LVT_LAST = 0x370,
	VAPIC_INITIAL_COUNT = 0x380,
	VAPIC_DIVIDE = 0x3e0,
	VAPIC_SELF_IPI = 0x3f0
};

/* VICR_LO (30.4.3.2). */
#define ICR_RESERVED       0xfff33000u /* bits 31:20, 17:16, 13, and the delivery status */
#define ICR_SHORTHAND      0x000c0000u
#define ICR_SHORTHAND_SELF 0x00040000u
#define ICR_LEVEL          0x00008000u /* trigger mode */
#define ICR_MODE           0x00000700u

/* The posted-interrupt descriptor (30.6): 256 requests, then the outstanding notification. */
#define POSTED_NOTIFICATION 32u

/* The linear kinds of table 28-6, and the guest-physical ones. */
enum apic_access {
	APIC_LINEAR_READ,
	APIC_LINEAR_WRITE,
	APIC_LINEAR_FETCH,
	APIC_LINEAR_EVENT,
	APIC_PHYSICAL_EVENT = 10,
	APIC_PHYSICAL = 15
};
#define APIC_ACCESS_SHIFT 12

/* ---- the virtual-APIC page ---- */

static uint32_t vapic_read(struct cpu *cpu, unsigned offset)
{
	return (uint32_t)physical_read(cpu, cpu->msr.vmx_virtual_apic + offset, 4);
}

static void vapic_write(struct cpu *cpu, unsigned offset, uint32_t value)
{
	physical_write_as(CHECK_LOG_VIRTUAL_APIC, cpu, cpu->msr.vmx_virtual_apic + offset, value, 4);
}

/* VISR and VIRR: bit V is bit V % 32 of the V / 32nd of eight registers 16 bytes apart. */
static void vapic_assign(struct cpu *cpu, unsigned base, uint8_t vector, bool value)
{
	unsigned offset = base + vector / 32 * 16;
	uint32_t bit = 1u << vector % 32, old = vapic_read(cpu, offset);

	vapic_write(cpu, offset, value ? old | bit : old & ~bit);
}

/* The highest bit that is 1, or 0. */
static uint8_t vapic_highest(struct cpu *cpu, unsigned base)
{
	for (unsigned n = 8; n-- > 0;) {
		uint32_t bits = vapic_read(cpu, base + 16 * n);

		if (bits)
			return (uint8_t)(32 * n + 31 - (unsigned)__builtin_clz(bits));
	}
	return 0;
}

/* The guest interrupt status (25.4.2). */
static uint8_t rvi(const struct cpu *cpu) { return (uint8_t)cpu->msr.vmx_interrupt_status; }
static uint8_t svi(const struct cpu *cpu) { return (uint8_t)(cpu->msr.vmx_interrupt_status >> 8); }

static void set_rvi(struct cpu *cpu, uint8_t vector)
{
	cpu->msr.vmx_interrupt_status = (uint16_t)(svi(cpu) << 8 | vector);
}

static void set_svi(struct cpu *cpu, uint8_t vector)
{
	cpu->msr.vmx_interrupt_status = (uint16_t)(vector << 8 | rvi(cpu));
}

/* ---- what is done to it (30.1, 30.2) ---- */

static void virtualize_ppr(struct cpu *cpu)
{
	uint32_t tpr = vapic_read(cpu, VAPIC_TPR);
	bool task = (tpr >> 4 & 15) >= (unsigned)svi(cpu) >> 4;

	vapic_write(cpu, VAPIC_PPR, CHECK(VMX_PPR_TASK, task) ? tpr & 0xff : svi(cpu) & 0xf0u);
}

static void evaluate(struct cpu *cpu)
{
	bool above = rvi(cpu) >> 4 > (vapic_read(cpu, VAPIC_PPR) >> 4 & 15);
	bool window = CHECK(VMX_VIRTUAL_INTERRUPT_WINDOW, above && vmx_primary(cpu, VMX_INTERRUPT_WINDOW));

	cpu->msr.vmx_virtual_recognized = CHECK(VMX_VIRTUAL_INTERRUPT, above && !window);
}

static void exit_behind(struct cpu *cpu, enum vmx_exit reason, uint64_t qualification)
{
	struct vmx_exit_info info = {
		.reason = (uint32_t)reason, .qualification = qualification, .trap = true};

	vmx_exit(cpu, &info);
}

static bool below_threshold(struct cpu *cpu)
{
	return (vapic_read(cpu, VAPIC_TPR) >> 4 & 15) < (cpu->msr.vmx_tpr_threshold & 15);
}

/* The following answer whether there was an exit. */

static bool virtualize_tpr(struct cpu *cpu)
{
	if (vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS)) {
		virtualize_ppr(cpu);
		evaluate(cpu);
		return false;
	}
	if (!CHECK(VMX_TPR_THRESHOLD, below_threshold(cpu)))
		return false;
	exit_behind(cpu, VMX_EXIT_TPR_BELOW_THRESHOLD, 0);
	return true;
}

static bool virtualize_eoi(struct cpu *cpu)
{
	uint8_t vector = svi(cpu);

	vapic_assign(cpu, VAPIC_ISR, vector, false);
	set_svi(cpu, vapic_highest(cpu, VAPIC_ISR));
	virtualize_ppr(cpu);
	if (CHECK(VMX_EOI_EXIT, cpu->msr.vmx_eoi_exit[vector / 64] >> vector % 64 & 1)) {
		exit_behind(cpu, VMX_EXIT_VIRTUALIZED_EOI, vector);
		return true;
	}
	evaluate(cpu);
	return false;
}

static void virtualize_self_ipi(struct cpu *cpu, uint8_t vector)
{
	vapic_assign(cpu, VAPIC_IRR, vector, true);
	if (vector > rvi(cpu))
		set_rvi(cpu, vector);
	evaluate(cpu);
}

bool vmx_virtual_interrupt_pending(const struct cpu *cpu)
{
	return cpu->msr.vmx_virtual_recognized && cpu->rflags & RFLAGS_IF &&
	       !CHECK(VMX_VIRTUAL_INTERRUPT_SHADOW, cpu->shadow != SHADOW_NONE);
}

int vmx_virtual_interrupt_acknowledge(struct cpu *cpu)
{
	uint8_t vector = rvi(cpu);

	vapic_assign(cpu, VAPIC_ISR, vector, true);
	set_svi(cpu, vector);
	vapic_write(cpu, VAPIC_PPR, vector & 0xf0u);
	vapic_assign(cpu, VAPIC_IRR, vector, false);
	set_rvi(cpu, vapic_highest(cpu, VAPIC_IRR));
	cpu->msr.vmx_virtual_recognized = false;
	return vector;
}

void vmx_apic_entered(struct cpu *cpu)
{
	cpu->msr.vmx_apic_write = 0;
	cpu->msr.vmx_virtual_recognized = false;
	if (!vmx_primary(cpu, VMX_TPR_SHADOW))
		return;
	if (vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS)) {
		virtualize_ppr(cpu);
		evaluate(cpu);
	} else if (CHECK(VMX_ENTRY_TPR_THRESHOLD,
			 vmx_secondary(cpu, VMX2_VIRTUALIZE_APIC) && below_threshold(cpu))) {
		cpu->msr.vmx_apic_write = VAPIC_TPR;
	}
}

/* ---- APIC-write emulation (30.4.3.2): behind the operation, by the page offset of what was written, which is not always a register's ---- */

static void write_behind(struct cpu *cpu, unsigned offset)
{
	cpu->msr.vmx_apic_write = (uint16_t)offset;
	cpu_latches_changed(cpu);
}

/* An ICR that asks for no more than a fixed, edge-triggered interrupt of the processor's own. */
static bool is_self_ipi(uint32_t icr)
{
	return !CHECK(VMX_SELF_IPI_RESERVED, icr & ICR_RESERVED) &&
	       !CHECK(VMX_SELF_IPI_SHORTHAND, (icr & ICR_SHORTHAND) != ICR_SHORTHAND_SELF) &&
	       !CHECK(VMX_SELF_IPI_TRIGGER, icr & ICR_LEVEL) && !CHECK(VMX_SELF_IPI_MODE, icr & ICR_MODE) &&
	       !CHECK(VMX_SELF_IPI_VECTOR, !(icr & 0xf0));
}

static bool apic_write_exit(struct cpu *cpu, unsigned offset)
{
	exit_behind(cpu, VMX_EXIT_APIC_WRITE, offset);
	return true;
}

static bool emulate_icr(struct cpu *cpu)
{
	uint32_t icr = vapic_read(cpu, VAPIC_ICR_LOW);

	if (!vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS) || !is_self_ipi(icr))
		return apic_write_exit(cpu, VAPIC_ICR_LOW);
	virtualize_self_ipi(cpu, (uint8_t)icr);
	return false;
}

static bool emulate_self_ipi_msr(struct cpu *cpu)
{
	uint8_t vector = (uint8_t)vapic_read(cpu, VAPIC_SELF_IPI);

	if (CHECK(VMX_X2APIC_SELF_IPI_VECTOR, !(vector & 0xf0)))
		return apic_write_exit(cpu, VAPIC_SELF_IPI);
	virtualize_self_ipi(cpu, vector);
	return false;
}

bool vmx_apic_write_due(struct cpu *cpu)
{
	unsigned offset = cpu->msr.vmx_apic_write;

	cpu->msr.vmx_apic_write = 0;
	switch (offset) {
	case 0: return false;
	case VAPIC_TPR:
		vapic_write(cpu, VAPIC_TPR, vapic_read(cpu, VAPIC_TPR) & 0xff);
		return virtualize_tpr(cpu);
	case VAPIC_EOI:
		if (!vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS))
			return apic_write_exit(cpu, offset);
		vapic_write(cpu, VAPIC_EOI, 0);
		return virtualize_eoi(cpu);
	case VAPIC_ICR_LOW: return emulate_icr(cpu);
	case VAPIC_ICR_HIGH:
	case VAPIC_ICR_HIGH + 1:
	case VAPIC_ICR_HIGH + 2:
	case VAPIC_ICR_HIGH + 3:
		vapic_write(cpu, VAPIC_ICR_HIGH, vapic_read(cpu, VAPIC_ICR_HIGH) & 0xff000000);
		return false;
	case VAPIC_SELF_IPI: return emulate_self_ipi_msr(cpu);
	default: return apic_write_exit(cpu, offset);
	}
}

/* ---- CR8 (30.3) ---- */

bool vmx_read_cr8(struct cpu *cpu, uint64_t *value)
{
	if (!CHECK(VMX_TPR_SHADOW_READ, vmx_primary(cpu, VMX_TPR_SHADOW)))
		return false;
	*value = vapic_read(cpu, VAPIC_TPR) >> 4 & 15;
	return true;
}

bool vmx_write_cr8(struct cpu *cpu, uint64_t value)
{
	if (!CHECK(VMX_TPR_SHADOW_WRITE, vmx_primary(cpu, VMX_TPR_SHADOW)))
		return false;
	vapic_write(cpu, VAPIC_TPR, (uint32_t)(value & 15) << 4);
	write_behind(cpu, VAPIC_TPR);
	return true;
}

/* ---- MSRs (30.5) ---- */

static unsigned msr_offset(uint32_t index) { return (index & 0xff) << 4; }
static bool is_x2apic(uint32_t index) { return index - MSR_X2APIC_FIRST < MSR_X2APIC_COUNT; }

bool vmx_read_x2apic(struct cpu *cpu, uint32_t index, uint64_t *value)
{
	bool all = vmx_secondary(cpu, VMX2_APIC_REGISTERS);

	if (!vmx_secondary(cpu, VMX2_VIRTUALIZE_X2APIC) || !is_x2apic(index))
		return false;
	if (!CHECK(VMX_X2APIC_READ, all || msr_offset(index) == VAPIC_TPR))
		return false;
	*value = physical_read(cpu, cpu->msr.vmx_virtual_apic + msr_offset(index), 8);
	return true;
}

bool vmx_write_x2apic(struct cpu *cpu, uint32_t index, uint64_t value)
{
	unsigned offset = msr_offset(index);
	bool delivery = vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS);
	bool special = offset == VAPIC_TPR || (delivery && (offset == VAPIC_EOI || offset == VAPIC_SELF_IPI));

	if (!vmx_secondary(cpu, VMX2_VIRTUALIZE_X2APIC) || !is_x2apic(index))
		return false;
	if (!CHECK(VMX_X2APIC_WRITE, special))
		return false;
	if (CHECK(VMX_X2APIC_RESERVED, value & (offset == VAPIC_EOI ? ~0ull : ~0xffull)))
		cpu_raise(cpu, VECTOR_GP, 0);
	physical_write_as(CHECK_LOG_VIRTUAL_APIC, cpu, cpu->msr.vmx_virtual_apic + offset, value, 8);
	write_behind(cpu, offset);
	return true;
}

/* ---- the APIC-access page (30.4) ---- */

bool vmx_apic_page(const struct cpu *cpu, uint64_t page)
{
	return vmx_guest(cpu) && vmx_secondary(cpu, VMX2_VIRTUALIZE_APIC) && page == cpu->msr.vmx_apic_access;
}

/* Registers that reads and writes reach with APIC-register virtualization; those that only reads do are
 * behind. */
static bool is_register(unsigned offset, bool write)
{
	switch (offset) {
	case VAPIC_ID:
	case VAPIC_TPR:
	case VAPIC_EOI:
	case VAPIC_LDR:
	case VAPIC_DFR:
	case VAPIC_SVR:
	case VAPIC_ESR:
	case VAPIC_ICR_LOW:
	case VAPIC_ICR_HIGH:
	case VAPIC_INITIAL_COUNT:
	case VAPIC_DIVIDE: return true;
	default: break;
	}
	if (offset >= VAPIC_LVT_FIRST && offset <= VAPIC_LVT_LAST)
		return true;
	return !write && (offset == VAPIC_VERSION || (offset >= VAPIC_ISR && offset < VAPIC_ESR));
}

/* What depends on controls: whether the register at the multiple of 16 that is @offset is virtualized. */
static bool is_virtualized(const struct cpu *cpu, unsigned offset, bool write)
{
	if (vmx_secondary(cpu, VMX2_APIC_REGISTERS))
		return is_register(offset, write);
	if (write && vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS) &&
	    (offset == VAPIC_EOI || offset == VAPIC_ICR_LOW))
		return true;
	return offset == VAPIC_TPR;
}

static bool may_virtualize(const struct cpu *cpu, uint64_t physical, size_t size, unsigned access)
{
	unsigned offset = physical & 0xfff;
	unsigned pending = cpu->msr.vmx_apic_write;
	bool write = access & ACCESS_WRITE;

	if (CHECK(VMX_APIC_NO_SHADOW, !vmx_primary(cpu, VMX_TPR_SHADOW)))
		return false;
	if (access & ACCESS_EXECUTE || CHECK(VMX_APIC_SIZE, size > 4))
		return false;
	if (CHECK(VMX_APIC_REGION, offset & 12 || (offset + size - 1) & 12))
		return false;
	/* Part of an operation that has written there already (30.4.2, 30.4.3.1). */
	if (CHECK(VMX_APIC_SECOND, pending && (!write || pending != offset)))
		return false;
	/* Without APIC-register virtualization, the page offset itself must be the register's (30.4.2). */
	if (!vmx_secondary(cpu, VMX2_APIC_REGISTERS) && offset & 3)
		return false;
	return CHECK(VMX_APIC_VIRTUALIZED, is_virtualized(cpu, offset & ~15u, write));
}

void vmx_apic_exit(struct cpu *cpu, uint64_t physical, unsigned access)
{
	enum apic_access type = access & ACCESS_EXECUTE ? APIC_LINEAR_FETCH
				: access & ACCESS_WRITE ? APIC_LINEAR_WRITE
							: APIC_LINEAR_READ;
	struct vmx_exit_info info = {.reason = VMX_EXIT_APIC_ACCESS};

	if (cpu->delivering_depth)
		type = APIC_LINEAR_EVENT;
	else
		info.length = (uint32_t)(cpu_next_rip(cpu) - cpu_rip(cpu));
	info.qualification = (physical & 0xfff) | (uint64_t)type << APIC_ACCESS_SHIFT;
	vmx_exit_insn(cpu, &info);
}

void vmx_apic_read(struct cpu *cpu, uint64_t physical, void *to, size_t size, unsigned access)
{
	uint64_t value;

	if (!may_virtualize(cpu, physical, size, access & ~(unsigned)ACCESS_WRITE))
		vmx_apic_exit(cpu, physical, access);
	value = physical_read(cpu, cpu->msr.vmx_virtual_apic + (physical & 0xfff), (unsigned)size);
	__builtin_memcpy(to, &value, size);
}

void vmx_apic_check_write(struct cpu *cpu, uint64_t physical, size_t size)
{
	if (!may_virtualize(cpu, physical, size, ACCESS_WRITE))
		vmx_apic_exit(cpu, physical, ACCESS_WRITE);
}

void vmx_apic_write(struct cpu *cpu, uint64_t physical, const void *from, size_t size)
{
	uint64_t value = 0;

	vmx_apic_check_write(cpu, physical, size);
	__builtin_memcpy(&value, from, size);
	physical_write_as(CHECK_LOG_VIRTUAL_APIC, cpu, cpu->msr.vmx_virtual_apic + (physical & 0xfff), value, (unsigned)size);
	write_behind(cpu, CHECK(VMX_APIC_WRITE_OFFSET, true) ? physical & 0xfff : physical & 0xff0);
}

void vmx_apic_guest_physical(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_APIC_ACCESS};

	info.qualification = (uint64_t)(cpu->delivering_depth ? APIC_PHYSICAL_EVENT : APIC_PHYSICAL)
			     << APIC_ACCESS_SHIFT;
	vmx_exit_insn(cpu, &info);
}

/* ---- posted interrupts (30.6) ---- */

bool vmx_posted_interrupt(struct cpu *cpu, uint8_t vector)
{
	uint64_t descriptor = cpu->msr.vmx_posted_descriptor;
	uint8_t highest = 0;

	if (!CHECK(VMX_POSTED_VECTOR,
		   vmx_pin(cpu, VMX_PIN_POSTED_INTERRUPTS) && vector == cpu->msr.vmx_posted_vector))
		return false;
	physical_write_as(CHECK_LOG_POSTED, cpu, descriptor + POSTED_NOTIFICATION,
		       physical_read(cpu, descriptor + POSTED_NOTIFICATION, 1) & ~1ull, 1);
	if (cpu->bus.interrupt_end)
		cpu->bus.interrupt_end(cpu->bus.owner);
	for (unsigned n = 0; n < 8; n++) {
		uint32_t requests = (uint32_t)physical_read(cpu, descriptor + 4 * n, 4);

		if (!requests)
			continue;
		vapic_write(cpu, VAPIC_IRR + 16 * n, vapic_read(cpu, VAPIC_IRR + 16 * n) | requests);
		physical_write_as(CHECK_LOG_POSTED, cpu, descriptor + 4 * n, 0, 4);
		highest = (uint8_t)(32 * n + 31 - (unsigned)__builtin_clz(requests));
	}
	if (highest > rvi(cpu))
		set_rvi(cpu, highest);
	evaluate(cpu);
	return true;
}
