/*
 * encode.c: from the SDM's notation to bytes, for the mode of a cell (SDM 2A 2.1, 3.1.1.1).
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "notation.h"

struct encoding {
	uint8_t prefixes[4];
	unsigned prefix_count;
	bool operand_override;
	unsigned rex;
	uint8_t opcode[8];
	unsigned opcode_count;
	int digit;          /* ModRM.reg, or -1 */
	unsigned immediate; /* bytes */
};

/* The mode's own operand size, which a prefix of 66H changes; 64 bits need REX.W. */
static unsigned default_operand_size(unsigned mode) { return case_mode_is_16(mode) ? 16 : 32; }

static unsigned default_address_size(unsigned mode)
{
	return case_mode_is_16(mode) ? 16 : mode == MODE_LONG ? 64 : 32;
}

static void want_operand_size(struct encoding *e, unsigned mode, unsigned size)
{
	if (size == 64)
		e->rex |= 0x48;
	else if (size != default_operand_size(mode))
		e->operand_override = true;
}

static bool token_is_byte(const char *token)
{
	return strlen(token) == 2 && isxdigit((unsigned char)token[0]) && isxdigit((unsigned char)token[1]);
}

/* False: there is no room. */
static bool read_byte(struct encoding *e, unsigned byte)
{
	bool prefix = byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0;

	if (prefix && !e->opcode_count && e->prefix_count < sizeof(e->prefixes))
		e->prefixes[e->prefix_count++] = (uint8_t)byte;
	else if (e->opcode_count < sizeof(e->opcode))
		e->opcode[e->opcode_count++] = (uint8_t)byte;
	else
		return false;
	return true;
}

/* Reads one word of the notation; false if there is no such word. */
static bool read_token(struct encoding *e, unsigned mode, const char *token)
{
	if (token_is_byte(token))
		return read_byte(e, (unsigned)strtoul(token, NULL, 16));
	if (!strcmp(token, "o16"))
		want_operand_size(e, mode, 16);
	else if (!strcmp(token, "o32"))
		want_operand_size(e, mode, 32);
	else if (!strcmp(token, "o64") || !strcmp(token, "REX.W"))
		want_operand_size(e, mode, 64);
	else if (!strcmp(token, "REX.R"))
		e->rex |= 0x44;
	else if (!strcmp(token, "/r"))
		e->digit = RCX;
	else if (token[0] == '/' && isdigit((unsigned char)token[1]))
		e->digit = token[1] - '0';
	else if (!strcmp(token, "ib"))
		e->immediate = 1;
	else if (!strcmp(token, "iw"))
		e->immediate = 2;
	else if (!strcmp(token, "id") || !strcmp(token, "iw:16"))
		e->immediate = 4;
	else if (!strcmp(token, "id:16"))
		e->immediate = 6;
	else
		return !strcmp(token, "NP");
	return true;
}

static void put(struct cell *x, unsigned byte)
{
	if (x->length == CASE_BYTES_MAX)
		cell_error(x, "more than %u bytes", CASE_BYTES_MAX);
	else
		x->bytes[x->length++] = (uint8_t)byte;
}

static void put_prefixes(struct cell *x, const struct encoding *e)
{
	for (unsigned i = 0; i < x->prefix_count; i++)
		put(x, x->prefixes[i]);
	if (x->address_size && x->address_size != default_address_size(x->mode))
		put(x, 0x67);
	if (e->operand_override)
		put(x, 0x66);
	for (unsigned i = 0; i < e->prefix_count; i++)
		put(x, e->prefixes[i]);
	if (e->rex)
		put(x, e->rex);
}

static void put_modrm(struct cell *x, const struct encoding *e)
{
	unsigned address_size = x->address_size ? x->address_size : default_address_size(x->mode);
	unsigned reg = (unsigned)e->digit << 3;

	if (x->insn->operand == OPERAND_REGISTER || x->form_register) {
		put(x, 0xc0 | reg | RAX);
	} else if (x->base_bp && address_size != 16) { /* [EBP + 0] */
		put(x, 0x40 | reg | RBP);
		put(x, 0);
	} else {
		put(x, reg | (address_size == 16 ? 7u : (unsigned)RBX));
	}
}

void cell_encode(struct cell *x)
{
	struct encoding e = {.digit = -1};
	char words[80], *state = NULL;
	uint64_t immediate = x->has_immediate ? x->immediate : x->insn->immediate;

	snprintf(words, sizeof(words), "%s", x->insn->bytes);
	for (char *token = strtok_r(words, " ", &state); token; token = strtok_r(NULL, " ", &state)) {
		if (!read_token(&e, x->mode, token))
			cell_error(x, "%s: '%s' is not of the notation", x->insn->key, token);
	}
	if (x->operand_size)
		want_operand_size(&e, x->mode, x->operand_size);
	x->length = 0;
	put_prefixes(x, &e);
	for (unsigned i = 0; i < e.opcode_count; i++)
		put(x, e.opcode[i]);
	if (e.digit >= 0)
		put_modrm(x, &e);
	for (unsigned i = 0; i < e.immediate; i++)
		put(x, (unsigned)(immediate >> 8 * i) & 0xff);
	for (unsigned i = 0; i < x->tail_count; i++)
		put(x, x->tail[i]);
}
