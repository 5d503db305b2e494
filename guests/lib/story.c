#include "lib/story.h"

#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/vmx_world.h"
#include "x86/descriptors.h"

#define ORDER_MAX  256u
#define CHECKS_MAX 24u /* failed ones that a line tells */
#define LONG_WHILE 200000u

extern const uint8_t story_stubs[];
extern const uint8_t story_rdmsr_at[], story_wrmsr_at[], story_read8_at[], story_resume[];

static const struct case_spec *story;
static unsigned checks, failed;
static struct {
	const char *name;
	int n;
} told[CHECKS_MAX]; /* the failed ones: of one that is made again and again the first failure counts */
static bool not_supported, reports;

static volatile unsigned counts[256], total;
static volatile uint16_t order[ORDER_MAX];
static story_handler *volatile handler;
static volatile unsigned fault_vector;
static volatile uint64_t fault_error;
static volatile uintptr_t may_fault;
static uint64_t idt[2 * 256] __attribute__((aligned(16)));

/* ---- parameters and checks ---- */

uint64_t story_given(enum story_parameter parameter)
{
	const struct case_setting *setting = story->settings;

	for (unsigned i = 0; i < story->setting_count; i++, setting++)
		if (setting->kind == SETTING_PARAMETER && setting->field == parameter)
			return setting->value;
	return 0;
}

static void report_check(const char *name, int n, const char *kind, uint64_t value)
{
	report_text(" ");
	report_text(name);
	if (n >= 0)
		report_decimal((uint64_t)n);
	report_text(kind);
	report_hex(value);
}

static void check(const char *name, int n, uint64_t want, uint64_t got)
{
	if (not_supported)
		return;
	checks++;
	if (want == got || failed >= CHECKS_MAX)
		return;
	for (unsigned i = 0; i < failed; i++)
		if (told[i].name == name && told[i].n == n)
			return;
	told[failed].name = name;
	told[failed++].n = n;
	if (failed == 1)
		report_text("RUNS");
	report_check(name, n, ":want=0x", want);
	report_check(name, n, ":got=0x", got);
}

void story_reports(void) { reports = true; }
void story_check(const char *name, uint64_t want, uint64_t got) { check(name, -1, want, got); }
void story_check_at(const char *name, unsigned n, uint64_t want, uint64_t got)
{
	check(name, (int)n, want, got);
}

bool story_needs(bool holds, const char *probe)
{
	if (holds || not_supported || failed)
		return holds;
	not_supported = true;
	report_text("NOTSUP ");
	report_text(probe);
	return false;
}

static bool has_apic(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return r[3] >> 9 & 1;
}

bool story_has_apic(void) { return story_needs(has_apic(), "cpuid.1.0.edx[9]=0"); }

bool story_has_x2apic(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return story_needs(r[2] >> 21 & 1, "cpuid.1.0.ecx[21]=0");
}

bool story_apic_mode(void)
{
	if (!story_has_apic())
		return false;
	if (GIVEN(apic)) {
		if (!story_has_x2apic())
			return false;
		machine_write_msr(APIC_BASE_MSR,
				  machine_read_msr(APIC_BASE_MSR) | APIC_BASE_EN | APIC_BASE_EXT);
	}
	apic_enable(0xff);
	apic_write(APIC_TPR, 0);
	return true;
}

static bool spoiled;

void story_spoils(void) { spoiled = true; }
bool story_has_spoiled(void) { return spoiled; }

/* ---- interrupts ---- */

void story_handle(story_handler *function) { handler = function; }
unsigned story_count(unsigned vector) { return counts[vector]; }
unsigned story_total(void) { return total; }
unsigned story_order(unsigned n) { return n < total && n < ORDER_MAX ? order[n] : 256; }

void story_forget(void)
{
	for (unsigned i = 0; i < 256; i++)
		counts[i] = 0;
	total = 0;
}

/* Exceptions that come again where nothing is done about them. */
#define FAULTS 0x403f7d61u
_Noreturn void monitor_fault(const uint64_t *frame);

/* Called by the stubs (story_entry.S); may change the frame. */
void story_interrupt(struct story_frame *frame);
void story_interrupt(struct story_frame *frame)
{
	unsigned vector = (unsigned)frame->vector;

	counts[vector]++;
	if (total < ORDER_MAX)
		order[total] = (uint16_t)vector;
	total++;
	if (frame->rip == (uintptr_t)story_rdmsr_at || frame->rip == (uintptr_t)story_wrmsr_at ||
	    frame->rip == (uintptr_t)story_read8_at || frame->rip == may_fault) {
		fault_vector = vector;
		fault_error = frame->error;
		frame->rip = (uintptr_t)story_resume;
		return;
	}
	if (handler)
		handler(frame);
	else if (1u << (vector & 31) & FAULTS && vector < 32)
		monitor_fault(&frame->vector); /* going back there would be for ever */
	else if (vector >= 32)
		apic_write(APIC_EOI, 0);
}

void story_open(void) { __asm__ volatile("sti; nop; nop; nop; nop; cli" : : : "memory"); }

void story_pause(unsigned count)
{
	while (count--)
		__asm__ volatile("pause");
}

bool story_wait(unsigned vector, unsigned count)
{
	for (unsigned i = 0; i < LONG_WHILE && counts[vector] < count; i++)
		__asm__ volatile("sti; nop; nop; cli; pause" : : : "memory");
	return counts[vector] >= count;
}

static void build_idt(void)
{
	for (unsigned n = 0; n < 256; n++) {
		uint64_t stub = (uintptr_t)(story_stubs + 16 * n);

		idt[2 * n] = (stub & 0xffff) | MONITOR_CS64 << 16 |
			     (uint64_t)(SEG_P | TYPE_INTERRUPT_GATE) << 40 | (stub >> 16 & 0xffff) << 48;
		idt[2 * n + 1] = 0;
	}
}

void story_begin_interrupts(void)
{
	struct table_pointer table = {.limit = sizeof(idt) - 1, .base = (uintptr_t)idt};

	build_idt();
	__asm__ volatile("lidt %0" : : "m"(table));
}

void story_end_interrupts(void) { __asm__ volatile("lidt %0" : : "m"(exchange.monitor_idtr)); }

/* ---- what may fault ---- */

unsigned story_rdmsr(uint32_t index, uint64_t *value);
unsigned story_wrmsr(uint32_t index, uint64_t value);
unsigned story_read8(uint64_t address, uint8_t *value);

unsigned story_try_rdmsr(uint32_t index, uint64_t *value)
{
	return story_rdmsr(index, value) ? fault_vector : STORY_NO_FAULT;
}

unsigned story_try_wrmsr(uint32_t index, uint64_t value)
{
	return story_wrmsr(index, value) ? fault_vector : STORY_NO_FAULT;
}

unsigned story_try_read8(uint64_t address, uint8_t *value)
{
	return story_read8(address, value) ? fault_vector : STORY_NO_FAULT;
}

void story_let_fault(const void *address) { may_fault = (uintptr_t)address; }
unsigned story_fault_vector(void) { return fault_vector; }
uint64_t story_fault_error(void) { return fault_error; }

/* ---- a story from its beginning to its end ---- */

/* Without a snapshot the next case must find the APIC as it was: in xAPIC mode, empty, all masked. */
static void put_back(uint64_t apic_base)
{
	static const enum apic_register masked[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
						    APIC_LVT_ERROR};

	machine_out8(0x21, 0xff);
	machine_out8(0xa1, 0xff);
	if (!apic_base)
		return;
	if (machine_read_msr(APIC_BASE_MSR) != apic_base) {
		machine_write_msr(APIC_BASE_MSR, apic_base & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXT));
		machine_write_msr(APIC_BASE_MSR, apic_base);
	}
	apic_enable(0xff);
	apic_write(APIC_TPR, 0);
	for (unsigned i = 0; i < sizeof(masked) / sizeof(masked[0]); i++)
		apic_write(masked[i], LVT_MASKED);
	apic_write(APIC_INITIAL_COUNT, 0);
	if (!apic_is_x2apic()) {
		apic_write(APIC_LDR, 0);
		apic_write(APIC_DFR, 0xffffffff);
	}
	apic_settle();
}

void story_run(const struct case_spec *spec)
{
	uint64_t apic_base = has_apic() ? machine_read_msr(APIC_BASE_MSR) : 0;

	story = spec;
	checks = failed = 0;
	not_supported = reports = false;
	handler = NULL;
	may_fault = 0;
	story_forget();
	story_begin_interrupts();
	spec->story();
	vmx_end();
	__asm__ volatile("cli");
	cpus_stop();
	handler = NULL;
	if (!machine.control_device)
		put_back(apic_base);
	story_end_interrupts();
	if (reports)
		return;
	if (!not_supported && !checks)
		report_text("ERROR a story without a check");
	else if (!not_supported && !failed)
		report_text("RUNS");
}
