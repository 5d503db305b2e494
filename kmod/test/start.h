/* start.h: the core with one vCPU on the made-up hardware of fake.h, for its unit tests. */
#ifndef TRAPLINE_KMOD_TEST_START_H
#define TRAPLINE_KMOD_TEST_START_H

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kmod/test/fake.h"

/*
 * Everything anew: the hardware as after a reset with @vendor's virtualization, @machine with @cpus
 * processors, and @vcpu at @rip. @nest: its guest may have guests of its own.
 */
static inline void fake_start(struct core_machine *machine, struct core_vcpu *vcpu, enum core_vendor vendor,
			      bool nest, unsigned cpus, uint64_t rip)
{
	fake_reset(vendor);
	memset(machine, 0, sizeof(*machine));
	memset(vcpu, 0, sizeof(*vcpu));
	machine->hidden = FAKE_HIDDEN;
	machine->hidden_size = FAKE_MEMORY - FAKE_HIDDEN;
	machine->mapped = FAKE_MEMORY;
	machine->cpus = cpus;
	machine->startup_page = 0x9f;
	machine->nest = nest;
	machine->depth = 1;
	assert_null(core_probe(machine));
	assert_int_equal(machine->vendor, vendor);
	assert_null(core_create(vcpu, machine));
	core_start(vcpu, &(struct core_start){.rip = rip});
}

#endif
