/* expand.c: what the words of the notation do, and the program around them. */
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "notation.h"

const char *const mode_names[MODE_COUNT] = {"real", "vm86", "prot16", "prot32", "compat", "long"};

static const char *const state_names[STATE_COUNT] = {
#define STATE_FIELD(name) #name,
#include "x86/machine_state.def"
#undef STATE_FIELD
};

static char *error_lines[4096];
static unsigned error_line_count;

void suite_error(struct suite *suite, const char *file, int line, const char *format, ...)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "%s:%d: ", file, line);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - (size_t)length, format, arguments);
	va_end(arguments);
	suite->errors++;
	for (unsigned i = 0; i < error_line_count; i++) {
		if (!strcmp(error_lines[i], text))
			return;
	}
	if (error_line_count < sizeof(error_lines) / sizeof(error_lines[0]))
		error_lines[error_line_count++] = strdup(text);
}

bool mode_has_cpl(unsigned mode, unsigned cpl)
{
	return mode == MODE_REAL ? cpl == 0 : mode == MODE_VM86 ? cpl == 3 : true;
}

bool where_holds(unsigned where, unsigned mode, unsigned cpl)
{
	unsigned modes = where & WHERE_MODES, cpls = where & WHERE_CPLS;

	return (!modes || (modes & WHERE_MODE(mode))) && (!cpls || (cpls & WHERE_CPL(cpl)));
}

unsigned where_both(unsigned a, unsigned b)
{
	unsigned modes = (a & WHERE_MODES ? a : WHERE_MODES) & (b & WHERE_MODES ? b : WHERE_MODES);
	unsigned cpls = (a & WHERE_CPLS ? a : WHERE_CPLS) & (b & WHERE_CPLS ? b : WHERE_CPLS);
	unsigned both = (modes & WHERE_MODES) | (cpls & WHERE_CPLS);

	for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
		for (unsigned cpl = 0; cpl < 4; cpl++) {
			if ((both & WHERE_MODES) && (both & WHERE_CPLS) && mode_has_cpl(mode, cpl) &&
			    where_holds(both, mode, cpl))
				return both;
		}
	}
	return 0;
}

/* ---- the baseline of case_layout.h, as values ---- */

static bool mode_is_ia32e(unsigned mode) { return mode == MODE_COMPAT || mode == MODE_LONG; }

static void baseline_system(struct machine_state *state, unsigned mode)
{
	bool ia32e = mode_is_ia32e(mode);
	uint64_t *f = state->field;

	f[STATE_gdtr_base] = CASE_GDT;
	f[STATE_gdtr_limit] = CASE_GDT_LIMIT;
	f[STATE_idtr_base] = mode == MODE_REAL ? CASE_IVT : ia32e ? CASE_IDT64 : CASE_IDT32;
	f[STATE_idtr_limit] = mode == MODE_REAL ? CASE_IVT_SIZE - 1
			      : ia32e           ? CASE_IDT64_LIMIT
						: CASE_IDT32_LIMIT;
	f[STATE_ldtr] = CASE_SEL_LDT;
	f[STATE_tr] = ia32e ? CASE_SEL_TSS64 : CASE_SEL_TSS32;
	f[STATE_cr0] = mode == MODE_REAL ? CASE_CR0_REAL : CASE_CR0;
	f[STATE_cr3] = ia32e ? CASE_CR3_LONG : CASE_CR3_32;
	f[STATE_cr4] = ia32e ? CASE_CR4_LONG : 0;
	f[STATE_dr6] = CASE_DR6;
	f[STATE_dr7] = CASE_DR7;
	f[STATE_xcr0] = CASE_XCR0;
	f[STATE_efer] = ia32e ? CASE_EFER_LONG : CASE_EFER;
	f[STATE_star] = CASE_STAR;
	f[STATE_lstar] = CASE_LAND_SYSCALL;
	f[STATE_cstar] = CASE_LAND_CSTAR;
	f[STATE_fmask] = CASE_FMASK;
	f[STATE_kernel_gs_base] = CASE_KERNEL_GS_BASE;
	f[STATE_sysenter_cs] = CASE_SYSENTER_CS;
	f[STATE_sysenter_esp] = CASE_SYSENTER_ESP;
	f[STATE_sysenter_eip] = CASE_SYSENTER_EIP;
	f[STATE_tsc_aux] = CASE_TSC_AUX;
}

static void baseline(struct machine_state *state, unsigned mode, unsigned cpl)
{
	uint64_t *f = state->field;

	memset(state, 0, sizeof(*state));
	for (unsigned n = 0; n < (mode == MODE_LONG ? 16u : 8u); n++)
		f[STATE_rax + n] = mode == MODE_LONG ? CASE_GPR(n) : (uint32_t)CASE_GPR(n);
	f[STATE_rbx] = f[STATE_rsi] = case_offset(mode, CASE_OPERAND);
	f[STATE_rdi] = case_offset(mode, CASE_OPERAND2);
	f[STATE_rsp] = case_offset(mode, CASE_STACK);
	f[STATE_rip] = case_offset(mode, CASE_STUB);
	f[STATE_rflags] = CASE_RFLAGS | (mode == MODE_VM86 ? RFLAGS_VM : 0);
	f[STATE_cs] = case_code_selector(mode, cpl);
	f[STATE_ss] = f[STATE_ds] = f[STATE_es] = f[STATE_fs] = f[STATE_gs] = case_data_selector(mode, cpl);
	f[STATE_fs_base] = mode == MODE_LONG ? CASE_FS_BASE : case_mode_is_16(mode) ? CASE_WINDOW : 0;
	f[STATE_gs_base] = mode == MODE_LONG ? CASE_GS_BASE : f[STATE_fs_base];
	baseline_system(state, mode);
}

/* ---- rows ---- */

void row_begin(struct cell *x, const enum insn_key *insns, unsigned where, const char *file, int line)
{
	x->insns = insns;
	x->file = file;
	x->line = line;
	x->where = where;
	x->insn_index = 0;
	x->mode = 0;
	x->cpl = 0;
	x->made = 0;
	x->active = false;
}

/* Whether @insn, @mode and @cpl belong to the row's set. */
static bool row_covers(const struct insn *insn, unsigned where, unsigned mode, unsigned cpl)
{
	return mode_has_cpl(mode, cpl) && where_holds(where, mode, cpl) &&
	       (!insn->modes || (insn->modes & WHERE_MODE(mode)));
}

static void cell_begin(struct cell *x)
{
	memset(&x->active, 0, offsetof(struct cell, wants) - offsetof(struct cell, active));
	x->active = true;
	x->operand = CASE_OPERAND;
	baseline(&x->state, x->mode, x->cpl);
}

/* Moves the cursor on by one; false past the last mode of the last instruction. */
static bool row_advance(struct cell *x)
{
	if (++x->cpl == 4) {
		x->cpl = 0;
		if (++x->mode == MODE_COUNT) {
			x->mode = 0;
			x->insn_index++;
		}
	}
	return x->insns[x->insn_index] != INSN_NONE;
}

bool row_next(struct cell *x)
{
	bool more = true;

	if (x->active) {
		if (!x->skip)
			cell_finish(x);
		x->made++;
		more = row_advance(x);
	}
	for (; more; more = row_advance(x)) {
		x->insn = &insn_table[x->insns[x->insn_index]];
		if (row_covers(x->insn, x->where, x->mode, x->cpl)) {
			cell_begin(x);
			return true;
		}
	}
	if (!x->made)
		suite_error(x->suite, x->file, x->line, "the row makes no case");
	x->active = false;
	return false;
}

void row_given(struct cell *x) { cell_encode(x); }

/* ---- stories ---- */

/* A story stands in the place of an instruction: in the ids, and in the case section. */
static const struct insn *story_insn(const char *name)
{
	static struct insn *known[STORIES_MAX];
	unsigned i = 0;

	for (; i < STORIES_MAX && known[i]; i++) {
		if (!strcmp(known[i]->name, name))
			return known[i];
	}
	if (i == STORIES_MAX)
		abort();
	known[i] = calloc(1, sizeof(*known[i]));
	if (!known[i])
		abort();
	*known[i] = (struct insn){.key = name, .name = name, .class = CLASS_CONTROL, .suite = "-"};
	return known[i];
}

void story_begin(struct cell *x, const char *name, const char *file, int line)
{
	static const enum insn_key none[] = {INSN_NONE};

	row_begin(x, none, WHERE_MODE(MODE_LONG) | WHERE_CPL(0), file, line);
	x->mode = MODE_LONG;
	x->insn = story_insn(name);
	x->story = name;
}

bool story_next(struct cell *x)
{
	if (x->active) {
		if (!x->want_count)
			want_kind(x, OUTCOME_RUNS);
		cell_finish(x);
		x->active = false;
		x->story = NULL;
		return false;
	}
	cell_begin(x);
	return true;
}

static void note_add(struct suite *suite, const struct cell_note *note)
{
	if (suite->note_count == suite->note_room) {
		suite->note_room = suite->note_room ? 2 * suite->note_room : 256;
		suite->notes = realloc(suite->notes, suite->note_room * sizeof(*suite->notes));
		if (!suite->notes)
			abort();
	}
	suite->notes[suite->note_count++] = *note;
}

void row_note(struct cell *x, const enum insn_key *insns, unsigned where, const char *condition,
	      bool encodable, const char *reason, const char *file, int line)
{
	if (encodable && (!reason || !*reason))
		suite_error(x->suite, file, line, "untested without a reason");
	for (; *insns != INSN_NONE; insns++) {
		const struct insn *insn = &insn_table[*insns];
		struct insn anywhere = {0};

		for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
			for (unsigned cpl = 0; cpl < 4; cpl++) {
				struct cell_note note = {.insn = insn->name,
							 .mode = mode,
							 .cpl = cpl,
							 .encodable = encodable,
							 .reason = reason};

				if (!row_covers(encodable ? insn : &anywhere, where, mode, cpl))
					continue;
				snprintf(note.condition, sizeof(note.condition), "%s", condition);
				note_add(x->suite, &note);
			}
		}
	}
}

/* ---- what is given ---- */

static void setting_add(struct cell *x, struct case_setting setting)
{
	if (x->setting_count == SETTINGS_MAX)
		cell_error(x, "more than %u settings", SETTINGS_MAX);
	else
		x->settings[x->setting_count++] = setting;
}

/* The value that @field can hold in the cell's mode. */
static uint64_t field_value(const struct cell *x, enum state_field field, uint64_t value)
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
	if (word)
		given_variant(x, word);
	else
		given_variant_number(x, "%s%llx", name, (unsigned long long)value);
}

/* Both come through the local APIC. */
void given_event(struct cell *x, enum setting_kind kind, unsigned vector)
{
	given_needs(x, "apic", true);
	setting_add(x, (struct case_setting){.kind = (uint8_t)kind, .value = vector});
}

static const struct condition *condition_find(const char *name)
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
	if (mode_is_ia32e(x->mode))
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

/* ---- what the manuals say ---- */

static struct want *want_add(struct cell *x)
{
	if (x->want_count == WANTS_MAX) {
		cell_error(x, "more than %u outcomes", WANTS_MAX);
		return &x->wants[0];
	}
	struct want *want = &x->wants[x->want_count++];

	memset(want, 0, sizeof(*want));
	strcpy(want->predicate, "always");
	return want;
}

static struct want *want_last(struct cell *x)
{
	return x->want_count ? &x->wants[x->want_count - 1] : want_add(x);
}

void want_kind(struct cell *x, enum outcome_kind kind)
{
	struct want *want = want_last(x);

	if (want->given)
		cell_error(x, "two outcomes without ON or OR between them");
	want->kind = kind;
	want->given = true;
}

void want_fault(struct cell *x, unsigned vector, uint32_t error)
{
	want_kind(x, OUTCOME_FAULT);
	struct want *want = want_last(x);

	want->vector = vector;
	want->has_error = vector_has_error_code(vector) && x->mode != MODE_REAL;
	want->error = error;
}

void want_interrupt(struct cell *x, unsigned vector)
{
	if (vector >= 32) {
		want_kind(x, OUTCOME_RUNS);
		effect_event(x, vector);
		return;
	}
	want_fault(x, vector, 0);
	want_last(x)->has_error = false;
}

void want_or(struct cell *x)
{
	struct want *want = want_add(x);

	if (x->want_count < 2)
		cell_error(x, "OR before the first outcome");
	want->or = true;
}

void want_on(struct cell *x, const char *predicate)
{
	snprintf(want_add(x)->predicate, sizeof(x->wants[0].predicate), "%s", predicate);
}

/* One of a few buffers that are used in turn. */
static char *scratch(void)
{
	static char buffers[8][200];
	static unsigned next;

	return buffers[next++ % 8];
}

const char *predicate_feature(const char *feature, bool present)
{
	static const char *const registers[4] = {"eax", "ebx", "ecx", "edx"};
	const struct feature_bit *bit = feature_find(feature);
	char *text = scratch();

	if (!bit) {
		fprintf(stderr, "unknown feature '%s' in a predicate\n", feature);
		exit(1);
	}
	snprintf(text, 200, "cpuid.%x.%x.%s[%u]=%d", bit->leaf, bit->subleaf, registers[bit->reg], bit->bit,
		 present);
	return text;
}

const char *predicate_width(unsigned most)
{
	char *text = scratch();

	snprintf(text, 200, "cpuid.80000008.0.eax[7:0]<%u", most + 1);
	return text;
}

const char *predicate_both(const char *a, const char *b)
{
	char *text = scratch();

	snprintf(text, 200, "%s,%s", a, b);
	return text;
}

/* ---- effects ---- */

/* The effect on this field or memory: one that was named before, or a new one. */
static struct effect *effect_get(struct cell *x, uint32_t address, uint32_t size, unsigned field)
{
	struct want *want = want_last(x);

	for (unsigned i = 0; i < want->effect_count; i++) {
		struct effect *effect = &want->effects[i];

		if (effect->address == address && effect->size == size && (address || effect->field == field))
			return effect;
	}
	if (want->effect_count == EFFECTS_MAX) {
		cell_error(x, "more than %u effects", EFFECTS_MAX);
		return &want->effects[0];
	}
	struct effect *effect = &want->effects[want->effect_count++];

	*effect = (struct effect){.address = address, .size = size, .field = field};
	return effect;
}

static void watch_add(struct cell *x, uint32_t address, uint32_t size, unsigned field)
{
	for (unsigned i = 0; i < x->watch_count; i++) {
		const struct case_watch *watch = &x->watch[i];

		if (watch->address == address && watch->size == size && (address || watch->field == field))
			return;
	}
	if (x->watch_count == CASE_WATCH_MAX) {
		cell_error(x, "more than %u effects to watch", CASE_WATCH_MAX);
		return;
	}
	x->watch[x->watch_count++] =
		(struct case_watch){.address = address, .size = (uint16_t)size, .field = (uint16_t)field};
}

void effect_field(struct cell *x, enum state_field field, uint64_t value, uint64_t mask)
{
	struct effect *effect = effect_get(x, 0, 0, field);
	uint64_t all = field_value(x, field, ~0ull);

	effect->any = false;
	if ((mask & all) == all)
		snprintf(effect->value, sizeof(effect->value), "0x%llx",
			 (unsigned long long)field_value(x, field, value));
	else
		snprintf(effect->value, sizeof(effect->value), "0x%llx&0x%llx",
			 (unsigned long long)(value & mask & all), (unsigned long long)(mask & all));
}

void effect_either(struct cell *x, enum state_field field, uint64_t a, uint64_t b)
{
	struct effect *effect = effect_get(x, 0, 0, field);

	effect->any = false;
	snprintf(effect->value, sizeof(effect->value), "0x%llx|0x%llx",
		 (unsigned long long)field_value(x, field, a), (unsigned long long)field_value(x, field, b));
}

void effect_any(struct cell *x, enum state_field field)
{
	struct effect *effect = effect_get(x, 0, 0, field);

	effect->any = true;
	strcpy(effect->value, "*");
}

void effect_event(struct cell *x, unsigned vector)
{
	struct effect *effect = effect_get(x, 0, 0, EFFECT_EVENT);

	snprintf(effect->value, sizeof(effect->value), "0x%x", vector);
}

/* Hex of @size bytes, 128 bits of them given, zeros above. */
static void format_wide(char *text, size_t room, unsigned size, uint64_t low, uint64_t high)
{
	int length = snprintf(text, room, "0x");

	for (unsigned i = size; i-- > 0;) {
		unsigned byte =
			i >= 16 ? 0 : (unsigned)((i >= 8 ? high >> 8 * (i - 8) : low >> 8 * i) & 0xff);

		if ((size_t)length + 3 < room)
			length += snprintf(text + length, room - (size_t)length, "%02x", byte);
	}
}

void effect_memory_wide(struct cell *x, uint64_t address, unsigned size, uint64_t low, uint64_t high)
{
	struct effect *effect = effect_get(x, (uint32_t)address, size, 0);

	effect->any = false;
	format_wide(effect->value, sizeof(effect->value), size, low, high);
	watch_add(x, effect->address, size, 0);
}

void effect_memory(struct cell *x, uint64_t address, unsigned size, uint64_t value, uint64_t mask)
{
	struct effect *effect;
	char bits[40];

	if (mask == ~0ull) {
		effect_memory_wide(x, address, size, value, 0);
		return;
	}
	effect_memory_wide(x, address, size, value & mask, 0);
	effect = effect_get(x, (uint32_t)address, size, 0);
	format_wide(bits, sizeof(bits), size, mask, 0);
	snprintf(effect->value + strlen(effect->value), sizeof(effect->value) - strlen(effect->value), "&%s",
		 bits);
}

void effect_memory_any(struct cell *x, uint64_t address, unsigned size)
{
	struct effect *effect = effect_get(x, (uint32_t)address, size, 0);

	effect->any = true;
	strcpy(effect->value, "*");
	watch_add(x, effect->address, size, 0);
}

void effect_flags(struct cell *x, uint64_t set, uint64_t cleared, uint64_t undefined)
{
	uint64_t value = (x->state.field[STATE_rflags] | set) & ~cleared;

	effect_field(x, STATE_rflags, value, undefined ? 0x3fffff & ~undefined : ~0ull);
}

void cite(struct cell *x, const char *key)
{
	for (unsigned i = 0; i < manual_count; i++) {
		if (strcmp(manual_table[i].key, key))
			continue;
		manual_table[i].cases++;
		if (x->cite_count < CITES_MAX)
			x->cites[x->cite_count++] = &manual_table[i];
		return;
	}
	cell_error(x, "unknown citation %s", key);
}

/* ---- a finished cell ---- */

static unsigned condition_order(const char *tag) { return (unsigned)(condition_find(tag) - condition_table); }

static void cell_id(struct cell *x, char id[CASE_ID_MAX])
{
	int length = snprintf(id, CASE_ID_MAX, "%s.%s", x->suite->name, x->insn->name);
	const size_t room = CASE_ID_MAX;

	if (x->insn->form)
		length += snprintf(id + length, room - (size_t)length, ".%s", x->insn->form);
	length += snprintf(id + length, room - (size_t)length, ".%s.cpl%u", mode_names[x->mode], x->cpl);
	for (unsigned order = 0; order < condition_count; order++) {
		for (unsigned i = 0; i < x->tag_count; i++) {
			if (condition_order(x->tags[i]) == order && (size_t)length < room)
				length += snprintf(id + length, room - (size_t)length, ".%s", x->tags[i]);
		}
	}
	for (unsigned i = 0; i < x->variant_count && (size_t)length < room; i++)
		length += snprintf(id + length, room - (size_t)length, ".%s", x->variant[i]);
	if ((size_t)length >= room)
		cell_error(x, "the id is too long: %s", id);
}

static void want_write(const struct want *want, FILE *out)
{
	static const char *const kinds[] = {"RUNS", "FAULT", "VMFAIL", "ENTRY_FAILS", "SHUTDOWN", "HANG"};

	if (want->or)
		fprintf(out, "or %s", kinds[want->kind]);
	else
		fprintf(out, "want %s %s", want->predicate, kinds[want->kind]);
	if (want->kind == OUTCOME_FAULT) {
		fprintf(out, " vector=%u", want->vector);
		if (want->has_error)
			fprintf(out, " error=0x%x", want->error);
	}
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *effect = &want->effects[i];

		if (effect->address)
			fprintf(out, " [0x%x:%u]=%s", effect->address, effect->size, effect->value);
		else
			fprintf(out, " %s=%s",
				effect->field == EFFECT_EVENT ? "event" : state_names[effect->field],
				effect->value);
	}
	fputc('\n', out);
}

static const struct effect *want_effect(const struct want *want, const struct case_watch *watch)
{
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *effect = &want->effects[i];

		if (effect->address == watch->address && effect->size == watch->size &&
		    (effect->address || effect->field == watch->field))
			return effect;
	}
	return NULL;
}

/* Whether memory that a watch reports is as the library fills it (case_layout.h). */
static bool watch_is_fill(const struct cell *x, const struct case_watch *watch)
{
	bool filled = (watch->address >= CASE_OPERAND_PAGE && watch->address < CASE_LAND_SUPERVISOR);

	for (unsigned i = 0; i < x->setting_count; i++) {
		const struct case_setting *s = &x->settings[i];

		if (s->kind >= SETTING_POKE1 && s->kind <= SETTING_POKE8 &&
		    s->address < watch->address + watch->size && s->address + 8 > watch->address)
			filled = false;
	}
	return filled && watch->size <= 16;
}

/* What is watched is reported whatever happens: an outcome that does not name it says that it stays. */
static void want_name_unchanged(struct cell *x, struct want *want, const struct case_watch *watch)
{
	unsigned count = x->want_count;

	if (want_effect(want, watch))
		return;
	x->want_count = (unsigned)(want - x->wants) + 1; /* the effect_ functions add to the last outcome */
	if (watch->size && watch_is_fill(x, watch))
		effect_memory_wide(x, watch->address, watch->size, ~0ull / 0xff * CASE_FILL,
				   ~0ull / 0xff * CASE_FILL);
	else if (watch->size)
		effect_memory_any(x, watch->address, watch->size);
	else if (watch->field == STATE_rip && want->kind == OUTCOME_RUNS)
		effect_field(x, STATE_rip, x->state.field[STATE_rip] + x->length, ~0ull);
	else
		effect_field(x, watch->field, x->state.field[watch->field], ~0ull);
	x->want_count = count;
}

/* Reports the named fields always, so that one left as it was is seen as well. */
static void cell_watch(struct cell *x)
{
	for (unsigned i = 0; i < x->want_count; i++) {
		for (unsigned j = 0; j < x->wants[i].effect_count; j++) {
			const struct effect *effect = &x->wants[i].effects[j];

			if (!effect->address && !effect->any && effect->field != EFFECT_EVENT)
				watch_add(x, 0, 0, effect->field);
		}
	}
	for (unsigned i = 0; i < x->want_count; i++) {
		for (unsigned j = 0; j < x->watch_count; j++)
			want_name_unchanged(x, &x->wants[i], &x->watch[j]);
	}
}

static char *cell_text(struct cell *x)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		abort();
	for (unsigned i = 0; i < x->want_count; i++) {
		if (!x->wants[i].given)
			cell_error(x, "an outcome is missing");
		want_write(&x->wants[i], out);
	}
	for (unsigned i = 0; i < x->cite_count; i++)
		fprintf(out, "cite %s %s %s %s\n", x->cites[i]->manual, x->cites[i]->volume,
			x->cites[i]->section, x->cites[i]->title);
	fclose(out);
	return text;
}

void cell_finish(struct cell *x)
{
	struct suite *suite = x->suite;
	struct case_entry entry = {
		.file = x->file, .line = x->line, .insn = x->insn, .mode = x->mode, .cpl = x->cpl,
		.story = x->story};

	if (!x->want_count)
		cell_error(x, "the row says nothing");
	if (!x->cite_count)
		cell_error(x, "the row has no citation");
	cell_id(x, entry.id);
	cell_watch(x);
	entry.text = cell_text(x);
	entry.length = x->length;
	memcpy(entry.bytes, x->bytes, sizeof(entry.bytes));
	entry.watch_count = x->watch_count;
	memcpy(entry.watch, x->watch, sizeof(entry.watch));
	entry.setting_count = x->setting_count;
	if (x->setting_count) {
		entry.settings = malloc(x->setting_count * sizeof(*entry.settings));
		if (!entry.settings)
			abort();
		memcpy(entry.settings, x->settings, x->setting_count * sizeof(*entry.settings));
	}
	for (unsigned i = 0; i < x->tag_count; i++)
		entry.conditions |= 1ull << condition_order(x->tags[i]);
	if (suite->case_count == suite->case_room) {
		suite->case_room = suite->case_room ? 2 * suite->case_room : 1024;
		suite->cases = realloc(suite->cases, suite->case_room * sizeof(*suite->cases));
		if (!suite->cases)
			abort();
	}
	suite->cases[suite->case_count++] = entry;
}

/* ---- the program ---- */

static int usage(void)
{
	fprintf(stderr, "usage: expand [--lint] [--table FILE.c] [--section FILE.txt] [--clauses]\n");
	return 2;
}

static int report_errors(void)
{
	for (unsigned i = 0; i < error_line_count; i++)
		fprintf(stderr, "%s\n", error_lines[i]);
	return 1;
}

static void list_clauses(void)
{
	for (unsigned i = 0; i < manual_count; i++)
		printf("%s %s %s %s %u\n", manual_table[i].key, manual_table[i].manual,
		       manual_table[i].volume, manual_table[i].section, manual_table[i].cases);
}

int main(int argc, char **argv)
{
	struct suite suite = {.name = suite_name};
	const char *table = NULL, *section = NULL;
	bool lint = false, clauses = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--lint"))
			lint = true;
		else if (!strcmp(argv[i], "--clauses"))
			clauses = true;
		else if (!strcmp(argv[i], "--table") && i + 1 < argc)
			table = argv[++i];
		else if (!strcmp(argv[i], "--section") && i + 1 < argc)
			section = argv[++i];
		else
			return usage();
	}
	suite_rows(&suite);
	ids_check(&suite);
	if (lint)
		inventory_check(&suite);
	if (suite.errors)
		return report_errors();
	if (lint)
		printf("%s: %zu cases, %zu cells noted\n", suite.name, suite.case_count, suite.note_count);
	if (clauses)
		list_clauses();
	if (table && suite_write_table(&suite, table))
		return 1;
	if (section && suite_write_section(&suite, section))
		return 1;
	return 0;
}
