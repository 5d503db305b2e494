/*
 * A guest that programs devices at random (guests/fuzz), from one seed after another, until it has made
 * 100,000 accesses (times FUZZ). Whatever it does, its machine ends in a verdict and in time, and a machine
 * made after it is as good as any.
 */
#include <inttypes.h>
#include <stdio.h>

#include "../../guests/fuzz/progress.h"
#include "fuzz/fuzz.h"
#include "vm/boot.h"
#include "vm/machine.h"

#define GUEST    "build/fuzz/fuzz.elf"
#define ACCESSES 100000u /* in all */
#define A_BOOT   4000u   /* at most, so that no one boot is all */
#define MEMORY   (16ull << 20)

static struct image image;
static uint64_t total, ends[MACHINE_SIGNAL + 1];

static void ignore(void *owner, uint8_t byte)
{
	(void)owner;
	(void)byte;
}

static struct machine *make(uint64_t seed)
{
	static const char *const cpus[] = {"amd", "intel", "amd,+kvmclock", "intel,+kvmclock"};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = cpus[seed % 4],
					.memory = MEMORY,
					.vcpus = 1 + (unsigned)(seed % 3),
					.seed = seed,
					.open_bus = true,
					.peripherals = {.entropy = true, .console = true},
					.console = ignore,
					.serial = ignore,
					.virtio = ignore};
	struct machine *machine;
	char append[64], why[256];
	struct boot_options boot = {.append = append};

	snprintf(append, sizeof(append), "seed=%" PRIu64, seed);
	if (machine_new(&machine, &config, why, sizeof(why)) ||
	    boot_image(machine, &image, &boot, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

/* Runs until the guest has made enough accesses, or is over. Returns how many it made. */
static uint64_t run(struct machine *machine, uint64_t seed)
{
	const volatile struct fuzz_progress *progress = (const void *)(machine->ram + FUZZ_PROGRESS);
	uint64_t deadline = machine_now() + 60000000000ull, before = UINT64_MAX;

	while (progress->accesses < A_BOOT && progress->accesses != before) {
		struct machine_limits limits = {.insns = 500000, .deadline = deadline, .output = UINT64_MAX};
		const struct machine_end *end;

		before = progress->accesses;
		end = machine_run(machine, &limits);
		ends[end->event]++;
		if (end->event == MACHINE_TIMEOUT)
			fail_msg("seed %" PRIu64 ": no end in a minute", seed);
		if (end->event == MACHINE_FAILED) {
			printf("seed %" PRIu64 ": %s\n", seed, end->why);
			if (!end->why[0])
				fail_msg("seed %" PRIu64 ": the engine failed without a word", seed);
		}
		if (end->event != MACHINE_BUDGET)
			break;
	}
	return progress->accesses < 2 * A_BOOT ? progress->accesses
					       : 0; /* it may have written there itself */
}

static void devices_at_random(void **state)
{
	uint64_t wanted = ACCESSES * fuzz_number("FUZZ", 1), seed = fuzz_number("FUZZ_SEED", 1);
	uint64_t only = fuzz_number("FUZZ_ROUND", 0), boots = 0;
	char why[256];

	(void)state;
	if (image_open(&image, GUEST, why, sizeof(why)))
		fail_msg("%s", why);
	for (; total < wanted; seed++) {
		struct machine *machine;

		if (only)
			seed = only;
		/* Before it runs, so that a crash names it. */
		printf("FUZZ_ROUND=%" PRIu64 "\n", seed);
		fflush(stdout);
		machine = make(seed);
		total += run(machine, seed);
		machine_free(machine);
		boots++;
		if (only || boots > 100 * wanted / A_BOOT)
			break;
	}
	printf("%" PRIu64 " accesses in %" PRIu64 " boots; exits %" PRIu64 " resets %" PRIu64
	       " shutdowns %" PRIu64 " halts %" PRIu64 " failures %" PRIu64 "\n",
	       total, boots, ends[MACHINE_EXIT], ends[MACHINE_RESET] + ends[MACHINE_POWER_OFF],
	       ends[MACHINE_SHUTDOWN], ends[MACHINE_HALTED], ends[MACHINE_FAILED]);
	image_close(&image);
	if (!only)
		assert_true(total >= wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(devices_at_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
