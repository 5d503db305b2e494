/*
 * svm_test.c: random hosts of AMD-V and random guests of theirs. The host is in 64-bit mode, compatibility
 * mode or one of the legacy modes; its code is mostly AMD-V's instructions with operands that point at each
 * other's structures, and stores into VMCBs. Guests are in any mode, with and without nested tables, on
 * random code.
 *
 * Each round ends within its budget in a stop that has a name; nothing but what `unmodelled` below lists
 * stays unmodelled; and it ends alike whether it ran as traces or one instruction at a time, and whether its
 * state was saved and loaded between each two instructions.
 */
#define RAM 0x60000u
#include "fuzz/rig.h"

#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/state_table.h"
#include "x86/svm.h"

#define GDT        0x2000u
#define IDT64      0x3000u
#define IDT32      0x4000u
#define TSS        0x5000u
#define HANDLERS   0x7000u
#define HOST       0x8000u
#define GUEST      0x9000u
#define TABLES     0x10000u /* PML4, PDPT, PD, PT; PDPT of PAE; 32-bit PD, PT */
#define NESTED     0x18000u /* the same, of nested paging */
#define STACK      0x21000u
#define VMCBS      0x24000u
#define VMCB_COUNT 4u
#define HSAVE      0x28000u
#define IOPM       0x29000u
#define MSRPM      0x2c000u
#define SMRAM      0x30000u
#define BUDGET     160u

enum mode { REAL, VM86, FLAT32, PAGED32, PAE, COMPAT, LONG, PAGED_REAL, MODES };

/* ---- what is in memory ---- */

static void flip(uint32_t address, uint64_t bits)
{
	uint64_t value;

	memcpy(&value, image + address, 8);
	put(address, value ^ bits, 8);
}

/* Where structures may be: their own places, each other's, tables, code, the end of memory, no memory at all.
 */
static uint64_t place(struct fuzz *fuzz, uint64_t usual)
{
	static const uint64_t places[] = {VMCBS,
					  VMCBS + 0x1000,
					  HSAVE,
					  IOPM,
					  MSRPM,
					  TABLES,
					  TABLES + 0x3000,
					  NESTED,
					  NESTED + 0x3000,
					  HOST,
					  GUEST,
					  GDT,
					  RAM - 0x1000,
					  RAM - 0x2000,
					  RAM,
					  0xfee00000,
					  0xfec00000,
					  1ull << 32,
					  0xfffffffff000,
					  0xffffffffff000,
					  1ull << 52,
					  1ull << 63,
					  0,
					  STACK - 0x1000,
					  IDT64};
	uint64_t at = usual;

	if (fuzz_one_in(fuzz, 6))
		at = places[fuzz_below(fuzz, sizeof(places) / sizeof(places[0]))];
	return fuzz_one_in(fuzz, 24) ? at + fuzz_below(fuzz, 0x1000) : at;
}

/*
 * Whether each VMRUN of this round drops all translations: else a guest may find those of another with its
 * ASID, which loading a state has dropped.
 */
static bool flushes;

static uint64_t a_vmcb(struct fuzz *fuzz)
{
	uint64_t usual = VMCBS + 0x1000 * fuzz_below(fuzz, VMCB_COUNT);

	return flushes ? usual : place(fuzz, usual);
}

static const uint16_t fields[] = {
	0x000, 0x004, 0x008, 0x00c, 0x010, 0x014, 0x03c, 0x040, 0x048, 0x050, 0x058, 0x05c, 0x060,
	0x068, 0x090, 0x0a8, 0x0b0, 0x0b8, 0x0c0, 0x0c8, 0x400, 0x404, 0x408, 0x410, 0x414, 0x418,
	0x420, 0x424, 0x428, 0x430, 0x438, 0x440, 0x448, 0x450, 0x458, 0x460, 0x464, 0x468, 0x470,
	0x474, 0x478, 0x480, 0x484, 0x488, 0x490, 0x494, 0x498, 0x4c8, 0x4d0, 0x548, 0x550, 0x558,
	0x560, 0x568, 0x570, 0x578, 0x5d8, 0x5f8, 0x600, 0x608, 0x610, 0x618, 0x620, 0x628, 0x630,
	0x638, 0x640, 0x668, 0x670, 0x678, 0x680, 0x688, 0x690,
};
static unsigned a_field(struct fuzz *fuzz)
{
	unsigned field = fields[fuzz_below(fuzz, sizeof(fields) / sizeof(fields[0]))];

	return flushes && field >= VMCB_ASID && field <= VMCB_TLB_CONTROL ? 0 : field;
}

static uint8_t *emit(uint8_t *at, const void *bytes, size_t size)
{
	memcpy(at, bytes, size);
	return at + size;
}

/* MOV EAX, imm32. */
static uint8_t *emit_rax(uint8_t *at, uint64_t value, bool wide)
{
	if (wide && value >> 32) {
		*at++ = 0x48;
		*at++ = 0xb8;
		return emit(at, &value, 8);
	}
	*at++ = 0xb8;
	return emit(at, &value, 4);
}

/* The host: VMRUNs, AMD-V's other instructions, stores into VMCBs and page tables, over and over. */
static void make_host(struct fuzz *fuzz, bool wide)
{
	uint8_t *at = image + HOST, *end = image + HOST + 0x400;
	uint32_t value, offset;

	while (at < end) {
		switch (fuzz_below(fuzz, 12)) {
		case 0:
		case 1:
		case 2:
		case 3: /* mov; VMRUN */
			at = emit_rax(at, a_vmcb(fuzz), wide);
			at = emit(at, "\x0f\x01\xd8", 3);
			break;
		case 4: /* mov; VMLOAD to INVLPGA */
		case 5:
			at = emit_rax(at, a_vmcb(fuzz), wide);
			*at++ = 0x0f;
			*at++ = 0x01;
			*at++ = (uint8_t)(0xd9 + fuzz_below(fuzz, 7));
			break;
		case 6: /* mov dword [rbx + field], value */
		case 7:
			offset = a_field(fuzz) + 0x1000 * fuzz_below(fuzz, 2) + 4 * fuzz_below(fuzz, 2);
			value = fuzz_one_in(fuzz, 2) ? (uint32_t)place(fuzz, fuzz_next(fuzz) & 0xfff)
						     : 1u << fuzz_below(fuzz, 32);
			*at++ = fuzz_one_in(fuzz, 2) ? 0xc7 : 0x81; /* MOV, ADD */
			*at++ = 0x83;
			at = emit(at, &offset, 4);
			at = emit(at, &value, 4);
			break;
		case 8: /* WRMSR of what the instruction's MSRs are */
			value = fuzz_one_in(fuzz, 2)   ? MSR_VM_HSAVE_PA
				: fuzz_one_in(fuzz, 2) ? MSR_TSC_RATIO
						       : MSR_DEBUGCTL;
			*at++ = 0xb9;
			at = emit(at, &value, 4);
			at = emit_rax(at,
				      value == MSR_DEBUGCTL ? fuzz_below(fuzz, 4)
							    : (uint32_t)place(fuzz, HSAVE),
				      false);
			at = emit(at, "\x31\xd2\x0f\x30", 4);
			break;
		case 9: /* an entry of some table */
			offset = (fuzz_one_in(fuzz, 2) ? TABLES : NESTED) - VMCBS +
				 0x1000 * fuzz_below(fuzz, 7) + 8 * fuzz_below(fuzz, 0x60);
			value = 1u << fuzz_below(fuzz, 13);
			*at++ = 0x81;
			*at++ = 0xb3; /* XOR */
			at = emit(at, &offset, 4);
			at = emit(at, &value, 4);
			break;
		default: at = emit(at, "\x90\xfb\xfa\x90" + fuzz_below(fuzz, 4), 1); break;
		}
	}
	*at++ = 0xe9;
	value = (uint32_t)(image + HOST - (at + 4));
	emit(at, &value, 4);
}

/* Bytes that are more often sensitive instructions than chance would have it. */
static void make_code(struct fuzz *fuzz, uint32_t from, uint32_t size)
{
	static const uint8_t one[] = {0xf4, 0xfa, 0xfb, 0x9c, 0x9d, 0xcf, 0xcc, 0xce, 0xf1,
				      0x6c, 0x6d, 0x6e, 0x6f, 0xec, 0xed, 0xee, 0xef, 0xcb,
				      0x1e, 0x1f, 0x17, 0x90, 0x50, 0x58, 0xa4, 0xab};
	static const uint8_t two[] = {0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x20, 0x21,
				      0x22, 0x23, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0xa2, 0xaa, 0xae, 0xc7};
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x41};
	uint8_t *at = image + from, *end = image + from + size - 16;

	for (uint8_t *p = at; p < end + 16; p++)
		*p = (uint8_t)fuzz_next(fuzz);
	while (at < end) {
		if (fuzz_one_in(fuzz, 5))
			*at++ = prefixes[fuzz_below(fuzz, sizeof(prefixes))];
		switch (fuzz_below(fuzz, 6)) {
		case 0: *at++ = one[fuzz_below(fuzz, sizeof(one))]; break;
		case 1:
		case 2:
			*at++ = 0x0f;
			*at++ = two[fuzz_below(fuzz, sizeof(two))];
			*at++ = (uint8_t)(fuzz_next(fuzz) | (fuzz_one_in(fuzz, 2) ? 0xc0 : 0));
			break;
		case 3: /* AMD-V's own, XGETBV, SWAPGS, RDTSCP, MONITOR and the like */
			*at++ = 0x0f;
			*at++ = 0x01;
			*at++ = (uint8_t)(0xc0 + fuzz_below(fuzz, 0x40));
			break;
		case 4: /* loads and stores around RBX and RSI */
			*at++ = (uint8_t)(fuzz_one_in(fuzz, 2) ? 0x8b : 0x89);
			*at++ = (uint8_t)(fuzz_one_in(fuzz, 2) ? 0x03 : 0x46);
			*at++ = (uint8_t)fuzz_next(fuzz);
			break;
		default: at += fuzz_below(fuzz, 4); break;
		}
	}
}

/* In SMM: protected mode and AMD-V on, some VMRUN or other instruction of it, RSM; or just anything. */
static void make_smm_handler(struct fuzz *fuzz)
{
	static const uint8_t on[] = {0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01, 0x0f, 0x22,
				     0xc0, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x66, 0xb8,
				     0x00, 0x10, 0x00, 0x00, 0x66, 0x31, 0xd2, 0x0f, 0x30};
	uint8_t *at = image + SMRAM + 0x8000;

	make_code(fuzz, SMRAM + 0x8000, 0x80);
	if (fuzz_one_in(fuzz, 2))
		at = emit(at, on, sizeof(on));
	for (unsigned n = fuzz_below(fuzz, 4); n; n--) {
		*at++ = 0x66;
		at = emit_rax(at, (uint32_t)a_vmcb(fuzz), false);
		*at++ = 0x67;
		*at++ = 0x0f;
		*at++ = 0x01;
		*at++ = (uint8_t)(fuzz_one_in(fuzz, 2) ? 0xd8 : 0xd8 + fuzz_below(fuzz, 8));
	}
	emit(at, "\x0f\xaa", 2);
}

static void make_tables(struct fuzz *fuzz)
{
	static const uint64_t segments[] = {0,
					    0x00af9b000000ffff,
					    0x00cf93000000ffff,
					    0x00cf9b000000ffff,
					    0x00cffb000000ffff,
					    0x00cff3000000ffff,
					    0x00affb000000ffff,
					    0x00009b000000ffff,
					    0x000093000000ffff};

	for (unsigned i = 0; i < 64; i++)
		put(GDT + 8 * i, i < 9 ? segments[i] : fuzz_next(fuzz), 8);
	put(GDT + 0x80, 0x00008b0000000000ull | TSS << 16 | 0x2ff, 8);
	put(GDT + 0x88, 0, 8);
	rig_put_handlers(fuzz, HANDLERS, true);
	rig_put_handlers(fuzz, HANDLERS + 0x200, false);
	for (unsigned i = 0; i < 256; i++) {
		uint64_t at = i < 32 ? HANDLERS + 16 * i : GUEST + fuzz_below(fuzz, 0x400);
		uint64_t kind = fuzz_one_in(fuzz, 64) ? fuzz_below(fuzz, 256) : 0xee;

		put(IDT64 + 16 * i, (at & 0xffff) | 8ull << 16 | kind << 40, 8);
		put(IDT64 + 16 * i + 8, 0, 8);
		put(IDT32 + 8 * i, ((i < 32 ? at + 0x200 : at) & 0xffff) | 0x18ull << 16 | kind << 40, 8);
		put(4 * i, (uint64_t)(GUEST / 16) << 16 | fuzz_below(fuzz, 0x400), 4);
	}
	put(TSS + TSS32_ESP(0), STACK, 4);
	put(TSS + TSS32_SS(0), 0x10, 4);
	put(TSS + TSS64_RSP(0), STACK, 8);
}

/*
 * Tables of each kind at @at: the first 2 MiB as they are, user pages, accessed and dirty, as when these
 * flags are set is the processor's affair; with @odd, some entries by chance.
 */
#define ENTRY (PTE_P | PTE_W | PTE_U | PTE_A | PTE_D)
static void make_paging(struct fuzz *fuzz, uint32_t at, bool odd)
{
	put(at, (at + 0x1000) | ENTRY, 8);
	put(at + 0x1000, (at + 0x2000) | ENTRY, 8);
	put(at + 0x2000, (at + 0x3000) | ENTRY, 8);
	put(at + 0x2008, 0x200000 | ENTRY | PTE_PS, 8);
	put(at + 0x4000, (at + 0x2000) | 1, 8);
	put(at + 0x5000, (at + 0x6000) | ENTRY, 4);
	for (uint32_t i = 0; i < 512; i++) {
		put(at + 0x3000 + 8 * i, (uint64_t)i << 12 | ENTRY, 8);
		put(at + 0x6000 + 4 * i, (uint64_t)i << 12 | ENTRY, 4);
	}
	for (unsigned n = odd ? fuzz_below(fuzz, 6) : 0; n; n--) {
		flip(at + 0x3000 + 8 * fuzz_below(fuzz, 0x60), 1ull << fuzz_below(fuzz, 64));
		flip(at + 0x6000 + 4 * fuzz_below(fuzz, 0x60), 1ull << fuzz_below(fuzz, 32));
		if (fuzz_one_in(fuzz, 4))
			flip(at + 0x1000 * fuzz_below(fuzz, 3), 1ull << fuzz_below(fuzz, 64));
	}
}

/* ---- guests ---- */

static void vmcb_segment(uint32_t at, uint16_t selector, unsigned attributes, uint32_t limit, uint64_t base)
{
	put(at, selector, 2);
	put(at + 2, attributes, 2);
	put(at + 4, limit, 4);
	put(at + 8, base, 8);
}

static void make_guest_state(struct fuzz *fuzz, uint32_t v, enum mode mode)
{
	bool small = mode == REAL || mode == VM86 || mode == PAGED_REAL,
	     wide = mode == LONG || mode == COMPAT;
	unsigned cpl = mode == VM86 ? 3 : small || fuzz_one_in(fuzz, 2) ? 0 : 3;
	unsigned dpl = mode == REAL || mode == PAGED_REAL ? 0 : cpl << 5;
	uint64_t cr0 = CR0_ET | CR0_NE | (fuzz_next(fuzz) & (CR0_MP | CR0_WP | CR0_AM));

	if (mode != REAL && mode != PAGED_REAL)
		cr0 |= CR0_PE;
	if (mode != REAL && mode != FLAT32)
		cr0 |= CR0_PG;
	for (uint32_t s = VMCB_ES; s <= VMCB_GS; s += 0x10)
		vmcb_segment(v + s,
			     small ? GUEST / 16
			     : cpl ? 0x2b
				   : 0x10,
			     (small ? 0x093u : 0xc93u) | dpl, small ? 0xffff : 0xffffffff, small ? GUEST : 0);
	if (!small)
		vmcb_segment(v + VMCB_CS,
			     (uint16_t)(mode == LONG ? (cpl ? 0x33 : 8)
					: cpl        ? 0x23
						     : 0x18),
			     (mode == LONG ? 0xa9bu : 0xc9bu) | dpl, 0xffffffff, 0);
	else if (mode != VM86)
		vmcb_segment(v + VMCB_CS, GUEST / 16, 0x09b, 0xffff, GUEST);
	vmcb_segment(v + VMCB_GDTR, 0, 0, 0x1ff, GDT);
	vmcb_segment(v + VMCB_IDTR, 0, 0, small && mode != VM86 ? 0x3ff : 0xfff,
		     small && mode != VM86 ? 0
		     : wide                ? IDT64
					   : IDT32);
	vmcb_segment(v + VMCB_TR, 0x80, 0x08b, 0x2ff, TSS);
	vmcb_segment(v + VMCB_LDTR, 0, 0, 0, 0);
	put(v + VMCB_CPL, cpl, 1);
	put(v + VMCB_EFER,
	    EFER_SVME | (wide ? EFER_LME | EFER_LMA : 0) | (fuzz_next(fuzz) & (EFER_SCE | EFER_NXE)), 8);
	put(v + VMCB_CR0, cr0, 8);
	put(v + VMCB_CR4,
	    (mode == PAE || wide ? CR4_PAE : 0) |
		    (fuzz_next(fuzz) & (CR4_VME | CR4_DE | CR4_PGE | CR4_OSFXSR)),
	    8);
	put(v + VMCB_CR3, wide ? TABLES : mode == PAE ? TABLES + 0x4000 : TABLES + 0x5000, 8);
	put(v + VMCB_DR6, DR6_FIXED_1, 8);
	put(v + VMCB_DR7, DR7_FIXED_1, 8);
	put(v + VMCB_RFLAGS,
	    RFLAGS_FIXED | (fuzz_next(fuzz) & 0x3ed5) | (mode == VM86 ? RFLAGS_VM : 0) |
		    (fuzz_one_in(fuzz, 8) ? RFLAGS_TF : 0),
	    8);
	put(v + VMCB_RIP, (small ? 0 : GUEST) + fuzz_below(fuzz, 0x100), 8);
	put(v + VMCB_RSP, small ? 0x7ff0 : STACK - 0x80, 8);
	put(v + VMCB_RAX, a_vmcb(fuzz), 8);
	put(v + VMCB_G_PAT, 0x0007040600070406ull, 8);
	put(v + VMCB_STAR, 0x0010000800000000ull, 8);
	put(v + VMCB_LSTAR, GUEST, 8);
	put(v + VMCB_SYSENTER_CS, 8, 8);
	put(v + VMCB_SYSENTER_EIP, GUEST, 8);
	put(v + VMCB_SYSENTER_ESP, STACK, 8);
}

static uint64_t an_event(struct fuzz *fuzz)
{
	static const uint8_t types[] = {0, 2, 3, 3, 3, 4, 1, 7};
	uint64_t type = types[fuzz_below(fuzz, 8)];

	return SVM_EVENT_VALID | type << SVM_EVENT_TYPE_SHIFT | fuzz_below(fuzz, type == 3 ? 32 : 256) |
	       (fuzz_one_in(fuzz, 2) ? SVM_EVENT_ERROR_VALID | fuzz_next(fuzz) << 32 : 0);
}

static void make_vmcb(struct fuzz *fuzz, uint32_t v, enum mode host)
{
	static const uint32_t densities[] = {0, 0xffffffff, 1};
	bool nested = fuzz_one_in(fuzz, 2);

	for (unsigned i = 0; i < VMCB_INTERCEPT_WORDS; i++)
		put(v + VMCB_INTERCEPTS(i),
		    fuzz_one_in(fuzz, 3) ? densities[fuzz_below(fuzz, 3)]
					 : (uint32_t)(fuzz_next(fuzz) & fuzz_next(fuzz)),
		    4);
	flip(v + VMCB_INTERCEPTS(4), fuzz_one_in(fuzz, 16) ? 1 : 0);
	image[v + VMCB_INTERCEPTS(4)] |= fuzz_one_in(fuzz, 16) ? 0 : 1;
	put(v + VMCB_IOPM_BASE, place(fuzz, IOPM), 8);
	put(v + VMCB_MSRPM_BASE, place(fuzz, MSRPM), 8);
	put(v + VMCB_TSC_OFFSET, fuzz_next(fuzz), 8);
	put(v + VMCB_ASID, fuzz_one_in(fuzz, 16) ? fuzz_below(fuzz, 3) : 1 + fuzz_below(fuzz, 4), 4);
	put(v + VMCB_TLB_CONTROL, flushes ? 1 : fuzz_below(fuzz, 8), 1);
	put(v + VMCB_INTERRUPT, fuzz_one_in(fuzz, 2) ? 0 : fuzz_next(fuzz) & 0xff0711fb3full, 8);
	put(v + VMCB_INTERRUPT_SHADOW, fuzz_below(fuzz, 4), 8);
	put(v + VMCB_NESTED, nested, 8);
	put(v + VMCB_NCR3,
	    place(fuzz, NESTED + (host == LONG || host == COMPAT ? 0
				  : host == PAE                  ? 0x4000
								 : 0x5000)),
	    8);
	put(v + VMCB_EVENTINJ, fuzz_one_in(fuzz, 3) ? an_event(fuzz) : 0, 8);
	put(v + VMCB_NRIP, GUEST + fuzz_below(fuzz, 0x100), 8);
	put(v + VMCB_VIRTUAL, fuzz_below(fuzz, 4), 8);
	put(v + VMCB_CLEAN, fuzz_next(fuzz), 4);
	put(v + VMCB_PAUSE_COUNT, fuzz_below(fuzz, 3), 2);
	make_guest_state(fuzz, v, (enum mode)fuzz_below(fuzz, MODES));
	for (unsigned n = fuzz_one_in(fuzz, 2) ? 0 : fuzz_below(fuzz, 4); n; n--) {
		if (fuzz_one_in(fuzz, 2))
			flip(v + a_field(fuzz), 1ull << fuzz_below(fuzz, 64));
		else
			put(v + a_field(fuzz), fuzz_one_in(fuzz, 2) ? fuzz_next(fuzz) : place(fuzz, GUEST),
			    8);
	}
}

/* ---- the host's registers ---- */

static struct segment flat(uint32_t attributes, uint16_t selector)
{
	return (struct segment){.limit = 0xffffffff,
				.selector = selector,
				.attributes = attributes | SEG_P | SEG_S | SEG_ACCESSED | SEG_G};
}

static void make_state(struct fuzz *fuzz, struct vcpu_state *s, enum mode mode)
{
	bool wide = mode == LONG || mode == COMPAT;

	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = (fuzz_one_in(fuzz, 2) ? fuzz_below(fuzz, RAM) : fuzz_next(fuzz)) &
			    (mode == LONG ? ~0ull : 0xffffffff);
	s->gpr[RBX] = VMCBS;
	s->gpr[RSP] = STACK;
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		s->segment[i] = flat(SEG_WRITABLE | SEG_DB, 0x10);
	s->segment[CS] =
		flat(SEG_CODE | SEG_READABLE | (mode == LONG ? SEG_L : SEG_DB), mode == LONG ? 8 : 0x18);
	s->rip = HOST;
	s->rflags = RFLAGS_FIXED | (fuzz_next(fuzz) & 0xad5) | (fuzz_one_in(fuzz, 8) ? RFLAGS_TF : 0);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | (mode == FLAT32 ? 0 : CR0_PG);
	s->cr3 = wide ? TABLES : mode == PAE ? TABLES + 0x4000 : TABLES + 0x5000;
	s->cr4 = CR4_OSFXSR | (wide || mode == PAE ? CR4_PAE : 0);
	s->pdpte[0] = mode == PAE ? (TABLES + 0x2000) | 1 : 0;
	s->efer = EFER_SVME | (wide ? EFER_LME | EFER_LMA : 0) | (fuzz_next(fuzz) & (EFER_SCE | EFER_NXE));
	s->gdtr = (struct table_register){GDT, 0x1ff};
	s->idtr = (struct table_register){wide ? IDT64 : IDT32, 0xfff};
	s->tr = (struct segment){
		.base = TSS, .limit = 0x2ff, .selector = 0x80, .attributes = SEG_P | TYPE_TSS_BUSY};
	s->vm_hsave_pa = place(fuzz, HSAVE) & 0xfffffffff000ull;
	s->debugctl = fuzz_one_in(fuzz, 8) ? fuzz_below(fuzz, 4) : 0;
	s->smbase = SMRAM;
	s->lstar = HOST;
	s->nmi_pending = fuzz_one_in(fuzz, 8);
	s->svm_gif_clear = fuzz_one_in(fuzz, 2);
	for (unsigned i = 0; i < 8; i++)
		s->st[i] = (struct x87_register){fuzz_next(fuzz), (uint16_t)fuzz_next(fuzz)};
	s->fcw = 0x37f;
}

/* ---- rounds ---- */

static struct {
	uint64_t guests, compared;
	bool smi; /* one is pending when the round begins */
} one;

/* Saves the processor and loads it, with what struct vcpu_state has no field for (engine.h, chip()). */
static void reload(const struct engine_ops *ops, struct vcpu_state *state)
{
	const struct state_table *table;
	uint8_t *latches = ops->chip(rig.engine, 1, &table);
	uint8_t kept[32][8];

	assert_in_range(table->count, 1, 32);
	assert_int_equal(ops->chips_fetch(rig.engine), 0);
	ops->vcpu_save(rig.vcpu, state);
	for (unsigned i = 0; i < table->count; i++)
		memcpy(kept[i], latches + table->field[i].offset, table->field[i].size);
	assert_int_equal(ops->vcpu_load(rig.vcpu, state), 0);
	for (unsigned i = 0; i < table->count; i++)
		memcpy(latches + table->field[i].offset, kept[i], table->field[i].size);
	table->loaded(latches);
}

static void raise_smi(const struct engine_ops *ops)
{
	const struct state_table *table;
	uint8_t *latches = ops->chip(rig.engine, 1, &table);

	assert_int_equal(ops->chips_fetch(rig.engine), 0);
	for (unsigned i = 0; i < table->count; i++)
		if (!strcmp(table->field[i].name, "smi_pending"))
			latches[table->field[i].offset] = true;
	table->loaded(latches);
}

enum way { AT_ONCE, TRACED, IN_PIECES };

/* For BUDGET; IN_PIECES: saved and loaded behind each instruction. */
static void run(const struct vcpu_state *state, enum way way, struct rig_result *result)
{
	const struct engine_ops *ops = rig.engine->ops;
	enum engine_exit exit = ENGINE_BUDGET;

	rig_begin(state, way == TRACED || (way == IN_PIECES && getenv("FUZZ_PIECES")));
	if (one.smi)
		raise_smi(ops);
	if (way != IN_PIECES)
		exit = ops->run(rig.engine, BUDGET);
	while (way == IN_PIECES && rig_retired() < BUDGET) {
		exit = ops->run(rig.engine, 1);
		if (exit != ENGINE_BUDGET)
			break;
		reload(ops, &result->state);
	}
	rig_end(exit, result);
}

/* Whether bits 6:5 of this byte are accessed and dirty flags, which a walk that was cached need not set
 * again. */
static bool is_table(unsigned address)
{
	return address >= TABLES && address < STACK - 0x1000 && address % 4 == 0;
}

static void compare_results(uint64_t round, const char *way, const struct rig_result *a,
			    const struct rig_result *b)
{
	rig_compare(round, way, a, b);
	for (unsigned i = 0; i < RAM; i++)
		if ((found[i] ^ ram[i]) & (is_table(i) ? 0x9f : 0xff))
			fail_msg("FUZZ_ROUND=%llu: %s at 0x%x: %02x %02x, was %02x",
				 (unsigned long long)round, way, i, found[i], ram[i], image[i]);
}

/* What may be left unmodelled: of no concern to AMD-V. */
static bool may_be_unmodelled(const char *why)
{
	static const char *const unmodelled[] = {
		"FERR#",          "performance-monitoring event",
		"McStatusWrEn",   "HWCR.",
		"SMM_ADDR",
		"instruction at", /* encodings that no manual has, as DF C0 */
	};

	for (unsigned i = 0; i < sizeof(unmodelled) / sizeof(unmodelled[0]); i++)
		if (strstr(why, unmodelled[i]))
			return true;
	return false;
}

/*
 * Whether a translation that is kept may differ from memory: a load drops what was cached, so that such
 * rounds are not compared. Accessed and dirty flags aside.
 */
static bool tables_changed(void)
{
	for (unsigned i = TABLES; i < STACK - 0x1000; i++)
		if ((image[i] ^ found[i]) & (is_table(i) ? 0x9f : 0xff))
			return true;
	return false;
}

static void round_of_worlds(struct fuzz *fuzz, uint64_t round)
{
	static const enum mode hosts[] = {LONG, LONG, LONG, LONG, COMPAT, PAE, PAGED32, FLAT32};
	static struct rig_result fast, other;
	enum mode mode = hosts[round % 8];
	struct vcpu_state state = rig.reset;

	flushes = round % 16 >= 8;
	memset(image, 0, sizeof(image));
	for (unsigned i = SMRAM; i < RAM; i += 8)
		put(i, fuzz_below(fuzz, RAM), 8);
	make_tables(fuzz);
	make_paging(fuzz, TABLES, false);
	make_paging(fuzz, NESTED, fuzz_one_in(fuzz, 2));
	make_host(fuzz, mode == LONG);
	make_code(fuzz, GUEST, 0x800);
	make_smm_handler(fuzz);
	one.smi = fuzz_one_in(fuzz, 2);
	for (unsigned i = 0; i < VMCB_COUNT; i++)
		make_vmcb(fuzz, VMCBS + 0x1000 * i, mode);
	for (unsigned i = fuzz_below(fuzz, 64); i; i--)
		image[IOPM + fuzz_below(fuzz, 0x5000)] |= (uint8_t)fuzz_next(fuzz);
	make_state(fuzz, &state, mode);
	run(&state, AT_ONCE, &fast);
	memcpy(found, ram, RAM);
	one.guests += fast.state.svm_guest;
	if (fast.exit == ENGINE_FAILED && !may_be_unmodelled(fast.failure))
		fail_msg("FUZZ_ROUND=%llu: %s", (unsigned long long)round, fast.failure);
	/* Behind the last instruction: an exit, the trap of VMRUN, and what faults in their delivery. */
	rig_count(round, &fast, BUDGET + 8);
	run(&state, TRACED, &other);
	if (rig.rewritten)
		return;
	compare_results(round, "one by one", &fast, &other);
	if (!flushes || tables_changed())
		return;
	one.compared++;
	run(&state, IN_PIECES, &other);
	compare_results(round, "saved and loaded", &fast, &other);
}

static void random_hosts_and_guests(void **state)
{
	(void)state;
	memset(&one, 0, sizeof(one));
	rig_open("amd,-rdrand,-rdseed");
	fuzz_rounds(4000, round_of_worlds);
	print_message("%llu instructions: %u budget (%llu in a guest), %u halt, %u shutdown, %u not "
		      "modelled; %llu rounds in pieces\n",
		      (unsigned long long)rig.retired, rig.exits[ENGINE_BUDGET],
		      (unsigned long long)one.guests, rig.exits[ENGINE_HALTED], rig.exits[ENGINE_SHUTDOWN],
		      rig.exits[ENGINE_FAILED], (unsigned long long)one.compared);
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_hosts_and_guests)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
