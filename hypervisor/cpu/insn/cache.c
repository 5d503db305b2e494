/* cache.c: INVD WBINVD WBNOINVD INVLPG INVPCID (SDM 2A, 2D; APM 3 chapter 4). */
#include "cpu/checks.h"
#include "cpu/insn/operand.h"

/* Memory is coherent here: there is nothing to write back or to lose. */
static inline void cache_all(struct cpu *cpu, const struct insn *insn)
{
	(void)cpu;
	(void)insn;
}
DEFINE_INSN(cache_all)

/* Neither limit nor type is checked; a non-canonical address makes it a no-operation (SDM 2A INVLPG). */
static inline void invlpg(struct cpu *cpu, const struct insn *insn)
{
	uint64_t linear =
		(cpu->segment[insn->segment].linear_base + insn_offset(cpu, insn)) & cpu->linear_mask;

	if (CHECK(TLB_INVLPG, !cpu_64bit(cpu) || linear_is_canonical(cpu, linear)))
		tlb_flush_page(cpu, linear);
}
DEFINE_INSN(invlpg)

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

static inline void invpcid(struct cpu *cpu, const struct insn *insn)
{
	uint64_t type = reg_read(cpu, insn->reg, cpu_64bit(cpu) ? 8 : 4);
	uint64_t descriptor[2];

	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), descriptor, sizeof(descriptor), 1);
	if (CHECK(INVPCID_TYPE, type > INVPCID_ALL))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(INVPCID_RESERVED, descriptor[0] >> 12))
		cpu_raise(cpu, VECTOR_GP, 0);
	bool single = type == INVPCID_ADDRESS || type == INVPCID_CONTEXT;
	if (CHECK(INVPCID_PCID, single && descriptor[0] && !(cpu->cr4 & CR4_PCIDE)))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(INVPCID_CANONICAL, type == INVPCID_ADDRESS && !linear_is_canonical(cpu, descriptor[1])))
		cpu_raise(cpu, VECTOR_GP, 0);
	/* Translations are not tagged: what one PCID loses all lose, globals too. */
	if (CHECK(TLB_INVPCID_ADDRESS, type == INVPCID_ADDRESS))
		tlb_flush_page(cpu, descriptor[1]);
	if (CHECK(TLB_INVPCID_CONTEXT, type == INVPCID_CONTEXT) ||
	    CHECK(TLB_INVPCID_ALL_GLOBAL, type == INVPCID_ALL_GLOBAL) ||
	    CHECK(TLB_INVPCID_ALL, type == INVPCID_ALL))
		tlb_flush_all(cpu);
}
DEFINE_INSN(invpcid)
