/*
 * main.c: runs the kernel that the command line names (`kernel=NAME count=N`) and says how many
 * instructions that were, between a line `begin` and a line `end`, whose distance in time the host measures.
 * `kernel=dirty count=MIB pages=N beat=N` says `begin` and has no end.
 */
#include "bench/dirty.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/select.h"
#include "x86/case.h"
#include "x86/control_device.h"
#include "x86/registers.h"

_Noreturn void guest_main(uint32_t protocol, const void *information);

/* The library's command line knows of cases; there are none here. */
const struct case_spec case_table[1];
const uint32_t case_count;
const char case_suite[] = "bench";

extern uint64_t kernel_alu(uint64_t), kernel_branch(uint64_t), kernel_memory(uint64_t), kernel_calls(uint64_t),
	kernel_sse2(uint64_t), kernel_exits(uint64_t), kernel_cr3(uint64_t), kernel_cpuid(uint64_t);
extern void kernel_movs(uint64_t), kernel_stos(uint64_t);
extern uint64_t kernel_cold(uint64_t count, uint64_t at, uint64_t stride);
extern uint64_t kernel_fault(uint64_t count, uint64_t address);
extern const uint8_t once[], once_end[], page_fault[];

#define COLD_AT 0x2000000ull        /* copies of `once` */
#define NOT_MAPPED 0x200000000ull   /* the guest maps 4 GiB */
#define BLOCK 0x400000ull           /* bytes of a round of movs and stos */

static uint64_t idt[512];

static uint64_t run_cold(uint64_t count)
{
	uint64_t stride = ((uint64_t)(once_end - once) + 63) & ~63ull;

	for (uint64_t i = 0; i < count; i++)
		machine_copy((void *)(COLD_AT + i * stride), once, (size_t)(once_end - once));
	report_text("begin");
	report_end_line();
	return kernel_cold(count, COLD_AT, stride);
}

static uint64_t run_fault(uint64_t count)
{
	uint64_t handler = (uint64_t)(uintptr_t)page_fault;
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} idtr = {sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};

	idt[28] = (handler & 0xffff) | 8u << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48;
	idt[29] = handler >> 32;
	__asm__ volatile("lidt %0" : : "m"(idtr));
	return kernel_fault(count, NOT_MAPPED);
}

static uint64_t run_movs(uint64_t count)
{
	kernel_movs(count);
	return count * BLOCK;
}

static uint64_t run_stos(uint64_t count)
{
	kernel_stos(count);
	return count * BLOCK;
}

static uint64_t run_none(uint64_t count) { return count; }

static const struct kernel {
	const char *name;
	uint64_t (*run)(uint64_t count);
} kernels[] = {
	{"none", run_none},         {"alu", kernel_alu},   {"branch", kernel_branch}, {"memory", kernel_memory},
	{"calls", kernel_calls},    {"sse2", kernel_sse2}, {"exits", kernel_exits},   {"cold", run_cold},
	{"cr3", kernel_cr3},        {"fault", run_fault},  {"cpuid", kernel_cpuid},   {"movs", run_movs},
	{"stos", run_stos},
};

/* The value of `@name=` on the line, up to a space. */
static const char *value_of(const char *line, const char *name)
{
	for (; *line; line++) {
		const char *l = line, *n = name;

		while (*n && *l == *n) {
			l++;
			n++;
		}
		if (!*n && *l == '=')
			return l + 1;
	}
	return "";
}

static bool same_word(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return !*b && (!*a || *a == ' ');
}

static uint64_t number(const char *text)
{
	uint64_t value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (uint64_t)(*text++ - '0');
	return value;
}

static _Noreturn void finish(void)
{
	const char *text = "Shutdown";

	machine_out32(DEBUG_EXIT_PORT, 0);
	while (*text)
		machine_out8(0x8900, (uint8_t)*text++);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void run(const struct kernel *kernel, uint64_t count)
{
	uint64_t done;

	if (kernel->run != run_cold) {
		report_text("begin");
		report_end_line();
	}
	done = kernel->run(count);
	report_text("end ");
	report_text(kernel->name);
	report_text(" ");
	report_decimal(done);
	report_end_line();
}

_Noreturn void guest_main(uint32_t protocol, const void *information)
{
	const char *line = select_command_line(protocol, information), *name = value_of(line, "kernel");
	uint64_t count = number(value_of(line, "count"));

	machine_probe();
	machine.control_device = false; /* no cases here; console and serial port are both wanted */
	machine_write_cr4(machine_read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (same_word(name, "dirty")) {
		dirty_fill(count);
		report_text("begin");
		report_end_line();
		dirty_for_ever(count, number(value_of(line, "pages")), number(value_of(line, "beat")));
	}
	for (unsigned i = 0; i < sizeof(kernels) / sizeof(*kernels); i++)
		if (same_word(name, kernels[i].name) && count)
			run(&kernels[i], count);
	finish();
}
