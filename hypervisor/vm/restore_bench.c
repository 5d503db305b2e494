/*
 * restore_bench.c: what a restore costs by the number of pages that a case has written. Prints a line
 * `PAGES NANOSECONDS` for each, the median of many.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/snapshot.h"
#include "x86/paging.h"

#define MEMORY     (16ull << 20)
#define FIRST_PAGE (1ull << 20)
#define PAGES_MAX  64u
#define ROUNDS     2001u

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* Writes a word into each of @pages pages, as a guest might. */
static bool dirty(struct machine *machine, unsigned pages, unsigned round)
{
	for (unsigned i = 0; i < pages; i++) {
		uint64_t address = FIRST_PAGE + i * PAGE_SIZE + round % 512 * 8, value = round + 1;

		if (!machine_write(machine, address, &value, sizeof(value)))
			return false;
	}
	return true;
}

static bool clean(const struct machine *machine)
{
	for (size_t i = 0; i < PAGES_MAX * PAGE_SIZE; i++) {
		if (machine->ram[FIRST_PAGE + i])
			return false;
	}
	return true;
}

/* Median nanoseconds of a restore behind @pages written pages; 0 where something failed. */
static uint64_t measure(struct machine *machine, struct snapshot *snapshot, unsigned pages)
{
	static uint64_t taken[ROUNDS];

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t start;

		if (!dirty(machine, pages, round))
			return 0;
		start = machine_now();
		if (snapshot_restore(snapshot, machine))
			return 0;
		taken[round] = machine_now() - start;
	}
	if (!clean(machine))
		return 0;
	qsort(taken, ROUNDS, sizeof(*taken), compare);
	return taken[ROUNDS / 2];
}

int main(void)
{
	static const unsigned pages[] = {1, 8, PAGES_MAX};
	struct machine_config config = {
		.engine = &engine_soft, .cpu = "amd", .memory = MEMORY, .control = true};
	struct machine *machine;
	struct snapshot snapshot;
	char why[256];

	if (machine_new(&machine, &config, why, sizeof(why))) {
		fprintf(stderr, "restore_bench: %s\n", why);
		return 1;
	}
	if (snapshot_take(&snapshot, machine)) {
		fprintf(stderr, "restore_bench: no memory for a snapshot\n");
		machine_free(machine);
		return 1;
	}
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++) {
		uint64_t nanoseconds = measure(machine, &snapshot, pages[i]);

		if (!nanoseconds) {
			fprintf(stderr, "restore_bench: %u pages: the restore failed\n", pages[i]);
			return 1;
		}
		printf("%u %llu\n", pages[i], (unsigned long long)nanoseconds);
	}
	snapshot_free(&snapshot);
	machine_free(machine);
	return 0;
}
