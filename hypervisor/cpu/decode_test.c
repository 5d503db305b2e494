/*
 * decode_test.c: the decoder against Zydis, an independent reader of the manuals: every one-,
 * two- and three-byte opcode in 16-, 32- and 64-bit code with random prefixes, ModRM bytes and
 * what follows.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>
#include <cmocka.h>

#include "cpu/checks.h"
#include "cpu/pattern.h"

#define VARIANTS 64 /* of each opcode in each mode */

/* ---- what may differ, and why ---- */

/* Instructions that Zydis knows and these bytes are #UD for: features that no profile has. */
static const char *const absent_isa[] = {"AMD3DNOW",  "3DNOW",  "MPX",    "CET",     "KNC",   "XOP",
					 "FMA4",      "TBM",    "LWP",    "PADLOCK", "RTM",   "GFNI",
					 "KEYLOCKER", "ENQCMD", "SERIALIZE", "UINTR", "MOVDIR", "HRESET",  "CYRIX", "GEODE"};

static const struct {
	const char *mnemonic, *why;
} explained[] = {
	{"ud0", "an instruction whose only effect is #UD"},
	{"ud1", "an instruction whose only effect is #UD"},
	{"ud2", "an instruction whose only effect is #UD"},
	{"vpextrd", "with VEX.W = 1 it is VPEXTRQ, which 64-bit mode alone has"},
	{"vpinsrd", "with VEX.W = 1 it is VPINSRQ, which 64-bit mode alone has"},
	{"ptwrite", "processor trace, which no profile has"},
};

/* Sets behind a VEX prefix that rows stand for; the others (AVX-512's masks, AVX-VNNI, AMX, …) no profile has. */
static const char *const vex_isa[] = {"AVX", "AVX2", "AVX2GATHER", "AVXAES", "BMI1", "BMI2", "FMA", "F16C"};

static bool is_absent(const ZydisDecodedInstruction *z)
{
	const char *set = ZydisISASetGetString(z->meta.isa_set);

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		for (size_t i = 0; i < sizeof(vex_isa) / sizeof(vex_isa[0]); i++)
			if (!strcmp(set, vex_isa[i]))
				return false;
		return true;
	}

	for (size_t i = 0; i < sizeof(absent_isa) / sizeof(absent_isa[0]); i++)
		if (set && strstr(set, absent_isa[i]))
			return true;
	return z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
}

static bool is_explained(const char *mnemonic)
{
	for (size_t i = 0; i < sizeof(explained) / sizeof(explained[0]); i++)
		if (!strcmp(explained[i].mnemonic, mnemonic))
			return true;
	return false;
}

/*
 * A gather whose registers are not distinct is #UD when it runs (GATHER_DISTINCT), Zydis finds it when it decodes; Zydis
 * refuses F2 before VMLAUNCH and its like, for which the manual gives no mandatory prefix.
 */
static bool is_valid_to_us_alone(const struct insn *insn)
{
	return pattern_of(insn->opcode)->vsib ||
	       (opcode_table[insn->opcode].feature == FEATURE_vmx && insn->prefixes & PREFIX_REPNE);
}

/* Names that differ: Zydis says the size or the reading in the mnemonic, a row the manual's page. */
static const char *const names[][2] = {
	{"xchg", "nop"}, /* 90 */
	{"cbw", "cwde"},
	{"cbw", "cdqe"},
	{"cwd", "cdq"},
	{"cwd", "cqo"}, /* one row for all sizes */
	{"jcxz", "jecxz"},
	{"jcxz", "jrcxz"},
	{"retf", "ret"},
	{"wait", "fwait"},
	{"fnsetpm", "fsetpm287_nop"},
	{"fndisi", "fdisi8087_nop"},
	{"fneni", "feni8087_nop"},
	{"mov_cr", "mov"},
	{"mov_dr", "mov"},      /* so that a gate of either can be named */
	{"wbnoinvd", "wbinvd"}, /* Zydis wants to be told that there is such a thing */
	{"prefetchw", "prefetch"},
	{"prefetchw", "prefetchwt1"}, /* one row for all hints */
	{"vmovd", "vmovq"}, /* one row for both values of VEX.W */
};

static void lower(const char *from, char *to, size_t size)
{
	size_t i;

	for (i = 0; from[i] && i + 1 < size; i++)
		to[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] | 0x20 : from[i]);
	to[i] = 0;
}

/* JZ is JE, CMOVNAE is CMOVB, and so on: SDM 1 B.1. */
static int condition_number(const char *suffix)
{
	static const char *const conditions[16][3] = {
		{"o", "o", "o"},     {"no", "no", "no"}, {"b", "c", "nae"},  {"nb", "nc", "ae"},
		{"z", "e", "e"},     {"nz", "ne", "ne"}, {"be", "na", "na"}, {"nbe", "a", "a"},
		{"s", "s", "s"},     {"ns", "ns", "ns"}, {"p", "pe", "pe"},  {"np", "po", "po"},
		{"l", "nge", "nge"}, {"nl", "ge", "ge"}, {"le", "ng", "ng"}, {"nle", "g", "g"}};

	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 3; j++)
			if (!strcmp(conditions[i][j], suffix))
				return i;
	return -1;
}

static bool same_condition(const char *ours, const char *theirs, const char *stem)
{
	size_t length = strlen(stem);

	if (strncmp(ours, stem, length) || strncmp(theirs, stem, length))
		return false;
	return condition_number(ours + length) >= 0 &&
	       condition_number(ours + length) == condition_number(theirs + length);
}

static bool same_mnemonic(const char *row, const char *theirs)
{
	char ours[32];
	size_t length;

	lower(row, ours, sizeof(ours));
	length = strlen(ours);
	if (!strcmp(ours, theirs) || same_condition(ours, theirs, "j") ||
	    same_condition(ours, theirs, "set") || same_condition(ours, theirs, "cmov"))
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(names[i][0], ours) && !strcmp(names[i][1], theirs))
			return true;
	/* MOVS and MOVSB, PUSHF and PUSHFQ, IRET and IRETD: the size behind the manual's name. */
	return !strncmp(ours, theirs, length) && strlen(theirs) <= length + 2 &&
	       strspn(theirs + length, "bwdq6 4") == strlen(theirs + length);
}

/* ---- comparison of one instruction ---- */

struct tally {
	unsigned same, undefined, unmodelled, unmodelled_undefined, explained, different;
	bool shown[4096]; /* kinds of differences that were printed */
};

static const char *gpr_name(unsigned code, unsigned size)
{
	static char name[8];
	static const char *const low[4][8] = {{"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"},
					      {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"},
					      {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"},
					      {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"}};
	static const char *const high[4] = {"ah", "ch", "dh", "bh"};
	unsigned log = size == 8 ? 0 : size == 16 ? 1 : size == 32 ? 2 : 3;

	if (size == 8 && code & 1)
		return high[code / 8 & 3];
	if (size == 8)
		code /= 8;
	if (code == REG_ZERO)
		return "none";
	if (code == REG_TRACE_RIP)
		return size == 32 ? "eip" : "rip";
	if (code < 8)
		return low[log][code];
	snprintf(name, sizeof(name), "r%u%s", code & 15,
		 log == 0   ? "b"
		 : log == 1 ? "w"
		 : log == 2 ? "d"
			    : "");
	return name;
}

static bool same_register(unsigned code, ZydisRegister theirs)
{
	unsigned size = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, theirs);
	const char *name = ZydisRegisterGetString(theirs);

	if (theirs == ZYDIS_REGISTER_NONE)
		return code == REG_ZERO;
	return !strcmp(gpr_name(code, size), name);
}

static bool is_general(ZydisRegister r)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(r);

	return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 ||
	       class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

static const char *compare_memory(const struct insn *insn, const ZydisDecodedOperandMem *m)
{
	static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
	unsigned shift = insn->address_shift;
	int64_t disp = insn->disp - (insn->base == REG_TRACE_RIP ? insn->length : 0);
	/* Index and base may change places where neither is scaled: 16-bit forms are listed either way. */
	/* SIB.base = 101b with mod = 00b has no base, whatever REX.B (SDM 2A table 2-5); Zydis makes it R13D with 67h. */
	bool r13d = insn->base == REG_ZERO && m->base == ZYDIS_REGISTER_R13D;
	bool vector = m->type == ZYDIS_MEMOP_TYPE_VSIB;
	bool index = vector ? insn->index == ZydisRegisterGetId(m->index) : same_register(insn->index, m->index);
	bool straight = (r13d || same_register(insn->base, m->base)) && index;

	if (!straight)
		return "base or index";
	if (m->index != ZYDIS_REGISTER_NONE && m->scale && 1u << insn->scale != m->scale)
		return "scale";
	if (!r13d && (uint64_t)disp << shift != (uint64_t)m->disp.value << shift)
		return "displacement";
	if (m->type == ZYDIS_MEMOP_TYPE_MEM &&
	    strcmp(segments[insn->segment], ZydisRegisterGetString(m->segment)))
		return "segment";
	return NULL;
}

/* Registers of a VEX instruction, and their length where the row says that VEX.L gives it. */
static const char *compare_vector(const struct insn *insn, const ZydisDecodedOperand *o)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(o->reg.value);
	unsigned number = (unsigned)ZydisRegisterGetId(o->reg.value);

	if (!insn->vector_length || (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM))
		return NULL;
	if (class == ZYDIS_REGCLASS_YMM && insn->vector_length != 32)
		return "vector length";
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG: return number == insn->reg ? NULL : "vector of ModRM.reg";
	case ZYDIS_OPERAND_ENCODING_MODRM_RM: return number == insn->rm ? NULL : "vector of ModRM.rm";
	case ZYDIS_OPERAND_ENCODING_NDSNDD: return number == insn->vvvv ? NULL : "vector of VEX.vvvv";
	default: return NULL;
	}
}

static const char *compare_operands(const struct insn *insn, const ZydisDecodedInstruction *z,
				    const ZydisDecodedOperand *operands)
{
	for (unsigned i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *o = &operands[i];
		bool rm = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
		const char *what;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (rm || o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)) {
			what = compare_memory(insn, &o->mem);
			if (what)
				return what;
		}
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		what = compare_vector(insn, o);
		if (what)
			return what;
		if (!is_general(o->reg.value))
			continue;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD && !same_register(insn->vvvv, o->reg.value))
			return "register of VEX.vvvv";
		if (rm && !same_register(insn->rm, o->reg.value))
			return "register of ModRM.rm";
		if ((o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
		     o->encoding == ZYDIS_OPERAND_ENCODING_OPCODE) &&
		    !same_register(insn->reg, o->reg.value))
			return "register of ModRM.reg or the opcode";
	}
	return NULL;
}

static const char *compare_immediates(const struct insn *insn, const ZydisDecodedInstruction *z)
{
	uint64_t theirs = z->raw.imm[0].value.u;
	unsigned shift = 64u - z->raw.imm[0].size;

	if (!z->raw.imm[0].size || pattern_of(insn->opcode)->immediate[0] == IMMEDIATE_FAR)
		return NULL;
	if ((uint64_t)insn->imm << shift != theirs << shift)
		return "immediate";
	if (z->raw.imm[1].size && insn->imm2 != z->raw.imm[1].value.u)
		return "second immediate";
	return NULL;
}

/* Rows whose operands are all of fixed size, so that no width matters. */
static bool width_matters(const struct insn *insn)
{
	const char *operands = opcode_table[insn->opcode].operands;

	/* Zydis gives the NOPs of 0F 18 to 0F 1F one size, whatever the prefixes. */
	if (!strncmp(opcode_table[insn->opcode].mnemonic, "RD", 2))
		return false; /* RDRAND and RDSEED see to the size of their rows with 66 by themselves */
	return (strchr(operands, 'v') || strchr(operands, 'z')) &&
	       strcmp(opcode_table[insn->opcode].mnemonic, "NOP");
}

static const char *compare(const struct insn *insn, const ZydisDecodedInstruction *z,
			   const ZydisDecodedOperand *operands)
{
	const char *what;

	if (!same_mnemonic(opcode_table[insn->opcode].mnemonic, ZydisMnemonicGetString(z->mnemonic)))
		return "mnemonic";
	if (insn->length != z->length)
		return "length";
	if (width_matters(insn) && insn->width * 8 != z->operand_width)
		return "operand size";
	/* Zydis gives ENCLU at least 32 bits. */
	if (insn->address_width * 8 != z->address_width && z->mnemonic != ZYDIS_MNEMONIC_ENCLU)
		return "address size";
	what = compare_operands(insn, z, operands);
	return what ? what : compare_immediates(insn, z);
}

static void report(struct tally *tally, const char *what, unsigned bits, const uint8_t *bytes,
		   unsigned length, const char *ours, const char *theirs)
{
	unsigned key = 0;

	/* One of a kind is shown. */
	for (const char *c = theirs; *c; c++)
		key = key * 31 + (unsigned char)*c;
	key = (key * 31 + (unsigned char)what[0]) % sizeof(tally->shown);
	tally->different++;
	if (tally->shown[key])
		return;
	tally->shown[key] = true;
	printf("%u-bit, %s:", bits, what);
	for (unsigned i = 0; i < length; i++)
		printf(" %02x", bytes[i]);
	printf(": we say %s, Zydis says %s\n", ours, theirs);
}

static void check(struct tally *tally, const ZydisDecoder *decoder, unsigned bits, uint32_t mode,
		  const uint8_t *bytes)
{
	static const char *const results[] = {"ok", "undefined", "too long", "truncated", "unmodelled"};
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;
	struct insn insn;
	enum decode_result result = decode(&insn, bytes, 15, mode, NULL);
	bool valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, 15, &z, operands));
	const char *name = valid ? ZydisMnemonicGetString(z.mnemonic) : "invalid";
	const char *what;
	char text[96];

	if (result == DECODE_UNMODELLED) {
		if (valid)
			tally->unmodelled++;
		else
			tally->unmodelled_undefined++;
		if (getenv("DECODE_UNMODELLED")) {
			printf("unmodelled %u %s %s:", bits, name,
			       valid ? ZydisISASetGetString(z.meta.isa_set) : "");
			for (unsigned i = 0; i < 8; i++)
				printf(" %02x", bytes[i]);
			printf("\n");
		}
		return;
	}
	if (result != DECODE_OK && !valid) {
		tally->undefined++;
		return;
	}
	/* F3 90 with REX.B is XCHG on processors. */
	if (valid && z.mnemonic == ZYDIS_MNEMONIC_PAUSE && z.raw.rex.B) {
		tally->explained++;
		return;
	}
	if (result != DECODE_OK && (is_absent(&z) || is_explained(name))) {
		tally->explained++;
		return;
	}
	if (result == DECODE_OK && !valid && is_valid_to_us_alone(&insn)) {
		tally->explained++;
		return;
	}
	if (result == DECODE_OK)
		disassemble(&insn, 0, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "%s", results[result]);
	if (result != DECODE_OK || !valid) {
		report(tally, "validity", bits, bytes, valid ? z.length : insn.length, text, name);
		return;
	}
	what = compare(&insn, &z, operands);
	if (what)
		report(tally, what, bits, bytes, z.length, text, name);
	else
		tally->same++;
}

/* ---- all opcodes ---- */

static uint64_t random_state = 0x2545f4914f6cdd1dull;

static uint8_t random_byte(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint8_t)(random_state >> 24);
}

/* Prefixes, none in half of all cases; a REX in 64-bit code only last, where it counts. */
static unsigned put_prefixes(uint8_t *bytes, unsigned bits)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36,
					   0x3e, 0x26, 0x64, 0x65, 0x66, 0xf3};
	unsigned count = random_byte() & 1 ? 0 : random_byte() % 4u, used = 0;

	while (used < count)
		bytes[used++] = prefixes[random_byte() % sizeof(prefixes)];
	if (bits == 64 && random_byte() & 1)
		bytes[used++] = 0x40 | (random_byte() & 15);
	return used;
}

static bool is_prefix(unsigned opcode, unsigned bits)
{
	switch (opcode) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
	case 0x0f: return true;
	default: return bits == 64 && opcode >= 0x40 && opcode < 0x50;
	}
}

static void check_opcode(struct tally *tally, const ZydisDecoder *decoder, unsigned bits, uint32_t mode,
			 const uint8_t *opcode, unsigned size)
{
	for (unsigned variant = 0; variant < VARIANTS; variant++) {
		uint8_t bytes[32];
		unsigned used;

		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = random_byte();
		used = put_prefixes(bytes, bits);
		memcpy(bytes + used, opcode, size);
		/* Each extension with memory and with registers, then anything. */
		if (variant < 16)
			bytes[used + size] = (uint8_t)((bytes[used + size] & 0x07) | (variant & 7) << 3 |
						       (variant & 8 ? 0xc0 : 0x40));
		check(tally, decoder, bits, mode, bytes);
	}
}

/* VEX prefixes with everything in them at random, of two and of three bytes. */
static void check_vex(struct tally *tally, const ZydisDecoder *decoder, unsigned bits, uint32_t mode)
{
	for (unsigned opcode = 0; opcode < 3 * 256; opcode++) {
		for (unsigned variant = 0; variant < 4 * VARIANTS; variant++) {
			uint8_t bytes[32];
			unsigned used = 0, map = opcode / 256 + 1;
			uint8_t fixed = bits == 64 ? 0 : 0xc0;

			for (unsigned i = 0; i < sizeof(bytes); i++)
				bytes[i] = random_byte();
			if (!(random_byte() & 7))
				used = put_prefixes(bytes, bits);
			/* All registers that vvvv can name, and as often none. */
			uint8_t last = (uint8_t)(random_byte() | (random_byte() & 1 ? 0x78 : 0));
			if (map == 1 && variant & 1) {
				bytes[used++] = 0xc5;
				bytes[used++] = (uint8_t)(last | fixed);
			} else {
				bytes[used++] = 0xc4;
				bytes[used++] = (uint8_t)((random_byte() & 0xe0) | fixed | map);
				bytes[used++] = last;
			}
			bytes[used] = (uint8_t)opcode;
			check(tally, decoder, bits, mode, bytes);
		}
	}
}

static void check_mode(unsigned bits, ZydisMachineMode machine, ZydisStackWidth stack, uint32_t mode)
{
	static const uint8_t maps[4][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
	static const unsigned sizes[4] = {0, 1, 2, 2};
	static struct tally tally;
	ZydisDecoder decoder;

	tally = (struct tally){0};
	assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&decoder, machine, stack)));
	/* The extensions that reuse bytes of older instructions, as far as no profile has them. */
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	for (unsigned map = 0; map < 4; map++) {
		for (unsigned last = 0; last < 256; last++) {
			uint8_t opcode[3] = {maps[map][0], maps[map][1]};

			if ((map == 0 && is_prefix(last, bits)) ||
			    (map == 1 && (last == 0x38 || last == 0x3a)))
				continue;
			opcode[sizes[map]] = (uint8_t)last;
			check_opcode(&tally, &decoder, bits, mode, opcode, sizes[map] + 1);
		}
	}
	if (mode & CODE_PE)
		check_vex(&tally, &decoder, bits, mode);
	printf("%u-bit: %u the same, %u undefined for both, %u explained, %u unmodelled, "
	       "%u unmodelled that Zydis has not either, %u different\n",
	       bits, tally.same, tally.undefined, tally.explained, tally.unmodelled,
	       tally.unmodelled_undefined, tally.different);
	assert_int_equal(tally.different, 0);
	assert_true(tally.same > 10000);
}

static void test_rows_parse(void **state)
{
	(void)state;
	assert_int_equal(decode_init(), -1);
}

static void test_zydis_16(void **state)
{
	(void)state;
	check_mode(16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, CODE_16 | CODE_PE);
}

static void test_zydis_32(void **state)
{
	(void)state;
	check_mode(32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32, CODE_32 | CODE_PE);
}

static void test_zydis_64(void **state)
{
	(void)state;
	check_mode(64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, CODE_64 | CODE_PE | CODE_LMA);
}

/* ---- limits ---- */

static void test_length(void **state)
{
	uint8_t bytes[20];
	struct insn insn;

	(void)state;
	memset(bytes, 0x66, sizeof(bytes));
	bytes[14] = 0x90;
	assert_int_equal(decode(&insn, bytes, 20, CODE_32 | CODE_PE, NULL), DECODE_OK);
	assert_int_equal(insn.length, 15);
	assert_int_equal(decode(&insn, bytes, 14, CODE_32 | CODE_PE, NULL), DECODE_TRUNCATED);
	bytes[14] = 0x66;
	bytes[15] = 0x90;
	assert_int_equal(decode(&insn, bytes, 20, CODE_32 | CODE_PE, NULL), DECODE_TOO_LONG);
	/* A ModRM, SIB, displacement or immediate that does not fit either. */
	memset(bytes, 0x66, sizeof(bytes));
	bytes[10] = 0x81;
	bytes[11] = 0x05;
	assert_int_equal(decode(&insn, bytes, 20, CODE_32 | CODE_PE, NULL), DECODE_TOO_LONG);
	/* Every shorter piece of an instruction is incomplete. */
	static const uint8_t add[] = {0x64, 0x81, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8};
	for (size_t have = 0; have < sizeof(add); have++)
		assert_int_equal(decode(&insn, add, have, CODE_32 | CODE_PE, NULL), DECODE_TRUNCATED);
	assert_int_equal(decode(&insn, add, sizeof(add), CODE_32 | CODE_PE, NULL), DECODE_OK);
}

static void test_lock(void **state)
{
	static const uint8_t memory[] = {0xf0, 0x01, 0x08}, reg[] = {0xf0, 0x01, 0xc8},
			     load[] = {0xf0, 0x03, 0x08};
	struct insn insn;

	(void)state;
	assert_int_equal(decode(&insn, memory, 3, CODE_32 | CODE_PE, NULL), DECODE_OK);
	assert_int_equal(decode(&insn, reg, 3, CODE_32 | CODE_PE, NULL), DECODE_UNDEFINED);
	assert_int_equal(decode(&insn, load, 3, CODE_32 | CODE_PE, NULL), DECODE_UNDEFINED);
	assert_true(check_break("ADD.LOCK"));
	assert_int_equal(decode(&insn, reg, 3, CODE_32 | CODE_PE, NULL), DECODE_OK);
	assert_true(check_break(NULL));
	assert_int_equal(decode(&insn, reg, 3, CODE_32 | CODE_PE, NULL), DECODE_UNDEFINED);
}

/* A near branch with 66h in 64-bit mode: a 16-bit displacement on AMD, 32-bit on Intel. */
static void test_near_branch(void **state)
{
	static const uint8_t jump[] = {0x66, 0xe9, 1, 2, 3, 4};
	struct profile intel = {.vendor = VENDOR_INTEL}, amd = {.vendor = VENDOR_AMD};
	struct insn insn;

	(void)state;
	assert_int_equal(decode(&insn, jump, 6, CODE_64 | CODE_PE | CODE_LMA, &intel), DECODE_OK);
	assert_int_equal(insn.length, 6);
	assert_int_equal(insn.width, 8);
	assert_int_equal(decode(&insn, jump, 6, CODE_64 | CODE_PE | CODE_LMA, &amd), DECODE_OK);
	assert_int_equal(insn.length, 4);
	assert_int_equal(insn.width, 2);
}

/* ---- text ---- */

static void expect_text(uint32_t mode, const char *bytes, size_t size, const char *want)
{
	struct insn insn;
	char text[96];

	assert_int_equal(decode(&insn, (const uint8_t *)bytes, size, mode, NULL), DECODE_OK);
	assert_int_equal(insn.length, size);
	disassemble(&insn, 0x1000, text, sizeof(text));
	assert_string_equal(text, want);
}
#define TEXT(mode, bytes, want) expect_text((mode), bytes, sizeof(bytes) - 1, want)

static void test_disassemble(void **state)
{
	const uint32_t m16 = CODE_16, m32 = CODE_32 | CODE_PE, m64 = CODE_64 | CODE_PE | CODE_LMA;
	struct insn insn;
	char text[8];

	(void)state;
	TEXT(m32, "\x01\x48\x10", "add dword ds:[eax+0x10], ecx");
	TEXT(m16, "\x8b\x42\xfe", "mov ax, word ss:[bp+si-0x2]");
	TEXT(m64, "\x4d\x8b\x04\xec", "mov r8, qword ds:[r12+rbp*8]");
	TEXT(m64, "\x48\x8d\x05\x10\x00\x00\x00", "lea rax, ds:[0x1017]");
	TEXT(m64, "\x40\x88\xf4", "mov spl, sil");
	TEXT(m64, "\x88\xf4", "mov ah, dh");
	TEXT(m32, "\xf0\x0f\xb1\x0b", "lock cmpxchg dword ds:[ebx], ecx");
	TEXT(m32, "\xf3\xa4", "rep movs byte es:[edi], byte ds:[esi]");
	TEXT(m32, "\x83\xe8\xff", "sub eax, 0xffffffff");
	TEXT(m32, "\xeb\xfe", "jmp 0x1000");
	TEXT(m32, "\x9a\x78\x56\x34\x12\x10\x00", "call 0x10:0x12345678");
	TEXT(m64, "\x0f\x22\xd8", "mov cr3, rax");
	TEXT(m32, "\x0f\x01\x00", "sgdt ds:[eax]");
	TEXT(m32, "\x66\x0f\x6f\xca", "movdqa xmm1, xmm2");
	TEXT(m32, "\xd8\xc3", "fadd st, st3");
	/* Short rooms are filled and ended. */
	assert_int_equal(decode(&insn, (const uint8_t *)"\x90", 1, m32, NULL), DECODE_OK);
	disassemble(&insn, 0, text, 3);
	assert_int_equal(strlen(text), 2);
	insn.opcode = OPCODE_NONE;
	disassemble(&insn, 0, text, sizeof(text));
	assert_string_equal(text, "(no ins");
}

/* ---- mutants ---- */

static void test_names(void **state)
{
	unsigned count = 0;
	const char *name;

	(void)state;
	for (; (name = check_name(count)); count++) {
		char copy[64];

		snprintf(copy, sizeof(copy), "%s", name);
		if (!check_break(copy))
			fail_msg("%s is listed and cannot be broken", copy);
	}
	assert_true(count > CHECK_COUNT);
	assert_false(check_break("NO_SUCH_CHECK"));
	assert_false(check_break("ADD.UMIP"));
	assert_false(check_break("NOSUCH.UMIP"));
	assert_true(check_break(NULL));
	assert_int_equal(check_broken, -1);
}

static void test_feature(void **state)
{
	static const uint8_t movbe[] = {0x0f, 0x38, 0xf0, 0x00};
	struct profile none = {.vendor = VENDOR_INTEL};
	struct insn insn;

	(void)state;
	assert_int_equal(decode(&insn, movbe, 4, CODE_32 | CODE_PE, NULL), DECODE_OK);
	assert_int_equal(decode(&insn, movbe, 4, CODE_32 | CODE_PE, &none), DECODE_UNDEFINED);
	assert_true(check_break("MOVBE.FEATURE"));
	assert_int_equal(decode(&insn, movbe, 4, CODE_32 | CODE_PE, &none), DECODE_OK);
	assert_true(check_break(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_parse),  cmocka_unit_test(test_zydis_16),
		cmocka_unit_test(test_zydis_32),    cmocka_unit_test(test_zydis_64),
		cmocka_unit_test(test_length),      cmocka_unit_test(test_lock),
		cmocka_unit_test(test_near_branch), cmocka_unit_test(test_disassemble),
		cmocka_unit_test(test_names),       cmocka_unit_test(test_feature),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
