/* disasm.c: a decoded instruction as text, from the operand codes of its row. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpu/pattern.h"

struct writer {
	const struct insn *insn;
	uint64_t rip;
	char *text;
	size_t size, used;
};

static void __attribute__((format(printf, 2, 3))) put(struct writer *w, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(w->text + w->used, w->size - w->used, format, arguments);
	va_end(arguments);
	if (length > 0)
		w->used += (size_t)length;
	if (w->used >= w->size)
		w->used = w->size - 1;
}

static const char *const names64[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const names32[16] = {"eax", "ecx", "edx",  "ebx",  "esp",  "ebp",  "esi",  "edi",
					"r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"};
static const char *const names16[16] = {"ax",  "cx",  "dx",   "bx",   "sp",   "bp",   "si",   "di",
					"r8w", "r9w", "r10w", "r11w", "r12w", "r13w", "r14w", "r15w"};
static const char *const names8[16] = {"al",  "cl",  "dl",   "bl",   "spl",  "bpl",  "sil",  "dil",
				       "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b", "r15b"};
static const char *const names8_high[4] = {"ah", "ch", "dh", "bh"};
static const char *const names_segment[8] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};

static const char *register_name(unsigned code, unsigned size)
{
	switch (size) {
	case 1: return code & 1 ? names8_high[code / 8 & 3] : names8[code / 8 & 15];
	case 2: return names16[code & 15];
	case 4: return names32[code & 15];
	default: return names64[code & 15];
	}
}

/* Bytes that the suffix of an operand code says; 0 where it has no size. */
static unsigned suffix_size(const struct insn *insn, const char *suffix, size_t length)
{
	static const struct {
		char suffix[4];
		uint8_t size;
	} sizes[] = {{"b", 1},   {"bs", 1},  {"w", 2},   {"d", 4},  {"q", 8},  {"t", 10},
		     {"dq", 16}, {"ps", 16}, {"pd", 16}, {"ss", 4}, {"sd", 8}};

	if (length == 1 && (*suffix == 'v' || *suffix == 'y'))
		return insn->width;
	if (length == 1 && *suffix == 'x')
		return insn->vector_length;
	if (length == 1 && *suffix == 'z')
		return insn->width < 4 ? insn->width : 4;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (strlen(sizes[i].suffix) == length && !memcmp(sizes[i].suffix, suffix, length))
			return sizes[i].size;
	return 0;
}

static void put_size(struct writer *w, unsigned size)
{
	switch (size) {
	case 1: put(w, "byte "); break;
	case 2: put(w, "word "); break;
	case 4: put(w, "dword "); break;
	case 8: put(w, "qword "); break;
	case 10: put(w, "tbyte "); break;
	case 16: put(w, "xmmword "); break;
	case 32: put(w, "ymmword "); break;
	default: break;
	}
}

/* What names vectors in VEX instructions: code x goes by the length. */
static const char *vector_name(const struct insn *insn, const char *code, size_t length)
{
	return insn->vector_length == 32 && length == 2 && code[1] == 'x' ? "ymm" : "xmm";
}

static void put_displacement(struct writer *w, int64_t value, bool first)
{
	if (first) {
		unsigned shift = w->insn->address_shift;

		put(w, "0x%llx", (unsigned long long)((uint64_t)value << shift >> shift));
	} else if (value) {
		put(w, "%c0x%llx", value < 0 ? '-' : '+',
		    (unsigned long long)(value < 0 ? 0 - (uint64_t)value : (uint64_t)value));
	}
}

static void put_memory(struct writer *w, unsigned size)
{
	const struct insn *insn = w->insn;
	bool first = true;

	put_size(w, size);
	put(w, "%s:[", names_segment[insn->segment & 7]);
	if (insn->base == REG_TRACE_RIP) {
		put_displacement(w, (int64_t)(w->rip - insn->offset + (uint64_t)insn->disp), true);
		put(w, "]");
		return;
	}
	if (insn->base < GPR_COUNT) {
		put(w, "%s", register_name(insn->base, insn->address_width));
		first = false;
	}
	if (insn->index < GPR_COUNT) {
		put(w, "%s", first ? "" : "+");
		if (pattern_of(insn->opcode)->vsib)
			put(w, "%s%u", insn->vector_length == 32 ? "ymm" : "xmm", (unsigned)insn->index);
		else
			put(w, "%s", register_name(insn->index, insn->address_width));
		if (insn->scale)
			put(w, "*%u", 1u << insn->scale);
		first = false;
	}
	put_displacement(w, insn->disp, first);
	put(w, "]");
}

static void put_immediate(struct writer *w, uint64_t value, unsigned size)
{
	unsigned shift = size && size < 8 ? 64 - 8 * size : 0;

	put(w, "0x%llx", (unsigned long long)(value << shift >> shift));
}

static void put_target(struct writer *w)
{
	const struct insn *insn = w->insn;
	unsigned shift = insn->width < 8 ? 64 - 8u * insn->width : 0;
	uint64_t target = w->rip + insn->length + (uint64_t)insn->imm;

	put(w, "0x%llx", (unsigned long long)(target << shift >> shift));
}

/* Operands in ModRM.rm: registers named by @format where they are no general ones. */
static void put_rm(struct writer *w, const char *format, unsigned size)
{
	if (insn_is_memory(w->insn))
		put_memory(w, size);
	else if (!format)
		put(w, "%s", register_name(w->insn->rm, size));
	else
		put(w, "%s%u", format, (unsigned)w->insn->rm);
}

static void put_string(struct writer *w, bool destination, unsigned size)
{
	put_size(w, size);
	put(w, "%s:[%s]", names_segment[destination ? ES : w->insn->segment & 7],
	    register_name(destination ? RDI : RSI, w->insn->address_width));
}

/* Fixed registers and constants of a row. */
static bool put_fixed(struct writer *w, const char *code, size_t length)
{
	char name[8] = {0};

	if (length == 3 && !memcmp(code, "eAX", 3)) {
		put(w, "%s", register_name(RAX, w->insn->width < 4 ? w->insn->width : 4));
		return true;
	}
	if (length == 3 && !memcmp(code, "rAX", 3)) {
		put(w, "%s", register_name(RAX, w->insn->width));
		return true;
	}
	if (length == 3 && !memcmp(code, "STi", 3)) {
		put(w, "st%u", w->insn->rm & 7u);
		return true;
	}
	if (code[length - 1] != '1' && code[length - 1] != '3' &&
	    !(length == 2 && code[0] <= 'Z' && code[1] >= 'A' && code[1] <= 'Z'))
		return false;
	for (size_t i = 0; i < length && i < sizeof(name) - 1; i++)
		name[i] = (char)(code[i] | 0x20);
	put(w, "%s", code[length - 1] < 'A' ? code[length - 1] == '1' ? "1" : "3" : name);
	return true;
}

static void put_operand(struct writer *w, const char *code, size_t length, bool second_immediate)
{
	const struct insn *insn = w->insn;
	unsigned size = suffix_size(insn, code + 1, length - 1);

	if (put_fixed(w, code, length))
		return;
	if (pattern_of(insn->opcode)->size == SIZE_MODE)
		size = insn->width; /* MOV CR, MOV DR: the mode alone says it */
	switch (code[0]) {
	case 'E': put_rm(w, NULL, size); break;
	case 'M': put_memory(w, size); break;
	case 'R': put(w, "%s", register_name(insn->rm, size)); break;
	case 'G':
	case 'Z': put(w, "%s", register_name(insn->reg, size)); break;
	case 'B': put(w, "%s", register_name(insn->vvvv, size)); break;
	case 'H': put(w, "%s%u", vector_name(insn, code, length), (unsigned)insn->vvvv); break;
	case 'L': put(w, "%s%u", vector_name(insn, code, length), (unsigned)insn->imm >> 4); break;
	case 'V': put(w, "%s%u", vector_name(insn, code, length), (unsigned)insn->reg); break;
	case 'W':
	case 'U': put_rm(w, vector_name(insn, code, length), size); break;
	case 'P': put(w, "mm%u", (unsigned)insn->reg); break;
	case 'Q':
	case 'N': put_rm(w, "mm", size); break;
	case 'S': put(w, "%s", names_segment[insn->reg & 7]); break;
	case 'C': put(w, "cr%u", (unsigned)insn->reg); break;
	case 'D': put(w, "dr%u", (unsigned)insn->reg); break;
	case 'O': put_memory(w, size); break;
	case 'X':
	case 'Y': put_string(w, code[0] == 'Y', size); break;
	case 'J': put_target(w); break;
	case 'A': put(w, "0x%x:0x%llx", (unsigned)insn->imm2, (unsigned long long)insn->imm); break;
	case 'I':
		if (second_immediate)
			put_immediate(w, insn->imm2, 2);
		else
			put_immediate(w, (uint64_t)insn->imm,
				      code[1] == 'b' && length > 2 ? insn->width : size);
		break;
	default: put(w, "?"); break;
	}
}

static void put_prefixes(struct writer *w, unsigned flags)
{
	if (w->insn->prefixes & PREFIX_LOCK)
		put(w, "lock ");
	if (flags & FLAG_REP && w->insn->prefixes & PREFIX_REP)
		put(w, "rep ");
	if (flags & FLAG_REP && w->insn->prefixes & PREFIX_REPNE)
		put(w, "repne ");
}

void disassemble(const struct insn *insn, uint64_t rip, char *text, size_t size)
{
	struct writer w = {.insn = insn, .rip = rip, .text = text, .size = size};
	const struct opcode *row;
	bool immediate = false;

	if (!size)
		return;
	text[0] = 0;
	if (insn->opcode >= opcode_count) {
		put(&w, "(no instruction)");
		return;
	}
	row = &opcode_table[insn->opcode];
	put_prefixes(&w, row->flags);
	for (const char *c = row->mnemonic; *c && *c != '_'; c++) /* MOV_CR is MOV */
		put(&w, "%c", *c >= 'A' && *c <= 'Z' ? *c | 0x20 : *c);
	for (const char *code = row->operands; *code;) {
		size_t length = strcspn(code, ",");

		put(&w, "%s", code == row->operands ? " " : ", ");
		put_operand(&w, code, length, immediate);
		immediate |= code[0] == 'I';
		code += length + (code[length] == ',');
	}
}
