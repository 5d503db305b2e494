/* cpus.c: other processors, and exceptions of the hypervisor itself. */
#include "l1/l1.h"
#include "x86/vectors.h"

/* Behind startup_facts in boot.S. */
struct startup_facts {
	uint32_t cr3;
	uint32_t far32;
	uint16_t far32_selector;
	uint32_t far64;
	uint16_t far64_selector;
	uint16_t gdtr_limit;
	uint32_t gdtr_base;
} __attribute__((packed));

extern const uint8_t startup_code[], startup_facts[], startup_end[], l1_stubs[];
static uint64_t idt[2 * 32];

_Noreturn void l1_ap(uint32_t id);
_Noreturn void l1_fatal(const uint64_t *frame);

unsigned cpus_count(void)
{
	uint32_t r[4];

	hw_cpuid(1, 0, r);
	return r[3] >> 28 & 1 ? r[1] >> 16 & 0xff : 1;
}

void cpus_prepare(uint8_t page)
{
	uint8_t *code = (uint8_t *)((uintptr_t)page << 12);
	struct startup_facts *facts = (struct startup_facts *)(code + (startup_facts - startup_code));
	uint32_t base = (uint32_t)page << 12;

	copy(code, startup_code, (uint64_t)(startup_end - startup_code));
	facts->cr3 = (uint32_t)hw_read_cr(3);
	facts->far32 += base;
	facts->far64 += base;
	facts->gdtr_base += base;
}

void cpus_load_idt(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdtr = {sizeof(idt) - 1, (uint64_t)idt};

	for (unsigned n = 0; n < 32; n++) {
		uint64_t stub = (uint64_t)(l1_stubs + 16 * n);

		idt[2 * n] = (stub & 0xffff) | L1_CS64 << 16 | 0x8eull << 40 | (stub >> 16 & 0xffff) << 48;
		idt[2 * n + 1] = stub >> 32;
	}
	__asm__ volatile("lidt %0" : : "m"(gdtr));
}

void l1_ap(uint32_t id)
{
	struct core_vcpu *vcpu = &l1_vcpus[id];
	struct core_start start = {.real = true, .page = l1_machine.startup_vector[id]};
	const char *why;

	cpus_load_idt();
	why = core_create(vcpu, &l1_machine);
	if (why)
		hw_stop(why, id);
	core_start(vcpu, &start);
	core_run(vcpu);
}

void l1_fatal(const uint64_t *frame)
{
	hw_stop("an exception of its own, at", frame[vector_has_error_code((unsigned)frame[0]) ? 2 : 1]);
}
