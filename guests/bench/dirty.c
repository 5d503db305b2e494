/*
 * dirty.c: a guest whose memory is filled, and which then writes to so many pages of it at each tick of the PIT, for ever:
 * what a migration has to carry. 100 ticks are a second, on every machine, as the guest waits for most of it.
 */
#include "bench/dirty.h"
#include "lib/machine.h"
#include "lib/report.h"

#define PAGE       4096u
#define AT         0x1000000ull /* 16 MiB: behind the guest itself */
#define PIT_RATE   1193182u
#define TICKS      100u
#define VECTOR     0x20u
#define PIC_MASTER 0x20u
#define PIC_SLAVE  0xa0u

__asm__(".pushsection .text\n"
	"dirty_tick:\n"
	"	push %rax\n"
	"	mov $0x20, %al\n"
	"	out %al, $0x20\n"
	"	pop %rax\n"
	"	iretq\n"
	".popsection\n");
extern const uint8_t dirty_tick[];

static uint64_t idt[2 * (VECTOR + 1)];

static void start_ticks(void)
{
	uint64_t handler = (uint64_t)(uintptr_t)dirty_tick;
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} idtr = {sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};

	idt[2 * VECTOR] = (handler & 0xffff) | 8u << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48;
	idt[2 * VECTOR + 1] = handler >> 32;
	__asm__ volatile("lidt %0" : : "m"(idtr));
	for (unsigned pic = PIC_MASTER; pic <= PIC_SLAVE; pic += PIC_SLAVE - PIC_MASTER) {
		machine_out8((uint16_t)pic, 0x11); /* ICW1 to ICW4, and all lines masked but the PIT's */
		machine_out8((uint16_t)(pic + 1), pic == PIC_MASTER ? VECTOR : VECTOR + 8);
		machine_out8((uint16_t)(pic + 1), pic == PIC_MASTER ? 1u << 2 : 2);
		machine_out8((uint16_t)(pic + 1), 1);
		machine_out8((uint16_t)(pic + 1), pic == PIC_MASTER ? 0xfe : 0xff);
	}
	machine_out8(0x43, 0x34); /* counter 0, mode 2 */
	machine_out8(0x40, (uint8_t)(PIT_RATE / TICKS));
	machine_out8(0x40, (uint8_t)(PIT_RATE / TICKS >> 8));
}

/* Something else on each page and no zeros, as memory in use has. */
static uint64_t first_of(uint64_t at) { return at * 0x9e3779b97f4a7c15ull | 1; }

void dirty_fill(uint64_t mebibytes)
{
	for (uint64_t at = AT; at < AT + (mebibytes << 20); at += 8)
		*(volatile uint64_t *)(uintptr_t)at = first_of(at);
}

static void say(const char *what, uint64_t number)
{
	report_text(what);
	report_decimal(number);
	report_end_line();
}

/* Each page counts the rounds; one that does not has lost a write. */
static void write_page(uint64_t at, uint64_t round)
{
	volatile uint64_t *word = (volatile uint64_t *)(uintptr_t)at;

	if (*word != first_of(at) + round)
		say("lost ", at);
	*word = first_of(at) + round + 1;
}

_Noreturn void dirty_for_ever(uint64_t mebibytes, uint64_t pages, uint64_t beat)
{
	uint64_t end = AT + (mebibytes << 20), at = AT, round = 0;

	start_ticks();
	for (uint64_t tick = 1;; tick++) {
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		if (beat && tick % beat == 0)
			say("beat ", tick);
		for (uint64_t i = 0; i < pages; i++) {
			write_page(at, round);
			at += PAGE;
			if (at == end) {
				at = AT;
				round++;
			}
		}
	}
}
