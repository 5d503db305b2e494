/*
 * apic.c: the interrupt command register. A processor that is sent a SIPI begins in the hypervisor, which
 * then begins the guest where the guest wanted it (APM 2 16.5, SDM 3A 9.4.4). INIT needs no care: it takes a
 * processor out of the hypervisor, back to where only a SIPI wakes it.
 */
#include "kmod/core/core.h"
#include "x86/msr.h"

#define REGISTER_ICR      0x300u
#define REGISTER_ICR_HIGH 0x310u
#define MSR_X2APIC_ICR    (MSR_X2APIC_FIRST + (REGISTER_ICR >> 4))

#define ICR_VECTOR    0xffu
#define ICR_DELIVERY  (7u << 8)
#define ICR_STARTUP   (6u << 8)
#define ICR_ASSERT    (1u << 14)
#define ICR_LOGICAL   (1u << 11)
#define ICR_SHORTHAND (3u << 18)
#define ICR_SELF      (1u << 18)
#define EVERYONE      0xffu

static volatile uint32_t *apic_register(const struct core_vcpu *vcpu, unsigned offset)
{
	return (volatile uint32_t *)((uint8_t *)hw_map(vcpu->apic_page) + offset);
}

void apic_watch(struct core_vcpu *vcpu)
{
	uint64_t base = hw_read_msr(MSR_APIC_BASE), page = base & 0x000ffffffffff000ull;

	if (vcpu->machine->cpus < 2)
		return;
	if (!vcpu->step.page)
		vcpu->step.page = hw_pages(1);
	if (!vcpu->step.page)
		hw_stop("no memory for a page of the local APIC", 0);
	if (vcpu->apic_page && vcpu->apic_page != page)
		tables_set(vcpu, vcpu->apic_page, vcpu->apic_page, CORE_READ | CORE_WRITE | CORE_EXECUTE);
	vcpu->apic_page = page;
	vcpu->apic_entry = tables_entry(vcpu, page);
	tables_set(vcpu, page, page, CORE_READ);
	CORE_CALL(vcpu, flush, vcpu);
	CORE_CALL(vcpu, watch_msr, vcpu, MSR_X2APIC_ICR);
	CORE_CALL(vcpu, watch_msr, vcpu, MSR_APIC_BASE);
}

/* Notes where the receivers of this command shall begin, and sends them to the embedder's code. */
static uint32_t redirect(struct core_vcpu *vcpu, uint32_t command, uint32_t destination)
{
	struct core_machine *machine = vcpu->machine;
	uint8_t vector = command & ICR_VECTOR;

	if ((command & ICR_DELIVERY) != ICR_STARTUP)
		return command;
	if (!(command & (ICR_SHORTHAND | ICR_LOGICAL)) && destination < EVERYONE) {
		machine->startup_vector[destination] = vector;
	} else {
		for (unsigned id = 0; id < sizeof(machine->startup_vector); id++)
			machine->startup_vector[id] = vector;
	}
	return (command & ~ICR_VECTOR) | machine->startup_page;
}

/* Whether the command sends an SMI to this processor, which the guest's state holds back. */
static bool holds(struct core_vcpu *vcpu, uint32_t command, uint32_t destination)
{
	bool self = (command & ICR_SHORTHAND) == ICR_SELF ||
		    (!(command & (ICR_SHORTHAND | ICR_LOGICAL)) && destination == vcpu->apic_id);

	return self && (command & ICR_DELIVERY) == APIC_SMI && vcpu->svm && svm_holds_smi(vcpu);
}

void apic_write(struct core_vcpu *vcpu, unsigned offset, uint32_t value)
{
	uint32_t destination = *apic_register(vcpu, REGISTER_ICR_HIGH) >> 24;

	if (offset == REGISTER_ICR && holds(vcpu, value, destination))
		return;
	if (offset == REGISTER_ICR)
		value = redirect(vcpu, value, destination);
	*apic_register(vcpu, offset) = value;
}

bool apic_is_command(unsigned offset) { return offset == REGISTER_ICR; }

bool apic_sends_smi(unsigned offset, uint32_t value)
{
	return apic_is_command(offset) && (value & ICR_DELIVERY) == APIC_SMI;
}

void apic_send_self(struct core_vcpu *vcpu, enum apic_delivery delivery)
{
	uint64_t base = hw_read_msr(MSR_APIC_BASE);
	uint8_t *page = hw_map(base & 0x000ffffffffff000ull);
	volatile uint32_t *high = (volatile uint32_t *)(page + REGISTER_ICR_HIGH);
	uint32_t was;

	if (base & APIC_BASE_EXTD) {
		hw_write_msr(MSR_X2APIC_ICR, (uint64_t)vcpu->apic_id << 32 | delivery | ICR_ASSERT);
		return;
	}
	was = *high;
	*high = vcpu->apic_id << 24;
	*(volatile uint32_t *)(page + REGISTER_ICR) = delivery | ICR_ASSERT;
	*high = was;
}

bool apic_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint32_t command = (uint32_t)value, destination = (uint32_t)(value >> 32);

	if (index == MSR_X2APIC_ICR && holds(vcpu, command, destination))
		return true;
	if (index == MSR_X2APIC_ICR)
		value = (value & ~0xffffffffull) | redirect(vcpu, command, destination);
	return hw_try_write_msr(index, value);
}
