/* branch_record.c: last-branch records, and single steps from branch to branch. */
#include "cpu/branch_record.h"

#include <string.h>

#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/insn/operand.h"

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
	if (step.conditional && !insn->imm)
		step.to_next = insn;
	return step;
}

/* Whether @insn, a conditional branch that is done, was taken: it has changed no flags, and rCX has been
 * counted down. */
static bool was_taken(const struct cpu *cpu, const struct insn *insn)
{
	static const struct {
		const char *mnemonic;
		enum condition condition;
	} jumps[] = {
#define JUMP(capitals, letters) {"J" #capitals, CC_##capitals},
		CONDITIONS(JUMP)
#undef JUMP
	};
	const char *mnemonic = opcode_table[insn->opcode].mnemonic;
	uint64_t count = cpu->reg[RCX] << insn->address_shift >> insn->address_shift;

	for (unsigned i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++)
		if (!strcmp(mnemonic, jumps[i].mnemonic))
			return condition_holds(cpu, jumps[i].condition);
	if (!strcmp(mnemonic, "JCXZ"))
		return !count;
	if (!strcmp(mnemonic, "LOOP"))
		return count;
	return count && flags_zf(&cpu->lazy) == !strcmp(mnemonic, "LOOPE");
}

static void record(struct cpu *cpu, uint64_t from)
{
	cpu->msr.last_branch_from = from;
	cpu->msr.last_branch_to = cpu->rip;
}

bool branch_end(struct cpu *cpu, const struct branch_step *step)
{
	bool taken = step->branch && (step->to_next       ? was_taken(cpu, step->to_next)
				      : step->conditional ? cpu->rip != step->next_rip
							  : true);

	if (CHECK(BRANCH_RECORD, taken && branch_recorded(cpu)))
		record(cpu, step->from);
	return taken;
}

/* The interrupt's own pair is the branch before it; #DB and #MC leave all four alone (APM 2 13.1.3). */
void branch_event(struct cpu *cpu, uint64_t from, uint8_t vector)
{
	if (vector == VECTOR_DB || vector == VECTOR_MC)
		return;
	if (!CHECK(BRANCH_RECORD_EVENT, branch_recorded(cpu)))
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
