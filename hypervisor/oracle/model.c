/* model.c: cases on the software CPU, in the least machine that is like a program's. */
#include "oracle/model.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/mem/phys.h"
#include "cpu/x87.h"

/* Physical memory; the first 64 KiB are mapped at KERNEL_AT for the supervisor. */
enum {
	GDT_AT = 0x1000,
	IDT_AT = 0x2000,
	TSS_AT = 0x3000,
	HANDLERS_AT = 0x4000, /* 16 bytes a vector */
	STACK_TOP = 0x7000,
	PML4_AT = 0x8000,
	KERNEL_TABLES = 0x9000, /* PDPT, page directory, page table */
	USER_TABLES = 0xc000,
	ARENA_PHYSICAL = 0x10000,
	MEMORY_SIZE = 0x20000
};
#define KERNEL_AT   0xffff800000000000ull
#define KERNEL_CODE 0x10
#define BUDGET      1000000 /* far more than any case: REP counts are small */

#define PTE_PRESENT 0x63ull /* present, writable, accessed, dirty */
#define PTE_USER    4ull
#define PTE_NX      (1ull << 63)

struct model {
	struct profile profile;
	struct phys_memory *memory;
	struct cpu *cpu;
	struct vcpu_state state; /* but for what a case sets */
	uint8_t ram[MEMORY_SIZE] __attribute__((aligned(4096)));
};

/* ---- the profile ---- */

static bool host_has(uint32_t leaf, uint32_t subleaf, unsigned output, unsigned bit)
{
	uint32_t r[4] = {0};

	return __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) && r[output] >> bit & 1;
}

void model_host_profile(struct profile *profile)
{
	enum { OUTPUT_eax, OUTPUT_ebx, OUTPUT_ecx, OUTPUT_edx };
	static const struct {
		uint32_t leaf, subleaf;
		uint8_t output, bit;
	} places[FEATURE_COUNT] = {
#define FEATURE(name, leaf, subleaf, output, bit) [FEATURE_##name] = {leaf, subleaf, OUTPUT_##output, bit},
#include "x86/features.def"
#undef FEATURE
	};
	uint32_t a, b = 0, c, d;
	char why[128];

	__get_cpuid(0, &a, &b, &c, &d);
	profile_parse(profile, b == signature_AMD_ebx ? "amd" : "intel", why, sizeof(why));
	memset(profile->features, 0, sizeof(profile->features));
	/* Some are there for a kernel that switches them on, which Linux does for no program that does not
	 * ask. */
	for (unsigned i = 1; i < FEATURE_COUNT; i++)
		if (i != FEATURE_cet_ss && i != FEATURE_cet_ibt && i != FEATURE_svm && i != FEATURE_vmx &&
		    places[i].leaf - 0x480 > 0x11 && /* MSRs, which belong to VMX */
		    host_has(places[i].leaf, places[i].subleaf, places[i].output, places[i].bit))
			profile->features[i / 64] |= 1ull << (i % 64);
	/* A kernel that does not save the YMM registers has them switched off. */
	if (!__builtin_cpu_supports("avx"))
		profile->features[FEATURE_avx / 64] &= ~(1ull << (FEATURE_avx % 64));
}

/* ---- the machine ---- */

static void put64(struct model *m, unsigned at, uint64_t value) { memcpy(m->ram + at, &value, 8); }

/* One page-table path from PML4 entry @slot down to the page table at @tables + 0x2000. */
static void map_tables(struct model *m, unsigned tables, uint64_t linear, uint64_t user)
{
	put64(m, PML4_AT + (unsigned)(linear >> 39 & 511) * 8, tables | PTE_PRESENT | user);
	put64(m, tables + (unsigned)(linear >> 30 & 511) * 8, (tables + 0x1000) | PTE_PRESENT | user);
	put64(m, tables + 0x1000 + (unsigned)(linear >> 21 & 511) * 8,
	      (tables + 0x2000) | PTE_PRESENT | user);
}

static void map_page(struct model *m, unsigned tables, uint64_t linear, uint64_t entry)
{
	put64(m, tables + 0x2000 + (unsigned)(linear >> 12 & 511) * 8, entry);
}

static void make_paging(struct model *m)
{
	const uint64_t page = ARENA_PHYSICAL | PTE_PRESENT | PTE_USER;

	map_tables(m, KERNEL_TABLES, KERNEL_AT, 0);
	for (unsigned at = 0; at < 0x10000; at += 0x1000)
		map_page(m, KERNEL_TABLES, KERNEL_AT + at, at | PTE_PRESENT);
	map_tables(m, USER_TABLES, ARENA_AT, PTE_USER);
	map_page(m, USER_TABLES, ARENA_AT, page);
	map_page(m, USER_TABLES, ARENA_AT + 0x1000, (page + 0x1000) | PTE_NX);
	map_page(m, USER_TABLES, ARENA_AT + 0x2000, ((page + 0x2000) | PTE_NX) & ~2ull);
}

static void make_tables(struct model *m)
{
	put64(m, GDT_AT + KERNEL_CODE, 0x00af9b000000ffff);
	put64(m, GDT_AT + (ORACLE_CS32 & SELECTOR_INDEX), 0x00cffb000000ffff);
	put64(m, GDT_AT + (ORACLE_DATA & SELECTOR_INDEX), 0x00cff3000000ffff);
	put64(m, GDT_AT + (ORACLE_CS64 & SELECTOR_INDEX), 0x00affb000000ffff);
	put64(m, TSS_AT + TSS64_RSP(0), KERNEL_AT + STACK_TOP);
	m->ram[TSS_AT + TSS64_IOMAP] = TSS64_SIZE; /* no port is allowed */
	for (unsigned vector = 0; vector < 32; vector++) {
		uint64_t handler = KERNEL_AT + HANDLERS_AT + 16 * vector;
		/* A gate for INT3 and INTO must let CPL 3 through. */
		uint64_t dpl = vector == VECTOR_BP || vector == VECTOR_OF ? 3 : 0;

		m->ram[HANDLERS_AT + 16 * vector] = 0xf4;
		put64(m, IDT_AT + 16 * vector,
		      (handler & 0xffff) | KERNEL_CODE << 16 | (0x8e00 | dpl << 13) << 32 |
			      (handler >> 16 & 0xffff) << 48);
		put64(m, IDT_AT + 16 * vector + 8, handler >> 32);
	}
}

static struct segment flat(uint16_t selector, uint32_t attributes)
{
	return (struct segment){.limit = 0xffffffff,
				.selector = selector,
				.attributes = attributes | SEG_P | SEG_S | SEG_G | SEG_ACCESSED | SEG_DPL};
}

static void make_state(struct model *m)
{
	struct vcpu_state *s = &m->state;

	cpu_save(m->cpu, s);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		s->segment[i] = flat(ORACLE_DATA, SEG_WRITABLE | SEG_DB);
	s->gdtr = (struct table_register){KERNEL_AT + GDT_AT, 0x3f};
	s->idtr = (struct table_register){KERNEL_AT + IDT_AT, 32 * 16 - 1};
	s->tr = (struct segment){.base = KERNEL_AT + TSS_AT,
				 .limit = TSS64_SIZE - 1,
				 .selector = 8,
				 .attributes = SEG_P | TYPE_TSS_BUSY};
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = PML4_AT;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE;
	if (profile_has(&m->profile, FEATURE_xsave))
		s->cr4 |= CR4_OSXSAVE;
	s->xcr0 = XCR0_X87 | XCR0_SSE | (profile_has(&m->profile, FEATURE_avx) ? XCR0_AVX : 0);
	s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
}

struct model *model_new(const struct profile *profile, const uint8_t read_only[ARENA_PAGE])
{
	struct model *m = aligned_alloc(4096, (sizeof(*m) + 4095) / 4096 * 4096);
	struct cpu_bus bus = {.owner = m};

	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	m->profile = *profile;
	m->memory = phys_new();
	if (!m->memory || phys_add(m->memory, 0, MEMORY_SIZE, m->ram, false) ||
	    !(m->cpu = cpu_new(&m->profile, &bus, m->memory))) {
		model_free(m);
		return NULL;
	}
	memcpy(m->ram + ARENA_PHYSICAL + ARENA_WRITABLE, read_only, ARENA_PAGE);
	make_paging(m);
	make_tables(m);
	make_state(m);
	return m;
}

void model_free(struct model *model)
{
	cpu_free(model->cpu);
	if (model->memory)
		phys_free(model->memory);
	free(model);
}

const char *model_unmodelled(const struct model *model) { return model->cpu->unmodelled; }

/* ---- FXSAVE's image: ST(i) counts from the top, tags are of physical registers ---- */

static void load_fx(struct cpu *cpu, const struct fx_image *fx)
{
	cpu->fcw = fx->fcw;
	cpu->fsw = fx->fsw;
	cpu->mxcsr = fx->mxcsr;
	cpu->fop = fx->fop;
	cpu->fip = fx->fip;
	cpu->fdp = fx->fdp;
	cpu->fcs = cpu->fds = 0;
	for (unsigned i = 0; i < 8; i++) {
		x87_t value = {.bytes = {0}};

		memcpy(value.bytes, fx->st[i], 10);
		x87_set(cpu, i, value);
	}
	for (unsigned i = 0; i < 8; i++)
		if (!(fx->ftw >> i & 1))
			cpu->ftw |= (uint16_t)(3u << (2 * i));
	for (unsigned i = 0; i < 16; i++)
		memcpy(&cpu->vector[4 * i], fx->xmm[i], 16);
}

static void save_fx(const struct cpu *cpu, struct fx_image *fx)
{
	*fx = (struct fx_image){.fcw = cpu->fcw,
				.fsw = cpu->fsw,
				.mxcsr = cpu->mxcsr,
				.fop = cpu->fop,
				.fip = cpu->fip,
				.fdp = cpu->fdp};
	for (unsigned i = 0; i < 8; i++) {
		x87_t value = x87_get(cpu, i);

		memcpy(fx->st[i], value.bytes, 10);
		fx->ftw |= (uint8_t)(((cpu->ftw >> (2 * i) & 3) != 3) << i);
	}
	for (unsigned i = 0; i < 16; i++)
		memcpy(fx->xmm[i], &cpu->vector[4 * i], 16);
}

/* ---- one case ---- */

/* Writes what differs, so that decoded code that did not change is kept. */
static void load_memory(struct model *m, const uint8_t *from)
{
	for (unsigned at = 0; at < ARENA_PAGE; at += 128)
		if (memcmp(m->ram + ARENA_PHYSICAL + at, from + at, 128))
			phys_write(m->memory, ARENA_PHYSICAL + at, from + at, 128);
	phys_write(m->memory, ARENA_PHYSICAL + ARENA_PAGE, from + ARENA_PAGE, ARENA_PAGE);
}

static void load(struct model *m, const struct oracle_case *c)
{
	struct vcpu_state *s = &m->state;

	memcpy(s->gpr, c->in.gpr, sizeof(s->gpr));
	s->rip = c->in.rip;
	s->rflags = c->in.rflags | (c->traps ? RFLAGS_TF : 0);
	s->segment[CS] = c->compatibility ? flat(ORACLE_CS32, SEG_CODE | SEG_READABLE | SEG_DB)
					  : flat(ORACLE_CS64, SEG_CODE | SEG_READABLE | SEG_L);
	s->segment[FS].base = c->in.fs_base;
	s->segment[GS].base = c->in.gs_base;
	cpu_load(m->cpu, s);
	load_fx(m->cpu, &c->in.fx);
	for (unsigned i = 0; i < 16; i++)
		memcpy(&m->cpu->vector[4 * i + 2], c->in.ymm_high[i], 16);
	load_memory(m, c->memory);
}

/* The frame that the fault has left: SDM 3A 6.14.2. */
static void take_frame(struct model *m, struct oracle_outcome *to)
{
	const struct cpu *cpu = m->cpu;
	unsigned vector = (unsigned)((cpu->rip - KERNEL_AT - HANDLERS_AT) / 16);
	uint64_t frame[6] = {0};
	uint64_t at = cpu->reg[RSP] - KERNEL_AT;
	bool has_error_code = vector_has_error_code(vector);

	if (vector >= 32 || at + sizeof(frame) > MEMORY_SIZE)
		return;
	memcpy(frame, m->ram + at + (has_error_code ? 8 : 0), 5 * 8);
	to->vector = vector == VECTOR_DB ? NO_FAULT : (uint8_t)vector;
	if (has_error_code)
		memcpy(&to->error_code, m->ram + at, 4);
	to->address = vector == VECTOR_PF ? cpu->cr2 : 0;
	to->out.rip = frame[0];
	to->out.rflags = frame[2];
	to->out.gpr[RSP] = frame[3];
}

void model_run(struct model *m, const struct oracle_case *c, struct oracle_outcome *to)
{
	struct cpu *cpu = m->cpu;
	enum cpu_stop stop;

	load(m, c);
	to->unmodelled = to->lost = false;
	to->vector = NO_FAULT;
	to->error_code = 0;
	to->address = 0;
	cpu->event_at = cpu->stop_at = cpu->retired + BUDGET;
	stop = cpu_run(cpu);
	memcpy(to->out.gpr, cpu->reg, sizeof(to->out.gpr));
	to->out.rip = cpu->rip;
	to->out.rflags = 0;
	to->out.fs_base = cpu->segment[FS].s.base;
	to->out.gs_base = cpu->segment[GS].s.base;
	save_fx(cpu, &to->out.fx);
	for (unsigned i = 0; i < 16; i++)
		memcpy(to->out.ymm_high[i], &cpu->vector[4 * i + 2], 16);
	if (stop == CPU_STOP_HALT)
		take_frame(m, to);
	else
		to->unmodelled = stop == CPU_STOP_UNMODELLED;
	to->lost = stop != CPU_STOP_HALT && stop != CPU_STOP_UNMODELLED;
	memcpy(to->memory, m->ram + ARENA_PHYSICAL, ARENA_WRITABLE);
}
