/* world_bench.c: what a round of VM entry and VM exit costs, in nanoseconds: `world_bench [ROUNDS]`. */
#include "cpu/vmx/vmx_test.h"

#include <stdio.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Host: VMRESUME at once, to which exits lead. Guest: CPUID, at which the exit leaves RIP. */
int main(int argc, char **argv)
{
	static const uint8_t launch[] = {0x0f, 0x01, 0xc2}, resume[] = {0x0f, 0x01, 0xc3},
			     cpuid[] = {0x0f, 0xa2};
	uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;
	struct machine m;
	double start;

	vmx_open(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY);
	vmcs_or(&m, VMCS_SECONDARY_CONTROLS, VMX2_VPID);
	vmcs_put(&m, VMCS_VPID, 1);
	machine_write(&m, GUEST_AT, cpuid, sizeof(cpuid));
	machine_write(&m, HOST_AT, resume, sizeof(resume));
	start = now();
	machine_run(&m, launch, sizeof(launch), rounds * 2);
	printf("round_vmx %.1f\n", (now() - start) * 1e9 / (double)rounds);
	machine_close(&m);
	return 0;
}
