/* smm_test.c: SMI and RSM from every mode, by the maps of both vendors. */
#include "cpu/system_test.h"

#include "cpu/smm.h"

#define SMRAM 0x30000u

static const char *const profiles[] = {"amd", "intel"};

struct bench {
	struct system s; /* first: what the bus is told of */
	unsigned outs;
	uint16_t port[8];
	uint32_t value[8];
	bool smi_on_io;
};

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct bench *b = owner;

	(void)size;
	if (b->outs < 8) {
		b->port[b->outs] = port;
		b->value[b->outs] = value;
	}
	b->outs++;
	if (b->smi_on_io)
		cpu_raise_smi(b->s.cpu);
	b->smi_on_io = false;
}

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	port_out(owner, port, size, 0);
	return ((struct bench *)owner)->outs;
}

static void open(struct bench *b, const char *profile)
{
	memset(b, 0, sizeof(*b));
	system_open(&b->s, profile);
	b->s.cpu->bus.port_out = port_out;
	b->s.cpu->bus.port_in = port_in;
}

static bool amd(const struct bench *b) { return b->s.profile.vendor == VENDOR_AMD; }

static void handler(struct bench *b, const void *code, size_t size)
{
	assert_true(phys_write(b->s.memory, SMRAM + 0x8000, code, size));
}
#define HANDLER(b, ...) handler(b, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define RSM             0x0f, 0xaa
#define NOP             0x90

static void code(struct bench *b, const void *bytes, size_t size)
{
	assert_true(phys_write(b->s.memory, CODE_AT, bytes, size));
}
#define CODE(b, ...) code(b, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint64_t saved(struct bench *b, unsigned offset, unsigned size)
{
	return get(&b->s, SMRAM + offset, size);
}
static void change(struct bench *b, unsigned offset, uint64_t value, unsigned size)
{
	put(&b->s, SMRAM + offset, value, size);
}

/* Every register something else, as far as the mode lets it. */
static void fill(struct bench *b)
{
	struct vcpu_state state;

	cpu_save(b->s.cpu, &state);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		if (i != RSP)
			state.gpr[i] = 0x0101010101010101ull * (i + 1);
	state.rflags |= RFLAGS_CF | RFLAGS_OF | RFLAGS_AC | RFLAGS_ID | RFLAGS_DF;
	state.dr[0] = 0x1234;
	state.dr6 = DR6_FIXED_1 | 0x4005;
	state.dr7 = DR7_FIXED_1 | 0x20000;
	state.cr2 = 0x777000;
	state.cr4 |= CR4_TSD;
	state.cr0 |= CR0_NE | CR0_WP;
	state.efer |= EFER_SCE;
	state.segment[FS].base = 0x1111000;
	state.segment[GS].attributes |= SEG_UNUSABLE;
	cpu_load(b->s.cpu, &state);
}

static void assert_same(struct vcpu_state *a, struct vcpu_state *b)
{
	a->tsc = b->tsc;
	memcpy(a->perf_counter, b->perf_counter, sizeof(a->perf_counter));
	a->mperf = b->mperf;
	a->aperf = b->aperf;
	assert_memory_equal(a, b, sizeof(*a));
}

static void test_there_and_back(void **state)
{
	struct vcpu_state before, after;
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		for (enum system_mode mode = SYSTEM_REAL; mode <= SYSTEM_LONG; mode++)
			for (unsigned cpl = 0; cpl < 4; cpl++) {
				if ((mode == SYSTEM_REAL && cpl) || (mode == SYSTEM_VM86 && cpl != 3))
					continue;
				system_start(&b.s, mode, cpl);
				fill(&b);
				HANDLER(&b, NOP, RSM);
				cpu_save(b.s.cpu, &before);
				cpu_raise_smi(b.s.cpu);
				system_steps(&b.s, 1);
				assert_true(b.s.cpu->smm);
				assert_int_equal(b.s.cpu->rip, 0x8001);
				system_steps(&b.s, 1);
				assert_false(b.s.cpu->smm);
				cpu_save(b.s.cpu, &after);
				assert_same(&after, &before);
				assert_int_equal(b.s.events, 0);
			}
		system_close(&b.s);
	}
}

static void test_entry(void **state)
{
	struct bench b;
	struct cpu *cpu;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		cpu = b.s.cpu;
		system_start(&b.s, SYSTEM_LONG, 3);
		fill(&b);
		cpu->cr0 |= CR0_TS | CR0_EM | CR0_CD;
		/* mov byte cs:[0], 0x5a; mov byte [0x20000] with 32-bit addresses, 0x5b */
		HANDLER(&b, 0x2e, 0xc6, 0x06, 0, 0, 0x5a, 0x67, 0xc6, 0x05, 0, 0, 2, 0, 0x5b);
		cpu_raise_smi(cpu);
		system_steps(&b.s, 0);
		assert_true(cpu->smm);
		assert_int_equal(cpu->rip, 0x8000);
		system_steps(&b.s, 1);
		assert_int_equal(cpu->rip, 0x8006);
		assert_int_equal(rflags_get(cpu), RFLAGS_FIXED);
		assert_int_equal(cpu->cr0, CR0_ET | CR0_NE | CR0_WP | CR0_CD);
		assert_int_equal(cpu->cr4 | cpu->efer, 0);
		assert_int_equal(cpu->dr7, DR7_FIXED_1);
		assert_int_equal(cpu->dr[0], 0x1234);
		assert_int_equal(cpu->cpl, 0);
		assert_true(cpu->nmi_blocked);
		assert_int_equal(cpu->segment[CS].s.selector, SMRAM >> 4);
		assert_int_equal(cpu->segment[CS].s.base, SMRAM);
		for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
			assert_int_equal(cpu->segment[i].s.limit, 0xffffffff);
			if (i != CS)
				assert_int_equal(cpu->segment[i].s.base + cpu->segment[i].s.selector, 0);
		}
		assert_int_equal(get(&b.s, SMRAM, 1), 0x5a);
		system_steps(&b.s, 1);
		assert_int_equal(get(&b.s, 0x20000, 1), 0x5b);
		assert_int_equal(b.s.events, 0);
		system_close(&b.s);
	}
}

/* Figures of SDM 3C table 31-3 and APM 2 table 10-1. */
static void test_maps(void **state)
{
	static const uint16_t gpr[2][GPR_COUNT] = {
		{0xfff8, 0xfff0, 0xffe8, 0xffe0, 0xffd8, 0xffd0, 0xffc8, 0xffc0, 0xffb8, 0xffb0, 0xffa8,
		 0xffa0, 0xff98, 0xff90, 0xff88, 0xff80},
		{0xff5c, 0xff64, 0xff6c, 0xff74, 0xff7c, 0xff84, 0xff8c, 0xff94, 0xff54, 0xff4c, 0xff44,
		 0xff3c, 0xff34, 0xff2c, 0xff24, 0xff1c}};
	/* CR0 CR3 CR4 EFER RFLAGS RIP DR6 DR7 */
	static const uint16_t control[2][8] = {
		{0xff58, 0xff50, 0xff48, 0xfed0, 0xff70, 0xff78, 0xff68, 0xff60},
		{0xfff8, 0xfff0, 0xfe40, 0xffe0, 0xffe8, 0xffd8, 0xffd0, 0xffc8}};
	struct vcpu_state before;
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		system_start(&b.s, SYSTEM_LONG, 0);
		fill(&b);
		HANDLER(&b, NOP);
		cpu_save(b.s.cpu, &before);
		cpu_raise_smi(b.s.cpu);
		system_steps(&b.s, 1);
		for (unsigned i = 0; i < GPR_COUNT; i++)
			assert_int_equal(saved(&b, gpr[p][i], 8), before.gpr[i]);
		const uint64_t values[8] = {before.cr0,    before.cr3, before.cr4, before.efer,
					    before.rflags, before.rip, before.dr6, before.dr7};
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(saved(&b, control[p][i], 8), values[i]);
		assert_int_equal(saved(&b, 0xfefc, 4), amd(&b) ? 0x00030064 : 0x00030100);
		assert_int_equal(saved(&b, amd(&b) ? 0xff00 : 0xfef8, 4), SMRAM);
		if (amd(&b)) {
			assert_int_equal(saved(&b, 0xfe40, 2), before.segment[FS].selector);
			assert_int_equal(saved(&b, 0xfe48, 8), 0x1111000);
			assert_int_equal(saved(&b, 0xfe12, 2), before.segment[CS].attributes);
			assert_int_equal(saved(&b, 0xfe64, 4), 0x1ff);
			assert_int_equal(saved(&b, 0xfe68, 8), GDT_AT);
			assert_int_equal(saved(&b, 0xfe88, 8), IDT_AT);
			assert_int_equal(saved(&b, 0xfe78, 8), LDT_AT);
			assert_int_equal(saved(&b, 0xfe98, 8), TSS_AT);
		} else {
			assert_int_equal(saved(&b, 0xffa8, 4), before.segment[ES].selector);
			assert_int_equal(saved(&b, 0xffac, 4), before.segment[CS].selector);
			assert_int_equal(saved(&b, 0xffc0, 4), before.ldtr.selector);
			assert_int_equal(saved(&b, 0xffc4, 4), before.tr.selector);
			assert_int_equal(saved(&b, 0xfe8c, 4), GDT_AT);
			assert_int_equal(saved(&b, 0xfe94, 4), IDT_AT);
			assert_int_equal(saved(&b, 0xfe9c, 4), LDT_AT);
		}
		system_close(&b.s);
	}
}

/* What the handler writes is what RSM loads; SMBASE moves. */
static void test_changes(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		system_start(&b.s, SYSTEM_LONG, 0);
		HANDLER(&b, NOP, RSM);
		cpu_raise_smi(b.s.cpu);
		system_steps(&b.s, 1);
		change(&b, amd(&b) ? 0xfff8 : 0xff5c, 0x1122334455667788, 8);
		change(&b, amd(&b) ? 0xff78 : 0xffd8, DATA_AT, 8);
		change(&b, amd(&b) ? 0xff70 : 0xffe8, ~0ull, 8);
		change(&b, amd(&b) ? 0xff00 : 0xfef8, 0x50000, 4);
		system_steps(&b.s, 1);
		assert_int_equal(b.s.cpu->reg[RAX], 0x1122334455667788);
		assert_int_equal(b.s.cpu->rip, DATA_AT);
		assert_int_equal(rflags_get(b.s.cpu), (RFLAGS_DEFINED | RFLAGS_FIXED) & ~(uint64_t)RFLAGS_VM);
		b.s.cpu->rflags &= ~(uint64_t)RFLAGS_TF;
		cpu_mode_changed(b.s.cpu);
		put(&b.s, 0x58000, NOP, 1);
		cpu_raise_smi(b.s.cpu);
		system_steps(&b.s, 1);
		assert_int_equal(b.s.cpu->segment[CS].s.base, 0x50000);
		assert_int_equal(get(&b.s, 0x50000 + (amd(&b) ? 0xff00u : 0xfef8u), 4), 0x50000);
		/* INIT keeps it, RESET does not. */
		cpu_reset(b.s.cpu, true);
		assert_int_equal(b.s.cpu->msr.smbase, 0x50000);
		cpu_reset(b.s.cpu, false);
		assert_int_equal(b.s.cpu->msr.smbase, SMRAM);
		system_close(&b.s);
	}
}

static uint64_t beyond[2]; /* bytes read and written outside of memory */
static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	(void)owner;
	assert_true(address >= SYSTEM_RAM);
	memset(to, 0xff, size);
	beyond[0] += size;
}
static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	(void)owner;
	(void)from;
	assert_true(address >= SYSTEM_RAM);
	beyond[1] += size;
}

/* An odd SMBASE, whose area ends behind memory: what is not there is not kept. */
static void test_odd_base(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		b.s.cpu->bus.mmio_read = mmio_read;
		b.s.cpu->bus.mmio_write = mmio_write;
		system_start(&b.s, SYSTEM_REAL, 0);
		b.s.cpu->msr.smbase = SYSTEM_RAM - 0x10000 + 3;
		put(&b.s, b.s.cpu->msr.smbase + 0x8000, 0xaa0f90, 3);
		b.s.cpu->reg[RBX] = 0x1122334455667788;
		beyond[0] = beyond[1] = 0;
		cpu_raise_smi(b.s.cpu);
		system_steps(&b.s, 1);
		assert_true(b.s.cpu->smm);
		b.s.cpu->reg[RBX] = 0;
		/* Of Intel's map, the last bytes are those of CR0's high half, which is then not 0. */
		system_steps(&b.s, 1);
		assert_int_equal(beyond[0], 3);
		assert_int_equal(beyond[1], 3);
		if (amd(&b))
			assert_int_equal(b.s.cpu->reg[RBX], 0x1122334455667788);
		else
			assert_int_equal(b.s.cpu->activity, ACTIVITY_SHUTDOWN);
		system_close(&b.s);
	}
}

static void test_latches(void **state)
{
	struct bench b;
	struct cpu *cpu;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		cpu = b.s.cpu;
		system_start(&b.s, SYSTEM_LONG, 0);
		CODE(&b, NOP, NOP, NOP);
		HANDLER(&b, NOP, NOP, RSM);
		cpu_raise_smi(cpu);
		system_steps(&b.s, 1);
		/* One more SMI and an NMI wait for RSM; SMI is first. */
		cpu_raise_smi(cpu);
		cpu_raise_nmi(cpu);
		system_steps(&b.s, 2);
		assert_true(cpu->smm);
		assert_int_equal(cpu->rip, 0x8000);
		assert_int_equal(b.s.events, 0);
		assert_int_equal(saved(&b, amd(&b) ? 0xff78 : 0xffd8, 8), CODE_AT);
		system_steps(&b.s, 3);
		assert_false(cpu->smm);
		system_steps(&b.s, 1);
		assert_int_equal(b.s.events, 1);
		assert_int_equal(b.s.event[0].vector, VECTOR_NMI);
		assert_true(cpu->nmi_blocked);
		/* Within an NMI's handler NMIs stay blocked behind RSM, and IRET in the handler opens them.
		 */
		cpu_raise_smi(cpu);
		system_steps(&b.s, 3);
		assert_false(cpu->smm);
		assert_true(cpu->nmi_blocked);
		/* INIT comes behind RSM. */
		cpu_raise_smi(cpu);
		system_steps(&b.s, 1);
		cpu_raise_init(cpu, false);
		system_steps(&b.s, 1);
		assert_true(cpu->smm);
		assert_true(cpu->init_pending);
		system_steps(&b.s, 1);
		assert_false(cpu->smm || cpu->init_pending);
		assert_int_equal(cpu->rip, 0xfff0);
		system_close(&b.s);
	}
}

static void test_shadow(void **state)
{
	struct bench b;

	(void)state;
	open(&b, "intel");
	system_start(&b.s, SYSTEM_LONG, 0);
	CODE(&b, 0xfb, NOP, NOP); /* STI */
	HANDLER(&b, NOP, RSM);
	system_steps(&b.s, 1);
	cpu_raise_smi(b.s.cpu);
	system_steps(&b.s, 0);
	assert_false(b.s.cpu->smm);
	system_steps(&b.s, 1);
	assert_true(b.s.cpu->smm);
	assert_int_equal(saved(&b, 0xffd8, 8), CODE_AT + 2);
	system_close(&b.s);
}

static void test_halt(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++)
		for (unsigned again = 0; again < 2; again++) {
			open(&b, profiles[p]);
			system_start(&b.s, SYSTEM_LONG, 0);
			CODE(&b, 0xf4, NOP);
			HANDLER(&b, NOP, RSM);
			assert_int_equal(system_steps(&b.s, 10), CPU_STOP_HALT);
			cpu_raise_smi(b.s.cpu);
			assert_true(cpu_runnable(b.s.cpu));
			system_steps(&b.s, 1);
			assert_int_equal(saved(&b, amd(&b) ? 0xfec9 : 0xff02, 1), 1);
			if (!again)
				change(&b, amd(&b) ? 0xfec9 : 0xff02, 0, 1);
			system_steps(&b.s, 1);
			assert_int_equal(b.s.cpu->activity, again ? ACTIVITY_HLT : ACTIVITY_ACTIVE);
			assert_int_equal(b.s.cpu->rip, CODE_AT + 1);
			if (again)
				assert_int_equal(system_steps(&b.s, 10), CPU_STOP_HALT);
			system_close(&b.s);
		}
}

static void restart(struct bench *b) { change(b, amd(b) ? 0xfec8 : 0xff00, 0xff, 1); }

/* OUT, IN, REP OUTSB that raise an SMI; each restarted, and not. */
static void test_io(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++)
		for (unsigned again = 0; again < 2; again++) {
			open(&b, profiles[p]);
			system_start(&b.s, SYSTEM_PM32, 0);
			CODE(&b, 0xe6, 0xb2, NOP); /* OUT B2H, AL */
			HANDLER(&b, NOP, RSM);
			b.s.cpu->reg[RAX] = 0x77;
			b.smi_on_io = true;
			system_steps(&b.s, 2);
			assert_true(b.s.cpu->smm);
			if (amd(&b))
				assert_int_equal(saved(&b, 0xfec0, 4), 0x00b20012);
			else
				assert_int_equal(saved(&b, 0xffa4, 4), 0x00b20083);
			assert_int_equal(saved(&b, amd(&b) ? 0xff78 : 0xffd8, 8), CODE_AT + 2);
			assert_int_equal(saved(&b, amd(&b) ? 0xfea0 : 0xfde8, 8), CODE_AT);
			if (again)
				restart(&b);
			system_steps(&b.s, 1);
			assert_int_equal(b.s.cpu->rip, CODE_AT + (again ? 0 : 2));
			system_steps(&b.s, 1);
			assert_int_equal(b.outs, 1 + again);
			assert_int_equal(b.value[again], 0x77);
			/* IN AX, DX */
			CODE(&b, 0x66, 0xed, NOP);
			b.s.cpu->rip = CODE_AT;
			b.s.cpu->reg[RDX] = 0x123;
			b.smi_on_io = true;
			system_steps(&b.s, 2);
			assert_int_equal(saved(&b, amd(&b) ? 0xfec0 : 0xffa4, 4),
					 amd(&b) ? 0x01230023 : 0x01230015);
			if (again)
				restart(&b);
			system_steps(&b.s, 2);
			assert_int_equal(b.s.cpu->reg[RAX] & 0xffff, 2 + 2 * again);
			system_close(&b.s);
		}
}

static void test_string_io(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++)
		for (unsigned again = 0; again < 2; again++) {
			open(&b, profiles[p]);
			system_start(&b.s, SYSTEM_PM32, 0);
			CODE(&b, 0xf3, 0x6e, NOP); /* REP OUTSB */
			HANDLER(&b, NOP, RSM);
			put(&b.s, DATA_AT, 0x030201, 3);
			b.s.cpu->reg[RDX] = 0x80;
			b.s.cpu->reg[RSI] = DATA_AT;
			b.s.cpu->reg[RCX] = 3;
			b.smi_on_io = true;
			system_steps(&b.s, 2);
			assert_true(b.s.cpu->smm);
			assert_int_equal(saved(&b, amd(&b) ? 0xfec0 : 0xffa4, 4),
					 amd(&b) ? 0x0080001e : 0x00800063);
			if (!amd(&b))
				assert_int_equal(saved(&b, 0xff9c, 8), DATA_AT);
			if (again)
				restart(&b);
			system_steps(&b.s, 1);
			assert_int_equal(b.s.cpu->reg[RCX], 2 + again);
			assert_int_equal(b.s.cpu->reg[RSI], DATA_AT + 1 - again);
			system_steps(&b.s, 2 + again);
			assert_int_equal(b.outs, 3 + again);
			assert_int_equal(b.value[again], again ? 1 : 1);
			assert_int_equal(b.value[b.outs - 1], 3);
			system_close(&b.s);
		}
}

/* An SMI that no I/O instruction raised has nothing to restart. */
static void test_no_io(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		open(&b, profiles[p]);
		system_start(&b.s, SYSTEM_LONG, 0);
		CODE(&b, 0xe6, 0x10, NOP);
		HANDLER(&b, NOP, RSM);
		system_steps(&b.s, 1);
		cpu_raise_smi(b.s.cpu);
		system_steps(&b.s, 1);
		assert_int_equal(saved(&b, amd(&b) ? 0xfec0 : 0xffa4, 4), 0);
		restart(&b);
		system_steps(&b.s, 1);
		assert_int_equal(b.s.cpu->rip, CODE_AT + 2);
		system_close(&b.s);
	}
}

/* Each mistake in the map, alone, is a shutdown; with its check broken it is none. */
static void test_invalid(void **state)
{
	static const struct {
		const char *check;
		uint16_t offset[2]; /* AMD's, Intel's; 0: not there */
		uint64_t set, clear;
	} bad[] = {
		{"SMM_CR0", {0xff58, 0xfff8}, 0, CR0_PE},
		{"SMM_CR0", {0xff58, 0xfff8}, CR0_NW, CR0_CD},
		{"SMM_CR0", {0xff58, 0xfff8}, 1ull << 32, 0},
		{"SMM_CR4", {0xff48, 0xfe40}, 1u << 31, 0},
		{"SMM_CR4", {0xff48, 0xfe40}, 1u << 15, 0},
		{"SMM_EFER", {0xfed0, 0xffe0}, 1u << 9, 0},
		{"SMM_LONG_MODE", {0xfed0, 0xffe0}, 0, EFER_LME},
		{"SMM_LONG_MODE", {0xfed0, 0xffe0}, 0, EFER_LMA},
		{"SMM_LONG_MODE", {0xff48, 0xfe40}, 0, CR4_PAE},
		{"SMM_DEBUG", {0xff68, 0}, 1ull << 32, 0},
		{"SMM_DEBUG", {0xff60, 0}, 1ull << 32, 0},
	};
	struct bench b;

	(void)state;
	for (unsigned p = 0; p < 2; p++)
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
			for (unsigned broken = 0; broken < 2; broken++) {
				unsigned at = bad[i].offset[p];

				if (!at)
					continue;
				open(&b, profiles[p]);
				system_start(&b.s, SYSTEM_LONG, 0);
				HANDLER(&b, NOP, RSM);
				cpu_raise_smi(b.s.cpu);
				system_steps(&b.s, 1);
				change(&b, at, (saved(&b, at, 8) | bad[i].set) & ~bad[i].clear, 8);
				if (broken)
					assert_true(check_break(bad[i].check));
				system_steps(&b.s, 1);
				check_break(NULL);
				assert_int_equal(b.s.cpu->smm, !broken);
				if (!broken)
					assert_int_equal(system_steps(&b.s, 10), CPU_STOP_SHUTDOWN);
				system_close(&b.s);
			}
}

/* PCIDE and PDPTEs, where the processor is not in IA-32e mode. */
static void test_invalid_paging(void **state)
{
	struct bench b;

	(void)state;
	for (unsigned what = 0; what < 2; what++)
		for (unsigned broken = 0; broken < 2; broken++) {
			open(&b, "intel");
			system_start(&b.s, SYSTEM_PM32, 0);
			HANDLER(&b, NOP, RSM);
			cpu_raise_smi(b.s.cpu);
			system_steps(&b.s, 1);
			if (what == 0) {
				change(&b, 0xfe40, CR4_PCIDE, 8);
			} else {
				put(&b.s, TABLES_AT, 1ull << 62 | 1, 8);
				change(&b, 0xfe40, CR4_PAE, 8);
				change(&b, 0xfff8, saved(&b, 0xfff8, 8) | CR0_PG, 8);
			}
			if (broken)
				assert_true(check_break(what ? "SMM_PDPTE" : "SMM_PCIDE"));
			system_steps(&b.s, 1);
			check_break(NULL);
			assert_int_equal(b.s.cpu->activity, broken ? ACTIVITY_ACTIVE : ACTIVITY_SHUTDOWN);
			system_close(&b.s);
		}
}

/* RSM is #UD elsewhere; processors with the older map are told apart. */
static void test_elsewhere(void **state)
{
	struct bench b;

	(void)state;
	open(&b, "intel");
	system_start(&b.s, SYSTEM_LONG, 0);
	RUN(&b.s, RSM);
	assert_int_equal(b.s.event[0].vector, VECTOR_UD);
	system_close(&b.s);
	open(&b, "intel,-vmx,-cx16,-pcid,-fsgsbase,-pku,-la57,-lahf_lm,-pdpe1gb,-lm");
	system_start(&b.s, SYSTEM_PM32, 0);
	cpu_raise_smi(b.s.cpu);
	assert_int_equal(system_steps(&b.s, 1), CPU_STOP_UNMODELLED);
	system_close(&b.s);
}

/* `smm_test NAME` runs with that check broken. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_entry),
		cmocka_unit_test(test_maps),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_odd_base),
		cmocka_unit_test(test_latches),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_halt),
		cmocka_unit_test(test_io),
		cmocka_unit_test(test_string_io),
		cmocka_unit_test(test_no_io),
		cmocka_unit_test(test_invalid),
		cmocka_unit_test(test_invalid_paging),
		cmocka_unit_test(test_elsewhere),
	};

	if (argc > 1 && !check_break(argv[1]))
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
