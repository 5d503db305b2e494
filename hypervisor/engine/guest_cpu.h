/*
 * guest_cpu.h: the table of x86/guest_cpu.h as text, compared and masked. By feature: names are those of
 * features.def, and where a bit has none there, its place: "7.0.ebx.16".
 */
#ifndef TRAPLINE_ENGINE_GUEST_CPU_H
#define TRAPLINE_ENGINE_GUEST_CPU_H

#include <stddef.h>

#include "x86/guest_cpu.h"

#define GUEST_CPU_FEATURE 32u /* bytes of a feature's name, with its 0 */
/* Room for any table as text. */
#define GUEST_CPU_TEXT (GUEST_CPU_NAME + 64u + GUEST_CPU_ROWS * 56u)

/*
 * The table as lines: "name …", "tsc_khz …", "apic_timer_ns …", and for each row its leaf, perhaps "." and
 * the subleaf, and EAX to EDX, all in hexadecimal. Returns the length that it has, as snprintf().
 */
int guest_cpu_print(const struct guest_cpu *cpu, char *text, size_t size);
/* 0, or -EINVAL with @why: a line that is none, a row that comes twice, too many rows, no leaf 0. */
int guest_cpu_parse(struct guest_cpu *cpu, const char *text, char *why, size_t size);

/* The feature with this index among those that @cpu has (0, 1, …), by name. False: past the last. */
bool guest_cpu_feature(const struct guest_cpu *cpu, unsigned index, char *name, size_t size);

/*
 * What a guest that was told @guest would miss on the processor @here, by index: a feature's name, or a line
 * about something else that differs ("physical-address bits: the guest has 48, this processor 46"), which
 * @is_feature tells apart. False: past the last.
 */
bool guest_cpu_lack(const struct guest_cpu *guest, const struct guest_cpu *here, unsigned index,
		    bool *is_feature, char *text, size_t size);
/* 0 where nothing is lacking; -EINVAL, with @why in one line that names all of it. */
int guest_cpu_check(const struct guest_cpu *guest, const struct guest_cpu *here, char *why, size_t size);

/*
 * Takes features away from a table: @words as behind a profile, "-nx,-7.0.ebx.16,phys-bits=46". 0, or -EINVAL
 * with
 * @why.
 */
int guest_cpu_mask(struct guest_cpu *cpu, const char *words, char *why, size_t size);
/* The words that take from @guest what @here lacks, each with its comma in front; "" where that is nothing.
 * False: something is no feature, or @text is full. */
bool guest_cpu_common(const struct guest_cpu *guest, const struct guest_cpu *here, char *text, size_t size);

#endif
