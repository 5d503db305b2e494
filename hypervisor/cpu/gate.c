/* gate.c: the checks of a row's gates, made in front of its handler. */
#include "cpu/checks.h"
#include "cpu/pattern.h"
#include "cpu/guest.h"

/* STGI and SKINIT exist without EFER.SVME where there is secure start-up (APM 3 SKINIT, STGI). */
static bool starts_up(const struct cpu *cpu, const struct insn *insn)
{
	int code = opcode_table[insn->opcode].svm - 1;

	return cpu_has(cpu, FEATURE_skinit) && (code == SVM_EXIT_STGI || code == SVM_EXIT_SKINIT);
}

/* What the gate raises, or -1: the conditions of OPCODE_GATES, in its order. */
static int gate_vector(const struct cpu *cpu, const struct insn *insn, enum gate_index gate)
{
	bool amd = cpu->profile->told == VENDOR_AMD; /* whose SYSCALL and SYSENTER the guest knows */
	bool user = cpu->cpl > 0;
	bool refused = false;
	enum vector vector = VECTOR_UD;

	switch (gate) {
	case GATE_INDEX_PROTECTED: refused = cpu_real_or_vm86(cpu); break;
	case GATE_INDEX_IA32E: refused = !cpu_ia32e(cpu); break;
	case GATE_INDEX_IA32E_OR_AMD: refused = !cpu_ia32e(cpu) && !amd; break;
	case GATE_INDEX_NOT_IA32E_ON_AMD: refused = cpu_ia32e(cpu) && amd; break;
	case GATE_INDEX_NOT_REAL:
		refused = !cpu_protected(cpu);
		vector = VECTOR_GP;
		break;
	case GATE_INDEX_SCE: refused = !(cpu->efer & EFER_SCE); break;
	case GATE_INDEX_SVME: refused = !(cpu->efer & EFER_SVME) && !starts_up(cpu, insn); break;
	case GATE_INDEX_VMXE: refused = !(cpu->cr4 & CR4_VMXE); break;
	case GATE_INDEX_VMX: refused = !cpu->msr.vmx_on; break;
	case GATE_INDEX_NOT_COMPATIBILITY: refused = cpu_ia32e(cpu) && !cpu_64bit(cpu); break;
	case GATE_INDEX_SMXE: refused = !(cpu->cr4 & CR4_SMXE); break;
	case GATE_INDEX_SMM: refused = !cpu->smm; break;
	case GATE_INDEX_OSXSAVE: refused = !(cpu->cr4 & CR4_OSXSAVE); break;
	case GATE_INDEX_AVX:
		refused = !(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX);
		break;
	case GATE_INDEX_FSGSBASE: refused = !(cpu->cr4 & CR4_FSGSBASE); break;
	case GATE_INDEX_PKE: refused = !(cpu->cr4 & CR4_PKE); break;
	case GATE_INDEX_OSFXSR: refused = !(cpu->cr4 & CR4_OSFXSR); break;
	case GATE_INDEX_EM: refused = cpu->cr0 & CR0_EM; break;
	case GATE_INDEX_DE: refused = (insn->reg & ~1u) == 4 && cpu->cr4 & CR4_DE; break;
	case GATE_INDEX_CPL0_UD: refused = user; break;
	case GATE_INDEX_EM_NM:
		refused = cpu->cr0 & CR0_EM;
		vector = VECTOR_NM;
		break;
	case GATE_INDEX_TS:
		refused = cpu->cr0 & CR0_TS;
		vector = VECTOR_NM;
		break;
	case GATE_INDEX_MP_TS:
		refused = (cpu->cr0 & CR0_MP) && (cpu->cr0 & CR0_TS);
		vector = VECTOR_NM;
		break;
	case GATE_INDEX_CPL0:
		refused = user;
		vector = VECTOR_GP;
		break;
	case GATE_INDEX_IOPL:
		refused = cpu->cpl > cpu_iopl(cpu);
		vector = VECTOR_GP;
		break;
	case GATE_INDEX_UMIP:
		refused = user && cpu->cr4 & CR4_UMIP;
		vector = VECTOR_GP;
		break;
	case GATE_INDEX_TSD:
		refused = user && cpu->cr4 & CR4_TSD;
		vector = VECTOR_GP;
		break;
	case GATE_INDEX_TSD_UD: refused = user && cpu->cr4 & CR4_TSD; break;
	case GATE_INDEX_PCE:
		refused = user && !(cpu->cr4 & CR4_PCE);
		vector = VECTOR_GP;
		break;
	case GATE_COUNT: break;
	}
	return refused ? (int)vector : -1;
}

/* Gates that are open at CPL 0, whatever else is set. */
#define GATES_OF_USERS                                                                                       \
	((uint32_t)(GATE_CPL0_UD | GATE_CPL0 | GATE_IOPL | GATE_UMIP | GATE_TSD | GATE_TSD_UD | GATE_PCE))

static void check_gates(struct cpu *cpu, const struct insn *insn, uint32_t gates)
{
	if (cpu->cpl == 0)
		gates &= ~GATES_OF_USERS;
	for (; gates; gates &= gates - 1) {
		enum gate_index gate = (enum gate_index)__builtin_ctz(gates);
		int vector = gate_vector(cpu, insn, gate);

		if (unlikely(vector >= 0)) {
			gate_note(insn->opcode, gate);
			cpu_raise(cpu, (enum vector)vector, 0);
		}
	}
}

void gate_check(struct cpu *cpu, const struct insn *insn) { check_gates(cpu, insn, pattern_of(insn->opcode)->gates); }

static const struct insn *handler_run(struct cpu *cpu, const struct insn *insn)
{
	const struct pattern *p = pattern_of(insn->opcode);
	bool memory = p->moffs || (p->has_modrm && insn_is_memory(insn));

	return opcode_table[insn->opcode].handlers->run[memory][__builtin_ctz(insn->width)](cpu, insn);
}

const struct insn *gate_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	gate_check(cpu, insn);
	return handler_run(cpu, insn);
}

/* Faults by privilege level, which are #GP(0), and those that CR0 asks for, which are #NM. */
#define GATES_OF_PRIVILEGE ((uint32_t)(GATE_CPL0 | GATE_IOPL | GATE_UMIP | GATE_TSD | GATE_PCE))
#define GATES_OF_CR0       ((uint32_t)(GATE_EM_NM | GATE_TS | GATE_MP_TS))

/* Whether one of @gates is closed. */
static bool refuses(struct cpu *cpu, const struct insn *insn, uint32_t gates)
{
	for (; gates; gates &= gates - 1)
		if (gate_vector(cpu, insn, (enum gate_index)__builtin_ctz(gates)) >= 0)
			return true;
	return false;
}

/*
 * SDM 3C 26.1.1: invalid opcodes and faults by privilege level come before an exit, others behind it. MOV DR exits
 * before both; VMX's own instructions between the two.
 */
static void check_vmx(struct cpu *cpu, const struct insn *insn)
{
	enum vmx_order order = (enum vmx_order)opcode_table[insn->opcode].vmx_order;
	uint32_t gates = pattern_of(insn->opcode)->gates;

	vmx_check_enabled(cpu, insn);
	if (CHECK(VMX_BEFORE_EXCEPTIONS, order == VMX_BEFORE_EXCEPTIONS))
		vmx_check_insn(cpu, insn);
	check_gates(cpu, insn, gates & ~(GATES_OF_PRIVILEGE | GATES_OF_CR0));
	if (CHECK(VMX_BEFORE_CPL, order == VMX_BEFORE_CPL))
		vmx_check_insn(cpu, insn);
	/* A #NM that is there as well has its usual place (SDM 3A 6.9). */
	if (refuses(cpu, insn, gates & GATES_OF_PRIVILEGE))
		check_gates(cpu, insn, gates & (GATES_OF_PRIVILEGE | GATES_OF_CR0));
	if (CHECK(VMX_AFTER_EXCEPTIONS, order == VMX_AFTER_EXCEPTIONS))
		vmx_check_insn(cpu, insn);
	check_gates(cpu, insn, gates & GATES_OF_CR0);
}

/*
 * APM 2 15.9, table 15-7: before or after the exceptions that are checked here. An instruction that CR4 has not switched
 * on is an invalid opcode like any other, so nothing is there to be intercepted.
 */
static void check_svm(struct cpu *cpu, const struct insn *insn)
{
	enum svm_order order = (enum svm_order)opcode_table[insn->opcode].svm_order;

	check_gates(cpu, insn, pattern_of(insn->opcode)->gates & GATE_OSXSAVE);
	if (CHECK(SVM_BEFORE_EXCEPTIONS, order == SVM_BEFORE_EXCEPTIONS))
		svm_check_insn(cpu, insn);
	gate_check(cpu, insn);
	if (CHECK(SVM_AFTER_EXCEPTIONS, order == SVM_AFTER_EXCEPTIONS))
		svm_check_insn(cpu, insn);
}

const struct insn *gate_run_guest(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	if (cpu->msr.vmx_guest)
		check_vmx(cpu, insn);
	else
		check_svm(cpu, insn);
	return handler_run(cpu, insn);
}

/* Rows that the manual reserves: the decoder answers UNDEFINED, so this runs only by mistake. */
static const struct insn *reserved_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	cpu_raise(cpu, VECTOR_UD, 0);
}
extern const struct handlers insn_reserved;
const struct handlers insn_reserved = {HANDLERS_ONE(reserved_run)};

/* Rows of features that are not modelled: the decoder answers UNMODELLED. */
static const struct insn *unmodelled_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	cpu_unmodelled(cpu, opcode_table[insn->opcode].mnemonic);
}
extern const struct handlers insn_unmodelled;
const struct handlers insn_unmodelled = {HANDLERS_ONE(unmodelled_run)};
