/* branch_record.c: last-branch records, and single steps from branch to branch. */
#include "cpu/branch_record.h"

#include <string.h>

#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/insn.h"

static bool conditional(const char *mnemonic)
{
	return !strncmp(mnemonic, "LOOP", 4) || (mnemonic[0] == 'J' && strcmp(mnemonic, "JMP") != 0);
}

struct branch_step branch_begin(struct cpu *cpu, const struct insn *insn)
{
	struct branch_step step = {.from = cpu->rip,
				   .next_rip = (cpu->rip + insn->length) & cpu->linear_mask};

	if (insn->opcode >= opcode_count)
		return step;
	step.branch = opcode_table[insn->opcode].flags & FLAG_BRANCH;
	step.conditional = step.branch && conditional(opcode_table[insn->opcode].mnemonic);
	if (step.conditional && !insn->imm) /* RIP does not tell whether it was taken */
		cpu_unmodelled(cpu, "DebugCtl.LBR or BTF: a conditional branch to the next instruction");
	return step;
}

static void record(struct cpu *cpu, uint64_t from)
{
	if (cpu->profile->vendor != VENDOR_AMD)
		return;
	cpu->msr.last_branch_from = from;
	cpu->msr.last_branch_to = cpu->rip;
}

bool branch_end(struct cpu *cpu, const struct branch_step *step)
{
	bool taken = step->branch && (!step->conditional || cpu->rip != step->next_rip);

	if (CHECK(BRANCH_RECORD, taken && cpu->msr.debugctl & DEBUGCTL_LBR))
		record(cpu, step->from);
	return taken;
}

/* The interrupt's own pair is the branch before it; #DB and #MC leave all four alone (APM 2 13.1.3). */
void branch_event(struct cpu *cpu, uint64_t from, uint8_t vector)
{
	if (vector == VECTOR_DB || vector == VECTOR_MC)
		return;
	if (!CHECK(BRANCH_RECORD_EVENT, cpu->msr.debugctl & DEBUGCTL_LBR))
		return;
	cpu->msr.last_int_from = cpu->msr.last_branch_from;
	cpu->msr.last_int_to = cpu->msr.last_branch_to;
	record(cpu, from);
}

void branch_debug_exception(struct cpu *cpu)
{
	uint64_t bits = DEBUGCTL_LBR | DEBUGCTL_BTF;

	if (CHECK(BRANCH_DEBUG_EXCEPTION, cpu->msr.debugctl & bits))
		cpu->msr.debugctl &= ~bits;
}
