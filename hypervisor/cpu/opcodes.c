/* opcodes.c: the opcode table, and its rows taken apart. */
#include <stdlib.h>
#include <string.h>

#include "cpu/pattern.h"

#define OPCODE(mnemonic, encoding, operands, handler, ...) extern const struct handlers insn_##handler;
#include "cpu/opcodes.def"
#undef OPCODE

const struct opcode opcode_table[] = {
#define OPCODE(name, bytes, codes, handler, ...)                                                             \
	{.mnemonic = #name, .encoding = bytes, .operands = codes, .handlers = &insn_##handler, ##__VA_ARGS__},
#include "cpu/opcodes.def"
#undef OPCODE
};
#define OPCODE_COUNT (sizeof(opcode_table) / sizeof(opcode_table[0]))
const size_t opcode_count = OPCODE_COUNT;

struct pattern pattern_table[OPCODE_COUNT];
uint32_t gates_reached[OPCODE_COUNT];
static const struct pattern *candidates[OPCODE_COUNT * 8 + OPCODE_MAPS * 256];
static struct {
	uint16_t first, count;
} lookup[OPCODE_MAPS][256];

struct pattern_list pattern_candidates(enum opcode_map map, uint8_t opcode)
{
	return (struct pattern_list){candidates + lookup[map][opcode].first, lookup[map][opcode].count};
}

/* ---- encoding ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The byte that the two characters at @word are, or -1. */
static int hex_byte(const char *word)
{
	int high = hex_digit(word[0]);
	int low = high < 0 ? -1 : hex_digit(word[1]);

	return low < 0 ? -1 : high << 4 | low;
}

static bool word_is(const char *word, size_t length, const char *what)
{
	return strlen(what) == length && !memcmp(word, what, length);
}

/* One part of "VEX.256.66.0F38.W0", after the first. */
static bool parse_vex_part(struct pattern *p, const char *part, size_t length)
{
	static const struct {
		char part[5];
		uint8_t map; /* enum opcode_map */
	} maps[] = {{"0F", MAP_VEX_0F}, {"0F38", MAP_VEX_0F38}, {"0F3A", MAP_VEX_0F3A}};
	static const struct {
		char part[4];
		uint8_t vector, prefixes;
		uint16_t rex;
	} words[] = {
		{"128", VECTOR_128, 0, 0}, {"256", VECTOR_256, 0, 0}, {"LIG", VECTOR_LIG, 0, 0},
		{"66", 0, PREFIXES_66, 0}, {"F3", 0, PREFIXES_F3, 0}, {"F2", 0, PREFIXES_F2, 0},
		{"W0", 0, 0, REX_W0},      {"W1", 0, 0, REX_W1},      {"WIG", 0, 0, REX_ANY},
	};

	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		if (word_is(part, length, maps[i].part)) {
			p->map = maps[i].map;
			return true;
		}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!word_is(part, length, words[i].part))
			continue;
		p->vector = words[i].vector ? words[i].vector : p->vector;
		p->prefixes = words[i].prefixes ? words[i].prefixes : p->prefixes;
		p->rex = words[i].rex ? words[i].rex : p->rex;
		return true;
	}
	return false;
}

static bool parse_vex(struct pattern *p, const char *word, size_t length)
{
	const char *end = word + length;

	p->vector = VECTOR_ANY;
	p->prefixes = PREFIXES_NP;
	for (const char *part = word + 4; part < end;) {
		size_t size = strcspn(part, ". ");

		if (!parse_vex_part(p, part, size))
			return false;
		part += size + 1;
	}
	return p->map >= MAP_VEX_0F;
}

/* A word that is not a byte of the encoding. */
static bool parse_word(struct pattern *p, const char *word, size_t length)
{
	if (length > 4 && !memcmp(word, "VEX.", 4))
		return parse_vex(p, word, length);
	if (length == 2 && word[0] == '/') {
		p->has_modrm = true;
		if (word[1] == 'r')
			return true;
		if (word[1] < '0' || word[1] > '7')
			return false;
		p->regs = (uint8_t)(1u << (word[1] - '0'));
		return true;
	}
	if (length == 2 && (word[0] == 'W') && (word[1] == '0' || word[1] == '1')) {
		p->rex &= word[1] == '1' ? REX_W1 : REX_W0;
		return true;
	}
	if (length == 2 && !memcmp(word, "NB", 2)) {
		p->rex &= REX_B0;
		return true;
	}
	if (length == 2 && !memcmp(word, "NP", 2)) {
		p->prefixes = PREFIXES_NP;
		return true;
	}
	if (length == 3 && !memcmp(word, "mem", 3)) {
		p->mods = MODS_MEMORY;
		return true;
	}
	if (length == 3 && !memcmp(word, "reg", 3)) {
		p->mods = MODS_REGISTER;
		return true;
	}
	return false;
}

/* Takes @bytes of the encoding: maps, the opcode, a ModRM byte. */
static bool parse_bytes(struct pattern *p, const uint8_t *bytes, unsigned count)
{
	unsigned i = 0;

	if (!p->vector && count > 1 && (bytes[0] == 0x66 || bytes[0] == 0xf3 || bytes[0] == 0xf2)) {
		p->prefixes = bytes[0] == 0x66 ? PREFIXES_66 : bytes[0] == 0xf3 ? PREFIXES_F3 : PREFIXES_F2;
		i++;
	}
	if (!p->vector && count - i > 1 && bytes[i] == 0x0f) {
		p->map = MAP_0F;
		i++;
		if (count - i > 1 && (bytes[i] == 0x38 || bytes[i] == 0x3a))
			p->map = bytes[i++] == 0x38 ? MAP_0F38 : MAP_0F3A;
	}
	if (i == count)
		return false;
	p->opcode = bytes[i++];
	if (i < count) {
		p->modrm = p->modrm_last = bytes[i++];
		p->has_modrm = true;
	}
	return i == count;
}

/* A range of ModRM bytes: "0F 01 D8-DF". */
static bool parse_modrm_range(struct pattern *p, uint8_t first)
{
	p->modrm_last = p->opcode_last;
	p->opcode_last = p->opcode;
	return p->modrm_last > first;
}

static bool parse_encoding(struct pattern *p, const char *text)
{
	uint8_t bytes[5];
	unsigned count = 0;

	while (*text) {
		size_t length = strcspn(text, " ");
		int byte = length >= 2 ? hex_byte(text) : -1;
		bool plus = length == 4 && text[2] == '+' && text[3] == 'r';
		int last = length == 5 && text[2] == '-' ? hex_byte(text + 3) : -1;

		if (byte >= 0 && (length == 2 || plus || last > byte)) {
			if (count == sizeof(bytes))
				return false;
			bytes[count++] = (uint8_t)byte;
			p->plus_register |= plus;
			if (last >= 0)
				p->opcode_last = (uint8_t)last;
		} else if (!parse_word(p, text, length)) {
			return false;
		}
		text += length;
		text += strspn(text, " ");
	}
	if (!parse_bytes(p, bytes, count))
		return false;
	if (p->opcode_last && p->modrm >= 0)
		return parse_modrm_range(p, bytes[count - 1]);
	if (p->opcode_last < p->opcode)
		p->opcode_last = p->opcode;
	if (p->plus_register)
		p->opcode_last = p->opcode | 7;
	return true;
}

/* ---- operands ---- */

static const char *const fixed_operands[] = {"AL", "CL", "AX", "DX", "eAX", "rAX", "ES", "CS",
					     "SS", "DS", "FS", "GS", "ST",  "1",   "3"};

static bool parse_immediate(struct pattern *p, const char *word, size_t length)
{
	static const struct {
		char code[4];
		enum immediate immediate;
	} kinds[] = {
		{"Ib", IMMEDIATE_BYTE}, {"Ibs", IMMEDIATE_BYTE_SIGNED},
		{"Iw", IMMEDIATE_WORD}, {"Iz", IMMEDIATE_Z},
		{"Iv", IMMEDIATE_V},    {"Jb", IMMEDIATE_BYTE_SIGNED},
		{"Jz", IMMEDIATE_Z},    {"Ap", IMMEDIATE_FAR},
	};
	unsigned slot = p->immediate[0] != IMMEDIATE_NONE;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (word_is(word, length, kinds[i].code)) {
			p->immediate[slot] = (uint8_t)kinds[i].immediate;
			return p->immediate[1] == IMMEDIATE_NONE || p->immediate[1] == IMMEDIATE_BYTE;
		}
	return false;
}

static bool parse_operand(struct pattern *p, const char *word, size_t length, bool first)
{
	bool byte = length == 2 && word[1] == 'b';

	for (size_t i = 0; i < sizeof(fixed_operands) / sizeof(fixed_operands[0]); i++)
		if (word_is(word, length, fixed_operands[i]))
			return true;
	if (word_is(word, length, "STi")) {
		p->rm_kind = REGISTER_LOW;
		return true;
	}
	if (length > 1 && word[length - 1] == 'y')
		p->size = SIZE_WIDE;
	if (length == 3 && !memcmp(word, "Mvx", 3))
		p->vsib = true;
	switch (word[0]) {
	case 'H':
	case 'B': p->has_vvvv = true; return true;
	case 'L': p->immediate[0] = IMMEDIATE_BYTE; return true;
	case 'I':
	case 'J':
	case 'A': return parse_immediate(p, word, length);
	case 'E':
	case 'R':
		p->rm_kind = byte ? REGISTER_BYTE : p->rm_kind;
		if (word[0] == 'R')
			p->mods &= MODS_REGISTER;
		return true;
	case 'G':
	case 'V': p->reg_kind = byte ? REGISTER_BYTE : REGISTER_GENERAL; return true;
	case 'Z': p->reg_kind = p->rm_kind = byte ? REGISTER_BYTE : REGISTER_GENERAL; return true;
	case 'P': p->reg_kind = REGISTER_LOW; return true;
	case 'N': p->mods &= MODS_REGISTER; /* fall through */
	case 'Q': p->rm_kind = REGISTER_LOW; return true;
	case 'U': p->mods &= MODS_REGISTER; return true;
	case 'W': return true;
	case 'M': p->mods &= MODS_MEMORY; return true;
	case 'O': p->moffs = true; return true;
	case 'X':
	case 'Y': return true;
	case 'S':
		p->reg_kind = REGISTER_SEGMENT;
		p->segment_written |= first;
		return true;
	case 'C': p->reg_kind = REGISTER_CONTROL; break;
	case 'D': p->reg_kind = REGISTER_DEBUG; break;
	default: return false;
	}
	p->mod_ignored = true;
	p->size = SIZE_MODE;
	return true;
}

static bool parse_operands(struct pattern *p, const char *text)
{
	bool first = true;

	while (*text) {
		size_t length = strcspn(text, ",");

		if (!length || !parse_operand(p, text, length, first))
			return false;
		first = false;
		text += length + (text[length] == ',');
	}
	if (p->mod_ignored)
		p->mods = MODS_ANY;
	return true;
}

/* ---- the tables ---- */

extern const struct handlers insn_reserved, insn_unmodelled;

static bool parse_row(struct pattern *p, unsigned row)
{
	const struct opcode *o = &opcode_table[row];

	*p = (struct pattern){.row = (uint16_t)row,
			      .prefixes = PREFIXES_ANY,
			      .regs = 0xff,
			      .mods = MODS_ANY,
			      .modrm = -1,
			      .rex = REX_ANY,
			      .modes = o->modes,
			      .flags = o->flags,
			      .feature = o->feature,
			      .gates = o->gates,
			      .reserved = o->handlers == &insn_reserved,
			      .unmodelled = o->handlers == &insn_unmodelled};
	if (!parse_encoding(p, o->encoding))
		return false;
	if (p->prefixes == PREFIXES_66 || p->vector)
		p->size = SIZE_WIDE;
	if (!parse_operands(p, o->operands))
		return false;
	return !(p->plus_register && p->has_modrm) && p->mods;
}

static bool list_rows(enum opcode_map map, unsigned opcode, unsigned *used)
{
	unsigned first = *used;

	for (unsigned row = 0; row < OPCODE_COUNT; row++) {
		const struct pattern *p = &pattern_table[row];

		if (p->map != map || opcode < p->opcode || opcode > p->opcode_last)
			continue;
		if (*used == sizeof(candidates) / sizeof(candidates[0]))
			return false;
		candidates[(*used)++] = p;
	}
	lookup[map][opcode].first = (uint16_t)first;
	lookup[map][opcode].count = (uint16_t)(*used - first);
	return true;
}

int decode_init(void)
{
	static bool done;
	unsigned used = 0;

	if (done)
		return -1;
	for (unsigned row = 0; row < OPCODE_COUNT; row++)
		if (!parse_row(&pattern_table[row], row))
			return (int)row;
	for (unsigned map = 0; map < OPCODE_MAPS; map++)
		for (unsigned opcode = 0; opcode < 256; opcode++)
			if (!list_rows((enum opcode_map)map, opcode, &used))
				return OPCODE_COUNT;
	done = true;
	return -1;
}

/* ---- mutants ---- */

static uint32_t gate_bit(const char *gate)
{
	static const char *const names[] = {
#define GATE(name) #name,
		OPCODE_GATES(GATE)
#undef GATE
	};

	for (unsigned i = 0; i < GATE_COUNT; i++)
		if (!strcmp(gate, names[i]))
			return 1u << i;
	return 0;
}

/* Drops @gate of one row. False: it has none. */
static bool break_row(struct pattern *p, const char *gate)
{
	if (!strcmp(gate, "FEATURE")) {
		bool had = p->feature;

		p->feature = 0;
		return had;
	}
	if (!strcmp(gate, "MODES")) {
		bool had = p->modes != MODES_ANY;

		p->modes = MODES_ANY;
		return had;
	}
	if (!strcmp(gate, "LOCK")) {
		p->lock_broken = !p->reserved;
		return p->lock_broken;
	}
	uint32_t bit = gate_bit(gate);
	bool had = p->gates & bit;

	p->gates &= ~bit;
	return had;
}

bool decode_break(const char *mnemonic, const char *gate)
{
	bool found = false;

	if (decode_init() >= 0)
		return false;
	for (unsigned row = 0; row < OPCODE_COUNT; row++)
		if (!strcmp(opcode_table[row].mnemonic, mnemonic))
			found |= break_row(&pattern_table[row], gate);
	return found;
}

void decode_mend(void)
{
	for (unsigned row = 0; row < OPCODE_COUNT; row++) {
		pattern_table[row].gates = opcode_table[row].gates;
		pattern_table[row].feature = opcode_table[row].feature;
		pattern_table[row].modes = opcode_table[row].modes;
		pattern_table[row].lock_broken = false;
	}
}
