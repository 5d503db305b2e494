/* given.c: the words of what is given: settings, conditions, how the instruction is written, its operand. */
#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include "notation.h"

/* ---- what is given ---- */

static void setting_add(struct cell *x, struct case_setting setting)
{
	if (x->setting_count == SETTINGS_MAX)
		cell_error(x, "more than %u settings", SETTINGS_MAX);
	else
		x->settings[x->setting_count++] = setting;
}

uint64_t field_value(const struct cell *x, enum state_field field, uint64_t value)
{
	bool wide = x->mode == MODE_LONG || field > STATE_r15;

	return wide ? value : (uint32_t)value;
}

void given_set(struct cell *x, enum state_field field, uint64_t value)
{
	value = field_value(x, field, value);
	x->state.field[field] = value;
	setting_add(x, (struct case_setting){.kind = SETTING_SET, .field = (uint16_t)field, .value = value});
}

void given_or(struct cell *x, enum state_field field, uint64_t value)
{
	x->state.field[field] |= value;
	setting_add(x, (struct case_setting){.kind = SETTING_OR, .field = (uint16_t)field, .value = value});
}

void given_clear(struct cell *x, enum state_field field, uint64_t value)
{
	x->state.field[field] &= ~value;
	setting_add(x,
		    (struct case_setting){.kind = SETTING_CLEAR, .field = (uint16_t)field, .value = value});
}

void given_poke(struct cell *x, enum setting_kind kind, uint32_t address, uint64_t value)
{
	setting_add(x, (struct case_setting){.kind = (uint8_t)kind, .address = address, .value = value});
}

void given_parameter(struct cell *x, enum story_parameter parameter, const char *name, const char *word,
		     uint64_t value)
{
	setting_add(x, (struct case_setting){
			       .kind = SETTING_PARAMETER, .field = (uint16_t)parameter, .value = value});
	if (word && *word)
		given_variant(x, word);
	else if (!word)
		given_variant_number(x, "%s%llx", name, (unsigned long long)value);
}

void given_control(struct cell *x, enum setting_kind kind, unsigned size, uint32_t offset, uint64_t value)
{
	setting_add(x, (struct case_setting){.kind = (uint8_t)kind,
					     .bit = (uint8_t)size,
					     .address = offset,
					     .value = value});
}

/* Both come through the local APIC. */
void given_event(struct cell *x, enum setting_kind kind, unsigned vector)
{
	given_needs(x, "apic", true);
	setting_add(x, (struct case_setting){.kind = (uint8_t)kind, .value = vector});
}

const struct condition *condition_find(const char *name)
{
	for (unsigned i = 0; i < condition_count; i++) {
		if (!strcasecmp(condition_table[i].name, name))
			return &condition_table[i];
	}
	return NULL;
}

void given_condition(struct cell *x, const char *tag)
{
	const struct condition *condition = condition_find(tag);

	if (!condition) {
		cell_error(x, "unknown condition '%s'", tag);
		return;
	}
	if (!where_holds(condition->where, x->mode, x->cpl))
		x->skip = true;
	for (unsigned i = 0; i < x->tag_count; i++) {
		if (x->tags[i] == condition->name)
			return;
	}
	if (x->tag_count == TAGS_MAX)
		cell_error(x, "more than %u conditions", TAGS_MAX);
	else
		x->tags[x->tag_count++] = condition->name;
}

void given_variant(struct cell *x, const char *tag)
{
	for (const char *c = tag; *c; c++) {
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '_')
			cell_error(x, "'%s' cannot stand in an id", tag);
	}
	if (x->variant_count == TAGS_MAX)
		cell_error(x, "more than %u variants", TAGS_MAX);
	else
		x->variant[x->variant_count++] = tag;
}

void given_variant_number(struct cell *x, const char *format, ...)
{
	char *tag = x->numbered[x->variant_count < TAGS_MAX ? x->variant_count : 0];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(tag, sizeof(x->numbered[0]), format, arguments);
	va_end(arguments);
	given_variant(x, tag);
}

void given_bit(struct cell *x, enum state_field field, uint64_t bit, const char *name)
{
	given_condition(x, name);
	given_or(x, field, bit);
}

const struct feature_bit *feature_find(const char *name)
{
	for (unsigned i = 0; i < feature_count; i++) {
		if (!strcmp(feature_table[i].name, name))
			return &feature_table[i];
	}
	return NULL;
}

void given_needs(struct cell *x, const char *feature, bool present)
{
	const struct feature_bit *bit = feature_find(feature);

	if (!bit) {
		cell_error(x, "unknown feature '%s'", feature);
		return;
	}
	setting_add(x, (struct case_setting){.kind = SETTING_NEEDS,
					     .bit = (uint8_t)(bit->bit | (present ? 0 : 0x80)),
					     .field = (uint16_t)bit->reg,
					     .address = bit->leaf,
					     .value = bit->subleaf});
}

void given_physical_bits(struct cell *x, unsigned most)
{
	setting_add(x, (struct case_setting){.kind = SETTING_PHYSICAL_BITS, .value = most});
}

/* CR4 bits are reserved where their feature is absent (SDM 3A 2.5). */
void given_cr4(struct cell *x, uint64_t bit, const char *name)
{
	static const struct {
		uint64_t bit;
		const char *feature;
	} needs[] = {{CR4_VME, "vme"},    {CR4_PVI, "vme"},       {CR4_TSD, "tsc"},
		     {CR4_DE, "de"},      {CR4_UMIP, "umip"},     {CR4_LA57, "la57"},
		     {CR4_VMXE, "vmx"},   {CR4_SMXE, "smx"},      {CR4_FSGSBASE, "fsgsbase"},
		     {CR4_PCIDE, "pcid"}, {CR4_OSXSAVE, "xsave"}, {CR4_SMEP, "smep"},
		     {CR4_SMAP, "smap"},  {CR4_PKE, "pku"},       {CR4_PKS, "pks"}};

	for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		if (needs[i].bit == bit)
			given_needs(x, needs[i].feature, true);
	}
	given_bit(x, STATE_cr4, bit, name);
}

void given_iopl(struct cell *x, unsigned iopl)
{
	static const char *const tags[4] = {NULL, "iopl1", "iopl2", "iopl3"};

	if (tags[iopl])
		given_condition(x, tags[iopl]);
	given_or(x, STATE_rflags, (uint64_t)iopl << RFLAGS_IOPL_SHIFT);
}

void given_descriptor(struct cell *x, unsigned selector, uint64_t base, uint32_t limit, uint32_t attributes)
{
	uint64_t low = (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)(attributes & 0xff) << 40 |
		       (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(attributes >> 12 & 0xf) << 52 |
		       (base >> 24 & 0xff) << 56;
	uint32_t table = selector & SELECTOR_TI ? CASE_LDT : CASE_GDT;

	given_poke(x, SETTING_POKE8, table + (selector & SELECTOR_INDEX), low);
}

void given_prefix(struct cell *x, unsigned byte)
{
	if (x->prefix_count < sizeof(x->prefixes))
		x->prefixes[x->prefix_count++] = (uint8_t)byte;
	else
		cell_error(x, "too many prefixes");
}

void given_tail(struct cell *x, const uint8_t *bytes, size_t count)
{
	if (x->tail_count + count > sizeof(x->tail)) {
		cell_error(x, "too many bytes after the instruction");
		return;
	}
	memcpy(x->tail + x->tail_count, bytes, count);
	x->tail_count += (unsigned)count;
}

/* ---- the memory operand ---- */

static unsigned operand_size(const struct cell *x)
{
	return x->mode == MODE_LONG && x->insn->size_long ? x->insn->size_long : x->insn->size;
}

/* Clears @bits in the page-table entry that maps the operand. */
static void operand_page(struct cell *x, const char *condition, uint64_t bits)
{
	uint64_t entry = CASE_PTE(CASE_OPERAND, x->cpl == 3) & ~bits;

	given_condition(x, condition);
	if ((x->mode == MODE_COMPAT || x->mode == MODE_LONG))
		given_poke(x, SETTING_POKE8, CASE_PTE_LONG(CASE_OPERAND), entry);
	else
		given_poke(x, SETTING_POKE4, CASE_PTE_32(CASE_OPERAND), entry);
}

/*
 * A data or stack segment of the case's CPL. It is set where the mode has descriptors; in VM86 mode the
 * base alone can be chosen.
 */
static void segment_ends(struct cell *x, bool stack, uint32_t base, uint32_t limit)
{
	uint64_t attributes = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | x->cpl << SEG_DPL_SHIFT;
	uint64_t selector = base >> 4;

	if (x->mode != MODE_VM86) {
		selector = CASE_SEL_SPARE | x->cpl;
		if (!case_mode_is_16(x->mode))
			attributes |= SEG_DB;
		given_descriptor(x, CASE_SEL_SPARE, base, limit, (uint32_t)attributes);
	}
	given_set(x, stack ? STATE_ss : STATE_ds, selector);
}

/*
 * The operand's last byte is the first past the limit; the others are where the case's CPL may access
 * them, as the parts of an operand may be accessed one by one.
 */
static void operand_over_limit(struct cell *x, bool stack)
{
	unsigned size = operand_size(x), limit;

	given_condition(x, stack ? "limit_ss" : "limit");
	if (stack)
		given_prefix(x, 0x36);
	if (case_mode_is_16(x->mode)) {
		limit = 0xffff;
		if (size < 2)
			x->address_size = 32;
		if (x->cpl == 3)
			segment_ends(x, stack, CASE_OPERAND_PAGE + 0x800 - (limit + 1), limit);
	} else if (stack) { /* at CPL 0 to 2 one that still holds the stack, as the handler may use it */
		limit = x->cpl == 3 ? CASE_OPERAND_PAGE + 0x7ff : 0x1ffff;
		segment_ends(x, true, 0, limit);
	} else {
		limit = 0xf;
		given_set(x, STATE_ds, CASE_SEL_SMALL | x->cpl);
	}
	if (size > limit + 1)
		given_set(x, STATE_rbx, 0);
	else
		given_set(x, STATE_rbx, limit + 2 - size);
}

void given_operand(struct cell *x, enum operand_kind kind)
{
	switch (kind) {
	case NOT_PRESENT: operand_page(x, "pf", PTE_P); break;
	case READ_ONLY: operand_page(x, "ro", PTE_W); break;
	case SUPERVISOR: operand_page(x, "supervisor", PTE_U); break;
	case OVER_LIMIT: operand_over_limit(x, false); break;
	case OVER_LIMIT_SS: operand_over_limit(x, true); break;
	case NULL_SEGMENT:
		given_condition(x, "null");
		given_set(x, STATE_ds, 0);
		break;
	case NOT_WRITABLE:
		given_condition(x, "nowrite");
		given_set(x, STATE_ds, CASE_SEL_READ_ONLY | x->cpl);
		break;
	case NOT_CANONICAL:
		given_condition(x, "noncanon");
		given_set(x, STATE_rbx, 1ull << 47);
		break;
	case NOT_CANONICAL_SS:
		given_condition(x, "noncanon_ss");
		given_set(x, STATE_rbp, 1ull << 47);
		x->base_bp = true;
		break;
	case MISALIGNED:
		given_condition(x, "ac");
		given_or(x, STATE_cr0, CR0_AM);
		given_or(x, STATE_rflags, RFLAGS_AC);
		given_set(x, STATE_rbx, x->state.field[STATE_rbx] + 1);
		x->operand++;
		break;
	}
}

uint64_t cell_next_ip(struct cell *x) { return x->state.field[STATE_rip] + x->length - x->tail_count; }
