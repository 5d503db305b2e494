/*
 * simd_test.c: every row of x87.def and simd.def against the host's own processor: random registers, memory, control
 * words and immediates; the whole FXSAVE image, the general registers and the flags compared.
 *
 * The handlers let the host's unit compute too, so this shows that operands, widths, tags, stack and flags are handled
 * right, not that the arithmetic is. Results that only have to be near (transcendentals, RCPPS, RSQRTPS) are held to
 * the manual's bounds.
 */
#include "cpu/insn/machine_test.h"

#include <cpuid.h>
#include <math.h>

#include "cpu/decode.h"
#include "cpu/simd.h"
#include "cpu/x87.h"

#define AREA_IN (DATA_AT + 0x800)
#define AREA_OUT (DATA_AT + 0xc00)
#define OPERAND (DATA_AT + 0x100)
#define ROUNDS 400

/* An FXSAVE image in 64-bit format without REX.W (SDM 1 10.5.1). */
struct fxsave {
	uint16_t fcw, fsw;
	uint8_t ftw, reserved;
	uint16_t fop;
	uint32_t fip;
	uint16_t fcs, reserved2;
	uint32_t fdp;
	uint16_t fds, reserved3;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];
	uint8_t xmm[16][16];
	uint8_t rest[96];
} __attribute__((packed, aligned(16)));

static struct machine m;
static uint8_t *host;

/* ---- encoding a row ---- */

struct bytes {
	uint8_t at[20];
	size_t count;
};

static void put(struct bytes *code, unsigned byte) { code->at[code->count++] = (uint8_t)byte; }

/* ModRM, with mod = 3 and registers 0 to 2, or [RBX]. */
static void put_modrm(struct bytes *code, int reg, bool memory)
{
	unsigned field = reg >= 0 ? (unsigned)reg : (unsigned)machine_random() % 3;
	put(code, memory ? field << 3 | 3 : 0xc0u | field << 3 | (unsigned)(machine_random() % 3));
}

/* The bytes of @row; false where it has no form of this kind. */
static bool encode(const struct opcode *row, bool memory, struct bytes *code)
{
	bool modrm = false, opcode_seen = false, escape = false;
	const char *word = row->encoding;
	code->count = 0;
	unsigned wide = strstr(row->encoding, "W1") || (!strstr(row->encoding, "W0") && strstr(row->operands, "y") &&
							machine_random() % 2);
	while (*word) {
		size_t length = strcspn(word, " ");
		char *end;
		unsigned long value = strtoul(word, &end, 16);
		if (end == word + length && length == 2 && word[0] != 'W') {
			bool prefix = !opcode_seen && !escape && (value == 0x66 || value == 0xf2 || value == 0xf3);
			if (!prefix && !escape && wide)
				put(code, 0x48);
			if (value == 0x0f && !escape) {
				escape = true;
			} else if (!prefix) {
				opcode_seen = true;
				escape = true;
			}
			put(code, (unsigned)value);
			modrm = modrm || (opcode_seen && row->encoding[0] == 'D' && word != row->encoding);
		} else if (word[0] == '/') {
			if ((memory && strstr(row->encoding, "reg")) || (!memory && strstr(row->encoding, "mem")))
				return false;
			put_modrm(code, word[1] == 'r' ? -1 : word[1] - '0', memory);
			modrm = true;
		}
		word += length + (word[length] == ' ');
	}
	if (memory && (!modrm || !strchr(row->encoding, '/')))
		return false;
	for (const char *at = row->operands; (at = strstr(at, "Ib")); at++)
		put(code, (unsigned)machine_random() & 0xff);
	return true;
}

/* ---- states ---- */

static uint64_t random_double(void)
{
	static const uint64_t special[] = {0, 1ull << 63, 0x7ff0000000000000u, 0xfff0000000000000u, 0x7ff8000000000000u,
					   0x7ff0000000000001u, 1, 0x000fffffffffffffu, 0x3ff0000000000000u,
					   0x7fefffffffffffffu, 0x43e0000000000000u, 0x41dfffffffc00000u};
	uint64_t value = machine_random();
	switch (machine_random() % 4) {
	case 0: return special[value % (sizeof(special) / sizeof(*special))];
	case 1: return (value & 0x800fffffffffffffu) | (0x3f0ull + value / 7 % 64) << 52;
	case 2: return machine_operand();
	default: return value;
	}
}

static uint64_t random_singles(void)
{
	static const uint32_t special[] = {0, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 1, 0x007fffffu,
					   0x3f800000u, 0x7f7fffffu, 0x4f000000u};
	uint64_t result = 0;
	for (unsigned i = 0; i < 2; i++) {
		uint32_t value = (uint32_t)machine_random();
		unsigned kind = (unsigned)(machine_random() % 3);
		if (kind == 0)
			value = special[value % (sizeof(special) / sizeof(*special))];
		else if (kind == 1)
			value = (value & 0x807fffffu) | (0x70u + value / 3 % 32) << 23;
		result = result << 32 | value;
	}
	return result;
}

static void random_extended(uint8_t *to)
{
	static const uint16_t exponents[] = {0, 0x7fff, 0x3fff, 0x3ffe, 0x403e, 0x4000, 1, 0x7ffe};
	uint64_t significand = machine_operand();
	uint16_t exponent = (uint16_t)machine_random();
	if (machine_random() % 3)
		exponent = (uint16_t)(exponents[exponent % 8] | (exponent & 0x8000));
	if (exponent & 0x7fff && machine_random() % 8)
		significand |= 1ull << 63;
	if (!(exponent & 0x7fff))
		significand &= ~(1ull << 63);
	memset(to, 0, 16);
	memcpy(to, &significand, 8);
	memcpy(to + 8, &exponent, 2);
}

static void random_image(struct fxsave *image)
{
	memset(image, 0, sizeof(*image));
	image->fcw = (uint16_t)(0x7f | (machine_random() % 4) << 10 | (machine_random() % 2 ? 0x300 : 0x200));
	image->fsw = (uint16_t)((machine_random() & (X87_TOP | X87_CC)) | (machine_random() % 4 ? 0 : X87_PE));
	image->ftw = (uint8_t)(machine_random() % 2 ? 0x0full << (machine_random() % 5) : machine_random());
	image->mxcsr = (uint32_t)(0x1f80 | (machine_random() & 0xe040));
	for (unsigned i = 0; i < 8; i++)
		random_extended(image->st[i]);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t half[2];
		bool single = machine_random() % 2;
		half[0] = single ? random_singles() : random_double();
		half[1] = single ? random_singles() : random_double();
		memcpy(image->xmm[i], half, 16);
	}
}

/* FXSAVE's view of the software CPU; pointers are left out, as processors differ in when they keep them. */
static void cpu_to_image(const struct cpu *cpu, struct fxsave *image)
{
	memset(image, 0, sizeof(*image));
	image->fcw = cpu->fcw;
	image->fsw = cpu->fsw;
	image->mxcsr = cpu->mxcsr;
	for (unsigned i = 0; i < 8; i++) {
		image->ftw |= (uint8_t)(((cpu->ftw >> (2 * i) & 3) != 3) << i);
		x87_t value = x87_get(cpu, i);
		memcpy(image->st[i], &value, 10);
	}
	for (unsigned i = 0; i < 16; i++)
		memcpy(image->xmm[i], &cpu->vector[4 * i], 16);
}

static void image_to_cpu(struct cpu *cpu, const struct fxsave *image)
{
	cpu->fcw = image->fcw;
	cpu->fsw = image->fsw;
	cpu->mxcsr = image->mxcsr;
	for (unsigned i = 0; i < 8; i++)
		cpu->ftw = (uint16_t)((cpu->ftw & ~(3u << (2 * i))) | (image->ftw >> i & 1 ? 0 : 3u) << (2 * i));
	for (unsigned i = 0; i < 8; i++) {
		x87_t value = {.bytes = {0}};
		memcpy(&value, image->st[i], 10);
		bool empty = x87_is_empty(cpu, i);
		x87_set(cpu, i, value);
		if (empty)
			x87_set_empty(cpu, i);
	}
	for (unsigned i = 0; i < 16; i++)
		memcpy(&cpu->vector[4 * i], image->xmm[i], 16);
}

/* ---- one comparison ---- */

static void fail_with(const struct opcode *row, const struct bytes *code, const char *what, uint64_t host_value,
		      uint64_t own)
{
	char text[64] = "";
	for (size_t i = 0; i < code->count; i++)
		snprintf(text + 3 * i, sizeof(text) - 3 * i, "%02x ", code->at[i]);
	fail_msg("%s (%s): %s: host %#llx, own %#llx", row->mnemonic, text, what, (unsigned long long)host_value,
		 (unsigned long long)own);
}

/*
 * Status bits that the manual leaves undefined after this row: C0, C2, C3 of most instructions. FCOMI's C1 is
 * zero by the SDM and left alone by AMD's processors.
 */
static uint16_t defined_status(const struct opcode *row)
{
	if (strstr(row->mnemonic, "COMI"))
		return (uint16_t)~X87_C1;
	static const char *const codes[] = {"FCOM", "FUCOM", "FICOM", "FTST", "FXAM", "FPREM"};
	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
		if (!strncmp(row->mnemonic, codes[i], strlen(codes[i])))
			return 0xffff;
	if (!strcmp(row->mnemonic, "FFREE") || !strcmp(row->mnemonic, "FNOP") || !strncmp(row->mnemonic, "FN", 2))
		return (uint16_t)~X87_CC;
	return (uint16_t)~(X87_C0 | X87_C2 | X87_C3);
}

static void compare(const struct opcode *row, const struct bytes *code, const uint8_t *host_operand)
{
	struct fxsave theirs, own;
	uint16_t mask = defined_status(row);
	memcpy(&theirs, (void *)(uintptr_t)AREA_OUT, sizeof(theirs));
	cpu_to_image(m.cpu, &own);
	if ((own.fsw & X87_IE || isnan(x87_get(m.cpu, 0).value)) && !strncmp(row->mnemonic, "FPREM", 5))
		mask = (uint16_t)~(X87_C0 | X87_C2 | X87_C3); /* no quotient */
	if ((theirs.fsw ^ own.fsw) & mask)
		fail_with(row, code, "FSW", theirs.fsw, own.fsw);
	if (theirs.fcw != own.fcw || theirs.ftw != own.ftw)
		fail_with(row, code, "FCW:FTW", (uint64_t)theirs.fcw << 16 | theirs.ftw, (uint64_t)own.fcw << 16 | own.ftw);
	if (theirs.mxcsr != own.mxcsr)
		fail_with(row, code, "MXCSR", theirs.mxcsr, own.mxcsr);
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(theirs.st[i], own.st[i], 10))
			fail_with(row, code, "ST", *(uint64_t *)(void *)theirs.st[i], *(uint64_t *)(void *)own.st[i]);
	for (unsigned i = 0; i < 32; i++)
		if (memcmp((uint8_t *)theirs.xmm + 8 * i, (uint8_t *)own.xmm + 8 * i, 8))
			fail_with(row, code, "XMM", ((uint64_t *)(void *)theirs.xmm)[i], ((uint64_t *)(void *)own.xmm)[i]);
	for (unsigned i = 0; i < 3; i++)
		if (host_out.gpr[i] != m.cpu->reg[i])
			fail_with(row, code, "GPR", host_out.gpr[i], m.cpu->reg[i]);
	if ((host_out.rflags ^ flags_get(&m.cpu->lazy)) & RFLAGS_STATUS)
		fail_with(row, code, "flags", host_out.rflags & RFLAGS_STATUS, flags_get(&m.cpu->lazy));
	if (memcmp(host_operand, machine_host(&m, OPERAND), 128))
		fail_with(row, code, "memory", *(const uint64_t *)(const void *)host_operand,
			  *(uint64_t *)(void *)machine_host(&m, OPERAND));
}

static void run_both(const struct opcode *row, const struct bytes *code)
{
	static const uint8_t load[] = {0x0f, 0xae, 0x8b, 0x00, 0x07, 0x00, 0x00}; /* FXRSTOR [RBX + 0x700] */
	static const uint8_t save[] = {0x0f, 0xae, 0x83, 0x00, 0x0b, 0x00, 0x00}; /* FXSAVE [RBX + 0xb00] */
	struct fxsave image;
	uint8_t whole[64];
	uint64_t operand[16];

	random_image(&image);
	for (unsigned i = 0; i < 16; i++)
		operand[i] = i % 3 ? random_double() : random_singles();
	memcpy(host + (AREA_IN - MACHINE_BASE), &image, sizeof(image));
	memcpy(host + (OPERAND - MACHINE_BASE), operand, sizeof(operand));
	machine_write(&m, OPERAND, operand, sizeof(operand));
	host_in = (struct host_registers){.rflags = RFLAGS_FIXED | (machine_random() & RFLAGS_STATUS)};
	for (unsigned i = 0; i < 3; i++)
		host_in.gpr[i] = m.cpu->reg[i] = machine_operand();
	host_in.gpr[RBX] = m.cpu->reg[RBX] = host_in.gpr[RDI] = m.cpu->reg[RDI] = OPERAND;
	host_in.gpr[RSP] = m.cpu->reg[RSP] = STACK_AT;
	machine_set_flags(&m, host_in.rflags);
	image_to_cpu(m.cpu, &image);

	memcpy(whole, load, sizeof(load));
	memcpy(whole + sizeof(load), code->at, code->count);
	memcpy(whole + sizeof(load) + code->count, save, sizeof(save));
	int signal = host_run(whole, sizeof(load) + code->count + sizeof(save));
	__asm__ volatile("fninit; ldmxcsr %0" : : "m"((uint32_t){MXCSR_RESET}));
	if (signal)
		fail_with(row, code, "the host raised a signal", (unsigned)signal, 0);
	machine_run(&m, code->at, code->count, 1);
	if (m.vector != NO_EVENT)
		fail_with(row, code, "raised an exception", 0, (unsigned)m.vector);
	compare(row, code, host + (OPERAND - MACHINE_BASE));
}

/* ---- which rows ---- */

static bool is_near(const struct opcode *row)
{
	static const char *const near[] = {"FSIN", "FCOS", "FSINCOS", "FPTAN", "FPATAN", "F2XM1", "FYL2X", "FYL2XP1", "RCPPS", "RCPSS",
					   "RSQRTPS", "RSQRTSS"};
	for (size_t i = 0; i < sizeof(near) / sizeof(*near); i++)
		if (!strcmp(row->mnemonic, near[i]))
			return true;
	return false;
}

/* Rows whose image depends on pointers (environments), or whose operand has rules of its own: tested below. */
static bool has_own_test(const struct opcode *row)
{
	static const char *const own[] = {"FNSTENV", "FLDENV", "FNSAVE", "FRSTOR", "LDMXCSR", "FLDCW", "FBLD"};
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		if (!strcmp(row->mnemonic, own[i]))
			return true;
	return false;
}

/* What is newer than the processors that this runs on at least. */
static bool host_lacks(const struct opcode *row)
{
	switch (row->feature) {
	case FEATURE_aes: return !__builtin_cpu_supports("aes");
	case FEATURE_pclmulqdq: return !__builtin_cpu_supports("pclmul");
	case FEATURE_sse4a: return !__builtin_cpu_supports("sse4a");
	case FEATURE_sha: {
		unsigned a, b = 0, c, d;

		return !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 29);
	}
	default: return false;
	}
}

extern const struct handlers insn_reserved;

static bool is_family(const struct opcode *row, bool x87)
{
	if (row->handlers == &insn_reserved)
		return false;
	bool escape = row->encoding[0] == 'D' && row->encoding[1] >= '8';
	if (x87)
		return escape;
	return row->feature >= FEATURE_mmx && !escape && (row->gates & (GATE_EM | GATE_OSFXSR)) && (row->gates & GATE_TS) &&
	       strncmp(row->mnemonic, "FX", 2) && strncmp(row->mnemonic, "XSAVE", 5) && strncmp(row->mnemonic, "XRSTOR", 6);
}

static size_t compare_rows(bool x87)
{
	size_t rows = 0;
	for (size_t i = 0; i < opcode_count; i++) {
		const struct opcode *row = &opcode_table[i];
		if (!is_family(row, x87) || is_near(row) || has_own_test(row) || host_lacks(row))
			continue;
		rows++;
		for (unsigned round = 0; round < ROUNDS; round++) {
			struct bytes code;
			for (int memory = 0; memory < 2; memory++)
				if (encode(row, memory, &code))
					run_both(row, &code);
		}
	}
	return rows;
}

static void test_x87_rows(void **state)
{
	(void)state;
	assert_true(compare_rows(true) > 100);
}

static void test_simd_rows(void **state)
{
	(void)state;
	assert_true(compare_rows(false) > 300);
}

/* ---- results that are near ---- */

static long double st0(void) { return x87_get(m.cpu, 0).value; }

static void run_x87(uint8_t second, long double below, long double top)
{
	uint8_t code[] = {0xd9, second};
	x87_t value = {.bytes = {0}};
	x87_initialize(m.cpu);
	value.value = below;
	x87_push(m.cpu, value);
	value.value = top;
	x87_push(m.cpu, value);
	machine_run(&m, code, sizeof(code), 1);
	assert_int_equal(m.vector, NO_EVENT);
}

/* Within one unit in the last place of what the C library's long double functions say, which are good to that too. */
static void assert_near(long double got, long double want)
{
	if (isnan(want) ? !isnan(got) : fabsl(got - want) > 2 * fabsl(want) * 0x1p-63L)
		fail_msg("got %.25Lg, wanted %.25Lg", got, want);
}

static void test_transcendentals(void **state)
{
	static const long double values[] = {0.5L, -0.5L, 1.0L, -1.0L, 0.1L, 3.0L, 100.25L, -7.75L, 1e-10L, 12345.678L};
	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		long double x = values[i], y = values[(i + 3) % 10];
		run_x87(0xfe, 0, x);
		assert_near(st0(), sinl(x));
		run_x87(0xff, 0, x);
		assert_near(st0(), cosl(x));
		run_x87(0xfb, 0, x);
		assert_near(st0(), cosl(x));
		assert_near(x87_get(m.cpu, 1).value, sinl(x));
		run_x87(0xf2, 0, x);
		assert_near(st0(), 1.0L);
		assert_near(x87_get(m.cpu, 1).value, tanl(x));
		run_x87(0xf3, y, x);
		assert_near(st0(), atan2l(y, x));
		run_x87(0xf0, 0, x / 20000);
		assert_near(st0(), expm1l(x / 20000 * 0.693147180559945309417232121458176568L));
		run_x87(0xf1, y, fabsl(x));
		assert_near(st0(), y * log2l(fabsl(x)));
		run_x87(0xf9, y, x / 50000);
		assert_near(st0(), y * (log1pl(x / 50000) / 0.693147180559945309417232121458176568L));
	}
	run_x87(0xfe, 0, 0x1p63L); /* out of range: C2, and nothing changes */
	assert_true(m.cpu->fsw & X87_C2);
	assert_true(st0() == 0x1p63L);
	run_x87(0xf1, 1, 0); /* y * log2(0): divide by zero */
	assert_true(m.cpu->fsw & X87_ZE);
	assert_true(isinf(st0()) && st0() < 0);
	run_x87(0xf1, 1, -1); /* log2 of a negative number */
	assert_true(m.cpu->fsw & X87_IE);
}

static float run_approximation(uint8_t opcode, float operand)
{
	uint8_t code[] = {0xf3, 0x0f, opcode, 0xc1};
	float result;
	m.cpu->mxcsr = MXCSR_RESET;
	memcpy(&m.cpu->vector[4], &operand, 4);
	machine_run(&m, code, sizeof(code), 1);
	memcpy(&result, &m.cpu->vector[0], 4);
	return result;
}

static void test_approximations(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		float x = ldexpf(1.0f + (float)(machine_random() % 8388608) / 8388608.0f, (int)(machine_random() % 200) - 100);
		double rcp = run_approximation(0x53, x), rsqrt = run_approximation(0x52, x);
		assert_true(fabs(rcp * x - 1) <= 1.5 * 0x1p-12);
		assert_true(fabs(rsqrt * sqrt((double)x) - 1) <= 1.5 * 0x1p-12);
	}
	assert_true(isinf(run_approximation(0x53, 0.0f)));
	assert_true(isinf(run_approximation(0x53, 1e-40f))); /* denormals count as zero */
	assert_true(isnan(run_approximation(0x52, -1.0f)));
	assert_int_equal(m.cpu->mxcsr, MXCSR_RESET);
}

/* ---- exceptions ---- */

static void test_unmasked_simd(void **state)
{
	static const uint8_t divide[] = {0xf2, 0x0f, 0x5e, 0xc1}; /* DIVSD XMM0, XMM1 */
	double one = 1, zero = 0;
	(void)state;
	for (unsigned exmm = 0; exmm < 2; exmm++) {
		memcpy(&m.cpu->vector[0], &one, 8);
		memcpy(&m.cpu->vector[4], &zero, 8);
		m.cpu->mxcsr = MXCSR_RESET & ~(MXCSR_ZE << 7);
		m.cpu->cr4 = (m.cpu->cr4 & ~(uint64_t)CR4_OSXMMEXCPT) | (exmm ? CR4_OSXMMEXCPT : 0);
		machine_run(&m, divide, sizeof(divide), 1);
		assert_int_equal(m.vector, exmm ? VECTOR_XM : VECTOR_UD);
		assert_memory_equal(&m.cpu->vector[0], &one, 8);
		assert_int_equal(m.cpu->mxcsr & MXCSR_FLAGS, MXCSR_ZE);
	}
	m.cpu->cr4 |= CR4_OSXMMEXCPT;
}

static void test_exact_underflow_unmasked(void **state)
{
	static const uint8_t multiply[] = {0xf2, 0x0f, 0x59, 0xc1}; /* MULSD XMM0, XMM1 */
	double tiny = 0x1p-1022, half = 0.5;
	(void)state;
	memcpy(&m.cpu->vector[0], &tiny, 8);
	memcpy(&m.cpu->vector[4], &half, 8);
	m.cpu->mxcsr = MXCSR_RESET;
	machine_run(&m, multiply, sizeof(multiply), 1);
	assert_int_equal(m.vector, NO_EVENT);
	assert_int_equal(m.cpu->mxcsr & MXCSR_FLAGS, 0); /* exact: no flag while masked */
	memcpy(&m.cpu->vector[0], &tiny, 8);
	m.cpu->mxcsr = MXCSR_RESET & ~(MXCSR_UE << 7);
	machine_run(&m, multiply, sizeof(multiply), 1);
	assert_int_equal(m.vector, VECTOR_XM);
}

static void test_alignment(void **state)
{
	static const uint8_t aligned[] = {0x0f, 0x28, 0x03}, add[] = {0x0f, 0x58, 0x03}; /* MOVAPS, ADDPS [RBX] */
	(void)state;
	m.cpu->mxcsr = MXCSR_RESET;
	m.cpu->reg[RBX] = OPERAND + 8;
	machine_run(&m, aligned, sizeof(aligned), 1);
	assert_int_equal(m.vector, VECTOR_GP);
	machine_run(&m, add, sizeof(add), 1);
	assert_int_equal(m.vector, VECTOR_GP);
	m.cpu->mxcsr = MXCSR_RESET | MXCSR_MM;
	machine_run(&m, add, sizeof(add), 1);
	assert_int_equal(m.vector, NO_EVENT);
	machine_run(&m, aligned, sizeof(aligned), 1);
	assert_int_equal(m.vector, VECTOR_GP);
	m.cpu->mxcsr = MXCSR_RESET;
}

static void test_pending_x87(void **state)
{
	static const uint8_t divide[] = {0xd8, 0xf1}, wait[] = {0x9b}, status[] = {0xdf, 0xe0}, movq[] = {0x0f, 0x6f, 0xc1};
	x87_t value = {.bytes = {0}};
	(void)state;
	x87_initialize(m.cpu);
	m.cpu->cr0 |= CR0_NE | CR0_MP;
	x87_push(m.cpu, value);
	value.value = 3;
	x87_push(m.cpu, value);
	m.cpu->fcw &= (uint16_t)~X87_ZE;
	machine_run(&m, divide, sizeof(divide), 1); /* 3 / 0: pends, and leaves the operand */
	assert_int_equal(m.vector, NO_EVENT);
	assert_true(st0() == 3);
	assert_true(m.cpu->fsw & X87_ES);
	machine_run(&m, status, sizeof(status), 1); /* FNSTSW does not wait */
	assert_int_equal(m.vector, NO_EVENT);
	machine_run(&m, wait, sizeof(wait), 1);
	assert_int_equal(m.vector, VECTOR_MF);
	machine_run(&m, movq, sizeof(movq), 1);
	assert_int_equal(m.vector, VECTOR_MF);
	x87_initialize(m.cpu);
}

/* FNSAVE, FRSTOR, FNSTENV, FLDENV: what is saved comes back. */
static void test_environment(void **state)
{
	static const uint8_t save[] = {0xdd, 0x33}, restore[] = {0xdd, 0x23}, save16[] = {0x66, 0xdd, 0x33},
			     restore16[] = {0x66, 0xdd, 0x23};
	struct fxsave before, after, image;
	(void)state;
	for (unsigned small = 0; small < 2; small++) {
		random_image(&image);
		image.fsw &= (uint16_t)~X87_PE;
		image_to_cpu(m.cpu, &image);
		m.cpu->reg[RBX] = OPERAND;
		cpu_to_image(m.cpu, &before);
		machine_run(&m, small ? save16 : save, small ? 3 : 2, 1);
		assert_int_equal(m.cpu->fcw, 0x37f);
		assert_int_equal(m.cpu->ftw, 0xffff);
		machine_run(&m, small ? restore16 : restore, small ? 3 : 2, 1);
		assert_int_equal(m.vector, NO_EVENT);
		cpu_to_image(m.cpu, &after);
		assert_memory_equal(&before, &after, sizeof(before));
	}
}

static void test_fbld(void **state)
{
	static const uint8_t load[] = {0xdf, 0x23}, store[] = {0xdf, 0x33};
	static const uint8_t bcd[10] = {0x90, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0x80};
	uint8_t out[10];
	(void)state;
	x87_initialize(m.cpu);
	m.cpu->reg[RBX] = OPERAND;
	machine_write(&m, OPERAND, bcd, sizeof(bcd));
	machine_run(&m, load, sizeof(load), 1);
	assert_true(st0() == -1234567890.0L);
	machine_write(&m, OPERAND, (uint8_t[10]){0}, 10);
	machine_run(&m, store, sizeof(store), 1);
	memcpy(out, machine_host(&m, OPERAND), 10);
	assert_memory_equal(out, bcd, 10);
}

static int open_both(void **state)
{
	(void)state;
	machine_open(&m, "amd");
	m.cpu->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
	m.cpu->cr0 |= CR0_NE | CR0_MP;
	host = host_open();
	return host ? 0 : -1;
}

static int close_both(void **state)
{
	(void)state;
	machine_close(&m);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_x87_rows),
		cmocka_unit_test(test_simd_rows),
		cmocka_unit_test(test_transcendentals),
		cmocka_unit_test(test_approximations),
		cmocka_unit_test(test_unmasked_simd),
		cmocka_unit_test(test_exact_underflow_unmasked),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_pending_x87),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_fbld),
	};
	return cmocka_run_group_tests(tests, open_both, close_both);
}
