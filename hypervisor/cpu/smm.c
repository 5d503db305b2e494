#include "cpu/smm.h"

#include <string.h>

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/decode.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"
#include "cpu/guest.h"
#include "cpu/trace.h"
#include "x86/paging.h"

/* Offsets are from SMBASE. */
#define ENTRY     0x8000u
#define AREA      0xfc00u
#define AREA_SIZE 0x400u

#define IO_RESTART  0xffu
#define IO_NAMES(f) f(in_ib) f(in_dx) f(out_ib) f(out_dx) f(ins) f(outs)

struct area {
	uint8_t byte[AREA_SIZE];
};

/* Where each vendor has what (SDM 3C table 31-3, APM 2 table 10-1). */
struct map {
	uint32_t revision;
	uint16_t gpr[GPR_COUNT];
	uint16_t cr0, cr3, cr4, efer, rflags, rip, dr6, dr7;
	uint16_t halt_restart, io_restart; /* a word; a byte */
	uint16_t nmi;                      /* a byte: NMIs were blocked */
	/* Of the I/O instruction: where it is, and what it had in these. */
	uint16_t io_rip, io_rcx, io_rsi, io_rdi;
};
#define REVISION    0xfefcu
#define SMBASE(amd) ((amd) ? 0xff00u : 0xfef8u)

static const struct map intel_map = {
	.revision = 0x00030100, /* I/O restart and relocation are there */
	.gpr = {0xff5c, 0xff64, 0xff6c, 0xff74, 0xff7c, 0xff84, 0xff8c, 0xff94, 0xff54, 0xff4c, 0xff44,
		0xff3c, 0xff34, 0xff2c, 0xff24, 0xff1c},
	.cr0 = 0xfff8,
	.cr3 = 0xfff0,
	.rflags = 0xffe8,
	.efer = 0xffe0,
	.rip = 0xffd8,
	.dr6 = 0xffd0,
	.dr7 = 0xffc8,
	.cr4 = 0xfe40,
	.halt_restart = 0xff02,
	.io_restart = 0xff00,
	.io_rip = 0xfde8,
	/* Reserved places from here on. */
	.nmi = 0xfcc8,
	.io_rcx = 0xfca0,
	.io_rsi = 0xfca8,
	.io_rdi = 0xfcb0,
};
#define INTEL_SELECTOR(i) (0xffa8u + 4 * (i))
#define INTEL_HIDDEN(i)   (0xfc00u + 16 * (i)) /* reserved */
#define INTEL_GDT_LIMIT   0xfcc0u
#define INTEL_IDT_LIMIT   0xfcc4u
#define INTEL_IO_MISC     0xffa4u
#define INTEL_IO_MEM      0xff9cu

static const struct map amd_map = {
	.revision = 0x00030064,
	.gpr = {0xfff8, 0xfff0, 0xffe8, 0xffe0, 0xffd8, 0xffd0, 0xffc8, 0xffc0, 0xffb8, 0xffb0, 0xffa8,
		0xffa0, 0xff98, 0xff90, 0xff88, 0xff80},
	.rip = 0xff78,
	.rflags = 0xff70,
	.dr6 = 0xff68,
	.dr7 = 0xff60,
	.cr0 = 0xff58,
	.cr3 = 0xff50,
	.cr4 = 0xff48,
	.efer = 0xfed0,
	.halt_restart = 0xfec9,
	.io_restart = 0xfec8,
	.nmi = 0xfeca,
	.io_rip = 0xfea0,
	.io_rcx = 0xfea8,
	.io_rsi = 0xfeb0,
	.io_rdi = 0xfeb8,
};
#define AMD_IO_DWORD 0xfec0u
/* Of a guest of AMD-V that the SMI was taken out of; bit 1 of the state, which has no name, is its host's IF. */
#define AMD_SVM_STATE     0xfed8u
#define AMD_SVM_VMCB      0xfee0u
#define AMD_SVM_INTERRUPT 0xfee8u
#define AMD_SVM_HOST_EFER 0xff28u
#define AMD_SVM_HOST_CR4  0xff30u
#define AMD_SVM_NCR3      0xff38u
#define AMD_GDTR     0xfe60u
#define AMD_IDTR     0xfe80u
/* ES to GS, LDTR, TR: selector, attributes, limit, base. */
static const uint16_t amd_segment[] = {0xfe00, 0xfe10, 0xfe20, 0xfe30, 0xfe40, 0xfe50, 0xfe70, 0xfe90};
/* Among the attributes, which are bytes 5 and 6 of a descriptor, where that has the limit. */
#define AMD_UNUSABLE 0x0100u

static bool is_amd(const struct cpu *cpu) { return cpu->profile->vendor == VENDOR_AMD; }
static const struct map *map_of(const struct cpu *cpu) { return is_amd(cpu) ? &amd_map : &intel_map; }

/* ---- the area ---- */

static void put(struct area *area, unsigned offset, uint64_t value, unsigned size)
{
	memcpy(area->byte + offset - AREA, &value, size);
}

static uint64_t get(const struct area *area, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, area->byte + offset - AREA, size);
	return value;
}

/* AMD's is half as long, and nothing of ours below it is used. */
static unsigned area_skip(const struct cpu *cpu) { return is_amd(cpu) ? AREA_SIZE / 2 : 0; }

/* SMBASE may be any number: no access may cross a page. */
static unsigned area_step(const struct cpu *cpu) { return cpu->msr.smbase & 7 ? 1 : 8; }

static void area_load(struct cpu *cpu, struct area *area)
{
	uint64_t base = cpu->msr.smbase + AREA;
	unsigned step = area_step(cpu);

	memset(area, 0, sizeof(*area));
	for (unsigned at = area_skip(cpu); at < AREA_SIZE; at += step)
		put(area, AREA + at, physical_read(cpu, base + at, step), step);
}

static void area_store(struct cpu *cpu, const struct area *area)
{
	uint64_t base = cpu->msr.smbase + AREA;
	unsigned step = area_step(cpu);

	for (unsigned at = area_skip(cpu); at < AREA_SIZE; at += step)
		physical_write_as(CHECK_LOG_SMM, cpu, base + at, get(area, AREA + at, step), step);
}

/* ---- segments ---- */

static struct segment *segment_at(struct cpu *cpu, unsigned index)
{
	if (index < SEGMENT_COUNT)
		return &cpu->segment[index].s;
	return index == SEGMENT_COUNT ? &cpu->ldtr.s : &cpu->tr.s;
}

static void save_segments(struct cpu *cpu, struct area *area)
{
	for (unsigned i = 0; i < SEGMENT_COUNT + 2; i++) {
		const struct segment *s = segment_at(cpu, i);
		unsigned at = is_amd(cpu) ? amd_segment[i] : INTEL_HIDDEN(i);

		if (is_amd(cpu)) {
			bool unusable = s->attributes & SEG_UNUSABLE;

			put(area, at, s->selector, 2);
			put(area, at + 2, (s->attributes & 0xf0ff) | (unusable ? AMD_UNUSABLE : 0), 2);
			put(area, at + 4, s->limit, 4);
			put(area, at + 8, s->base, 8);
		} else {
			put(area, INTEL_SELECTOR(i), s->selector, 4);
			put(area, at, s->base, 8);
			put(area, at + 8, s->limit, 4);
			put(area, at + 12, s->attributes, 4);
		}
	}
}

static void restore_segments(struct cpu *cpu, const struct area *area)
{
	for (unsigned i = 0; i < SEGMENT_COUNT + 2; i++) {
		struct segment *s = segment_at(cpu, i);
		unsigned at = is_amd(cpu) ? amd_segment[i] : INTEL_HIDDEN(i);

		if (is_amd(cpu)) {
			uint32_t attributes = (uint32_t)get(area, at + 2, 2);

			s->selector = (uint16_t)get(area, at, 2);
			s->attributes =
				(attributes & 0xf0ff) | (attributes & AMD_UNUSABLE ? SEG_UNUSABLE : 0);
			s->limit = (uint32_t)get(area, at + 4, 4);
			s->base = get(area, at + 8, 8);
		} else {
			s->selector = (uint16_t)get(area, INTEL_SELECTOR(i), 2);
			s->base = get(area, at, 8);
			s->limit = (uint32_t)get(area, at + 8, 4);
			s->attributes = (uint32_t)get(area, at + 12, 4);
		}
	}
}

/* Intel's bases are in two halves, LDTR's as well; their limits are not shown. */
static void save_tables(struct cpu *cpu, struct area *area)
{
	if (is_amd(cpu)) {
		put(area, AMD_GDTR + 4, cpu->gdtr.limit, 4);
		put(area, AMD_GDTR + 8, cpu->gdtr.base, 8);
		put(area, AMD_IDTR + 4, cpu->idtr.limit, 4);
		put(area, AMD_IDTR + 8, cpu->idtr.base, 8);
		return;
	}
	put(area, INTEL_GDT_LIMIT, cpu->gdtr.limit, 2);
	put(area, INTEL_IDT_LIMIT, cpu->idtr.limit, 2);
	put(area, 0xfe9c, cpu->ldtr.s.base, 4);
	put(area, 0xfe94, cpu->idtr.base, 4);
	put(area, 0xfe8c, cpu->gdtr.base, 4);
	put(area, 0xfdd8, cpu->idtr.base >> 32, 4);
	put(area, 0xfdd4, cpu->ldtr.s.base >> 32, 4);
	put(area, 0xfdd0, cpu->gdtr.base >> 32, 4);
}

static void restore_tables(struct cpu *cpu, const struct area *area)
{
	if (is_amd(cpu)) {
		cpu->gdtr.limit = (uint16_t)get(area, AMD_GDTR + 4, 2);
		cpu->gdtr.base = get(area, AMD_GDTR + 8, 8);
		cpu->idtr.limit = (uint16_t)get(area, AMD_IDTR + 4, 2);
		cpu->idtr.base = get(area, AMD_IDTR + 8, 8);
		return;
	}
	cpu->gdtr.limit = (uint16_t)get(area, INTEL_GDT_LIMIT, 2);
	cpu->idtr.limit = (uint16_t)get(area, INTEL_IDT_LIMIT, 2);
	cpu->idtr.base = get(area, 0xfe94, 4) | get(area, 0xfdd8, 4) << 32;
	cpu->gdtr.base = get(area, 0xfe8c, 4) | get(area, 0xfdd0, 4) << 32;
}

/* ---- the I/O instruction that raised its own SMI ---- */

static bool is_handler(const struct insn *insn, const struct handlers *handlers)
{
	return insn->opcode != OPCODE_NONE && opcode_table[insn->opcode].handlers == handlers;
}

void smm_note_io(struct cpu *cpu)
{
#define DECLARE(name) extern const struct handlers insn_##name;
	IO_NAMES(DECLARE)
#undef DECLARE
	const struct insn *insn = cpu->insn;
	struct cpu_io *io = &cpu->smi_io;

	*io = (struct cpu_io){0};
	if (!insn || cpu->smm)
		return;
	io->immediate = is_handler(insn, &insn_in_ib) || is_handler(insn, &insn_out_ib);
	io->string = is_handler(insn, &insn_ins) || is_handler(insn, &insn_outs);
	io->in =
		is_handler(insn, &insn_in_ib) || is_handler(insn, &insn_in_dx) || is_handler(insn, &insn_ins);
	io->valid = io->string || io->in || io->immediate || is_handler(insn, &insn_out_dx);
	if (!io->valid)
		return;
	io->repeat = io->string && insn->prefixes & (PREFIX_REP | PREFIX_REPNE);
	io->size = (uint8_t)(insn->width > 4 ? 4 : insn->width);
	io->address_width = insn->address_width;
	io->segment = io->in ? ES : insn->segment;
	io->port = io->immediate ? (uint8_t)insn->imm : (uint16_t)cpu->reg[RDX];
	io->rip = cpu_rip(cpu);
}

/* @value with its low @width bytes changed by @by, as the instruction changes it. */
static uint64_t moved(uint64_t value, uint64_t by, unsigned width)
{
	uint64_t mask = width == 8 ? ~0ull : width == 4 ? 0xffffffffu : 0xffffu;

	return width == 4 ? (value + by) & mask : (value & ~mask) | ((value + by) & mask);
}

/* SDM 3C 32.7.1: bit 0 valid, length, type, port. */
static uint32_t intel_io_misc(const struct cpu_io *io)
{
	uint32_t type =
		(io->in ? 1u : 0) | (io->string ? 2u : 0) | (io->repeat ? 4u : 0) | (io->immediate ? 8u : 0);

	return 1u | (uint32_t)io->size << 1 | type << 4 | (uint32_t)io->port << 16;
}

/* APM 2 10.2.5: input, valid, string, REP, size, single-stepped, I/O breakpoints, port. */
static uint32_t amd_io_dword(const struct cpu *cpu, const struct cpu_io *io)
{
	return (io->in ? 1u : 0) | 2u | (io->string ? 4u : 0) | (io->repeat ? 8u : 0) |
	       (uint32_t)io->size << 4 | (cpu->rflags & RFLAGS_TF ? 1u << 11 : 0) |
	       (uint32_t)(cpu->dr6_pending & 15) << 12 | (uint32_t)io->port << 16;
}

static void save_io(struct cpu *cpu, struct area *area)
{
	const struct map *map = map_of(cpu);
	struct cpu_io *io = &cpu->smi_io;
	uint64_t rcx = cpu->reg[RCX], rsi = cpu->reg[RSI], rdi = cpu->reg[RDI];
	uint64_t back = cpu->rflags & RFLAGS_DF ? io->size : -(uint64_t)io->size;

	if (!io->valid)
		return;
	io->valid = false;
	/* The element that is done is taken back. */
	if (io->repeat)
		rcx = moved(rcx, 1, io->address_width);
	if (io->string && io->in)
		rdi = moved(rdi, back, io->address_width);
	else if (io->string)
		rsi = moved(rsi, back, io->address_width);
	put(area, map->io_rip, io->rip, 8);
	put(area, map->io_rcx, rcx, 8);
	put(area, map->io_rsi, rsi, 8);
	put(area, map->io_rdi, rdi, 8);
	if (is_amd(cpu)) {
		put(area, AMD_IO_DWORD, amd_io_dword(cpu, io), 4);
		return;
	}
	put(area, INTEL_IO_MISC, intel_io_misc(io), 4);
	if (io->string)
		put(area, INTEL_IO_MEM,
		    (cpu->segment[io->segment].linear_base +
		     moved(0, io->in ? rdi : rsi, io->address_width)) &
			    cpu->linear_mask,
		    8);
}

/* Of SMIs without an I/O instruction the manual says that a restart is unpredictable: here it is not done. */
static void restart_io(struct cpu *cpu, const struct area *area)
{
	const struct map *map = map_of(cpu);
	bool valid = is_amd(cpu) ? get(area, AMD_IO_DWORD, 4) & 2 : get(area, INTEL_IO_MISC, 4) & 1;

	if (!valid || !CHECK(SMM_IO_RESTART, get(area, map->io_restart, 1) == IO_RESTART))
		return;
	cpu->rip = get(area, map->io_rip, 8);
	cpu->reg[RCX] = get(area, map->io_rcx, 8);
	cpu->reg[RSI] = get(area, map->io_rsi, 8);
	cpu->reg[RDI] = get(area, map->io_rdi, 8);
}

/* ---- a guest of AMD-V ---- */

static void save_guest(struct cpu *cpu, struct area *area)
{
	struct svm_suspended s = svm_suspend(cpu);

	if (!s.guest)
		return;
	put(area, AMD_SVM_STATE, 1u | (s.host_if ? 2u : 0), 8);
	put(area, AMD_SVM_VMCB, s.vmcb, 8);
	put(area, AMD_SVM_INTERRUPT, s.interrupt, 8);
	put(area, AMD_SVM_HOST_EFER, s.host_efer, 8);
	put(area, AMD_SVM_HOST_CR4, s.host_cr4, 8);
	put(area, AMD_SVM_NCR3, s.ncr3, 8);
}

static void resume_guest(struct cpu *cpu, const struct area *area)
{
	struct svm_suspended s = {.vmcb = get(area, AMD_SVM_VMCB, 8),
				  .interrupt = get(area, AMD_SVM_INTERRUPT, 8),
				  .host_efer = get(area, AMD_SVM_HOST_EFER, 8),
				  .host_cr4 = get(area, AMD_SVM_HOST_CR4, 8),
				  .ncr3 = get(area, AMD_SVM_NCR3, 8),
				  .host_if = get(area, AMD_SVM_STATE, 8) & 2};

	svm_resume(cpu, &s);
}

/* ---- entering ---- */

static void save(struct cpu *cpu, struct area *area)
{
	const struct map *map = map_of(cpu);

	memset(area, 0, sizeof(*area));
	for (unsigned i = 0; i < GPR_COUNT; i++)
		put(area, map->gpr[i], cpu->reg[i], 8);
	put(area, map->rip, cpu->rip, 8);
	put(area, map->rflags, rflags_get(cpu), 8);
	put(area, map->cr0, cpu->cr0, 8);
	put(area, map->cr3, cpu->cr3, 8);
	put(area, map->cr4, cpu->cr4, 8);
	put(area, map->efer, cpu->efer, 8);
	put(area, map->dr6, cpu->dr6, 8);
	put(area, map->dr7, cpu->dr7, 8);
	put(area, REVISION, map->revision, 4);
	put(area, SMBASE(is_amd(cpu)), cpu->msr.smbase, 4);
	put(area, map->halt_restart, cpu->activity == ACTIVITY_HLT, 1);
	put(area, map->nmi, cpu->nmi_blocked, 1);
	save_segments(cpu, area);
	save_tables(cpu, area);
	save_io(cpu, area);
}

/* All derived things anew, after a change of everything. */
static void changed(struct cpu *cpu)
{
	tlb_flush_spaces(cpu, 0, 0);
	cpu_mode_changed(cpu);
	segment_derive_all(cpu);
}

/* SDM 3C table 31-4, APM 2 table 10-3: like real-address mode, with limits of 4 GiB. */
static void enter_handler(struct cpu *cpu)
{
	const uint32_t attributes = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_G;

	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		cpu->segment[i].s = (struct segment){.limit = 0xffffffff, .attributes = attributes};
	cpu->segment[CS].s.selector = (uint16_t)(cpu->msr.smbase >> 4);
	cpu->segment[CS].s.base = cpu->msr.smbase;
	cpu->rip = ENTRY;
	cpu->rflags = RFLAGS_FIXED;
	flags_set(&cpu->lazy, 0);
	cpu->cr0 &= ~(uint64_t)(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	cpu->cr4 = cpu->efer = 0;
	cpu->dr7 = DR7_FIXED_1;
}

void smm_enter(struct cpu *cpu)
{
	struct area area;

	if (!cpu_has(cpu, FEATURE_lm))
		cpu_unmodelled(cpu, "SMI on a processor without 64-bit mode");
	cpu_note(cpu, "SMI");
	vmx_suspend(cpu);
	save(cpu, &area);
	save_guest(cpu, &area);
	area_store(cpu, &area);
	cpu->smm = cpu->nmi_blocked = true;
	cpu->activity = ACTIVITY_ACTIVE;
	cpu->wait.armed = false;
	cpu->dr6_pending = 0;
	cpu->step_tf = false;
	enter_handler(cpu);
	changed(cpu);
}

/* ---- leaving ---- */

static bool cr0_valid(uint64_t cr0)
{
	if (CHECK(SMM_CR0, (cr0 & CR0_PG && !(cr0 & CR0_PE)) || (cr0 & CR0_NW && !(cr0 & CR0_CD))))
		return false;
	return !CHECK(SMM_CR0, cr0 >> 32);
}

/* LMA is what LME and PG make it, and needs PAE. */
static bool modes_valid(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	bool long_mode = efer & EFER_LME && cr0 & CR0_PG;

	if (CHECK(SMM_LONG_MODE, long_mode != !!(efer & EFER_LMA) || (long_mode && !(cr4 & CR4_PAE))))
		return false;
	return !CHECK(SMM_PCIDE, cr4 & CR4_PCIDE && !(efer & EFER_LMA));
}

/* What sends RSM into shutdown (SDM 3C 32.3.2; APM 2 10.3.5). */
static bool state_valid(struct cpu *cpu, const struct area *area)
{
	const struct map *map = map_of(cpu);
	uint64_t cr0 = get(area, map->cr0, 8), cr4 = get(area, map->cr4, 8), efer = get(area, map->efer, 8);

	/* A guest of AMD-V may have been in paged real mode (APM 2 15.19). */
	if (CHECK(SMM_VMXE, !is_amd(cpu) && cr4 & CR4_VMXE))
		return false;
	if (!cr0_valid(cpu->msr.svm_smm_guest ? cr0 | CR0_PE : cr0) || CHECK(SMM_CR4, cr4 & ~control_cr4_valid(cpu)))
		return false;
	if (CHECK(SMM_EFER, efer & ~control_efer_valid(cpu)) || !modes_valid(cr0, cr4, efer))
		return false;
	return !CHECK(SMM_DEBUG,
		      is_amd(cpu) && (get(area, map->dr6, 8) >> 32 || get(area, map->dr7, 8) >> 32));
}

static void restore_control(struct cpu *cpu, const struct area *area)
{
	const struct map *map = map_of(cpu);
	uint64_t rflags = get(area, map->rflags, 8);

	cpu->cr0 = get(area, map->cr0, 8) | CR0_ET;
	cpu->cr3 = get(area, map->cr3, 8);
	cpu->cr4 = get(area, map->cr4, 8);
	cpu->efer = get(area, map->efer, 8);
	cpu->dr6 = (get(area, map->dr6, 8) & 0xffffffff) | DR6_FIXED_1;
	cpu->dr7 = (get(area, map->dr7, 8) & 0xffffffff) | DR7_FIXED_1;
	/* There is no virtual-8086 mode in IA-32e mode. */
	if (cpu->efer & EFER_LMA)
		rflags &= ~(uint64_t)RFLAGS_VM;
	cpu->rflags = (rflags & RFLAGS_DEFINED & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_FIXED;
	flags_set(&cpu->lazy, rflags);
}

static void restore(struct cpu *cpu, const struct area *area)
{
	const struct map *map = map_of(cpu);

	for (unsigned i = 0; i < GPR_COUNT; i++)
		cpu->reg[i] = get(area, map->gpr[i], 8);
	cpu->rip = get(area, map->rip, 8);
	restore_control(cpu, area);
	restore_segments(cpu, area);
	restore_tables(cpu, area);
	restart_io(cpu, area);
	cpu->msr.smbase = get(area, SMBASE(is_amd(cpu)), 4);
	cpu->nmi_blocked = get(area, map->nmi, 1) & 1;
	cpu->smm = false;
	if (get(area, map->halt_restart, 1) & 1)
		cpu->activity = ACTIVITY_HLT;
}

/* PAE paging without IA-32e mode has its PDPTE registers loaded with CR3. */
static bool load_pdptes(struct cpu *cpu)
{
	if (!(cpu->cr0 & CR0_PG) || !(cpu->cr4 & CR4_PAE) || cpu->efer & EFER_LMA)
		return true;
	return !CHECK(SMM_PDPTE, !pdptes_load(cpu, cpu->cr3));
}

void smm_resume(struct cpu *cpu)
{
	struct area area;

	area_load(cpu, &area);
	if (!state_valid(cpu, &area)) {
		cpu->activity = ACTIVITY_SHUTDOWN;
		return;
	}
	resume_guest(cpu, &area);
	restore(cpu, &area);
	vmx_resume(cpu);
	if (!load_pdptes(cpu)) {
		/* It never came back to a guest, whose exits would wake it. */
		cpu->msr.vmx_on = cpu->msr.vmx_guest = false;
		cpu->activity = ACTIVITY_SHUTDOWN;
	}
	changed(cpu);
}
