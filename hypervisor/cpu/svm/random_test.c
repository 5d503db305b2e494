/*
 * random_test.c: VMRUN of VMCBs with random fields, of random code, in memory that overlaps with all that the
 * processor keeps there. Whatever comes of it, the run ends by a stop that has a name, and a save and load in
 * its midst is what it was.
 */
#include "cpu/svm/svm_test.h"

#include "fuzz/blank.h"

#define ROUNDS 3000u

/* Offsets at which a change means something. */
static const uint16_t fields[] = {
	0x000, 0x004, 0x008, 0x00c, 0x010, 0x014, 0x03c, 0x040, 0x048, 0x050, 0x058, 0x060, 0x068, 0x090,
	0x0a8, 0x0b0, 0x0b8, 0x0c8, 0x400, 0x410, 0x418, 0x420, 0x428, 0x430, 0x460, 0x468, 0x480, 0x488,
	0x4c8, 0x4d0, 0x548, 0x550, 0x558, 0x560, 0x568, 0x570, 0x578, 0x5d8, 0x5f8, 0x640, 0x668,
};

static void mutate(struct machine *m)
{
	for (unsigned n = (unsigned)(machine_random() % 5); n; n--) {
		unsigned offset = fields[machine_random() % (sizeof(fields) / sizeof(fields[0]))];
		uint64_t value = vmcb_get(m, offset, 8);

		if (machine_random() % 2)
			value ^= 1ull << machine_random() % 64;
		else
			value = machine_operand();
		vmcb_put(m, offset, value, 8);
	}
	/* VMRUN is to succeed more often than not. */
	vmcb_or(m, VMCB_INTERCEPTS(4), 1, 4);
	vmcb_or(m, VMCB_ASID, 1, 4);
}

static void round_run(struct machine *m)
{
	struct vcpu_state before, after;
	enum cpu_stop stop;
	uint8_t code[64];

	for (unsigned i = 0; i < sizeof(code); i++)
		code[i] = (uint8_t)machine_random();
	vmcb_baseline(m);
	if (machine_random() % 2)
		nested_tables(m);
	mutate(m);
	m->cpu->interrupt_line = machine_random() % 4 == 0;
	m->cpu->nmi_pending = machine_random() % 4 == 0;
	m->cpu->msr.svm_gif_clear = true;
	for (unsigned i = 0; i < 16; i++)
		m->cpu->reg[i] = machine_random() % 2 ? DATA_AT + machine_random() % 64 : VMCB_AT;
	stop = svm_run_for(m, code, sizeof(code), machine_random() % 40);
	assert_in_range(stop, CPU_STOP_BUDGET, CPU_STOP_UNMODELLED);
	cpu_save(m->cpu, &before);
	cpu_load(m->cpu, &before);
	cpu_save(m->cpu, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	cpu_run(m->cpu);
}

static void anything_ends(void **state)
{
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (i % 100 == 0) { /* a new machine */
			svm_open(&m);
			blank_bus(&m.cpu->bus);
			m.cpu->bus.interrupt_acknowledge = blank_acknowledge;
			m.cpu->bus.msr_read = blank_msr_read;
		} else {
			/* What the last round has left of memory and MSRs stays. */
			machine_mode(&m, CODE_64);
			m.cpu->msr.svm_guest = false;
			m.cpu->efer |= EFER_SVME;
			m.cpu->msr.vm_hsave_pa = HSAVE_AT;
			cpu_mode_changed(m.cpu);
		}
		round_run(&m);
		if (i % 100 == 99)
			machine_close(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(anything_ends)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
