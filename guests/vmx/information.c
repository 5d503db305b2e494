/*
 * information.c: what exits tell of an instruction's operands: qualification, instruction information, length and
 * linear address, for each form of ModRM and SIB, address size, segment and register (SDM 3C 28.2.1, 28.2.5, tables 28-3 to
 * 28-5, 28-8 to 28-14).
 *
 * A case runs many forms of one instruction: each is an entry of its own, and a check is named by its form's number.
 */
#include "information.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"

enum told { TABLE, SELECTOR, REG2, PLAIN, LINEAR, SOURCE };

static const struct informed {
	uint8_t prefix, length, opcode, reg;
	enum told told;
	uint32_t exit;
} insns[] = {
#define INFORMED(name, prefix, length, opcode, reg, modes, told, exit) {prefix, length, opcode, reg, told, exit},
	INFORMED_INSNS(INFORMED)
#undef INFORMED
};

#define NONE 16u

/* A memory operand: its bytes from ModRM on, what it is made of, and its registers' REX bits. */
struct operand {
	uint8_t bytes[8], rex;
	unsigned length, base, index, scale, segment;
	uint64_t displacement;
	bool rip, swapped; /* relative to RIP; one register of 16-bit addressing, which may be base or index */
};

#define REX_B 1u
#define REX_X 2u
#define REX_R 4u

static void put_displacement(struct operand *o, unsigned size, int32_t value)
{
	o->displacement = (uint64_t)(int64_t)value;
	for (unsigned i = 0; i < size; i++)
		o->bytes[o->length++] = (uint8_t)((uint32_t)value >> 8 * i);
}

static unsigned displacement_size(unsigned mod, bool narrow) { return mod == 1 ? 1 : mod == 2 ? narrow ? 2 : 4 : 0; }

static int32_t displacement_of(unsigned mod) { return mod == 1 ? -8 : mod == 2 ? 0x40 : 0; }

/* 16-bit addressing: @form is mod and rm. @at: an offset that can be accessed. */
static bool form_16(struct operand *o, unsigned form, unsigned reg, uint32_t at)
{
	static const uint8_t bases[] = {RBX, RBX, RBP, RBP, NONE, NONE, RBP, RBX};
	static const uint8_t indices[] = {RSI, RDI, RSI, RDI, RSI, RDI, NONE, NONE};
	unsigned mod = form >> 3, rm = form & 7;

	if (mod > 2)
		return false;
	o->bytes[o->length++] = (uint8_t)(mod << 6 | (reg & 7) << 3 | rm);
	if (!mod && rm == 6) {
		put_displacement(o, 2, (int32_t)at);
		return true;
	}
	o->base = bases[rm];
	o->index = indices[rm];
	o->swapped = rm == 4 || rm == 5;
	o->segment = o->base == RBP ? SS : DS;
	put_displacement(o, displacement_size(mod, true), displacement_of(mod));
	return true;
}

#define FORMS_BASE  48u  /* a base, with three displacements */
#define FORMS_SIB   112u /* base and index, four scales */
#define FORMS_INDEX 128u /* an index alone */
#define FORMS       130u /* neither, in two encodings */

static void put_sib(struct operand *o, unsigned mod, unsigned reg, unsigned base, unsigned index, unsigned scale)
{
	o->bytes[o->length++] = (uint8_t)(mod << 6 | (reg & 7) << 3 | 4);
	o->bytes[o->length++] = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
	o->rex |= (uint8_t)((base & 8 ? REX_B : 0) | (index & 8 ? REX_X : 0));
}

static bool form_base(struct operand *o, unsigned form, unsigned reg)
{
	unsigned mod = form >> 4, base = form & 15;

	if (!mod && (base & 7) == 5)
		return false;
	o->base = base;
	if ((base & 7) == 4) {
		put_sib(o, mod, reg, base, 4, 0);
	} else {
		o->bytes[o->length++] = (uint8_t)(mod << 6 | (reg & 7) << 3 | (base & 7));
		o->rex |= base & 8 ? REX_B : 0;
	}
	put_displacement(o, displacement_size(mod, false), displacement_of(mod));
	return true;
}

/* 32- and 64-bit addressing, of @registers registers. */
static bool form_wide(struct operand *o, unsigned form, unsigned registers, unsigned reg, uint32_t at, bool long_mode)
{
	unsigned n = form & 15;

	if (form < FORMS_INDEX && n >= registers)
		return false;
	if (form < FORMS_BASE) {
		if (!form_base(o, form, reg))
			return false;
	} else if (form < FORMS_SIB) {
		if (n == 4)
			return false;
		o->scale = (form - FORMS_BASE) >> 4;
		o->index = n;
		o->base = (n + 3) % registers;
		put_sib(o, 1, reg, o->base, n, o->scale);
		put_displacement(o, 1, 8);
	} else if (form < FORMS_INDEX) {
		if (n == 4)
			return false;
		o->scale = n & 3;
		o->index = n;
		put_sib(o, 0, reg, 5, n, o->scale);
		put_displacement(o, 4, (int32_t)at);
	} else if (form == FORMS_INDEX) {
		put_sib(o, 0, reg, 5, 4, 0);
		put_displacement(o, 4, (int32_t)at);
	} else if (form == FORMS_INDEX + 1) {
		o->bytes[o->length++] = (uint8_t)((reg & 7) << 3 | 5);
		o->rip = long_mode;
		put_displacement(o, 4, long_mode ? 0x1400 : (int32_t)at);
	} else {
		return false;
	}
	o->segment = o->base == RSP || o->base == RBP ? SS : DS;
	return true;
}

/* ---- one instruction ---- */

static const uint8_t overrides[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}; /* ES to GS */
#define NO_OVERRIDE 6u

struct run {
	const struct informed *insn;
	struct operand o;
	unsigned mode, address_bits, override, reg;
	bool operand_prefix;
	uint8_t code[16];
	unsigned length;
};

static void put_byte(struct run *r, unsigned byte) { r->code[r->length++] = (uint8_t)byte; }

static void encode(struct run *r, bool other_size)
{
	unsigned rex = r->o.rex | (r->reg & 8 ? REX_R : 0);

	if (r->override != NO_OVERRIDE)
		put_byte(r, overrides[r->override]);
	if (other_size)
		put_byte(r, 0x67);
	if (r->operand_prefix)
		put_byte(r, 0x66);
	if (r->insn->prefix)
		put_byte(r, r->insn->prefix);
	if (rex)
		put_byte(r, 0x40 | rex);
	put_byte(r, 0x0f);
	if (r->insn->length == 3)
		put_byte(r, 0x38);
	put_byte(r, r->insn->opcode);
	for (unsigned i = 0; i < r->o.length; i++)
		put_byte(r, r->o.bytes[i]);
	if (r->override != NO_OVERRIDE)
		r->o.segment = r->override;
}

static uint64_t width_mask(unsigned bits) { return bits == 64 ? ~0ull : (1ull << bits) - 1; }

static uint64_t register_value(unsigned n) { return n == RSP ? vmx_read(VMCS_GUEST_RSP) : vmx_registers[n]; }

static uint64_t displacement(const struct run *r)
{
	uint64_t value = r->o.displacement;

	if (r->o.rip)
		value += vmx_read(VMCS_GUEST_RIP) + r->length;
	return value & width_mask(r->address_bits);
}

static uint64_t linear_address(const struct run *r)
{
	uint64_t offset = displacement(r);

	if (r->o.base != NONE)
		offset += register_value(r->o.base);
	if (r->o.index != NONE)
		offset += register_value(r->o.index) << r->o.scale;
	offset = (offset & width_mask(r->address_bits)) + vmx_read(VMCS_GUEST_ES_BASE + 2 * r->o.segment);
	return r->mode == MODE_LONG ? offset : (uint32_t)offset;
}

#define INFO_INDEX_BITS (15u << 18)
#define INFO_BASE_BITS  (15u << 23)
#define INFO_INVALID    (1u << 22 | 1u << 27)

/* The address' part; in *@mask what is defined. */
static uint32_t address_information(const struct run *r, uint32_t *mask)
{
	const struct operand *o = &r->o;
	uint32_t info = (r->address_bits == 16 ? 0u : r->address_bits == 32 ? 1u : 2u) << 7 | o->segment << 15;

	*mask = 7u << 7 | 7u << 15 | 1u << 10;
	/* In 64-bit mode the prefixes of ES, CS, SS and DS do nothing: what is told of them is left open. */
	if (r->mode == MODE_LONG && r->override < FS)
		*mask &= ~(7u << 15);
	if (o->swapped) /* the manual does not tell base from index there */
		return info;
	*mask |= INFO_INVALID;
	if (o->index == NONE) {
		info |= 1u << 22;
	} else {
		info |= o->index << 18 | o->scale;
		*mask |= INFO_INDEX_BITS | 3;
	}
	if (o->base == NONE) {
		info |= 1u << 27;
	} else {
		info |= o->base << 23;
		*mask |= INFO_BASE_BITS;
	}
	return info;
}

static void check_information(const struct run *r, unsigned form)
{
	bool wide = r->mode == MODE_PROT32 || r->mode == MODE_COMPAT;
	uint32_t mask, info = address_information(r, &mask);

	switch (r->insn->told) {
	case TABLE:
		if (r->mode != MODE_LONG) {
			mask |= 1u << 11;
			info |= wide != r->operand_prefix ? 1u << 11 : 0;
		}
		__attribute__((fallthrough));
	case SELECTOR:
		mask |= 3u << 28;
		info |= (uint32_t)r->insn->reg << 28;
		break;
	case REG2:
		mask |= 15u << 28;
		info |= r->reg << 28;
		break;
	default: break;
	}
	story_check_at("information", form, info & mask, vmx_read(VMCS_EXIT_INSTRUCTION_INFO) & mask);
	story_check_at("displacement", form, displacement(r),
		       vmx_read(VMCS_EXIT_QUALIFICATION) & width_mask(r->address_bits));
}

static void check_told(const struct run *r, unsigned form)
{
	uint64_t linear = linear_address(r), source;

	story_check_at("reason", form, r->insn->exit, vmx_reason());
	story_check_at("length", form, r->length, vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
	if (r->insn->told == LINEAR) {
		story_check_at("linear", form, linear, vmx_read(VMCS_EXIT_QUALIFICATION));
	} else if (r->insn->told == SOURCE) {
		source = *(volatile uint16_t *)(uintptr_t)linear;
		story_check_at("source", form, source << 16 | 1u << 6 | 3u << 4, vmx_read(VMCS_EXIT_QUALIFICATION));
		story_check_at("linear", form, linear, vmx_read(VMCS_GUEST_LINEAR_ADDRESS));
	} else {
		check_information(r, form);
	}
}

/* What makes it exit; LMSW by a bit that its source differs in, whatever it is: both have TS and EM. */
static bool intercept(const struct informed *insn)
{
	if (insn->told == TABLE || insn->told == SELECTOR) {
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_DESCRIPTOR_TABLE))
			return false;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_DESCRIPTOR_TABLE);
	}
	if (insn->exit == VMX_EXIT_INVPCID) {
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_INVPCID))
			return false;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_INVPCID);
	}
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INVLPG);
	return true;
}

/* The bases of an address are offsets of the operand page, its indices small. */
static void put_registers(const struct run *r, uint32_t at)
{
	for (unsigned n = 0; n < GPR_COUNT; n++)
		if (n != RSP)
			vmx_registers[n] = n == r->o.base ? at : 4 * (n + 1);
	if (r->mode == MODE_LONG) /* bits beyond the address size do not count */
		for (unsigned n = R8; n < GPR_COUNT; n++)
			vmx_registers[n] |= r->address_bits == 32 ? 0x500000000000ull : 0;
}

static void run_form(struct run *r, unsigned form, uint32_t at)
{
	put_registers(r, at);
	vmx_code(r->code, r->length);
	vmx_write(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
	if (r->insn->told == SOURCE) {
		uint16_t source = *(volatile uint16_t *)(uintptr_t)linear_address(r);

		vmx_write(VMCS_CR0_MASK, CR0_TS | CR0_EM);
		vmx_write(VMCS_CR0_SHADOW, ~(uint64_t)source & (CR0_TS | CR0_EM));
	}
	story_check_at("entry", form, 0, vmx_run());
	check_told(r, form);
}

/*
 * @index: the instruction; @mode; @from: with the address-size prefix; @to: the segment's override, 6: none. All forms without one,
 * a sample with it.
 */
STORY(instruction_information)
{
	const struct informed *insn = &insns[GIVEN(index)];
	unsigned mode = (unsigned)GIVEN(mode), override = (unsigned)GIVEN(to), registers = mode == MODE_LONG ? 16 : 8;
	bool other = GIVEN(from), is_16 = case_mode_is_16(mode);
	unsigned bits = mode == MODE_LONG ? (other ? 32 : 64) : is_16 == other ? 32 : 16;
	uint32_t at = case_offset(mode, CASE_OPERAND);

	if (!vmx_baseline(mode, mode == MODE_VM86 ? 3 : 0, VMX_BARE) || !intercept(insn))
		return;
	for (unsigned form = 0; form < FORMS; form += override == NO_OVERRIDE ? 1 : 5) {
		struct run r = {.insn = insn, .mode = mode, .address_bits = bits, .override = override};

		r.o = (struct operand){.base = NONE, .index = NONE, .segment = DS};
		r.reg = insn->told == REG2 ? form % registers : insn->reg;
		r.operand_prefix = insn->told == TABLE && mode != MODE_LONG && form & 1;
		if (bits == 16 ? !form_16(&r.o, form, r.reg, at) : !form_wide(&r.o, form, registers, r.reg, at, mode == MODE_LONG))
			continue;
		encode(&r, other);
		run_form(&r, form, at);
	}
}

/* ---- register operands: table 28-11, 28-12, 28-14 ---- */

/* @index: 0 SLDT, 1 STR, 2 LLDT, 3 LTR, 4 VMREAD, 5 VMWRITE, 6 RDRAND, 7 RDSEED, 8 UMWAIT, 9 TPAUSE; @mode; @value: operand size of RDRAND and RDSEED as the information has it. */
enum { REGISTER_VMREAD = 4, REGISTER_VMWRITE, REGISTER_RDRAND, REGISTER_RDSEED, REGISTER_UMWAIT, REGISTER_TPAUSE };

static bool intercept_register(unsigned which)
{
	static const uint32_t controls[] = {VMX2_DESCRIPTOR_TABLE, VMX2_DESCRIPTOR_TABLE, VMX2_DESCRIPTOR_TABLE, VMX2_DESCRIPTOR_TABLE, 0, 0,
					    VMX2_RDRAND, VMX2_RDSEED, VMX2_USER_WAIT, VMX2_USER_WAIT};

	if (controls[which] && !vmx_needs(VMCS_SECONDARY_CONTROLS, controls[which]))
		return false;
	if (which >= REGISTER_UMWAIT && !story_needs(vmx_has_cpuid(7, 2, 5), "cpuid.7.0.ecx[5]=0"))
		return false;
	if (controls[which])
		vmx_set(VMCS_SECONDARY_CONTROLS, controls[which]);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_RDTSC);
	return true;
}

static unsigned encode_register(uint8_t *code, unsigned which, unsigned mode, unsigned size, unsigned reg, unsigned reg2)
{
	static const uint8_t opcodes[] = {0x00, 0x00, 0x00, 0x00, 0x78, 0x79, 0xc7, 0xc7, 0xae, 0xae};
	static const uint8_t regs[] = {0, 1, 2, 3, 0, 0, 6, 7, 6, 6};
	bool sized = which == REGISTER_RDRAND || which == REGISTER_RDSEED;
	bool vmcs = which == REGISTER_VMREAD || which == REGISTER_VMWRITE;
	unsigned n = 0, middle = vmcs ? reg2 : regs[which];
	unsigned rex = (reg & 8 ? REX_B : 0) | (vmcs && reg2 & 8 ? REX_R : 0) | (sized && size == 2 ? 8 : 0);

	if (sized && size < 2 && (size == 0) != case_mode_is_16(mode))
		code[n++] = 0x66;
	if (which == REGISTER_UMWAIT)
		code[n++] = 0xf2;
	if (which == REGISTER_TPAUSE)
		code[n++] = 0x66;
	if (rex)
		code[n++] = (uint8_t)(0x40 | rex);
	code[n++] = 0x0f;
	code[n++] = opcodes[which];
	code[n++] = (uint8_t)(0xc0 | (middle & 7) << 3 | (reg & 7));
	return n;
}

STORY(register_information)
{
	static const uint32_t reasons[] = {VMX_EXIT_LDTR_TR, VMX_EXIT_LDTR_TR, VMX_EXIT_LDTR_TR, VMX_EXIT_LDTR_TR, VMX_EXIT_VMREAD,
					   VMX_EXIT_VMWRITE, VMX_EXIT_RDRAND, VMX_EXIT_RDSEED, VMX_EXIT_UMWAIT, VMX_EXIT_TPAUSE};
	unsigned which = (unsigned)GIVEN(index), mode = (unsigned)GIVEN(mode), size = (unsigned)GIVEN(value), registers = mode == MODE_LONG ? 16 : 8;
	bool vmcs = which == REGISTER_VMREAD || which == REGISTER_VMWRITE;
	uint32_t mask = 15u << 3 | (which < REGISTER_RDRAND ? 1u << 10 : 3u << 11) | (vmcs ? 15u << 28 : which < 4 ? 3u << 28 : 0);

	if (!vmx_baseline(mode, mode == MODE_VM86 ? 3 : 0, VMX_BARE) || !intercept_register(which))
		return;
	for (unsigned reg = 0; reg < registers; reg++) {
		unsigned reg2 = (reg * 5 + 3) % registers;
		uint32_t info = reg << 3 | (which < REGISTER_RDRAND ? 1u << 10 : (which >= REGISTER_UMWAIT ? 1u : size) << 11) |
				(vmcs ? reg2 << 28 : which < 4 ? which << 28 : 0);
		uint8_t code[8];
		unsigned length = encode_register(code, which, mode, size, reg, reg2);

		vmx_code(code, length);
		vmx_write(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
		vmx_registers[RAX] = vmx_registers[RDX] = 0;
		if (which >= REGISTER_UMWAIT)
			vmx_registers[reg == RSP ? RAX : reg] = 0;
		story_check_at("entry", reg, 0, vmx_run());
		story_check_at("reason", reg, reasons[which], vmx_reason());
		story_check_at("length", reg, length, vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
		story_check_at("information", reg, info, vmx_read(VMCS_EXIT_INSTRUCTION_INFO) & mask);
		story_check_at("qualification", reg, 0, vmx_read(VMCS_EXIT_QUALIFICATION));
	}
}

/* ---- control and debug registers: tables 28-3, 28-4 ---- */

/* @index: the control register, or 16 and the debug register's number; @value: 1: read; @mode. */
STORY(control_register_information)
{
	unsigned number = (unsigned)GIVEN(index), mode = (unsigned)GIVEN(mode), registers = mode == MODE_LONG ? 16 : 8;
	bool read = GIVEN(value), debug = number & 16;
	unsigned n = number & 15;

	if (!vmx_baseline(mode, 0, VMX_BARE))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD | VMX_CR3_STORE | VMX_CR8_LOAD | VMX_CR8_STORE | VMX_MOV_DR);
	vmx_write(VMCS_CR0_MASK, ~0ull);
	vmx_write(VMCS_CR4_MASK, ~0ull);
	for (unsigned reg = 0; reg < registers; reg++) {
		unsigned rex = (reg & 8 ? REX_B : 0) | (n & 8 ? REX_R : 0), length = 0;
		uint8_t code[4];

		if (rex)
			code[length++] = (uint8_t)(0x40 | rex);
		code[length++] = 0x0f;
		code[length++] = (uint8_t)((debug ? 0x21 : 0x20) + (read ? 0 : 2));
		code[length++] = (uint8_t)(0xc0 | (n & 7) << 3 | (reg & 7));
		vmx_code(code, length);
		vmx_write(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
		/* Of CR0 and CR4 every bit differs from the read shadow. */
		vmx_write(VMCS_CR0_SHADOW, ~register_value(reg));
		vmx_write(VMCS_CR4_SHADOW, ~register_value(reg));
		story_check_at("entry", reg, 0, vmx_run());
		story_check_at("reason", reg, debug ? VMX_EXIT_MOV_DR : VMX_EXIT_CR_ACCESS, vmx_reason());
		story_check_at("qualification", reg, n | (read ? 1u << 4 : 0) | reg << 8, vmx_read(VMCS_EXIT_QUALIFICATION));
		story_check_at("length", reg, length, vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
	}
}

/* ---- INS and OUTS: table 28-8 ---- */

/* @index: 0 INS, 1 OUTS; @mode; @from: with the address-size prefix; @to: the override, 6: none. Each size, with and without REP. */
STORY(string_information)
{
	bool out = GIVEN(index), other = GIVEN(from);
	unsigned mode = (unsigned)GIVEN(mode), override = (unsigned)GIVEN(to);
	bool is_16 = case_mode_is_16(mode);
	unsigned bits = mode == MODE_LONG ? (other ? 32 : 64) : is_16 == other ? 32 : 16;
	unsigned segment = !out ? ES : override == NO_OVERRIDE ? DS : override;
	uint32_t at = case_offset(mode, CASE_OPERAND), mask = 7u << 7 | (out ? 7u << 15 : 0);

	if (!vmx_baseline(mode, mode == MODE_VM86 ? 3 : 0, VMX_BARE))
		return;
	if (mode == MODE_VM86) { /* all ports are allowed */
		exchange.in.field[STATE_rflags] |= RFLAGS_IOPL;
		world_poke(CASE_TSS32 + CASE_TSS_IOMAP + 0x10, &(uint64_t){0}, 8);
	}
	if (mode == MODE_LONG && override < FS)
		mask &= ~(7u << 15);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_UNCONDITIONAL_IO);
	for (unsigned form = 0; form < 6; form++) {
		unsigned size = form % 3 == 2 ? 4 : form % 3 + 1, length = 0;
		bool repeated = form > 2;
		uint64_t address = at + (bits == 16 ? 0xabcd0000u : 0);
		uint8_t code[6];

		if (bits == 32 && mode == MODE_LONG)
			address |= 0x7000000000000000ull;
		if (override != NO_OVERRIDE)
			code[length++] = overrides[override];
		if (repeated)
			code[length++] = 0xf3;
		if (other)
			code[length++] = 0x67;
		if (size > 1 && (size == 2) != is_16)
			code[length++] = 0x66;
		code[length++] = (uint8_t)((out ? 0x6e : 0x6c) + (size > 1));
		vmx_code(code, length);
		vmx_write(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
		vmx_registers[RDX] = CASE_PORT;
		vmx_registers[RCX] = 2;
		vmx_registers[RSI] = vmx_registers[RDI] = address;
		story_check_at("entry", form, 0, vmx_run());
		story_check_at("reason", form, VMX_EXIT_IO, vmx_reason());
		story_check_at("length", form, length, vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
		story_check_at("qualification", form, (size - 1) | (out ? 0 : 8u) | 16u | (repeated ? 32u : 0) | CASE_PORT << 16,
			       vmx_read(VMCS_EXIT_QUALIFICATION));
		story_check_at("information", form, ((bits == 16 ? 0u : bits == 32 ? 1u : 2u) << 7 | (out ? segment << 15 : 0)) & mask,
			       vmx_read(VMCS_EXIT_INSTRUCTION_INFO) & mask);
		story_check_at("linear", form, (at & width_mask(bits)) + vmx_read(VMCS_GUEST_ES_BASE + 2 * segment), vmx_read(VMCS_GUEST_LINEAR_ADDRESS));
	}
}
