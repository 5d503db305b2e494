/*
 * descriptor_table.c: SGDT SIDT LGDT LIDT SLDT STR LLDT LTR SMSW LMSW CLTS (SDM 2A, 2B; APM 3
 * chapter 4). UMIP, privilege and mode are gates of their rows.
 */
#include <string.h>

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn/operand.h"
#include "cpu/segment.h"

_Noreturn static void raise_selector(struct cpu *cpu, enum vector vector, uint16_t selector)
{
	cpu_raise(cpu, vector, selector & ~SELECTOR_RPL);
}

/* ---- GDTR and IDTR ---- */

/* The base takes 8 bytes in 64-bit mode; elsewhere 4, whatever the operand size. */
static void store_table(struct cpu *cpu, const struct insn *insn, const struct table_register *table)
{
	uint8_t image[10];

	memcpy(image, &table->limit, 2);
	memcpy(image + 2, &table->base, 8);
	mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, cpu_64bit(cpu) ? 10 : 6, 1);
}

static inline void sgdt(struct cpu *cpu, const struct insn *insn) { store_table(cpu, insn, &cpu->gdtr); }
DEFINE_INSN(sgdt)

static inline void sidt(struct cpu *cpu, const struct insn *insn) { store_table(cpu, insn, &cpu->idtr); }
DEFINE_INSN(sidt)

/* A 16-bit operand size loads 24 bits of the base. */
static void load_table(struct cpu *cpu, const struct insn *insn, struct table_register *table)
{
	struct table_register loaded = {0};
	uint8_t image[10] = {0};

	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, cpu_64bit(cpu) ? 10 : 6, 1);
	memcpy(&loaded.limit, image, 2);
	memcpy(&loaded.base, image + 2, 8);
	if (!cpu_64bit(cpu) && insn->width == 2)
		loaded.base &= 0xffffff;
	if (CHECK(TABLE_CANONICAL, cpu_64bit(cpu) && !linear_is_canonical(cpu, loaded.base)))
		cpu_raise(cpu, VECTOR_GP, 0);
	*table = loaded;
}

static inline void lgdt(struct cpu *cpu, const struct insn *insn) { load_table(cpu, insn, &cpu->gdtr); }
DEFINE_INSN(lgdt)

static inline void lidt(struct cpu *cpu, const struct insn *insn) { load_table(cpu, insn, &cpu->idtr); }
DEFINE_INSN(lidt)

/* ---- LDTR and TR ---- */

/* A register takes the operand size, memory 16 bits. */
HANDLER_INLINE void store_word(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned width,
			       bool memory)
{
	if (memory)
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value & 0xffff, 2);
	else
		reg_write(cpu, insn->rm, truncate(value, width), width);
}

static inline void sldt(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	store_word(cpu, insn, cpu->ldtr.s.selector, width, memory);
}
DEFINE_INSN_RM(sldt)

static inline void str(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	store_word(cpu, insn, cpu->tr.s.selector, width, memory);
}
DEFINE_INSN_RM(str)

/*
 * Reads the descriptor for LDTR or TR: where it has 16 bytes, those where a type would stand are 0
 * (SDM 3A 3.5.2, APM 2 4.8.3).
 */
static struct descriptor read_system(struct cpu *cpu, uint16_t selector)
{
	if (CHECK(SYSTEM_SELECTOR_TI, selector & SELECTOR_TI))
		raise_selector(cpu, VECTOR_GP, selector);
	return descriptor_read(cpu, selector, cpu_wide_system_segments(cpu), VECTOR_GP);
}

static void check_wide(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
	if (!cpu_wide_system_segments(cpu))
		return;
	if (CHECK(SYSTEM_UPPER_TYPE, d->high >> 40 & 0x1f))
		raise_selector(cpu, VECTOR_GP, selector);
	if (CHECK(SYSTEM_CANONICAL, !linear_is_canonical(cpu, d->base)))
		raise_selector(cpu, VECTOR_GP, selector);
}

static inline void lldt(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint16_t selector = (uint16_t)rm_read(cpu, insn, 2, memory);

	(void)width;
	if (selector_is_null(selector)) {
		cpu->ldtr.s.selector = selector;
		cpu->ldtr.s.attributes |= SEG_UNUSABLE;
		return;
	}
	struct descriptor d = read_system(cpu, selector);
	if (CHECK(LLDT_TYPE, attributes_system_type(d.attributes) != TYPE_LDT))
		raise_selector(cpu, VECTOR_GP, selector);
	check_wide(cpu, selector, &d);
	if (CHECK(LLDT_PRESENT, !(d.attributes & SEG_P)))
		raise_selector(cpu, VECTOR_NP, selector);
	cpu->ldtr.s = (struct segment){
		.selector = selector, .base = d.base, .limit = d.limit, .attributes = d.attributes};
}
DEFINE_INSN_RM(lldt)

static bool tss_is_available(const struct cpu *cpu, uint32_t attributes)
{
	int type = attributes_system_type(attributes);

	return type == TYPE_TSS_AVAILABLE || (type == TYPE_TSS16_AVAILABLE && !cpu_ia32e(cpu));
}

static inline void ltr(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint16_t selector = (uint16_t)rm_read(cpu, insn, 2, memory);

	(void)width;
	if (CHECK(LTR_NULL, selector_is_null(selector)))
		cpu_raise(cpu, VECTOR_GP, 0);
	struct descriptor d = read_system(cpu, selector);
	if (CHECK(LTR_TYPE, !tss_is_available(cpu, d.attributes)))
		raise_selector(cpu, VECTOR_GP, selector);
	check_wide(cpu, selector, &d);
	if (CHECK(LTR_PRESENT, !(d.attributes & SEG_P)))
		raise_selector(cpu, VECTOR_NP, selector);
	descriptor_set_busy(cpu, d.address, true);
	cpu->tr.s = (struct segment){.selector = selector,
				     .base = d.base,
				     .limit = d.limit,
				     .attributes = d.attributes | 2 /* busy */};
}
DEFINE_INSN_RM(ltr)

/* ---- the machine status word: CR0[15:0] ---- */

static inline void smsw(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	store_word(cpu, insn, guest_cr_read(cpu, 0), width, memory);
}
DEFINE_INSN_RM(smsw)

/* Loads PE, MP, EM and TS, and never clears PE. */
static inline void lmsw(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t word = rm_read(cpu, insn, 2, memory);
	uint64_t mask = CR0_PE | CR0_MP | CR0_EM | CR0_TS;

	(void)width;
	guest_check_lmsw(cpu, insn, (uint16_t)word, memory);
	control_write_cr0(cpu, guest_cr_merge(cpu, 0, (cpu->cr0 & ~(mask & ~(uint64_t)CR0_PE)) | (word & mask)));
}
DEFINE_INSN_RM(lmsw)

static inline void clts(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	control_write_cr0(cpu, guest_cr_merge(cpu, 0, cpu->cr0 & ~(uint64_t)CR0_TS));
}
DEFINE_INSN(clts)
