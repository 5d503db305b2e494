/*
 * io.c: IN OUT INS OUTS (SDM 1 chapter 19, SDM 2A, 2B; APM 3 chapter 3). Who may reach a port is asked
 * first; then INS checks that it can write before it reads the port, and OUTS reads before it writes it.
 */
#include "cpu/checks.h"
#include "cpu/guest.h"
#include "cpu/insn/operand.h"
#include "cpu/tss.h"
#include "x86/paging.h"

/* With CPL > IOPL, and always in virtual-8086 mode, the TSS's bitmap decides (SDM 1 19.5). */
static void check_permission(struct cpu *cpu, uint16_t port, unsigned size)
{
	if (!cpu_protected(cpu) || (!cpu_vm86(cpu) && cpu->cpl <= cpu_iopl(cpu)))
		return;
	bool allowed = io_bitmap_allows(cpu, port, size);
	if (CHECK(IO_PERMISSION, !allowed))
		cpu_raise(cpu, VECTOR_GP, 0);
}

/* A hypervisor is asked behind that, and before memory is accessed (APM 2 15.10.2). */
static void check_port(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in, bool string)
{
	check_permission(cpu, port, size);
	guest_check_io(cpu, insn, port, size, in, string);
}

/* I/O breakpoints trap behind the instruction, with CR4.DE = 1 (SDM 3B 18.2.4, 18.3.1.2). */
static void watch_port(struct cpu *cpu, uint16_t port, unsigned size)
{
	static const uint8_t lengths[4] = {1, 2, 8, 4};

	if (!(cpu->cr4 & CR4_DE) || CHECK(SVM_GIF_BREAKPOINT, !svm_gif(cpu)))
		return;
	for (unsigned n = 0; n < 4; n++) {
		uint64_t length = lengths[cpu->dr7 >> DR7_LEN_SHIFT(n) & 3];
		uint64_t first = cpu->dr[n] & ~(length - 1);
		bool enabled = cpu->dr7 & (DR7_L(n) | DR7_G(n));

		if (enabled && (cpu->dr7 >> DR7_RW_SHIFT(n) & 3) == 2 && port < first + length &&
		    (uint64_t)port + size > first)
			cpu->dr6_pending |= DR6_B(n);
	}
}

static uint32_t port_in(struct cpu *cpu, uint16_t port, unsigned size)
{
	watch_port(cpu, port, size);
	return cpu->bus.port_in(cpu->bus.owner, port, size);
}

static void port_out(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
	watch_port(cpu, port, size);
	cpu->bus.port_out(cpu->bus.owner, port, size, value);
}

/* Ports have no 64-bit form: REX.W means 32 bits. */
#define PORT_SIZE(width) ((width) > 4 ? 4 : (width))

/* ---- IN, OUT ---- */

HANDLER_INLINE void in(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned width)
{
	unsigned size = PORT_SIZE(width);

	check_port(cpu, insn, port, size, true, false);
	reg_write(cpu, RAX, port_in(cpu, port, size), size);
}

HANDLER_INLINE void out(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned width)
{
	unsigned size = PORT_SIZE(width);

	check_port(cpu, insn, port, size, false, false);
	port_out(cpu, port, size, (uint32_t)reg_read(cpu, RAX, size));
}

static inline void in_ib(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	in(cpu, insn, (uint8_t)insn->imm, width);
}
DEFINE_INSN_W(in_ib)

static inline void in_dx(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	in(cpu, insn, (uint16_t)cpu->reg[RDX], width);
}
DEFINE_INSN_W(in_dx)

static inline void out_ib(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	out(cpu, insn, (uint8_t)insn->imm, width);
}
DEFINE_INSN_W(out_ib)

static inline void out_dx(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	out(cpu, insn, (uint16_t)cpu->reg[RDX], width);
}
DEFINE_INSN_W(out_dx)

/* ---- INS, OUTS ---- */

HANDLER_INLINE uint64_t address_of(const struct cpu *cpu, const struct insn *insn, unsigned reg)
{
	return cpu->reg[reg] << insn->address_shift >> insn->address_shift;
}

static void advance(struct cpu *cpu, const struct insn *insn, unsigned reg, uint64_t bytes)
{
	uint64_t step = cpu->rflags & RFLAGS_DF ? -bytes : bytes;

	reg_write(cpu, reg, cpu->reg[reg] + step, insn->address_width);
}

static void input_element(struct cpu *cpu, const struct insn *insn, unsigned size)
{
	uint64_t offset = address_of(cpu, insn, RDI);

	mem_check_write(cpu, ES, offset, size);
	mem_write(cpu, ES, offset, port_in(cpu, (uint16_t)cpu->reg[RDX], size), size);
	advance(cpu, insn, RDI, size);
}

static void output_element(struct cpu *cpu, const struct insn *insn, unsigned size)
{
	uint32_t value = (uint32_t)mem_read(cpu, insn->segment, address_of(cpu, insn, RSI), size);

	port_out(cpu, (uint16_t)cpu->reg[RDX], size, value);
	advance(cpu, insn, RSI, size);
}

/*
 * Elements that OUTS can take straight from memory: upwards, within a page. Returns how many of
 * @count were written; 0 where only output_element() will do.
 */
static uint64_t output_run(struct cpu *cpu, const struct insn *insn, unsigned size, uint64_t count)
{
	uint64_t offset = address_of(cpu, insn, RSI);
	uint64_t room = (~0ull >> insn->address_shift) - offset; /* before the offset wraps */
	size_t bytes = count > PAGE_SIZE / size ? PAGE_SIZE : (size_t)count * size;
	const uint8_t *host;

	if (cpu->rflags & RFLAGS_DF || room < bytes)
		return 0;
	host = mem_run_read(cpu, insn->segment, offset, &bytes);
	if (!host || bytes < size)
		return 0;
	for (size_t at = 0; at + size <= bytes; at += size) {
		uint32_t value = 0;

		__builtin_memcpy(&value, host + at, size);
		port_out(cpu, (uint16_t)cpu->reg[RDX], size, value);
		if (cpu->pending) { /* the port asked for a stop, or raised an interrupt */
			bytes = at + size;
			break;
		}
	}
	advance(cpu, insn, RSI, bytes / size * size);
	return bytes / size;
}

static void repeat(struct cpu *cpu, const struct insn *insn, unsigned size, bool output)
{
	uint64_t count = address_of(cpu, insn, RCX);

	while (count) {
		check_port(cpu, insn, (uint16_t)cpu->reg[RDX], size, !output, true); /* no iteration, no check: SDM 2B REP */
		uint64_t limit = cpu_repeat_limit(cpu, insn, count), done = 0;

		if (output && limit > 1)
			done = output_run(cpu, insn, size, limit);
		if (!done) {
			(output ? output_element : input_element)(cpu, insn, size);
			done = 1;
		}
		count -= done;
		reg_write(cpu, RCX, cpu->reg[RCX] - done, insn->address_width);
		cpu_repeat_done(cpu, insn, done, count != 0);
	}
}

HANDLER_INLINE void string_io(struct cpu *cpu, const struct insn *insn, unsigned width, bool output)
{
	unsigned size = PORT_SIZE(width);

	if (insn->prefixes & (PREFIX_REP | PREFIX_REPNE)) {
		repeat(cpu, insn, size, output);
		return;
	}
	check_port(cpu, insn, (uint16_t)cpu->reg[RDX], size, !output, true);
	if (output)
		output_element(cpu, insn, size);
	else
		input_element(cpu, insn, size);
}

static inline void ins(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	string_io(cpu, insn, width, false);
}
DEFINE_INSN_W(ins)

static inline void outs(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	string_io(cpu, insn, width, true);
}
DEFINE_INSN_W(outs)
