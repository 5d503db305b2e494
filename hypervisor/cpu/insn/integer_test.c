/*
 * integer_test.c: unprivileged integer instructions against the host's own processor.
 *
 * Each row is an opcode; it runs in each operand size, with register and memory operands, random
 * registers and values, and all registers, the memory around the operand and the flags are held
 * against what the host made of the same bytes. Flags that the manuals leave undefined are masked.
 */
#include "cpu/insn/machine_test.h"

#ifdef __x86_64__

#define OF RFLAGS_OF
#define SF RFLAGS_SF
#define ZF RFLAGS_ZF
#define AF RFLAGS_AF
#define PF RFLAGS_PF
#define CF RFLAGS_CF

enum form {
	MODRM = 1,  /* with ModRM; else none */
	MEMORY = 2, /* memory operands too */
	REGISTER = 4,
	BYTE = 8, /* 8 bits, whatever the prefixes */
	IMM8 = 16,
	IMMZ = 32,
	COUNT = 64, /* by CL or an immediate: undefined flags depend on the count */
	WIDE = 128, /* 32 and 64 bits only */
	PLUS = 256, /* register in the opcode */
	IMMV = 512,
	STACK = 1024, /* 16 and 64 bits only */
	LOW = 2048    /* bit index into memory: kept near */
};

struct row {
	const char *name;
	uint8_t opcode[4];
	uint8_t size;
	int extension; /* ModRM.reg, or NONE */
	unsigned forms;
	uint64_t undefined; /* flags */
	const char *feature;
};

#define RM   (MODRM | MEMORY | REGISTER)
#define NONE (-1) /* no opcode extension */

/* clang-format off */
#define ROW(...) ROW_IF(NULL, __VA_ARGS__)
#define ROW_IF(needs, mnemonic, modrm_reg, form, masked, ...)                                       \
	{.name = (mnemonic), .opcode = {__VA_ARGS__}, .size = sizeof((uint8_t[]){__VA_ARGS__}),     \
	 .extension = (modrm_reg), .forms = (form), .undefined = (masked), .feature = (needs)},
#define ALU(name, base, n)                                                                          \
	ROW(name, NONE, RM | BYTE, 0, base) ROW(name, NONE, RM, 0, (base) + 1)                      \
	ROW(name, NONE, RM | BYTE, 0, (base) + 2) ROW(name, NONE, RM, 0, (base) + 3)                \
	ROW(name, NONE, BYTE | IMM8, 0, (base) + 4) ROW(name, NONE, IMMZ, 0, (base) + 5)            \
	ROW(name, n, RM | BYTE | IMM8, 0, 0x80) ROW(name, n, RM | IMMZ, 0, 0x81)                    \
	ROW(name, n, RM | IMM8, 0, 0x83)
#define LOGIC(name, base, n)                                                                        \
	ROW(name, NONE, RM | BYTE, AF, base) ROW(name, NONE, RM, AF, (base) + 1)                    \
	ROW(name, NONE, RM | BYTE, AF, (base) + 2) ROW(name, NONE, RM, AF, (base) + 3)              \
	ROW(name, NONE, BYTE | IMM8, AF, (base) + 4) ROW(name, NONE, IMMZ, AF, (base) + 5)          \
	ROW(name, n, RM | BYTE | IMM8, AF, 0x80) ROW(name, n, RM | IMMZ, AF, 0x81)                  \
	ROW(name, n, RM | IMM8, AF, 0x83)
#define SHIFT(name, n, masked)                                                                      \
	ROW(name, n, RM | BYTE | IMM8 | COUNT, masked, 0xc0) ROW(name, n, RM | IMM8 | COUNT, masked, 0xc1) \
	ROW(name, n, RM | BYTE, masked, 0xd0) ROW(name, n, RM, masked, 0xd1)                        \
	ROW(name, n, RM | BYTE | COUNT, masked, 0xd2) ROW(name, n, RM | COUNT, masked, 0xd3)
#define BIT(name, op, n)                                                                            \
	ROW(name, NONE, RM | LOW, OF | SF | AF | PF, 0x0f, op)                                      \
	ROW(name, n, RM | IMM8, OF | SF | AF | PF, 0x0f, 0xba)
#define CONDITION(n)                                                                                \
	ROW("CMOV", NONE, RM, 0, 0x0f, 0x40 + (n)) ROW("SET", 0, RM | BYTE, 0, 0x0f, 0x90 + (n))

/* Undefined flags: the "Flags Affected" paragraph of each instruction's page in SDM 2A and 2B. */
static const struct row rows[] = {
	ALU("ADD", 0x00, 0) LOGIC("OR", 0x08, 1) ALU("ADC", 0x10, 2) ALU("SBB", 0x18, 3)
	LOGIC("AND", 0x20, 4) ALU("SUB", 0x28, 5) LOGIC("XOR", 0x30, 6) ALU("CMP", 0x38, 7)
	SHIFT("ROL", 0, 0) SHIFT("ROR", 1, 0) SHIFT("RCL", 2, 0) SHIFT("RCR", 3, 0)
	SHIFT("SHL", 4, AF) SHIFT("SHR", 5, AF) SHIFT("SAL", 6, AF) SHIFT("SAR", 7, AF)
	BIT("BT", 0xa3, 4) BIT("BTS", 0xab, 5) BIT("BTR", 0xb3, 6) BIT("BTC", 0xbb, 7)
	CONDITION(0) CONDITION(1) CONDITION(2) CONDITION(3) CONDITION(4) CONDITION(5) CONDITION(6) CONDITION(7)
	CONDITION(8) CONDITION(9) CONDITION(10) CONDITION(11) CONDITION(12) CONDITION(13) CONDITION(14)
	CONDITION(15)
	ROW("TEST", NONE, RM | BYTE, AF, 0x84)
	ROW("TEST", NONE, RM, AF, 0x85)
	ROW("TEST", NONE, BYTE | IMM8, AF, 0xa8)
	ROW("TEST", NONE, IMMZ, AF, 0xa9)
	ROW("TEST", 0, RM | BYTE | IMM8, AF, 0xf6)
	ROW("TEST", 0, RM | IMMZ, AF, 0xf7)
	ROW("TEST", 1, RM | BYTE | IMM8, AF, 0xf6)
	ROW("TEST", 1, RM | IMMZ, AF, 0xf7)
	ROW("NOT", 2, RM | BYTE, 0, 0xf6)
	ROW("NOT", 2, RM, 0, 0xf7)
	ROW("NEG", 3, RM | BYTE, 0, 0xf6)
	ROW("NEG", 3, RM, 0, 0xf7)
	ROW("MUL", 4, RM | BYTE, SF | ZF | AF | PF, 0xf6)
	ROW("MUL", 4, RM, SF | ZF | AF | PF, 0xf7)
	ROW("IMUL", 5, RM | BYTE, SF | ZF | AF | PF, 0xf6)
	ROW("IMUL", 5, RM, SF | ZF | AF | PF, 0xf7)
	ROW("IMUL", NONE, RM, SF | ZF | AF | PF, 0x0f, 0xaf)
	ROW("IMUL", NONE, RM | IMMZ, SF | ZF | AF | PF, 0x69)
	ROW("IMUL", NONE, RM | IMM8, SF | ZF | AF | PF, 0x6b)
	ROW("DIV", 6, RM | BYTE, RFLAGS_STATUS, 0xf6)
	ROW("DIV", 6, RM, RFLAGS_STATUS, 0xf7)
	ROW("IDIV", 7, RM | BYTE, RFLAGS_STATUS, 0xf6)
	ROW("IDIV", 7, RM, RFLAGS_STATUS, 0xf7)
	ROW("INC", 0, RM | BYTE, 0, 0xfe)
	ROW("INC", 0, RM, 0, 0xff)
	ROW("DEC", 1, RM | BYTE, 0, 0xfe)
	ROW("DEC", 1, RM, 0, 0xff)
	ROW("XADD", NONE, RM | BYTE, 0, 0x0f, 0xc0)
	ROW("XADD", NONE, RM, 0, 0x0f, 0xc1)
	ROW("CMPXCHG", NONE, RM | BYTE, 0, 0x0f, 0xb0)
	ROW("CMPXCHG", NONE, RM, 0, 0x0f, 0xb1)
	ROW_IF("adx", "ADCX", NONE, RM | WIDE, 0, 0x66, 0x0f, 0x38, 0xf6)
	ROW_IF("adx", "ADOX", NONE, RM | WIDE, 0, 0xf3, 0x0f, 0x38, 0xf6)
	ROW("MOV", NONE, RM | BYTE, 0, 0x88)
	ROW("MOV", NONE, RM, 0, 0x89)
	ROW("MOV", NONE, RM | BYTE, 0, 0x8a)
	ROW("MOV", NONE, RM, 0, 0x8b)
	ROW("MOV", 0, RM | BYTE | IMM8, 0, 0xc6)
	ROW("MOV", 0, RM | IMMZ, 0, 0xc7)
	ROW("MOV", NONE, PLUS | BYTE | IMM8, 0, 0xb0)
	ROW("MOV", NONE, PLUS | IMMV, 0, 0xb8)
	ROW("MOVZX", NONE, RM, 0, 0x0f, 0xb6)
	ROW("MOVZX", NONE, RM, 0, 0x0f, 0xb7)
	ROW("MOVSX", NONE, RM, 0, 0x0f, 0xbe)
	ROW("MOVSX", NONE, RM, 0, 0x0f, 0xbf)
	ROW("MOVSXD", NONE, RM, 0, 0x63)
	ROW_IF("movbe", "MOVBE", NONE, MODRM | MEMORY, 0, 0x0f, 0x38, 0xf0)
	ROW_IF("movbe", "MOVBE", NONE, MODRM | MEMORY, 0, 0x0f, 0x38, 0xf1)
	ROW("MOVNTI", NONE, MODRM | MEMORY | WIDE, 0, 0x0f, 0xc3)
	ROW_IF("sse4.2", "CRC32", NONE, RM | WIDE, 0, 0xf2, 0x0f, 0x38, 0xf0)
	ROW_IF("sse4.2", "CRC32", NONE, RM, 0, 0xf2, 0x0f, 0x38, 0xf1)
	ROW("XCHG", NONE, RM | BYTE, 0, 0x86)
	ROW("XCHG", NONE, RM, 0, 0x87)
	ROW("XCHG", NONE, PLUS, 0, 0x90)
	ROW("BSWAP", NONE, PLUS | WIDE, 0, 0x0f, 0xc8)
	ROW("CBW", NONE, 0, 0, 0x98)
	ROW("CWD", NONE, 0, 0, 0x99)
	ROW("LEA", NONE, MODRM | MEMORY, 0, 0x8d)
	ROW("SHLD", NONE, RM | IMM8 | COUNT, AF, 0x0f, 0xa4)
	ROW("SHLD", NONE, RM | COUNT, AF, 0x0f, 0xa5)
	ROW("SHRD", NONE, RM | IMM8 | COUNT, AF, 0x0f, 0xac)
	ROW("SHRD", NONE, RM | COUNT, AF, 0x0f, 0xad)
	ROW("BSF", NONE, RM, CF | OF | SF | AF | PF, 0x0f, 0xbc)
	ROW("BSR", NONE, RM, CF | OF | SF | AF | PF, 0x0f, 0xbd)
	ROW_IF("bmi", "TZCNT", NONE, RM, OF | SF | AF | PF, 0xf3, 0x0f, 0xbc)
	ROW_IF("lzcnt", "LZCNT", NONE, RM, OF | SF | AF | PF, 0xf3, 0x0f, 0xbd)
	ROW_IF("popcnt", "POPCNT", NONE, RM, 0, 0xf3, 0x0f, 0xb8)
	ROW("CMC", NONE, BYTE, 0, 0xf5)
	ROW("CLC", NONE, BYTE, 0, 0xf8)
	ROW("STC", NONE, BYTE, 0, 0xf9)
	ROW("CLD", NONE, BYTE, 0, 0xfc)
	ROW("STD", NONE, BYTE, 0, 0xfd)
	ROW("SAHF", NONE, BYTE, 0, 0x9e)
	ROW("LAHF", NONE, BYTE, 0, 0x9f)
	ROW("PUSH", NONE, PLUS | STACK, 0, 0x50)
	ROW("POP", NONE, PLUS | STACK, 0, 0x58)
	ROW("PUSH", NONE, STACK | IMMZ, 0, 0x68)
	ROW("PUSH", NONE, STACK | IMM8, 0, 0x6a)
	ROW("PUSH", 6, RM | STACK, 0, 0xff)
	ROW("POP", 0, RM | STACK, 0, 0x8f)
	ROW("NOP", 0, RM, 0, 0x0f, 0x1f)
};
/* clang-format on */

/* One encoded instruction and what was chosen for it. */
struct sample {
	uint8_t code[24];
	unsigned size, width;
	unsigned reg, rm; /* as encoded, REX bits added */
	bool memory;
	uint8_t immediate;
};

static void put(struct sample *s, uint64_t value, unsigned bytes)
{
	memcpy(s->code + s->size, &value, bytes);
	s->size += bytes;
}

static unsigned pick_register(void)
{
	unsigned reg;

	do
		reg = (unsigned)machine_random() & 15;
	while (reg == RSP || reg == R12);
	return reg;
}

static void encode(struct sample *s, const struct row *row, unsigned width, bool memory)
{
	bool mandatory = row->size > 1 && row->opcode[0] != 0x0f;
	bool rex = width == 8 || machine_random() % 2;
	unsigned opcode = row->opcode[row->size - 1];

	*s = (struct sample){.width = width, .memory = memory, .reg = pick_register(), .rm = pick_register()};
	if (row->extension >= 0)
		s->reg = (unsigned)row->extension;
	if (memory)
		s->rm = rex ? R15 : RDI;
	if (!rex && !(row->forms & STACK)) {
		s->reg &= 7;
		s->rm &= 7;
	}
	rex |= s->reg > 7 || s->rm > 7;
	if (s->width == 2)
		put(s, 0x66, 1);
	if (mandatory)
		put(s, row->opcode[0], 1);
	if (rex)
		put(s,
		    0x40 | (width == 8 && !(row->forms & STACK) ? 8 : 0) | (s->reg > 7 ? 4 : 0) |
			    (s->rm > 7 ? 1 : 0),
		    1);
	for (unsigned i = mandatory; i + 1u < row->size; i++)
		put(s, row->opcode[i], 1);
	put(s, row->forms & PLUS ? opcode | (s->rm & 7) : opcode, 1);
	if (row->forms & MODRM)
		put(s, (memory ? 0x40u : 0xc0u) | (s->reg & 7) << 3 | (s->rm & 7), 1);
	if (memory)
		put(s, 16, 1);
	s->immediate = (uint8_t)machine_random();
	if (row->forms & IMM8)
		put(s, s->immediate, 1);
	if (row->forms & IMMZ)
		put(s, machine_operand(), width == 2 ? 2 : 4);
	if (row->forms & IMMV)
		put(s, machine_operand(), width);
}

/* Undefined flags of this sample: the count decides for shifts. */
static uint64_t undefined_flags(const struct row *row, const struct sample *s)
{
	unsigned mask = s->width == 8 ? 63 : 31, count;
	uint64_t undefined = row->undefined;

	if (!(row->forms & COUNT))
		return undefined;
	count = (row->forms & IMM8 ? s->immediate : (unsigned)host_in.gpr[RCX]) & mask;
	if (count == 0)
		return 0;
	if (count != 1)
		undefined |= OF; /* SDM 2B SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR: defined for 1-bit shifts only */
	if (row->undefined && count >= 8 * s->width)
		undefined |= CF; /* SDM 2B SAL/SHR: count not less than the size */
	return undefined;
}

/* Whether the destination itself is undefined. */
static bool undefined_result(const struct row *row, const struct sample *s)
{
	unsigned count = (row->forms & IMM8 ? s->immediate : (unsigned)host_in.gpr[RCX]) & 31;

	/* SDM 2B SHLD: a count beyond the operand's size. The model's profile here is an AMD one. */
	if (__builtin_cpu_is("amd"))
		return false;
	return !strncmp(row->name, "SH", 2) && row->name[3] == 'D' && s->width == 2 && count > 16;
}

static bool host_has(const char *feature)
{
	__builtin_cpu_init();
	if (!feature)
		return true;
	if (!strcmp(feature, "sse4.2"))
		return __builtin_cpu_supports("sse4.2");
	if (!strcmp(feature, "bmi"))
		return __builtin_cpu_supports("bmi");
	if (!strcmp(feature, "popcnt"))
		return __builtin_cpu_supports("popcnt");
	/* The others: whether the kernel lists them. */
	char line[8192];
	FILE *file = fopen("/proc/cpuinfo", "r");
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		if (!strncmp(line, "flags", 5))
			found = strstr(line, !strcmp(feature, "lzcnt") ? " abm "
					     : !strcmp(feature, "adx") ? " adx "
								       : " movbe ");
	if (file)
		fclose(file);
	return found;
}

#define AROUND 64 /* bytes of data on each side that are compared */

static void prepare(struct machine *m, const struct row *row, const struct sample *s, uint8_t *host)
{
	uint8_t data[2 * AROUND + 16];

	for (unsigned i = 0; i < 16; i++)
		host_in.gpr[i] = machine_operand();
	host_in.gpr[RSP] = STACK_AT;
	if (s->memory) {
		host_in.gpr[s->rm] = DATA_AT;
		if (row->forms & LOW && s->reg != s->rm)
			host_in.gpr[s->reg] = (uint64_t)((int64_t)(machine_random() % 512) - 256);
	}
	if (machine_random() % 4 == 0)
		host_in.gpr[RAX] = host_in.gpr[RDX] = 0;
	if (s->memory)
		host_in.gpr[s->rm] = DATA_AT;
	host_in.rflags = RFLAGS_FIXED | RFLAGS_IF | (machine_random() & RFLAGS_STATUS);
	for (unsigned i = 0; i < sizeof(data); i += 8) {
		uint64_t value = machine_operand();

		memcpy(data + i, &value, 8);
	}
	memcpy(host + (DATA_AT - MACHINE_BASE) + 16 - AROUND, data, sizeof(data));
	machine_write(m, DATA_AT + 16 - AROUND, data, sizeof(data));
	memcpy(host + (STACK_AT - MACHINE_BASE) - 16, data, 32);
	machine_write(m, STACK_AT - 16, data, 32);
	memcpy(m->cpu->reg, host_in.gpr, sizeof(host_in.gpr));
	machine_set_flags(m, host_in.rflags);
}

static void explain(const struct row *row, const struct sample *s, const struct machine *m, uint64_t flags)
{
	print_error("%s width %u %s:", row->name, s->width, s->memory ? "memory" : "register");
	for (unsigned i = 0; i < s->size; i++)
		print_error(" %02x", s->code[i]);
	print_error("\nflags in %llx host %llx here %llx\n",
		    (unsigned long long)host_in.rflags & RFLAGS_STATUS,
		    (unsigned long long)host_out.rflags & RFLAGS_STATUS, (unsigned long long)flags);
	for (unsigned i = 0; i < 16; i++)
		print_error("r%-2u %016llx host %016llx here %016llx%s\n", i,
			    (unsigned long long)host_in.gpr[i], (unsigned long long)host_out.gpr[i],
			    (unsigned long long)m->cpu->reg[i],
			    host_out.gpr[i] != m->cpu->reg[i] ? " <" : "");
}

static bool same(struct machine *m, const struct row *row, const struct sample *s, const uint8_t *host,
		 int fault)
{
	uint64_t flags = flags_get(&m->cpu->lazy);
	uint64_t care = RFLAGS_STATUS & ~undefined_flags(row, s);

	if (fault)
		return m->vector == VECTOR_DE && fault == SIGFPE &&
		       !memcmp(m->cpu->reg, host_in.gpr, sizeof(host_in.gpr)) &&
		       flags == (host_in.rflags & RFLAGS_STATUS);
	return m->vector == NO_EVENT && !((flags ^ host_out.rflags) & care) &&
	       !((m->cpu->rflags ^ host_out.rflags) & RFLAGS_DF) && m->cpu->rip == CODE_AT + s->size &&
	       !memcmp(m->cpu->reg, host_out.gpr, sizeof(host_out.gpr)) &&
	       !memcmp(machine_host(m, DATA_AT + 16 - AROUND), host + (DATA_AT - MACHINE_BASE) + 16 - AROUND,
		       2 * AROUND + 16) &&
	       !memcmp(machine_host(m, STACK_AT - 16), host + (STACK_AT - MACHINE_BASE) - 16, 32);
}

static void run_row(struct machine *m, const struct row *row, unsigned width, bool memory, uint8_t *host)
{
	struct sample s;

	for (unsigned i = 0; i < 60; i++) {
		int fault;

		do
			encode(&s, row, width, memory);
		while ((row->forms & LOW && memory && s.reg == s.rm) || (row->opcode[0] == 0x8d && !memory));
		prepare(m, row, &s, host);
		if (undefined_result(row, &s))
			continue;
		/* SDM 2A BSF, BSR: with a source of 0 the destination is undefined. */
		if (!strncmp(row->name, "BS", 2) && row->opcode[1] != 0xc8 && !memory &&
		    !(host_in.gpr[s.rm] << (64 - 8 * width)))
			continue;
		fault = host_run(s.code, s.size);
		machine_run(m, s.code, s.size, 1);
		if (!same(m, row, &s, host, fault)) {
			explain(row, &s, m, flags_get(&m->cpu->lazy));
			fail();
		}
		m->cpu->rflags &= ~(uint64_t)RFLAGS_DF;
	}
}

static void run_widths(struct machine *m, const struct row *row, bool memory, uint8_t *host)
{
	if (row->forms & BYTE) {
		run_row(m, row, 1, memory, host);
		return;
	}
	if (!(row->forms & WIDE))
		run_row(m, row, 2, memory, host);
	if (!(row->forms & STACK))
		run_row(m, row, 4, memory, host);
	run_row(m, row, 8, memory, host);
}

static void same_as_host(void **state)
{
	struct machine m;
	uint8_t *host = host_open();

	(void)state;
	if (!host)
		skip();
	machine_open(&m, "amd");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!host_has(rows[i].feature))
			continue;
		if (rows[i].forms & REGISTER || !(rows[i].forms & MODRM))
			run_widths(&m, &rows[i], false, host);
		if (rows[i].forms & MEMORY)
			run_widths(&m, &rows[i], true, host);
	}
	machine_close(&m);
}

/* ENTER with nesting levels, and LEAVE behind it, with 64- and 16-bit operands. */
static void frames_as_on_host(void **state)
{
	const uint64_t outer = STACK_AT + 0x200;
	struct machine m;
	uint8_t *host = host_open();

	(void)state;
	if (!host)
		skip();
	machine_open(&m, "intel");
	for (unsigned n = 0; n < 800; n++) {
		const uint8_t code[2][5] = {
			{0x66, 0xc8, (uint8_t)machine_random(), 0, (uint8_t)machine_random() % 7},
			{0x66, 0xc9}};
		bool small = n % 2, leave = n % 4 >= 2;
		const uint8_t *bytes = code[leave] + !small;
		size_t size = (leave ? 1u : 4u) + small;
		uint8_t stack[0x400];

		for (unsigned i = 0; i < 16; i++)
			host_in.gpr[i] = machine_operand();
		for (unsigned i = 0; i < sizeof(stack); i++)
			stack[i] = (uint8_t)machine_random();
		host_in.gpr[RSP] = STACK_AT;
		host_in.gpr[RBP] = outer;
		host_in.rflags = RFLAGS_FIXED | RFLAGS_IF;
		memcpy(host + (STACK_AT - MACHINE_BASE) - 0x200, stack, sizeof(stack));
		machine_write(&m, STACK_AT - 0x200, stack, sizeof(stack));
		memcpy(m.cpu->reg, host_in.gpr, sizeof(host_in.gpr));
		assert_int_equal(host_run(bytes, size), 0);
		machine_run(&m, bytes, size, 1);
		assert_memory_equal(m.cpu->reg, host_out.gpr, sizeof(host_out.gpr));
		assert_memory_equal(machine_host(&m, STACK_AT - 0x200),
				    host + (STACK_AT - MACHINE_BASE) - 0x200, sizeof(stack));
	}
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_host),
					   cmocka_unit_test(frames_as_on_host)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void) { return 0; }

#endif
