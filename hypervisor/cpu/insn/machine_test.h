/*
 * machine_test.h: a small machine for the tests of handlers, and the host's processor beside it.
 *
 * The machine has one CPU in flat 64-bit mode (or 16- or 32-bit protected mode without paging) and
 * 2 MiB of memory at linear address MACHINE_BASE. Where the host allows it, the same bytes run at
 * the same addresses on its own processor: host_run().
 */
#ifndef TRAPLINE_CPU_INSN_MACHINE_TEST_H
#define TRAPLINE_CPU_INSN_MACHINE_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_RIP, MAP_FIXED_NOREPLACE */
#endif

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "cpu/mem/phys.h"

#define MACHINE_BASE 0x20000000ull
#define MACHINE_SIZE 0x200000ull
#define CODE_AT      (MACHINE_BASE + 0x1000)
#define DATA_AT      (MACHINE_BASE + 0x10000)
#define STACK_AT     (MACHINE_BASE + 0x20000) /* in the middle of its page run */
#define TABLES_AT    0x1f0000ull              /* physical */
#define NO_EVENT     (-1)

struct machine {
	struct profile profile;
	struct phys_memory *memory;
	uint8_t *ram;
	struct cpu *cpu;
	int vector; /* of the first event since machine_run() began, or NO_EVENT */
	uint32_t error_code;
	uint64_t event_rip;
};

static void machine_note_event(void *owner, struct cpu *cpu, const struct event *event)
{
	struct machine *m = owner;

	(void)cpu;
	if (m->vector != NO_EVENT)
		return;
	m->vector = event->vector;
	m->error_code = event->error_code;
	m->event_rip = event->return_rip;
}

static void machine_note_insn(void *owner, struct cpu *cpu, const struct insn *insn)
{
	(void)owner;
	(void)cpu;
	(void)insn;
}

static inline struct segment machine_flat(uint32_t attributes, uint64_t base)
{
	return (struct segment){.base = base,
				.limit = 0xffffffff,
				.selector = 8,
				.attributes = attributes | SEG_P | SEG_S | SEG_G | SEG_ACCESSED};
}

/* Puts the CPU in @mode (CODE_16, CODE_32, CODE_64), at privilege level 0, with an empty IDT. */
static inline void machine_mode(struct machine *m, uint32_t mode)
{
	uint32_t size = mode == CODE_64 ? SEG_L : mode == CODE_32 ? SEG_DB : 0;
	struct vcpu_state state;

	cpu_save(m->cpu, &state);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		state.segment[i] = machine_flat(SEG_WRITABLE | (mode == CODE_16 ? 0 : SEG_DB), 0);
	state.segment[CS] = machine_flat(SEG_CODE | SEG_READABLE | size, 0);
	state.cr0 = CR0_PE | CR0_ET | CR0_NE | (mode == CODE_64 ? CR0_PG : 0);
	state.cr3 = TABLES_AT;
	state.cr4 = mode == CODE_64 ? CR4_PAE : 0;
	state.efer = mode == CODE_64 ? EFER_LME | EFER_LMA : 0;
	state.idtr = (struct table_register){0, 0};
	state.rflags = RFLAGS_FIXED;
	state.rip = CODE_AT;
	cpu_load(m->cpu, &state);
}

/* @profile as profile_parse() takes it. The machine starts in 64-bit mode. */
static inline void machine_open(struct machine *m, const char *profile)
{
	struct cpu_bus bus = {.owner = m, .trace_event = machine_note_event, .trace_insn = machine_note_insn};
	char why[200];
	uint64_t entry;

	*m = (struct machine){.vector = NO_EVENT};
	assert_int_equal(profile_parse(&m->profile, profile, why, sizeof(why)), 0);
	m->memory = phys_new();
	m->ram = aligned_alloc(4096, MACHINE_SIZE);
	assert_non_null(m->ram);
	memset(m->ram, 0, MACHINE_SIZE);
	/* The same memory at 0 in paging's sense, and at MACHINE_BASE for modes without paging. */
	assert_int_equal(phys_add(m->memory, 0, MACHINE_SIZE, m->ram, false), 0);
	assert_int_equal(phys_add(m->memory, MACHINE_BASE, MACHINE_SIZE, m->ram, false), 0);
	m->cpu = cpu_new(&m->profile, &bus, m->memory);
	assert_non_null(m->cpu);
	m->cpu->tracing = true;
	entry = (TABLES_AT + 0x1000) | 3;
	assert_true(phys_write(m->memory, TABLES_AT, &entry, 8));
	entry = (TABLES_AT + 0x2000) | 3;
	assert_true(phys_write(m->memory, TABLES_AT + 0x1000, &entry, 8));
	entry = MACHINE_BASE | 0x83; /* a 2 MiB page */
	assert_true(phys_write(m->memory, TABLES_AT + 0x2000 + (MACHINE_BASE >> 21) * 8, &entry, 8));
	machine_mode(m, CODE_64);
}

static inline void machine_close(struct machine *m)
{
	cpu_free(m->cpu);
	phys_free(m->memory);
	free(m->ram);
}

static inline uint8_t *machine_host(const struct machine *m, uint64_t linear)
{
	return m->ram + (linear - MACHINE_BASE);
}

static inline void machine_write(struct machine *m, uint64_t linear, const void *bytes, size_t size)
{
	assert_true(phys_write(m->memory, linear, bytes, size));
}

/* Runs @count instructions (REP iterations and events counted) of @code, placed at CODE_AT. */
static inline enum cpu_stop machine_run(struct machine *m, const uint8_t *code, size_t size, uint64_t count)
{
	machine_write(m, CODE_AT, code, size);
	m->cpu->rip = CODE_AT;
	m->vector = NO_EVENT;
	m->cpu->activity = ACTIVITY_ACTIVE;
	m->cpu->event_at = m->cpu->stop_at = m->cpu->retired + count;
	return cpu_run(m->cpu);
}

static inline void machine_set_flags(struct machine *m, uint64_t rflags)
{
	flags_set(&m->cpu->lazy, rflags);
	m->cpu->rflags = (m->cpu->rflags & ~(uint64_t)RFLAGS_DF) | (rflags & RFLAGS_DF);
}

/* Numbers that find carries: random bits, short values, and those next to the limits. */
static uint64_t machine_seed = 88172645463325252ull;

static inline uint64_t machine_random(void)
{
	machine_seed ^= machine_seed << 13;
	machine_seed ^= machine_seed >> 7;
	machine_seed ^= machine_seed << 17;
	return machine_seed;
}

static inline uint64_t machine_operand(void)
{
	uint64_t value = machine_random();

	switch (machine_random() % 6) {
	case 0: return value >> (machine_random() % 64);
	case 1: return 0 - (value & 3);
	case 2: return (1ull << (value % 64)) - (value >> 8 & 1);
	case 3: return (0x8080808080808080ull >> (value % 2)) + (value >> 8 & 3) - 1;
	default: return value;
	}
}

/* ---- the host ---- */

#ifdef __x86_64__

struct host_registers {
	uint64_t gpr[16];
	uint64_t rflags;
};

static struct host_registers host_in, host_out;
static uint64_t host_code, host_stack;
static volatile int host_signal;
void host_enter(void);
void host_leave(void);

#define HOST_EACH(f)                                                                                         \
	f(rax, 0) f(rcx, 8) f(rdx, 16) f(rbx, 24) f(rsp, 32) f(rbp, 40) f(rsi, 48) f(rdi, 56) f(r8, 64)      \
		f(r9, 72) f(r10, 80) f(r11, 88) f(r12, 96) f(r13, 104) f(r14, 112) f(r15, 120)
#define HOST_LOAD(reg, at)  "mov %c[in]+" #at "(%%rip), %%" #reg "\n"
#define HOST_STORE(reg, at) "mov %%" #reg ", %c[out]+" #at "(%%rip)\n"

/* Never called: holds host_enter and host_leave. */
__attribute__((used, noinline)) static void host_trampolines(void)
{
	__asm__ volatile(
		"jmp 1f\n"
		".globl host_enter\nhost_enter:\n"
		"push %%rbx\npush %%rbp\npush %%r12\npush %%r13\npush %%r14\npush %%r15\n"
		"mov %%rsp, %c[stack](%%rip)\n"
		"pushq %c[in]+128(%%rip)\npopfq\n" HOST_EACH(
			HOST_LOAD) "jmp *%c[code](%%rip)\n"
				   ".globl host_leave\nhost_leave:\n" HOST_EACH(
					   HOST_STORE) "mov %c[stack](%%rip), %%rsp\n"
						       "pushfq\npopq %c[out]+128(%%rip)\ncld\n"
						       "pop %%r15\npop %%r14\npop %%r13\npop %%r12\npop "
						       "%%rbp\npop %%rbx\nret\n"
						       "1:\n"
		:
		: [in] "i"(&host_in), [out] "i"(&host_out), [code] "i"(&host_code), [stack] "i"(&host_stack));
}

static void host_caught(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)info;
	host_signal = number;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)host_leave;
}

/* The machine's addresses on the host. NULL: the host does not give them. */
static inline uint8_t *host_open(void)
{
	static uint8_t alternate[65536];
	static void *opened;
	struct sigaction action = {.sa_sigaction = host_caught, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	void *at;

	if (opened)
		return opened;
	at = mmap((void *)(uintptr_t)MACHINE_BASE, MACHINE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return NULL;
	sigaltstack(&stack, NULL);
	sigaction(SIGFPE, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	opened = at;
	return at;
}

/*
 * Runs @code at CODE_AT with host_in; leaves the registers in host_out. Returns the signal that the
 * code raised, or 0.
 */
static inline int host_run(const uint8_t *code, size_t size)
{
	uint8_t *at = (uint8_t *)(uintptr_t)CODE_AT;
	static const uint8_t jump[6] = {0xff, 0x25, 0, 0, 0, 0};
	uint64_t back = (uint64_t)(uintptr_t)host_leave;

	memcpy(at, code, size);
	memcpy(at + size, jump, sizeof(jump));
	memcpy(at + size + sizeof(jump), &back, sizeof(back));
	host_code = CODE_AT;
	host_signal = 0;
	__asm__ volatile("" ::: "memory");
	host_enter();
	return host_signal;
}

#endif
#endif
