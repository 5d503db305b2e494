/* main.c: the order of things. */
#include "l1/l1.h"
#include "x86/boot_protocol.h"
#include "x86/l1.h"

#define MEBIBYTE         0x100000ull
#define INFORMATION_SIZE 0x40000ull /* command line and what modules are called, twice */

struct core_machine l1_machine;
struct core_vcpu l1_vcpus[L1_CPUS];
static struct facts facts;

extern const uint8_t image_end[], boot_multiboot[], boot_pvh[];

_Noreturn void l1_main(enum l1_protocol protocol, const void *information);

/* ---- the guest's memory ---- */

static uint64_t page_down(uint64_t address) { return address & ~(uint64_t)(CORE_PAGE - 1); }

/* Command line and modules' texts to below @top, where nothing is yet; the new top. */
static uint64_t lift_texts(uint64_t top)
{
	facts.line = facts_lift(facts.line, &top);
	for (unsigned i = 0; i < facts.modules; i++)
		facts.module[i].text = facts_lift(facts.module[i].text, &top);
	return page_down(top);
}

/* Modules to the top, the last one first. */
static uint64_t lift_modules(uint64_t top)
{
	for (unsigned i = facts.modules; i-- > 0;) {
		struct facts_module *module = &facts.module[i];
		uint64_t size = module->end - module->start, to = page_down(top - size);

		if (size > top || to < MEBIBYTE || to < module->start)
			l1_refuse("the modules do not fit into the guest's memory");
		copy_up((void *)to, (void *)module->start, size);
		module->start = top = to;
		module->end = to + size;
	}
	return top;
}

/* How far memory has been used above 1 MiB. */
static uint64_t used(void)
{
	uint64_t end = (uint64_t)image_end - L1_VIRTUAL;

	for (unsigned i = 0; i < facts.modules; i++)
		if (facts.module[i].end > end)
			end = facts.module[i].end;
	return end;
}

/* ---- starts ---- */

static struct core_start start_at(enum l1_protocol protocol, uint64_t entry, uint64_t information)
{
	if (protocol == L1_LINUX)
		return (struct core_start){.rip = entry, .rsi = information};
	return (struct core_start){
		.rip = entry, .rax = protocol == L1_MULTIBOOT ? MULTIBOOT_LOADED : 0, .rbx = information};
}

/* The first module, in memory that is as if we had never been there. */
static struct core_start start_guest(uint64_t top)
{
	struct facts_module *module = &facts.module[0];
	struct image_entry entry;
	uint64_t end = used(), size, information;
	const uint8_t *file;

	if (!facts.modules)
		l1_refuse("there is no guest: it is the first module, or initrd");
	top = lift_modules(lift_texts(top));
	if (end > top)
		l1_refuse("the modules do not fit into the guest's memory");
	clear((void *)MEBIBYTE, end - MEBIBYTE);
	file = (const uint8_t *)module->start;
	size = module->end - module->start;
	entry = linux_is(file, size) ? linux_load(file, size, top) : image_load(file, size, top);
	if (entry.protocol == L1_LINUX)
		information = linux_write(&facts, file, 1, top);
	else
		information = facts_write(&facts, entry.protocol, 1, top);
	clear((void *)module->start, size);
	return start_at(entry.protocol, entry.address, information);
}

/* This image again, which is still where the loader has put it; its information goes behind it and the
 * modules. */
static struct core_start start_self(void)
{
	const uint8_t *entry = facts.protocol == L1_MULTIBOOT ? boot_multiboot : boot_pvh;
	uint64_t end = used(), top = page_down(end + INFORMATION_SIZE), information;

	top = lift_texts(top);
	facts_one_less((char *)facts.line, "l1.depth=");
	information = facts_write(&facts, facts.protocol, 0, top);
	if (information < end || top + INFORMATION_SIZE > l1_machine.hidden)
		l1_refuse("the loader's information does not fit into the guest's memory");
	return start_at(facts.protocol, (uint64_t)entry - L1_VIRTUAL, information);
}

/* ---- the machine ---- */

/* At which depth we run ourselves: a hypervisor of our kind above says so. */
static unsigned own_depth(void)
{
	uint32_t r[4];

	hw_cpuid(L1_LEAF, L1_CALL_IDENTIFY, r);
	return r[0] == L1_SIGNATURE ? r[1] : 0;
}

static void describe_machine(void)
{
	const char *why = core_probe(&l1_machine);

	if (why)
		l1_refuse(why);
	l1_machine.depth = own_depth() + 1;
	l1_machine.nest = facts_number(facts.line, "l1.nest=", 1);
	l1_machine.cpus = cpus_count();
	if (l1_machine.cpus > 1)
		l1_machine.startup_page = memory_low_page(&facts);
}

void l1_main(enum l1_protocol protocol, const void *information)
{
	struct core_vcpu *vcpu;
	struct core_start start;
	const char *why;
	uint32_t r[4];

	hw_find_consoles();
	cpus_load_idt();
	facts_read(&facts, protocol, information);
	describe_machine();
	memory_move(&facts, &l1_machine);
	if (l1_machine.cpus > 1)
		cpus_prepare(l1_machine.startup_page);
	start = facts_number(facts.line, "l1.depth=", 1) > 1 ? start_self() : start_guest(l1_machine.hidden);
	hw_cpuid(1, 0, r);
	if (r[1] >> 24 >= L1_CPUS)
		l1_refuse("this processor's local APIC has too high a number");
	vcpu = &l1_vcpus[r[1] >> 24];
	why = core_create(vcpu, &l1_machine);
	if (why)
		l1_refuse(why);
	core_start(vcpu, &start);
	core_run(vcpu);
}
