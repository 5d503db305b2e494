/* lapic_bench.h: four local APICs on a bus, whose processors write down what they are told. For tests. */
#ifndef TRAPLINE_CHIP_LAPIC_BENCH_H
#define TRAPLINE_CHIP_LAPIC_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "chip/check.h"
#include "chip/lapic.h"
#include "x86/msr.h"

#define CPUS      4
#define TSC_RATIO 3 /* ticks a nanosecond */

struct bench;
struct bench_cpu {
	struct bench *bench;
	bool line;
	uint8_t tpr;
	unsigned nmi, smi, init, sipi;
	uint8_t sipi_vector;
};

struct bench {
	struct clock clock;
	uint64_t time;
	struct apic_bus bus;
	struct lapic apic[CPUS];
	struct bench_cpu cpu[CPUS];
	unsigned eoi, retry, extint;
	uint8_t eoi_vector, extint_vector;
	bool extint_again; /* the 8259As' INT stays */
};

static inline uint64_t bench_now(void *owner) { return ((struct bench *)owner)->time; }
static inline void bench_line(void *owner, bool raised) { ((struct bench_cpu *)owner)->line = raised; }
static inline void bench_nmi(void *owner) { ((struct bench_cpu *)owner)->nmi++; }
static inline void bench_smi(void *owner) { ((struct bench_cpu *)owner)->smi++; }
static inline void bench_init_ipi(void *owner) { ((struct bench_cpu *)owner)->init++; }
static inline void bench_sipi(void *owner, uint8_t vector)
{
	((struct bench_cpu *)owner)->sipi++;
	((struct bench_cpu *)owner)->sipi_vector = vector;
}
static inline void bench_tpr(void *owner, uint8_t tpr) { ((struct bench_cpu *)owner)->tpr = tpr; }
static inline uint64_t bench_tsc(void *owner) { return ((struct bench_cpu *)owner)->bench->time * TSC_RATIO; }
static inline uint64_t bench_tsc_time(void *owner, uint64_t tsc)
{
	(void)owner;
	return (tsc + TSC_RATIO - 1) / TSC_RATIO;
}
static inline void bench_eoi(void *owner, uint8_t vector)
{
	((struct bench *)owner)->eoi++;
	((struct bench *)owner)->eoi_vector = vector;
}
static inline void bench_retry(void *owner) { ((struct bench *)owner)->retry++; }
static inline uint8_t bench_extint(void *owner)
{
	struct bench *bench = owner;

	bench->extint++;
	if (!bench->extint_again)
		apic_bus_extint(&bench->bus, false);
	return bench->extint_vector;
}

static inline void bench_set_up_model(struct bench *bench, const struct lapic_model *model)
{
	memset(bench, 0, sizeof(*bench));
	clock_init(&bench->clock);
	bench->clock.owner = bench;
	bench->clock.now = bench_now;
	bench->bus.owner = bench;
	bench->bus.eoi = bench_eoi;
	bench->bus.retry = bench_retry;
	bench->bus.extint_acknowledge = bench_extint;
	for (unsigned i = 0; i < CPUS; i++) {
		struct lapic_cpu cpu = {
			.owner = &bench->cpu[i],
			.interrupt_line = bench_line,
			.nmi = bench_nmi,
			.smi = bench_smi,
			.init = bench_init_ipi,
			.sipi = bench_sipi,
			.tpr_written = bench_tpr,
			.tsc = bench_tsc,
			.tsc_time = bench_tsc_time,
		};

		bench->cpu[i].bench = bench;
		assert_true(lapic_init(&bench->apic[i], i, model, &cpu, &bench->bus, &bench->clock));
	}
	bench->retry = 0;
}

static inline struct lapic_model bench_intel(void)
{
	return (struct lapic_model){
		.x2apic = true, .tsc_deadline = true, .cmci = true, .physical_bits = 40, .timer_ns = 10};
}

static inline struct lapic_model bench_amd(void)
{
	return (struct lapic_model){
		.x2apic = true, .amd = true, .extended = true, .physical_bits = 48, .timer_ns = 10};
}

static inline void bench_set_up(struct bench *bench)
{
	struct lapic_model model = bench_intel();

	bench_set_up_model(bench, &model);
}

static inline uint32_t rd(struct lapic *apic, unsigned offset)
{
	uint32_t value;

	lapic_mmio_read(apic, offset, &value, 4);
	return value;
}
static inline void wr(struct lapic *apic, unsigned offset, uint32_t value)
{
	lapic_mmio_write(apic, offset, &value, 4);
}
static inline bool wrmsr(struct lapic *apic, unsigned index, uint64_t value)
{
	return lapic_msr_write(apic, index, value);
}
/* The value, or all ones where it is #GP. */
static inline uint64_t rdmsr(struct lapic *apic, unsigned index)
{
	uint64_t value;

	return lapic_msr_read(apic, index, &value) ? value : UINT64_MAX;
}
/* Errors since the last look. */
static inline uint32_t errors(struct lapic *apic)
{
	wr(apic, 0x280, 0);
	return rd(apic, 0x280);
}
static inline void enable(struct lapic *apic) { wr(apic, 0xf0, 0x1ff); }
static inline void enable_all(struct bench *bench)
{
	for (unsigned i = 0; i < CPUS; i++)
		enable(&bench->apic[i]);
}
static inline void to_x2apic(struct lapic *apic)
{
	assert_true(wrmsr(apic, MSR_APIC_BASE, apic->base | APIC_BASE_EXTD));
}
static inline void advance(struct bench *bench, uint64_t to)
{
	bench->time = to;
	clock_run(&bench->clock);
}
static inline bool has(const uint32_t *set, unsigned vector) { return set[vector / 32] >> vector % 32 & 1; }
static inline bool requested(const struct bench *bench, unsigned cpu, unsigned vector)
{
	return has(bench->apic[cpu].irr, vector);
}
/* Which processors have the vector requested, a bit each; and takes it away. */
static inline unsigned take(struct bench *bench, unsigned vector)
{
	unsigned set = 0;

	for (unsigned i = 0; i < CPUS; i++)
		if (has(bench->apic[i].irr, vector)) {
			set |= 1u << i;
			bench->apic[i].irr[vector / 32] &= ~(1u << vector % 32);
		}
	return set;
}

/* `lapic_test NAME` runs with that check broken: some test fails then. */
#define BENCH_MAIN(tests)                                                                                    \
	int main(int argc, char **argv)                                                                      \
	{                                                                                                    \
		if (argc > 1 && !chip_check_break(argv[1]))                                                  \
			return 2;                                                                            \
		return cmocka_run_group_tests(tests, NULL, NULL);                                            \
	}

#endif
