/* world_bench.c: what a round of VMRUN and #VMEXIT costs, in nanoseconds: `world_bench [ROUNDS]`. */
#include "cpu/svm/svm_test.h"

#include <stdio.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Host: VMRUN and back to it. Guest: @code, an instruction that is intercepted: the exit leaves RIP at it. */
static void measure(const char *name, const uint8_t *code, size_t size, bool nested, uint64_t rounds,
		    unsigned instructions)
{
	static const uint8_t host[] = {0x0f, 0x01, 0xd8, 0xeb, 0xfb};
	struct machine m;
	double start;

	svm_open(&m);
	if (nested)
		nested_tables(&m);
	machine_write(&m, GUEST_AT, code, size);
	vmcb_put(&m, VMCB_TLB_CONTROL, 0, 1);
	m.cpu->reg[RAX] = VMCB_AT;
	start = now();
	machine_run(&m, host, sizeof(host), rounds * instructions);
	printf("%s %.1f\n", name, (now() - start) * 1e9 / (double)rounds);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	static const uint8_t vmmcall[] = {VMMCALL};
	uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;

	measure("round", vmmcall, sizeof(vmmcall), false, rounds, 3);
	measure("round_nested_paging", vmmcall, sizeof(vmmcall), true, rounds, 3);
	return 0;
}
