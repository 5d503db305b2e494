/*
 * string.c: MOVS, CMPS, SCAS, STOS, LODS and their repetition (SDM 2A, 2B; REP: SDM 2B 4.3).
 *
 * Repeated forms work in runs: as many elements as lie on one page at both ends and may run
 * without a look at what is pending go straight between host pointers; where there is no such
 * pointer (a page's edge, a device, code), one element goes through mem_read() and mem_write().
 * After each run rSI, rDI and rCX stand where the instruction would be resumed.
 */
#include <string.h>

#include "cpu/insn/operand.h"

/* What differs between the five. */
enum string { MOVS, CMPS, SCAS, STOS, LODS };

HANDLER_INLINE bool reads_source(enum string string)
{
	return string == MOVS || string == CMPS || string == LODS;
}

HANDLER_INLINE bool uses_destination(enum string string) { return string != LODS; }

HANDLER_INLINE bool compares(enum string string) { return string == CMPS || string == SCAS; }

HANDLER_INLINE uint64_t address_part(const struct insn *insn, uint64_t value)
{
	return value << insn->address_shift >> insn->address_shift;
}

HANDLER_INLINE uint64_t element_load(const uint8_t *host, unsigned width)
{
	uint64_t value = 0;

	memcpy(&value, host, width);
	return value;
}

/* Moves rSI and rDI on by @bytes. */
HANDLER_INLINE void advance(struct cpu *cpu, const struct insn *insn, enum string string, uint64_t bytes)
{
	if (reads_source(string))
		reg_write(cpu, RSI, cpu->reg[RSI] + bytes, insn->address_width);
	if (uses_destination(string))
		reg_write(cpu, RDI, cpu->reg[RDI] + bytes, insn->address_width);
}

/* ZF, SF, PF, CF, OF, AF of @a - @b. */
HANDLER_INLINE void compare(struct cpu *cpu, uint64_t a, uint64_t b, unsigned width)
{
	flags_sub(&cpu->lazy, a, b, false, 8 * width);
}

/* One element, by every check. rSI and rDI stay. */
HANDLER_INLINE void element(struct cpu *cpu, const struct insn *insn, unsigned width, enum string string)
{
	uint64_t value = reg_read(cpu, RAX, width), destination = address_part(insn, cpu->reg[RDI]);

	if (reads_source(string))
		value = mem_read(cpu, insn->segment, address_part(insn, cpu->reg[RSI]), width);
	if (compares(string))
		compare(cpu, value, mem_read(cpu, ES, destination, width), width);
	else if (uses_destination(string))
		mem_write(cpu, ES, destination, value, width);
	else
		reg_write(cpu, RAX, value, width);
}

/* ---- runs ---- */

/* Elements from @offset on that may be used at once: at most *@count; 0 where only element() will do. */
HANDLER_INLINE uint64_t run_size(const struct insn *insn, uint64_t offset, uint64_t count, unsigned width)
{
	/* Up to the offset at which addresses of this size wrap. */
	uint64_t room = (~0ull >> insn->address_shift) - offset;

	if (count > 4096)
		count = 4096;
	return count * width - 1 > room ? room + 1 : count * width;
}

HANDLER_INLINE const uint8_t *run_source(struct cpu *cpu, const struct insn *insn, unsigned width,
					 uint64_t *count)
{
	uint64_t offset = address_part(insn, cpu->reg[RSI]);
	size_t size = run_size(insn, offset, *count, width);
	const uint8_t *host = mem_run_read(cpu, insn->segment, offset, &size);

	*count = host ? size / width : 0;
	return host;
}

HANDLER_INLINE const uint8_t *run_compared(struct cpu *cpu, const struct insn *insn, unsigned width,
					   uint64_t *count)
{
	uint64_t offset = address_part(insn, cpu->reg[RDI]);
	size_t size = run_size(insn, offset, *count, width);
	const uint8_t *host = mem_run_read(cpu, ES, offset, &size);

	*count = host ? size / width : 0;
	return host;
}

HANDLER_INLINE uint8_t *run_destination(struct cpu *cpu, const struct insn *insn, unsigned width,
					uint64_t *count)
{
	uint64_t offset = address_part(insn, cpu->reg[RDI]);
	size_t size = run_size(insn, offset, *count, width);
	uint8_t *host = mem_run_write(cpu, ES, offset, &size);

	*count = host ? size / width : 0;
	return host;
}

/* Copies as ascending elements do: what overlaps from below repeats itself. */
HANDLER_INLINE void copy_ascending(uint8_t *to, const uint8_t *from, uint64_t count, unsigned width)
{
	if (to <= from || to >= from + count * width) {
		memmove(to, from, count * width);
		return;
	}
	for (uint64_t i = 0; i < count; i++) {
		uint64_t value = element_load(from + i * width, width);

		memcpy(to + i * width, &value, width);
	}
}

/* Fills by bytes where all of them are the same, as zeros are; else by doubling what is there. */
HANDLER_INLINE void fill(uint8_t *to, uint64_t value, uint64_t count, unsigned width)
{
	size_t size = count * width;
	uint64_t pattern = (value & 0xff) * (0x0101010101010101 >> (64 - 8 * width));

	if (pattern == value << (64 - 8 * width) >> (64 - 8 * width)) {
		memset(to, (int)(value & 0xff), size);
		return;
	}
	memcpy(to, &value, width);
	for (size_t done = width; done < size; done *= 2)
		memcpy(to + done, to, done < size - done ? done : size - done);
}

/* Elements up to and with the one that ends the repetition; its flags. */
HANDLER_INLINE uint64_t compare_run(struct cpu *cpu, const uint8_t *source, const uint8_t *destination,
				    uint64_t count, unsigned width, enum string string, bool while_equal)
{
	uint64_t a = reg_read(cpu, RAX, width), b = 0, i = 0;

	while (i < count) {
		if (string == CMPS)
			a = element_load(source + i * width, width);
		b = element_load(destination + i * width, width);
		i++;
		if ((a == b) != while_equal)
			break;
	}
	compare(cpu, a, b, width);
	return i;
}

/* Up to @count elements upwards between host pointers. Returns how many, which may be 0. */
HANDLER_INLINE uint64_t ascending_run(struct cpu *cpu, const struct insn *insn, unsigned width,
				      enum string string, uint64_t count)
{
	const uint8_t *source = NULL, *compared = NULL;
	uint8_t *destination = NULL;

	if (reads_source(string))
		source = run_source(cpu, insn, width, &count);
	if (count && compares(string))
		compared = run_compared(cpu, insn, width, &count);
	else if (count && uses_destination(string))
		destination = run_destination(cpu, insn, width, &count);
	if (count == 0)
		return 0;
	if (string == MOVS)
		copy_ascending(destination, source, count, width);
	else if (string == STOS)
		fill(destination, cpu->reg[RAX], count, width);
	else if (string == LODS)
		reg_write(cpu, RAX, element_load(source + (count - 1) * width, width), width);
	else
		count = compare_run(cpu, source, compared, count, width, string, insn->prefixes & PREFIX_REP);
	return count;
}

/* Whether a comparing instruction goes on after the flags that it just set. */
HANDLER_INLINE bool goes_on(const struct cpu *cpu, const struct insn *insn, enum string string)
{
	return !compares(string) || flags_zf(&cpu->lazy) == !!(insn->prefixes & PREFIX_REP);
}

HANDLER_INLINE void repeat(struct cpu *cpu, const struct insn *insn, unsigned width, enum string string)
{
	bool down = cpu->rflags & RFLAGS_DF, more = true;
	uint64_t step = down ? 0ull - width : width;

	while (more) {
		uint64_t count = address_part(insn, cpu->reg[RCX]), done = 0;

		if (count == 0)
			return;
		if (!down)
			done = ascending_run(cpu, insn, width, string, cpu_repeat_limit(cpu, insn, count));
		if (done == 0) {
			element(cpu, insn, width, string);
			done = 1;
		}
		advance(cpu, insn, string, done * step);
		reg_write(cpu, RCX, count - done, insn->address_width);
		more = count != done && goes_on(cpu, insn, string);
		cpu_repeat_done(cpu, insn, done, more);
	}
}

/* ---- handlers: the single element inline, the repetition in a function of its own ---- */

#define DEFINE_REPEAT(name, width, string)                                                                   \
	static __attribute__((noinline)) void name(struct cpu *cpu, const struct insn *insn)                 \
	{                                                                                                    \
		repeat(cpu, insn, width, string);                                                            \
	}

#define DEFINE_STRING(name, string)                                                                          \
	DEFINE_REPEAT(name##_repeat_1, 1, string)                                                            \
	DEFINE_REPEAT(name##_repeat_2, 2, string)                                                            \
	DEFINE_REPEAT(name##_repeat_4, 4, string)                                                            \
	DEFINE_REPEAT(name##_repeat_8, 8, string)                                                            \
	HANDLER_INLINE void name(struct cpu *cpu, const struct insn *insn, unsigned width)                   \
	{                                                                                                    \
		if (!(insn->prefixes & (PREFIX_REP | PREFIX_REPNE))) {                                       \
			element(cpu, insn, width, string);                                                   \
			advance(cpu, insn, string, cpu->rflags &RFLAGS_DF ? 0ull - width : width);           \
		} else if (width == 1) {                                                                     \
			name##_repeat_1(cpu, insn);                                                          \
		} else if (width == 2) {                                                                     \
			name##_repeat_2(cpu, insn);                                                          \
		} else if (width == 4) {                                                                     \
			name##_repeat_4(cpu, insn);                                                          \
		} else {                                                                                     \
			name##_repeat_8(cpu, insn);                                                          \
		}                                                                                            \
	}                                                                                                    \
	DEFINE_INSN_W(name)

DEFINE_STRING(movs, MOVS)
DEFINE_STRING(cmps, CMPS)
DEFINE_STRING(scas, SCAS)
DEFINE_STRING(stos, STOS)
DEFINE_STRING(lods, LODS)
