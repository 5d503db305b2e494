/* intercept.c: instructions of a guest: which are intercepted, and what the exit tells (APM 2 15.8
 * to 15.11, 15.14). */
#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/mem/mem.h"
#include "cpu/svm/svm.h"
#include "cpu/control.h"

extern const struct handlers insn_mov_rd_cd, insn_mov_cd_rd, insn_wrmsr, insn_lmsw;

static const struct handlers *handlers_of(const struct insn *insn)
{
	return opcode_table[insn->opcode].handlers;
}

/* Each intercept is a check by itself; those of all CRn, DRn and exceptions are one each. */
static enum check intercept_check(unsigned code)
{
	unsigned range = code < SVM_EXIT_EXCEPTION				   ? code & ~0xfu
			 : code < SVM_EXIT_INTR					   ? SVM_EXIT_EXCEPTION
			 : code >= SVM_EXIT_CR0_WRITE_TRAP && code < SVM_EXIT_INVLPGB ? SVM_EXIT_CR0_WRITE_TRAP
										   : code;

	switch (range) {
#define SVM_EXIT(code_, name_)                                                                               \
	case code_: return CHECK_INTERCEPT_##name_;
#include "x86/svm_exits.def"
#undef SVM_EXIT
	default: return CHECK_SVM_INTERCEPT;
	}
}

static bool intercepted(const struct cpu *cpu, unsigned word, unsigned bit, unsigned code)
{
	return CHECK(SVM_INTERCEPT, cpu->msr.svm_intercept[word] >> bit & 1) && check_holds(intercept_check(code));
}

/* Exit codes are the intercept words' bits in order, but for the first two words, which have 16 + 16. */
bool svm_intercepts(const struct cpu *cpu, int code)
{
	unsigned c = (unsigned)code;

	/* INVLPGB and behind it: word 5. */
	if (c >= SVM_EXIT_INVLPGB && c < SVM_EXIT_INVLPGB + 32)
		return intercepted(cpu, 5, c - SVM_EXIT_INVLPGB, c);
	if (c >= 32 * 5)
		return false;
	return intercepted(cpu, c / 32, c % 32, c);
}

/* What a decode assist adds, where the processor has them (15.8). */
static uint64_t assist(const struct cpu *cpu, uint64_t info)
{
	return CHECK(SVM_DECODE_ASSIST, cpu_has(cpu, FEATURE_svm_decode)) ? info : 0;
}

static _Noreturn void exit_insn(struct cpu *cpu, int code, uint64_t info1, uint64_t info2)
{
	struct svm_exit_info info = {
		.code = code, .info1 = info1, .info2 = info2, .next_rip = cpu_next_rip(cpu)};

	svm_exit_insn(cpu, &info);
}

/* ---- control and debug registers ---- */

static void check_cr_read(struct cpu *cpu, const struct insn *insn)
{
	bool mov = handlers_of(insn) == &insn_mov_rd_cd;
	int code = SVM_EXIT_CR0_READ + (mov ? insn->reg : 0);

	if (svm_intercepts(cpu, code))
		exit_insn(cpu, code, mov ? assist(cpu, SVM_INFO_MOV_CR | insn->rm) : 0, 0);
}

/* LMSW and CLTS; the selective intercept takes any LMSW and no CLTS (table 15-7). */
static void check_cr0_write(struct cpu *cpu, const struct insn *insn)
{
	if (svm_intercepts(cpu, SVM_EXIT_CR0_WRITE))
		exit_insn(cpu, SVM_EXIT_CR0_WRITE, 0, 0);
	if (handlers_of(insn) == &insn_lmsw && svm_intercepts(cpu, SVM_EXIT_CR0_SEL_WRITE))
		exit_insn(cpu, SVM_EXIT_CR0_SEL_WRITE, 0, 0);
}

void svm_check_cr_write(struct cpu *cpu, unsigned number, uint64_t value)
{
	const struct insn *insn = cpu->insn;
	uint64_t selective = ~(uint64_t)(CR0_TS | CR0_MP | CR0_ET);
	int code = SVM_EXIT_CR0_WRITE + (int)number;

	if (!insn || handlers_of(insn) != &insn_mov_cd_rd)
		return;
	if (svm_intercepts(cpu, code))
		exit_insn(cpu, code, assist(cpu, SVM_INFO_MOV_CR | insn->rm), 0);
	if (number == 0 && CHECK(SVM_SELECTIVE_CR0, (value ^ cpu->cr0) & selective) &&
	    svm_intercepts(cpu, SVM_EXIT_CR0_SEL_WRITE))
		exit_insn(cpu, SVM_EXIT_CR0_SEL_WRITE, assist(cpu, SVM_INFO_MOV_CR | insn->rm), 0);
}

static void check_dr(struct cpu *cpu, const struct insn *insn, int code)
{
	code += insn->reg;
	if (svm_intercepts(cpu, code))
		exit_insn(cpu, code, assist(cpu, insn->rm), 0);
}

/* ---- ports (15.10) ---- */

static bool port_intercepted(struct cpu *cpu, uint16_t port, unsigned size)
{
	uint64_t at = cpu->msr.svm_iopm + port / 8;
	uint64_t bits = physical_read(cpu, at, 1) | physical_read(cpu, at + 1, 1) << 8;

	return CHECK(SVM_IOPM, bits >> (port % 8) & ((1u << size) - 1));
}

/* The segment is told of string instructions alone: the effective one, ES for INS. */
void svm_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in,
		  bool string)
{
	uint64_t info = (in ? SVM_IOIO_IN : 0) | size << SVM_IOIO_SIZE_SHIFT |
			(uint64_t)insn->address_width << SVM_IOIO_ADDRESS_SHIFT |
			(uint64_t)port << SVM_IOIO_PORT_SHIFT;

	if (!svm_intercepts(cpu, SVM_EXIT_IOIO) || !port_intercepted(cpu, port, size))
		return;
	if (string) {
		info |= SVM_IOIO_STRING;
		if (insn->prefixes & (PREFIX_REP | PREFIX_REPNE))
			info |= SVM_IOIO_REP;
		info |= assist(cpu, (uint64_t)(in ? ES : insn->segment) << SVM_IOIO_SEGMENT_SHIFT);
	}
	exit_insn(cpu, SVM_EXIT_IOIO, info, cpu_next_rip(cpu));
}

/* ---- MSRs (15.11) ---- */

/* Of each MSR two bits: read, write. Those that the map does not have are always intercepted. */
static bool msr_intercepted(struct cpu *cpu, uint32_t index, bool write)
{
	static const uint32_t ranges[] = {0, 0xc0000000, 0xc0010000};

	for (unsigned i = 0; i < 3; i++) {
		uint32_t n = index - ranges[i];

		if (n < 0x2000)
			return CHECK(SVM_MSRPM,
				     physical_read(cpu, cpu->msr.svm_msrpm + 0x800 * i + n / 4, 1) >>
						     (n % 4 * 2 + write) &
					     1);
	}
	return CHECK(SVM_MSRPM_RANGE, true);
}

static void check_msr(struct cpu *cpu, const struct insn *insn)
{
	bool write = handlers_of(insn) == &insn_wrmsr;

	if (svm_intercepts(cpu, SVM_EXIT_MSR) && msr_intercepted(cpu, (uint32_t)cpu->reg[RCX], write))
		exit_insn(cpu, SVM_EXIT_MSR, write, 0);
}

/* ---- PAUSE, MWAIT (15.14.4, table 15-7) ---- */

static void check_pause(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;
	uint64_t now = control_tsc(cpu), elapsed = now - m->svm_pause_last;

	m->svm_pause_last = now;
	if (CHECK(SVM_PAUSE_THRESHOLD, m->svm_pause_threshold && elapsed > m->svm_pause_threshold)) {
		m->svm_pause_left = m->svm_pause_count;
		return;
	}
	if (CHECK(SVM_PAUSE_COUNT, m->svm_pause_left)) {
		m->svm_pause_left--;
		return;
	}
	if (svm_intercepts(cpu, SVM_EXIT_PAUSE))
		exit_insn(cpu, SVM_EXIT_PAUSE, 0, 0);
}

void svm_check_mwait(struct cpu *cpu)
{
	if (cpu->wait.armed && svm_intercepts(cpu, SVM_EXIT_MWAIT_CONDITIONAL))
		exit_insn(cpu, SVM_EXIT_MWAIT_CONDITIONAL, 0, 0);
	if (svm_intercepts(cpu, SVM_EXIT_MWAIT))
		exit_insn(cpu, SVM_EXIT_MWAIT, 0, 0);
}

/* No intercept of an instruction: the VMCB's nRIP becomes 0 (15.7.1). */
void svm_check_ferr(struct cpu *cpu)
{
	struct svm_exit_info info = {.code = SVM_EXIT_FERR_FREEZE};

	if (svm_guest(cpu) && svm_intercepts(cpu, SVM_EXIT_FERR_FREEZE))
		svm_exit_insn(cpu, &info);
}

/* ---- all instructions ---- */

static void check_invlpg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t linear =
		(cpu->segment[insn->segment].linear_base + insn_offset(cpu, insn)) & cpu->linear_mask;

	if (svm_intercepts(cpu, SVM_EXIT_INVLPG))
		exit_insn(cpu, SVM_EXIT_INVLPG, assist(cpu, linear), 0);
}

void svm_check_insn(struct cpu *cpu, const struct insn *insn)
{
	int code = opcode_table[insn->opcode].svm - 1;

	switch (code) {
	case SVM_EXIT_CR0_READ: check_cr_read(cpu, insn); break;
	case SVM_EXIT_CR0_WRITE: check_cr0_write(cpu, insn); break;
	case SVM_EXIT_DR0_READ:
	case SVM_EXIT_DR0_WRITE: check_dr(cpu, insn, code); break;
	case SVM_EXIT_MSR: check_msr(cpu, insn); break;
	case SVM_EXIT_PAUSE: check_pause(cpu); break;
	case SVM_EXIT_INVLPG: check_invlpg(cpu, insn); break;
	case SVM_EXIT_SWINT:
		if (svm_intercepts(cpu, code))
			exit_insn(cpu, code, assist(cpu, (uint8_t)insn->imm), 0);
		break;
	default:
		if (svm_intercepts(cpu, code))
			exit_insn(cpu, code, 0, 0);
	}
}

/* ---- task switches (15.14.1) ---- */

void svm_check_task_switch(struct cpu *cpu, uint16_t selector, bool iret, bool jump, bool has_error_code,
			   uint32_t error_code, bool resume_flag)
{
	struct svm_exit_info info = {.code = SVM_EXIT_TASK_SWITCH, .info1 = selector};

	if (!svm_intercepts(cpu, SVM_EXIT_TASK_SWITCH))
		return;
	if (has_error_code)
		info.info2 = error_code | SVM_TASK_ERROR_CODE;
	info.info2 |=
		(iret ? SVM_TASK_IRET : 0) | (jump ? SVM_TASK_JUMP : 0) | (resume_flag ? SVM_TASK_RF : 0);
	svm_exit_insn(cpu, &info);
}
