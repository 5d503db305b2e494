/*
 * main.c: a guest that is worth moving: it fills memory, writes to a part of it again and again, checks each time
 * that nothing of that was lost or torn, and says how far it is. It runs on any machine.
 *
 *   fill=PAGES   pages that hold something (from 32 MiB on)
 *   write=PAGES  how many of these are written in each round; each has kept what the round before has written
 *   work=N       turns of a loop without memory between two pages
 *   rounds=N     how many rounds; 0: for ever
 *   say=N        each N-th round says so
 *   idle         behind the rounds, a halt that nothing ends, in place of the end
 *
 * It ends with 1 at the debug exit where all was as it should be, and 7 where a page was not.
 */
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/select.h"
#include "x86/case.h"
#include "x86/control_device.h"

_Noreturn void guest_main(uint32_t protocol, const void *information);

/* The library's command line knows of cases; there are none here. */
const struct case_spec case_table[1];
const uint32_t case_count;
const char case_suite[] = "live";

#define FILL_AT   0x2000000ull
#define PAGE      4096ull
#define WORDS     (PAGE / 8)
#define STEP      61u /* words between two that are written */
#define EXIT_GOOD 0
#define EXIT_LOST 3

/* The value of `@name=` on the line; @standard where it is not there. */
static uint64_t number_of(const char *line, const char *name, uint64_t standard)
{
	for (; *line; line++) {
		const char *l = line, *n = name;
		uint64_t value = 0;

		for (; *n && *l == *n; l++)
			n++;
		if (*n || *l != '=')
			continue;
		for (l++; *l >= '0' && *l <= '9'; l++)
			value = value * 10 + (uint64_t)(*l - '0');
		return value;
	}
	return standard;
}

static bool has_word(const char *line, const char *word)
{
	for (; *line; line++) {
		const char *l = line, *w = word;

		for (; *w && *l == *w; l++)
			w++;
		if (!*w && (!*l || *l == ' '))
			return true;
	}
	return false;
}

static volatile uint64_t *page_at(uint64_t page) { return (volatile uint64_t *)(uintptr_t)(FILL_AT + page * PAGE); }

/* What round @round leaves in a word: never 0, and another one in each. */
static uint64_t value_of(uint64_t round, uint64_t page, uint64_t word)
{
	return (round + 1) * 0x9e3779b97f4a7c15ull ^ page << 20 ^ word << 1 ^ 1;
}

static void fill(uint64_t pages)
{
	for (uint64_t page = 0; page < pages; page++)
		for (uint64_t word = 0; word < WORDS; word++)
			page_at(page)[word] = value_of(0, page, word % STEP ? 0 : word) | 1;
	for (uint64_t page = 0; page < pages; page++)
		for (uint64_t word = 0; word < WORDS; word += STEP)
			page_at(page)[word] = value_of(0, page, word);
}

static _Noreturn void end(unsigned code)
{
	machine_out32(DEBUG_EXIT_PORT, code);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void look_at(uint64_t page, uint64_t word, uint64_t round)
{
	uint64_t there = page_at(page)[word];

	if (there == value_of(round, page, word))
		return;
	report_text("LOST");
	report_field("page", page);
	report_field("word", word);
	report_field("round", round);
	report_field("there", there);
	report_end_line();
	end(EXIT_LOST);
}

static void work(uint64_t turns)
{
	while (turns--)
		__asm__ volatile("");
}

static void write_round(uint64_t round, uint64_t pages, uint64_t turns)
{
	for (uint64_t page = 0; page < pages; page++) {
		for (uint64_t word = 0; word < WORDS; word += STEP) {
			look_at(page, word, round - 1);
			page_at(page)[word] = value_of(round, page, word);
		}
		work(turns);
	}
}

static void say(const char *what, uint64_t number)
{
	report_text(what);
	report_text(" ");
	report_decimal(number);
	report_end_line();
}

_Noreturn void guest_main(uint32_t protocol, const void *information)
{
	const char *line = select_command_line(protocol, information);
	uint64_t pages = number_of(line, "fill", 256), writes = number_of(line, "write", 16);
	uint64_t rounds = number_of(line, "rounds", 100), often = number_of(line, "say", 10), round;

	machine_probe();
	machine.control_device = false; /* no cases here; console and serial port are both wanted */
	fill(pages);
	say("filled", pages);
	for (round = 1; rounds == 0 || round <= rounds; round++) {
		write_round(round, writes, number_of(line, "work", 1000));
		if (round % (often ? often : 1) == 0)
			say("round", round);
	}
	for (uint64_t page = 0; page < pages; page++)
		for (uint64_t word = 0; word < WORDS; word += STEP)
			look_at(page, word, page < writes ? round - 1 : 0);
	say("all pages are as they were left,", pages);
	if (has_word(line, "idle"))
		for (;;)
			__asm__ volatile("cli; hlt");
	end(EXIT_GOOD);
}
