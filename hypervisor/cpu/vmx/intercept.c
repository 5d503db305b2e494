/* intercept.c: instructions of a guest: which exit, with what the exit tells, and what they do else (SDM
 * 3C 26.1, 26.3, 28.2.1, 28.2.5). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/decode.h"
#include "cpu/mem/mem.h"
#include "cpu/vmx/vmx.h"

extern const struct handlers insn_mov_rd_cd, insn_mov_cd_rd, insn_mov_rd_dd, insn_clts, insn_lmsw;
extern const struct handlers insn_sgdt, insn_sidt, insn_lgdt, insn_lidt, insn_sldt, insn_str, insn_lldt,
	insn_ltr;
extern const struct handlers insn_in_ib, insn_out_ib;

static const struct handlers *handlers_of(const struct insn *insn)
{
	return opcode_table[insn->opcode].handlers;
}

/* ---- instruction information (28.2.5, tables 28-8 to 28-14) ---- */

#define INFO_REGISTER1(n) ((uint32_t)(n) << 3)
#define INFO_REGISTER     (1u << 10) /* the operand is a register, not memory */
#define INFO_OPERAND_32   (1u << 11)
#define INFO_SIZE(log2)   ((uint32_t)(log2) << 11)
#define INFO_INDEX(n)     ((uint32_t)(n) << 18)
#define INFO_NO_INDEX     (1u << 22)
#define INFO_BASE(n)      ((uint32_t)(n) << 23)
#define INFO_NO_BASE      (1u << 27)
#define INFO_IDENTITY(n)  ((uint32_t)(n) << 28)
#define INFO_REGISTER2(n) ((uint32_t)(n) << 28)

static uint32_t address_size_info(const struct insn *insn)
{
	return ((uint32_t)__builtin_ctz(insn->address_width) - 1) << 7;
}

static uint32_t segment_info(const struct insn *insn) { return (uint32_t)insn->segment << 15; }

/* Scaling, size, segment, index and base of a memory operand. RIP-relative addresses have no base. */
static uint32_t memory_info(const struct insn *insn)
{
	uint32_t info = address_size_info(insn) | segment_info(insn);

	if (insn->index < GPR_COUNT)
		info |= INFO_INDEX(insn->index) | insn->scale;
	else
		info |= INFO_NO_INDEX;
	return info | (insn->base < GPR_COUNT ? INFO_BASE(insn->base) : INFO_NO_BASE);
}

/* Of an operand that may be a register. */
static uint32_t operand_info(const struct insn *insn)
{
	return insn_is_memory(insn) ? memory_info(insn) : INFO_REGISTER1(insn->rm) | INFO_REGISTER;
}

/* LGDT and its kin; the operand size of 64-bit mode is undefined. */
static uint32_t table_info(const struct cpu *cpu, const struct insn *insn)
{
	const struct handlers *h = handlers_of(insn);
	uint32_t identity = h == &insn_sgdt ? 0 : h == &insn_sidt ? 1 : h == &insn_lgdt ? 2 : 3;
	bool wide = !cpu_64bit(cpu) && insn->width == 4;

	return memory_info(insn) | INFO_IDENTITY(identity) | (wide ? INFO_OPERAND_32 : 0);
}

/* SLDT and its kin. */
static uint32_t selector_info(const struct insn *insn)
{
	const struct handlers *h = handlers_of(insn);
	uint32_t identity = h == &insn_sldt ? 0 : h == &insn_str ? 1 : h == &insn_lldt ? 2 : 3;

	return operand_info(insn) | INFO_IDENTITY(identity);
}

/* RDRAND, RDSEED: the rows with 66h are not sized by it (insn/misc.c). */
static unsigned random_width(const struct cpu *cpu, const struct insn *insn)
{
	if (!(insn->prefixes & PREFIX_66) || insn->width == 8)
		return insn->width;
	return (cpu->code_mode & CODE_SIZE) == CODE_16 ? 4 : 2;
}

/* RDRAND, RDSEED; TPAUSE and UMWAIT have 32 bits. */
static uint32_t register_info(const struct insn *insn, unsigned width)
{
	return INFO_REGISTER1(insn->rm) | INFO_SIZE(__builtin_ctz(width) - 1);
}

uint32_t vmx_instruction_info(struct cpu *cpu, const struct insn *insn, uint64_t *displacement)
{
	bool memory = insn_is_memory(insn);

	*displacement = 0;
	if (memory)
		*displacement =
			(uint64_t)insn->disp + (insn->base == REG_TRACE_RIP ? cpu->reg[REG_TRACE_RIP] : 0);
	switch (opcode_table[insn->opcode].vmx - 1) {
	case VMX_EXIT_GDTR_IDTR: return table_info(cpu, insn);
	case VMX_EXIT_LDTR_TR: return selector_info(insn);
	case VMX_EXIT_INVEPT:
	case VMX_EXIT_INVVPID:
	case VMX_EXIT_INVPCID: return memory_info(insn) | INFO_REGISTER2(insn->reg);
	case VMX_EXIT_VMREAD:
	case VMX_EXIT_VMWRITE: return operand_info(insn) | INFO_REGISTER2(insn->reg);
	case VMX_EXIT_RDRAND:
	case VMX_EXIT_RDSEED: return register_info(insn, random_width(cpu, insn));
	case VMX_EXIT_TPAUSE:
	case VMX_EXIT_UMWAIT: return register_info(insn, 4);
	case VMX_EXIT_VMCLEAR:
	case VMX_EXIT_VMPTRLD:
	case VMX_EXIT_VMPTRST:
	case VMX_EXIT_VMXON:
	case VMX_EXIT_XSAVES:
	case VMX_EXIT_XRSTORS: return memory_info(insn);
	default: *displacement = 0; return 0;
	}
}

/* ---- leaving ---- */

static _Noreturn void exit_with(struct cpu *cpu, const struct insn *insn, struct vmx_exit_info *info)
{
	info->length = insn->length;
	info->rf = VMX_RF_CLEAR;
	vmx_exit_insn(cpu, info);
}

static _Noreturn void exit_qualified(struct cpu *cpu, const struct insn *insn, enum vmx_exit reason,
				     uint64_t qualification)
{
	struct vmx_exit_info info = {.reason = (uint32_t)reason, .qualification = qualification};

	exit_with(cpu, insn, &info);
}

/* With its instruction information, and the displacement of memory. */
static _Noreturn void exit_told(struct cpu *cpu, const struct insn *insn, enum vmx_exit reason)
{
	struct vmx_exit_info info = {.reason = (uint32_t)reason};

	info.instruction_info = vmx_instruction_info(cpu, insn, &info.qualification);
	exit_with(cpu, insn, &info);
}

/* ---- control and debug registers ---- */

enum { CR_MOV_TO, CR_MOV_FROM, CR_CLTS, CR_LMSW };
#define CR_ACCESS(number, type) ((uint64_t)(number) | (uint64_t)(type) << 4)
#define CR_REGISTER(n)          ((uint64_t)(n) << 8)
#define LMSW_MEMORY             (1ull << 6)
#define LMSW_SOURCE(word)       ((uint64_t)(word) << 16)

/* MOV to CR0 and CR4: bits that the host owns and that would get another value than the guest sees (26.1.3).
 */
static bool owned_bits_change(const struct cpu *cpu, unsigned number, uint64_t value)
{
	if (number == 0)
		return CHECK(VMX_CR0_EXIT, (value ^ cpu->msr.vmx_cr0_shadow) & cpu->msr.vmx_cr0_mask);
	return CHECK(VMX_CR4_EXIT, (value ^ cpu->msr.vmx_cr4_shadow) & cpu->msr.vmx_cr4_mask);
}

static bool cr3_target(const struct cpu *cpu, uint64_t value)
{
	for (unsigned i = 0; i < cpu->msr.vmx_cr3_targets && i < 4; i++)
		if (CHECK(VMX_CR3_TARGET, cpu->msr.vmx_cr3_target[i] == value))
			return true;
	return false;
}

static bool cr_write_exits(const struct cpu *cpu, unsigned number, uint64_t value)
{
	switch (number) {
	case 0:
	case 4: return owned_bits_change(cpu, number, value);
	case 3: return CHECK(VMX_CR3_LOADING, vmx_primary(cpu, VMX_CR3_LOAD)) && !cr3_target(cpu, value);
	case 8: return CHECK(VMX_CR8_LOADING, vmx_primary(cpu, VMX_CR8_LOAD));
	default: return false;
	}
}

static bool cr_read_exits(const struct cpu *cpu, unsigned number)
{
	if (number == 3)
		return CHECK(VMX_CR3_STORING, vmx_primary(cpu, VMX_CR3_STORE));
	return number == 8 && CHECK(VMX_CR8_STORING, vmx_primary(cpu, VMX_CR8_STORE));
}

static void check_cr(struct cpu *cpu, const struct insn *insn)
{
	const struct handlers *h = handlers_of(insn);
	bool exits = false;
	uint64_t what = 0;

	if (h == &insn_clts) {
		exits = CHECK(VMX_CLTS, cpu->msr.vmx_cr0_mask & cpu->msr.vmx_cr0_shadow & CR0_TS);
		what = CR_ACCESS(0, CR_CLTS);
	} else if (h == &insn_mov_rd_cd) {
		exits = cr_read_exits(cpu, insn->reg);
		what = CR_ACCESS(insn->reg, CR_MOV_FROM) | CR_REGISTER(insn->rm);
	} else if (h == &insn_mov_cd_rd) {
		exits = cr_write_exits(cpu, insn->reg, reg_read(cpu, insn->rm, cpu_64bit(cpu) ? 8 : 4));
		what = CR_ACCESS(insn->reg, CR_MOV_TO) | CR_REGISTER(insn->rm);
	}
	if (exits)
		exit_qualified(cpu, insn, VMX_EXIT_CR_ACCESS, what);
}

/* LMSW sets PE, but does not clear it. */
void vmx_check_lmsw(struct cpu *cpu, const struct insn *insn, uint16_t word, bool memory)
{
	uint64_t mask = cpu->msr.vmx_cr0_mask, shadow = cpu->msr.vmx_cr0_shadow;
	bool sets_pe = mask & word & ~shadow & CR0_PE;
	bool changes = mask & (word ^ shadow) & (CR0_MP | CR0_EM | CR0_TS);
	struct vmx_exit_info info = {.reason = VMX_EXIT_CR_ACCESS,
				     .qualification = CR_ACCESS(0, CR_LMSW) | LMSW_SOURCE(word)};

	if (!CHECK(VMX_LMSW_PE, sets_pe) && !CHECK(VMX_LMSW, changes))
		return;
	if (memory) {
		info.qualification |= LMSW_MEMORY;
		info.linear =
			(cpu->segment[insn->segment].linear_base + insn_offset(cpu, insn)) & cpu->linear_mask;
	}
	exit_with(cpu, insn, &info);
}

static uint64_t select_bits(uint64_t mask, uint64_t where_1, uint64_t where_0)
{
	return (where_1 & mask) | (where_0 & ~mask);
}

uint64_t vmx_merge_cr(const struct cpu *cpu, unsigned number, uint64_t value)
{
	if (number == 0)
		return select_bits(CHECK(VMX_CR0_OWNED, true) ? cpu->msr.vmx_cr0_mask : 0, cpu->cr0, value);
	return select_bits(CHECK(VMX_CR4_OWNED, true) ? cpu->msr.vmx_cr4_mask : 0, cpu->cr4, value);
}

uint64_t vmx_read_cr(const struct cpu *cpu, unsigned number)
{
	if (number == 0)
		return select_bits(CHECK(VMX_CR0_SHADOW, true) ? cpu->msr.vmx_cr0_mask : 0,
				   cpu->msr.vmx_cr0_shadow, cpu->cr0);
	return select_bits(CHECK(VMX_CR4_SHADOW, true) ? cpu->msr.vmx_cr4_mask : 0, cpu->msr.vmx_cr4_shadow,
			   cpu->cr4);
}

#define DR_READ (1ull << 4)

static void check_dr(struct cpu *cpu, const struct insn *insn)
{
	bool read = handlers_of(insn) == &insn_mov_rd_dd;

	if (CHECK(VMX_MOV_DR_EXITING, vmx_primary(cpu, VMX_MOV_DR)))
		exit_qualified(cpu, insn, VMX_EXIT_MOV_DR,
			       insn->reg | (read ? DR_READ : 0) | CR_REGISTER(insn->rm));
}

/* ---- ports (25.6.4) ---- */

#define IO_IN        (1u << 3)
#define IO_STRING    (1u << 4)
#define IO_REP       (1u << 5)
#define IO_IMMEDIATE (1u << 6)
#define IO_PORT(n)   ((uint32_t)(n) << 16)

static bool port_bit(struct cpu *cpu, uint16_t port)
{
	uint64_t bitmap = port & 0x8000 ? cpu->msr.vmx_io_bitmap_b : cpu->msr.vmx_io_bitmap_a;

	return physical_read(cpu, bitmap + (port & 0x7fffu) / 8, 1) >> (port % 8) & 1;
}

/* An access that wraps around behind port FFFFH exits whatever the bitmaps say. */
static bool port_exits(struct cpu *cpu, uint16_t port, unsigned size)
{
	if (!vmx_primary(cpu, VMX_USE_IO_BITMAPS))
		return CHECK(VMX_IO_UNCONDITIONAL, vmx_primary(cpu, VMX_UNCONDITIONAL_IO));
	if (CHECK(VMX_IO_WRAPS, port + size > 0x10000))
		return true;
	for (unsigned i = 0; i < size; i++)
		if (CHECK(VMX_IO_BITMAP, port_bit(cpu, (uint16_t)(port + i))))
			return true;
	return false;
}

/* The linear address of a string's element, where its segment can be used (28.2.1). */
static void tell_string(struct cpu *cpu, const struct insn *insn, bool in, struct vmx_exit_info *info)
{
	unsigned segment = in ? ES : insn->segment;
	uint64_t offset = cpu->reg[in ? RDI : RSI] << insn->address_shift >> insn->address_shift;

	info->qualification |= IO_STRING;
	if (insn->prefixes & (PREFIX_REP | PREFIX_REPNE))
		info->qualification |= IO_REP;
	info->instruction_info = address_size_info(insn) | (in ? 0 : segment_info(insn));
	if (!(cpu->segment[segment].s.attributes & SEG_UNUSABLE) || cpu_64bit(cpu))
		info->linear = (cpu->segment[segment].linear_base + offset) & cpu->linear_mask;
}

void vmx_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in,
		  bool string)
{
	const struct handlers *h = handlers_of(insn);
	bool immediate = h == &insn_in_ib || h == &insn_out_ib;
	struct vmx_exit_info info = {.reason = VMX_EXIT_IO};

	if (!port_exits(cpu, port, size))
		return;
	info.qualification = (size - 1) | (in ? IO_IN : 0) | (immediate ? IO_IMMEDIATE : 0) | IO_PORT(port);
	if (string)
		tell_string(cpu, insn, in, &info);
	exit_with(cpu, insn, &info);
}

/* ---- MSRs (25.6.9): bitmaps of reads, low and high, then of writes ---- */

#define MSR_HIGH 0xc0000000u

static bool msr_exits(struct cpu *cpu, uint32_t index, bool write)
{
	bool high = index >= MSR_HIGH;
	uint32_t n = high ? index - MSR_HIGH : index;
	uint64_t bitmap = cpu->msr.vmx_msr_bitmap + (high ? 0x400 : 0) + (write ? 0x800 : 0);

	if (CHECK(VMX_MSR_NO_BITMAPS, !vmx_primary(cpu, VMX_USE_MSR_BITMAPS)))
		return true;
	if (CHECK(VMX_MSR_RANGE, n >= 0x2000))
		return true;
	return CHECK(VMX_MSR_BITMAP, n < 0x2000 && physical_read(cpu, bitmap + n / 8, 1) >> (n % 8) & 1);
}

void vmx_check_msr(struct cpu *cpu, uint32_t index, bool write)
{
	if (msr_exits(cpu, index, write))
		exit_qualified(cpu, cpu->insn, write ? VMX_EXIT_WRMSR : VMX_EXIT_RDMSR, 0);
}

/* ---- PAUSE (26.1.3): a loop is PAUSEs at CPL 0 with no more than the gap between them ---- */

static bool pause_loop(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;
	uint64_t now = control_tsc(cpu), since = now - m->vmx_ple_last;

	if (CHECK(VMX_PLE_FIRST, !m->vmx_ple_last || since > m->vmx_ple_gap)) {
		m->vmx_ple_first = m->vmx_ple_last = now;
		return false;
	}
	m->vmx_ple_last = now;
	return CHECK(VMX_PLE_WINDOW, now - m->vmx_ple_first > m->vmx_ple_window);
}

/* Above CPL 0 the loops do not count; with both controls, PAUSE exiting is the one. */
static bool pause_exits(struct cpu *cpu)
{
	if (CHECK(VMX_PAUSE_EXITING, vmx_primary(cpu, VMX_PAUSE)))
		return true;
	if (!vmx_secondary(cpu, VMX2_PAUSE_LOOP) || CHECK(VMX_PLE_CPL, cpu->cpl > 0))
		return false;
	return pause_loop(cpu);
}

/* ---- the rest ---- */

static void check_invlpg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t linear =
		(cpu->segment[insn->segment].linear_base + insn_offset(cpu, insn)) & cpu->linear_mask;

	if (CHECK(VMX_INVLPG_EXITING, vmx_primary(cpu, VMX_INVLPG)))
		exit_qualified(cpu, insn, VMX_EXIT_INVLPG, linear);
}

/* Components that the instruction names, that are enabled, and whose bit is 1 (25.6.21). */
static bool xss_exits(const struct cpu *cpu)
{
	uint64_t requested = cpu->reg[RDX] << 32 | (uint32_t)cpu->reg[RAX];

	return CHECK(VMX_XSS_BITMAP, requested & cpu->msr.xss & cpu->msr.vmx_xss_bitmap);
}

/* MONITOR and MWAIT that the processor does not have are #UD, which is the handler's. */
static void check_monitor(struct cpu *cpu, const struct insn *insn, int reason)
{
	if (!cpuid_monitor_enabled(cpu))
		return;
	if (reason == VMX_EXIT_MONITOR && CHECK(VMX_MONITOR_EXITING, vmx_primary(cpu, VMX_MONITOR)))
		exit_qualified(cpu, insn, VMX_EXIT_MONITOR, 0);
	if (reason == VMX_EXIT_MWAIT && CHECK(VMX_MWAIT_EXITING, vmx_primary(cpu, VMX_MWAIT)))
		exit_qualified(cpu, insn, VMX_EXIT_MWAIT, cpu->wait.armed);
}

/* Instructions whose exit depends on one control, or on none (26.1.2, 26.1.3). */
static bool control_is_on(struct cpu *cpu, const struct insn *insn, int reason)
{
	switch (reason) {
	case VMX_EXIT_HLT: return CHECK(VMX_HLT_EXITING, vmx_primary(cpu, VMX_HLT));
	case VMX_EXIT_PAUSE: return pause_exits(cpu);
	case VMX_EXIT_RDPMC: return CHECK(VMX_RDPMC_EXITING, vmx_primary(cpu, VMX_RDPMC));
	case VMX_EXIT_RDTSC: return CHECK(VMX_RDTSC_EXITING, vmx_primary(cpu, VMX_RDTSC));
	case VMX_EXIT_RDTSCP: return CHECK(VMX_RDTSCP_EXITING, vmx_primary(cpu, VMX_RDTSC));
	case VMX_EXIT_UMWAIT:
	case VMX_EXIT_TPAUSE: return CHECK(VMX_USER_WAIT_EXITING, vmx_primary(cpu, VMX_RDTSC));
	case VMX_EXIT_INVPCID: return CHECK(VMX_INVPCID_EXITING, vmx_primary(cpu, VMX_INVLPG));
	case VMX_EXIT_GDTR_IDTR:
	case VMX_EXIT_LDTR_TR:
		return CHECK(VMX_DESCRIPTOR_TABLE_EXITING, vmx_secondary(cpu, VMX2_DESCRIPTOR_TABLE));
	case VMX_EXIT_WBINVD: return CHECK(VMX_WBINVD_EXITING, vmx_secondary(cpu, VMX2_WBINVD));
	case VMX_EXIT_RDRAND: return CHECK(VMX_RDRAND_EXITING, vmx_secondary(cpu, VMX2_RDRAND));
	case VMX_EXIT_RDSEED: return CHECK(VMX_RDSEED_EXITING, vmx_secondary(cpu, VMX2_RDSEED));
	case VMX_EXIT_XSAVES:
	case VMX_EXIT_XRSTORS: return xss_exits(cpu);
	case VMX_EXIT_VMREAD:
	case VMX_EXIT_VMWRITE:
		return vmcs_access_exits(cpu, reg_read(cpu, insn->reg, cpu_64bit(cpu) ? 8 : 4),
					 reason == VMX_EXIT_VMWRITE);
	case VMX_EXIT_RSM: /* outside of SMM it is #UD */
	case VMX_EXIT_IO:
	case VMX_EXIT_VMFUNC: return false; /* their handlers ask */
	default: return CHECK(VMX_UNCONDITIONAL, true);
	}
}

void vmx_check_insn(struct cpu *cpu, const struct insn *insn)
{
	int reason = opcode_table[insn->opcode].vmx - 1;

	switch (reason) {
	case VMX_EXIT_NONE: return;
	case VMX_EXIT_CR_ACCESS: check_cr(cpu, insn); return;
	case VMX_EXIT_MOV_DR: check_dr(cpu, insn); return;
	case VMX_EXIT_RDMSR: vmx_check_msr(cpu, (uint32_t)cpu->reg[RCX], false); return;
	case VMX_EXIT_WRMSR: vmx_check_msr(cpu, (uint32_t)cpu->reg[RCX], true); return;
	case VMX_EXIT_INVLPG: check_invlpg(cpu, insn); return;
	case VMX_EXIT_MONITOR:
	case VMX_EXIT_MWAIT: check_monitor(cpu, insn, reason); return;
	default:
		if (control_is_on(cpu, insn, reason))
			exit_told(cpu, insn, (enum vmx_exit)reason);
	}
}

void vmx_check_enabled(struct cpu *cpu, const struct insn *insn)
{
	uint32_t control = opcode_table[insn->opcode].vmx_enable;

	if (CHECK(VMX_ENABLED, control && !vmx_secondary(cpu, control)))
		cpu_raise(cpu, VECTOR_UD, 0);
}

/* ---- task switches (26.4.2): none happens in a guest ---- */

void vmx_check_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, bool resume_flag)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_TASK_SWITCH,
				     .qualification = selector | (uint64_t)source << 30,
				     .rf = resume_flag ? VMX_RF_SET : VMX_RF_CLEAR};

	if (!CHECK(VMX_TASK_SWITCH, true))
		return;
	if (cpu->insn)
		info.length = cpu->insn->length;
	vmx_exit_insn(cpu, &info);
}

/* ---- time (25.6.5, 26.3) ---- */

uint64_t vmx_tsc(const struct cpu *cpu, uint64_t tsc)
{
	if (!CHECK(VMX_TSC_OFFSET, vmx_primary(cpu, VMX_USE_TSC_OFFSETTING)))
		return tsc;
	if (CHECK(VMX_TSC_SCALING, vmx_secondary(cpu, VMX2_TSC_SCALING)))
		tsc = (uint64_t)((unsigned __int128)tsc * cpu->msr.vmx_tsc_multiplier >> 48);
	return tsc + cpu->msr.vmx_tsc_offset;
}

uint64_t vmx_ticks(const struct cpu *cpu, uint64_t cycles)
{
	uint64_t multiplier = cpu->msr.vmx_tsc_multiplier;
	unsigned __int128 scaled = (unsigned __int128)cycles << 48;

	if (!vmx_primary(cpu, VMX_USE_TSC_OFFSETTING) || !vmx_secondary(cpu, VMX2_TSC_SCALING) || !multiplier)
		return cycles;
	scaled = (scaled + multiplier - 1) / multiplier;
	return scaled > UINT64_MAX ? UINT64_MAX : (uint64_t)scaled;
}

bool vmx_ends_wait(const struct cpu *cpu)
{
	bool due = vmx_primary(cpu, VMX_INTERRUPT_WINDOW) || cpu->msr.vmx_virtual_recognized;

	return CHECK(VMX_MWAIT_WINDOW, !(cpu->rflags & RFLAGS_IF) && due);
}
