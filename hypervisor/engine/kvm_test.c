/* The kvm engine, on /dev/kvm where there is one: the rest is skipped, and says why. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/kvm.h"
#include "x86/vectors.h"
#include "vm/snapshot.h"
#include "vm/suite.h"
#include "vm/test_machine.h"
#include "x86/msr.h"

static bool missing(void)
{
	char text[1024];

	if (kvm_device_describe(NULL, text, sizeof(text)))
		return false;
	print_message("skipped: %s\n", text);
	return true;
}
#define NEEDS_DEVICE                                                                                         \
	do {                                                                                                 \
		(void)state;                                                                                 \
		if (missing())                                                                               \
			skip();                                                                              \
	} while (0)

static struct machine *new_machine(struct machine_config *config)
{
	struct machine *machine;
	char why[256];

	config->engine = &engine_kvm;
	config->cpu = "host";
	if (!config->memory)
		config->memory = TEST_MEMORY;
	config->control = true;
	if (machine_new(&machine, config, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

static struct machine *boot(struct test_output *output, const uint8_t *code, const uint8_t *end)
{
	static const struct boot_options none;
	struct machine_config config = {.owner = output, .console = test_console, .serial = test_serial};
	struct image image = {
		.path = "test", .data = (uint8_t *)(uintptr_t)code, .size = (size_t)(end - code)};
	struct machine *machine = new_machine(&config);
	char why[256];

	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	return machine;
}

/* An engine that does not count ends only by the clock. */
static const struct machine_end *run(struct machine *machine)
{
	struct machine_limits limits = {
		.insns = UINT64_MAX, .deadline = machine_now() + 200000000, .output = 4096};

	return machine_run(machine, &limits);
}

/* What is saved is of one moment, and the time and the TSC go on from there when it is loaded: neither steps back. */
static void time_goes_on(void **state)
{
	struct machine_config config = {0};
	const struct state_table *table;
	struct vcpu_state saved = {0}, again = {0};
	struct machine *machine;
	struct engine_time *time;
	const struct engine_ops *ops = &engine_kvm;

	NEEDS_DEVICE;
	machine = new_machine(&config);
	time = ops->chip(machine->engine, 0, &table);
	assert_int_equal(ops->chips_fetch(machine->engine), 0);
	assert_int_equal(ops->vcpu_save(machine->vcpu, &saved), 0);
	usleep(2000);
	assert_int_equal(ops->vcpu_save(machine->vcpu, &again), 0);
	if (kvm_of(machine->engine)->tsc_khz) /* the same moment, within what one look at it takes */
		assert_in_range(again.tsc - saved.tsc + 1000000, 0, 2000000);
	time->ns = 10000000000;
	saved.tsc = 777000000000;
	table->loaded(time);
	assert_int_equal(ops->vcpu_load(machine->vcpu, &saved), 0);
	usleep(2000);
	assert_true(clock_now(&machine->clock) >= 10002000000);
	kvm_of(machine->engine)->time.passed = true; /* as if it had run */
	assert_int_equal(ops->chips_fetch(machine->engine), 0);
	assert_int_equal(ops->vcpu_save(machine->vcpu, &again), 0);
	assert_true(time->ns >= 10002000000);
	assert_true(again.tsc > saved.tsc);
	machine_free(machine);
}

/* ---- devices that cannot be used ---- */

static void why_not(void **state)
{
	static const struct {
		const char *path, *why;
	} rows[] = {{"/dev/null", "/dev/null is not a KVM device"},
		    {"/", "/: Is a directory"},
		    {"/nonexistent/kvm", "there is no /nonexistent/kvm"}};
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine_config config = {.cpu = "host", .device = rows[i].path};
		struct engine *engine;

		assert_false(kvm_device_describe(rows[i].path, text, sizeof(text)));
		assert_string_equal(text, rows[i].why);
		assert_int_equal(engine_kvm.open(&engine, &config, text, sizeof(text)), -ENODEV);
		assert_string_equal(text, rows[i].why);
	}
}

static void other_profiles(void **state)
{
	struct engine_config config = {.cpu = "intel"};
	struct engine *engine;
	char text[256];

	(void)state;
	assert_int_equal(engine_kvm.open(&engine, &config, text, sizeof(text)), -EINVAL);
	assert_non_null(strstr(text, "only host"));
}

/* As another user: a permission that is missing names who has it. */
static void no_permission(void **state)
{
	char path[] = "/tmp/trapline-kvm-XXXXXX", text[256];
	int file = mkstemp(path);

	(void)state;
	assert_true(file >= 0);
	close(file);
	assert_int_equal(chmod(path, 0), 0);
	if (geteuid() != 0) {
		assert_false(kvm_device_describe(path, text, sizeof(text)));
		assert_non_null(strstr(text, "only its owner has it"));
	} else if (seteuid(65534) == 0) {
		assert_false(kvm_device_describe(path, text, sizeof(text)));
		assert_non_null(strstr(text, "only its owner has it"));
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(chown(path, 0, 1), 0); /* a group that we are not in */
		assert_int_equal(chmod(path, 0660), 0);
		assert_int_equal(seteuid(65534), 0);
		assert_false(kvm_device_describe(path, text, sizeof(text)));
		assert_non_null(strstr(text, "members of the group"));
		assert_int_equal(seteuid(0), 0);
	}
	unlink(path);
}

/* ---- memory ---- */

static void slots_and_pages(void **state)
{
	struct test_output output = {0};
	struct machine_config config = {.owner = &output, .console = test_console, .serial = test_serial};
	struct machine *machine;
	struct engine *engine;
	const uint64_t *pages;
	uint8_t *more = aligned_alloc(4096, 8192);
	size_t count;

	NEEDS_DEVICE;
	machine = new_machine(&config);
	engine = machine->engine;
	assert_int_equal(kvm_memory_add(engine, TEST_MEMORY - 4096, 8192, more, false), -EINVAL);
	assert_int_equal(kvm_memory_add(engine, TEST_MEMORY + 1, 4096, more, false), -EINVAL);
	assert_int_equal(kvm_memory_add(engine, TEST_MEMORY, 0, more, false), -EINVAL);
	assert_int_equal(kvm_memory_add(engine, 0xffff0000, 8192, more, true), 0);
	kvm_dirty_reset(engine);
	assert_true(kvm_memory_write(engine, 0x1ffe, "abcd", 4));
	assert_false(kvm_memory_write(engine, TEST_MEMORY - 2, "abcd", 4));
	assert_false(kvm_memory_write(engine, 0xffff0000, "abcd", 4));
	kvm_dirty_pages(engine, &pages, &count);
	assert_int_equal(count, 2);
	assert_int_equal(pages[0], 0x1000);
	assert_int_equal(pages[1], 0x2000);
	assert_memory_equal(kvm_memory_at(kvm_of(engine), 0x1ffe, 4), "abcd", 4);
	assert_null(kvm_memory_at(kvm_of(engine), TEST_MEMORY - 2, 4));
	machine_free(machine);
	free(more);
}

/* ---- state ---- */

static void fill(struct vcpu_state *s)
{
	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = 0x1111111111111111ull * i + 7;
	s->rip = 0x1234;
	s->rflags = RFLAGS_FIXED | RFLAGS_CF | RFLAGS_OF;
	s->cr2 = 0x123456789;
	s->cr8 = 5;
	s->dr[0] = 0x1000;
	s->dr[3] = 0x4000;
	s->dr6 = DR6_FIXED_1 | DR6_BS;
	s->sysenter_eip = 0xffff800000001000;
	s->star = 0x0023000800000000;
	s->lstar = 0xffff800000002000;
	s->kernel_gs_base = 0x7000;
	s->pat = 0x0007040600070406;
	s->fcw = 0x27f;
	s->fsw = 3 << 11 | 0x4100;
	s->ftw = 0xffff & ~(3u << 6);
	s->st[3] = (struct x87_register){.significand = 0xc000000000000000, .sign_exponent = 0x4000};
	s->fop = 0x123;
	s->fip = 0x5678;
	s->fdp = 0x9abc;
	s->mxcsr = 0x3f80;
	for (unsigned i = 0; i < 16; i++)
		s->vector[4 * i] = s->vector[4 * i + 1] = 0x0101010101010101ull * (i + 1);
	s->segment[GS] =
		(struct segment){.base = 0x12340, .limit = 0xfffff, .attributes = 0x93, .selector = 0x1234};
	s->gdtr = (struct table_register){.base = 0x5000, .limit = 0x17f};
	s->nmi_blocked = 1;
}

static void state_goes_round(void **state)
{
	struct test_output output = {0};
	struct machine_config config = {.owner = &output, .console = test_console, .serial = test_serial};
	struct machine *machine;
	struct vcpu_state reset, in, out;

	NEEDS_DEVICE;
	machine = new_machine(&config);
	kvm_vcpu_save(machine->vcpu, &reset);
	assert_int_equal(reset.rip, 0xfff0);
	assert_int_equal(reset.segment[CS].base, 0xffff0000);
	assert_int_equal(reset.fcw, 0x37f); /* the kernel's own initial state, where hardware has 0x40 */
	in = reset;
	fill(&in);
	assert_int_equal(kvm_vcpu_load(machine->vcpu, &in), 0);
	kvm_vcpu_save(machine->vcpu, &out);
	out.tsc = in.tsc; /* runs on */
#define VCPU_FIELD(type, name)                                                                               \
	if (memcmp(&in.name, &out.name, sizeof(in.name)))                                                    \
		fail_msg("%s", #name);
#define VCPU_ARRAY(type, name, count) VCPU_FIELD(type, name)
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
	in = reset;
	in.smm = 1;
	assert_int_equal(kvm_vcpu_load(machine->vcpu, &in), -EINVAL);
	machine_free(machine);
}

/* ---- what a guest does ---- */

/* clang-format off */
TEST_IMAGE(worker, "0:\n"
		   "movl $0x5454, %edx\n"
		   "movl $1, %eax\n"
		   "movl $0x11, 0x200000\n"
		   "outl %eax, %dx\n"
		   "incl 0x200000\n"
		   "movl $0x10, %ecx\n"
		   "movl $0x300000, %edi\n"
		   "1: incl (%edi)\n"
		   "addl $0x1000, %edi\n"
		   "loop 1b\n"
		   "incl (3f - 0b + 0x100020 + 1)\n" /* the immediate below */
		   "3: movl $5, %ebx\n"
		   "movw $0x3ff, %dx\n"
		   "movb %bl, %al\n"
		   "outb %al, %dx\n" /* the serial port's scratch register */
		   "movl $0xc0000084, %ecx\n"
		   "movl $0x40100, %eax\n"
		   "xorl %edx, %edx\n"
		   "wrmsr\n" /* FMASK */
		   "movl $0x5000, %eax\n"
		   "movl %eax, %dr1\n"
		   "movl $0x5454, %edx\n"
		   "movl $2, %eax\n"
		   "outl %eax, %dx\n"
		   "hlt");
/* clang-format on */
/*
 * The first vCPU wakes the second by INIT and SIPI and waits for its word, then for its own local APIC's
 * timer. Each says a letter. The second one's code, at 8000h, is real mode's.
 */
/* clang-format off */
TEST_IMAGE(two, "0: cld\n"
		"movl $" HERE(5f) ", %esi\nmovl $0x8000, %edi\nmovl $(6f - 5f), %ecx\nrep movsb\n"
		"lgdt " HERE(7f) "\n"
		"ljmp $8, $" HERE(1f) "\n"
		"1: movl $16, %eax\nmovl %eax, %ds\nmovl %eax, %es\nmovl %eax, %ss\nmovl $0x9000, %esp\n"
		"movl $0xfee00000, %ebx\n"
		"movl $0x1ff, 0xf0(%ebx)\n"
		"movl $0x1000000, 0x310(%ebx)\nmovl $0x4500, 0x300(%ebx)\n"
		"movl $0x1000000, 0x310(%ebx)\nmovl $0x4608, 0x300(%ebx)\n"
		"2: cmpw $0x1234, 0x7000\njne 2b\n"
		"movb $0x42, %al\noutb %al, $0xe9\n" /* B */
		"movl $" HERE(4f) ", %eax\nmovw %ax, 0x6200\nmovw $8, 0x6202\nmovw $0x8e00, 0x6204\n"
		"shrl $16, %eax\nmovw %ax, 0x6206\n"
		"lidt " HERE(8f) "\n"
		"movl $0xb, 0x3e0(%ebx)\nmovl $0x40, 0x320(%ebx)\nmovl $100000, 0x380(%ebx)\n"
		"sti\nhlt\n"
		"3: movb $0x57, %al\noutb %al, $0xe9\ncli\nhlt\n" /* W */
		"4: movb $0x54, %al\noutb %al, $0xe9\nmovl $0, 0xb0(%ebx)\n" /* T, EOI */
		"addl $12, %esp\njmp 3b\n" /* some KVMs do not emulate IRET here */
		".code16\n"
		"5: movb $0x41, %al\noutb %al, $0xe9\n" /* A */
		"movw $0x1234, 0x7000\ncli\nhlt\n"
		"6: .code32\n.balign 8\n"
		"9: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
		"7: .word 23\n.long " HERE(9b) "\n"
		"8: .word 0x207\n.long 0x6000");
/* clang-format on */
/*
 * Four vCPUs that pass a word on by IPIs, each asleep until it comes; the one that brings the 400th ends the
 * machine. Of each, the 100s of the ring are said.
 */
/* clang-format off */
TEST_IMAGE(ring, "0: cld\n"
		 "movl $" HERE(5f) ", %esi\nmovl $0x8000, %edi\nmovl $(6f - 5f), %ecx\nrep movsb\n"
		 "movl $" HERE(7f) ", %esi\nmovl $0x6100, %edi\nmovl $6, %ecx\nrep movsb\n"
		 "movl $" HERE(4f) ", %eax\nmovw %ax, 0x6200\nmovw $8, 0x6202\nmovw $0x8e00, 0x6204\n"
		 "shrl $16, %eax\nmovw %ax, 0x6206\n"
		 "lgdt 0x6100\nljmp $8, $" HERE(1f) "\n"
		 /* each of them */
		 "1: movl $16, %eax\nmovl %eax, %ds\nmovl %eax, %es\nmovl %eax, %ss\n"
		 "movl $0xfee00000, %ebx\nmovl 0x20(%ebx), %ebp\nshrl $24, %ebp\n"
		 "movl %ebp, %esp\nshll $10, %esp\naddl $0xa000, %esp\n"
		 "lidt " HERE(8f) "\n"
		 "movl $0x1ff, 0xf0(%ebx)\n"
		 "testl %ebp, %ebp\njnz 2f\n"
		 "movl $0xc4500, 0x300(%ebx)\nmovl $0xc4608, 0x300(%ebx)\n" /* INIT and SIPI to all others */
		 "3: cmpl $3, 0x7004\njne 3b\n"
		 "call 9f\njmp 3f\n"
		 "2: lock incl 0x7004\n"
		 "3: sti\nhlt\njmp 3b\n"
		 "4: movl $0, 0xb0(%ebx)\naddl $12, %esp\n"
		 "incl 0x7000\nmovl 0x7000, %eax\nxorl %edx, %edx\nmovl $100, %ecx\ndivl %ecx\n"
		 "testl %edx, %edx\njnz 2f\naddb $0x30, %al\noutb %al, $0xe9\n"
		 "2: cmpl $400, 0x7000\njne 2f\nmovb $0x21, %al\noutb %al, $0xf4\n"
		 "2: call 9f\njmp 3b\n"
		 "9: leal 1(%ebp), %eax\nandl $3, %eax\nshll $24, %eax\nmovl %eax, 0x310(%ebx)\n"
		 "movl $0x4040, 0x300(%ebx)\nret\n"
		 ".code16\n"
		 "5: cli\nxorw %ax, %ax\nmovw %ax, %ds\nlgdtl 0x6100\n"
		 "movl %cr0, %eax\norb $1, %al\nmovl %eax, %cr0\nljmpl $8, $" HERE(1b) "\n"
		 "6: .code32\n.balign 8\n"
		 "9: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
		 "7: .word 23\n.long " HERE(9b) "\n"
		 "8: .word 0x207\n.long 0x6000");
/* clang-format on */
TEST_IMAGE(halts, "cli\nhlt");
TEST_IMAGE(spins, "0: jmp 0b");
TEST_IMAGE(dies, "0: lidt " HERE(1f) "\nxorl %ecx, %ecx\ndivl %ecx\n1: .word 0\n.long 0");
TEST_IMAGE(prints, "0: cld\nmovl $" HERE(1f) ", %esi\nmovl $6, %ecx\nmovw $0xe9, %dx\nrep outsb\ncli\nhlt\n"
					     "1: .ascii \"hello\\n\"");

static void every_run_is_the_first(void **state)
{
	struct test_output output = {0};
	struct machine *machine;
	struct snapshot snapshot;
	struct vcpu_state before, after;
	uint8_t *ram;

	NEEDS_DEVICE;
	machine = boot(&output, worker, worker_end);
	ram = malloc(TEST_MEMORY);
	assert_int_equal(run(machine)->event, MACHINE_READY);
	memcpy(ram, machine->ram, TEST_MEMORY);
	kvm_vcpu_save(machine->vcpu, &before);
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	for (unsigned i = 0; i < 5; i++) {
		const uint64_t *pages;
		size_t dirty;

		assert_int_equal(run(machine)->event, MACHINE_DONE);
		kvm_vcpu_save(machine->vcpu, &after);
		assert_int_equal(after.gpr[RBX], 6);
		assert_int_equal(after.fmask, 0x40100);
		assert_int_equal(after.dr[1], 0x5000);
		assert_int_equal(machine->serial.scr, 6);
		assert_int_equal(machine->ram[0x200000], 0x12);
		kvm_dirty_pages(machine->engine, &pages, &dirty);
		assert_int_equal(dirty, 1 + 16 + 1);
		assert_int_equal(snapshot_restore(&snapshot, machine), 0);
		assert_memory_equal(machine->ram, ram, TEST_MEMORY);
		assert_int_equal(machine->serial.scr, 0);
		kvm_vcpu_save(machine->vcpu, &after);
		after.tsc = before.tsc;
		assert_memory_equal(&after, &before, sizeof(after));
		kvm_dirty_pages(machine->engine, &pages, &dirty);
		assert_int_equal(dirty, 0);
	}
	snapshot_free(&snapshot);
	machine_free(machine);
	free(ram);
}

static void each_end(void **state)
{
	static const struct {
		const uint8_t *code, *end;
		enum machine_event event;
		const char *console;
	} rows[] = {{halts, halts_end, MACHINE_HALTED, ""},
		    {spins, spins_end, MACHINE_TIMEOUT, ""},
		    {dies, dies_end, MACHINE_SHUTDOWN, ""},
		    {prints, prints_end, MACHINE_HALTED, "hello\n"}};

	NEEDS_DEVICE;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct test_output output = {0};
		struct machine *machine = boot(&output, rows[i].code, rows[i].end);
		struct vcpu_state before;

		kvm_vcpu_save(machine->vcpu, &before);
		for (unsigned again = 0; again < 2; again++) {
			const struct machine_end *end = run(machine);

			if (end->event != rows[i].event)
				fail_msg("row %zu: event %d, %s", i, end->event, end->why);
			assert_string_equal(output.console, rows[i].console);
			/* A processor that has ended stays so until its state is put back. */
			if (rows[i].event != MACHINE_TIMEOUT)
				assert_int_equal(run(machine)->event, rows[i].event);
			assert_int_equal(kvm_vcpu_load(machine->vcpu, &before), 0);
			memset(&output, 0, sizeof(output));
		}
		machine_free(machine);
	}
}

/* ---- interrupts and traces, on the engine alone ---- */

/* Real mode at 0x1000: a STI, a wait, and at NMI's vector an OUT and an IRET; then a CLI and a HLT. */
static const uint8_t interrupted[] = {0xfb, 0xf4, 0xe6, 0x11, 0xfa, 0xf4};
static const uint8_t handler[] = {0xe6, 0x10, 0xcf};

struct probe {
	struct engine_vcpu *vcpu;
	unsigned ports[4], port_count, steps;
	uint64_t rip[8];
};

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct probe *probe = owner;

	(void)value;
	assert_int_equal(size, 1);
	if (probe->port_count < 4)
		probe->ports[probe->port_count++] = port;
}

static void step(void *owner, unsigned vcpu, uint64_t rip, const char *text)
{
	struct probe *probe = owner;

	assert_int_equal(vcpu, 0);
	if (probe->steps < 8)
		probe->rip[probe->steps] = rip;
	if (rip == 0x1002)
		assert_string_equal(text, "out 0x11, al");
	probe->steps++;
}

static struct engine *real_mode(struct probe *probe, uint8_t *ram)
{
	struct engine_config config = {.cpu = "host", .bus = {.owner = probe, .port_out = port_out}};
	struct engine *engine;
	struct vcpu_state s;
	char why[256];

	assert_int_equal(engine_kvm.open(&engine, &config, why, sizeof(why)), 0);
	assert_int_equal(engine_kvm.memory_add(engine, 0, 0x10000, ram, false), 0);
	assert_int_equal(engine_kvm.vcpu_new(engine, &probe->vcpu), 0);
	memset(ram, 0, 0x10000);
	memcpy(ram + 0x1000, interrupted, sizeof(interrupted));
	memcpy(ram + 0x1100, handler, sizeof(handler));
	memcpy(ram + VECTOR_NMI * 4, (uint16_t[]){0x1100, 0}, 4);
	engine_kvm.vcpu_save(probe->vcpu, &s);
	s.segment[CS].base = s.segment[CS].selector = 0;
	s.rip = 0x1000;
	s.gpr[RSP] = 0x8000;
	assert_int_equal(engine_kvm.vcpu_load(probe->vcpu, &s), 0);
	return engine;
}

static enum engine_exit go(struct engine *engine)
{
	enum engine_exit exit = ENGINE_PAUSED;

	for (unsigned slices = 0; slices < 100; slices++) {
		exit = engine_kvm.run(engine, UINT64_MAX);
		if (exit != ENGINE_PAUSED)
			break;
	}
	return exit;
}

static void nmi_ends_a_halt(void **state)
{
	struct probe probe = {0};
	uint8_t *ram = aligned_alloc(4096, 0x10000);
	struct engine *engine;

	NEEDS_DEVICE;
	engine = real_mode(&probe, ram);
	assert_int_equal(go(engine), ENGINE_HALTED);
	assert_int_equal(engine_kvm.rip(probe.vcpu), 0x1002);
	engine_kvm.nmi(engine, 0); /* LINT1 is masked */
	assert_int_equal(go(engine), ENGINE_HALTED);
	assert_int_equal(engine_kvm.rip(probe.vcpu), 0x1002);
	engine_kvm.firmware(engine, 0);
	engine_kvm.nmi(engine, 0);
	assert_int_equal(go(engine), ENGINE_HALTED);
	assert_int_equal(probe.port_count, 2);
	assert_int_equal(probe.ports[0], 0x10);
	assert_int_equal(probe.ports[1], 0x11);
	assert_int_equal(engine_kvm.rip(probe.vcpu), 0x1006);
	engine_kvm.close(engine);
	free(ram);
}

static void steps(void **state)
{
	struct probe probe = {0};
	struct engine_trace trace = {.owner = &probe, .insn = step};
	uint8_t *ram = aligned_alloc(4096, 0x10000);
	struct engine *engine;
	char name[64];
	uint64_t value;

	NEEDS_DEVICE;
	engine = real_mode(&probe, ram);
	if (kvm_of(engine)->can.guest_debug) {
		ram[0x1001] = 0x90;
		assert_int_equal(engine_kvm.trace(engine, &trace), 0);
		assert_int_equal(go(engine), ENGINE_HALTED);
		assert_in_range(probe.steps, 3, 6);
		assert_int_equal(probe.rip[1], 0x1002);
		assert_int_equal(engine_kvm.rip(probe.vcpu), 0x1006);
	}
	if (kvm_of(engine)->can.statistics) {
		assert_true(engine_kvm.statistic(probe.vcpu, 0, name, sizeof(name), &value));
		assert_true(name[0] != 0);
	}
	engine_kvm.close(engine);
	free(ram);
}

/* ---- a sample of the suite ---- */

struct sample {
	struct suite suite;
	unsigned ended, passed;
};

static int sample_ready(void *owner) { return owner == NULL; }
static int sample_started(void *owner, unsigned index) { return owner == NULL && index; }

static int sample_ended(void *owner, const struct judge_result *result, const struct suite_cost *cost)
{
	struct sample *sample = owner;

	(void)cost;
	sample->ended++;
	if (result->verdict != VERDICT_PASS)
		print_message("%s: %s\n", verdict_names[result->verdict], result->why);
	sample->passed += result->verdict == VERDICT_PASS;
	return 0;
}

/* What every device that can run a 64-bit kernel must do right. */
static const char *const sample_ids[] = {
	"sensitive.sgdt.long.cpl0", "sensitive.sidt.long.cpl0",      "sensitive.smsw.r64.long.cpl0",
	"sensitive.lgdt.long.cpl3", "sensitive.mov_r_cr0.long.cpl0", "sensitive.mov_r_cr8.long.cpl0",
	"sensitive.clts.long.cpl3", "sensitive.hlt.long.cpl0",       "sensitive.hlt.long.cpl3",
	"sensitive.cli.long.cpl0",
};
#define SAMPLE (sizeof(sample_ids) / sizeof(sample_ids[0]))

static void sample_of_the_suite(void **state)
{
	static const struct boot_options none;
	struct sample *sample = calloc(1, sizeof(*sample));
	struct suite_options options = {.max_insns = UINT64_MAX, .timeout = 2000000000};
	struct suite_events events = {
		.owner = sample, .ready = sample_ready, .started = sample_started, .ended = sample_ended};
	struct machine_config config = {
		.owner = &sample->suite, .console = suite_console, .serial = suite_serial};
	struct machine *machine;
	struct case_list list = {0};
	struct image image;
	char why[256];
	bool *chosen;

	NEEDS_DEVICE;
	if (image_open(&image, "build/guests/sensitive.elf", why, sizeof(why))) {
		print_message("skipped: build/guests/sensitive.elf: %s\n", why);
		free(sample);
		skip();
	}
	assert_int_equal(case_list_parse(&list, image.cases, why, sizeof(why)), 0);
	options.chosen = chosen = calloc(list.count, sizeof(*chosen));
	for (size_t i = 0; i < SAMPLE; i++) {
		int index = case_list_find(&list, span_of(sample_ids[i]));

		if (index < 0)
			fail_msg("no case is called %s", sample_ids[i]);
		chosen[index] = true;
	}
	suite_init(&sample->suite, &list, &options, &events);
	config.memory = MEMORY_DEFAULT;
	machine = new_machine(&config);
	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	assert_int_equal(suite_run(&sample->suite, machine), SUITE_COMPLETE);
	assert_int_equal(sample->ended, SAMPLE);
	assert_int_equal(sample->passed, SAMPLE);
	suite_free(&sample->suite);
	machine_free(machine);
	case_list_free(&list);
	image_close(&image);
	free(chosen);
	free(sample);
}

/* Several vCPUs and their interrupt chips; then once more from a snapshot, chips and all. */
static void two_vcpus(void **state)
{
	static const struct boot_options none;
	struct test_output output = {0};
	struct machine_config config = {
		.owner = &output, .console = test_console, .serial = test_serial, .vcpus = 2};
	struct image image = {
		.path = "test", .data = (uint8_t *)(uintptr_t)two, .size = (size_t)(two_end - two)};
	struct machine_limits limits = {.insns = UINT64_MAX, .output = 4096};
	struct snapshot snapshot;
	struct machine *machine;
	char why[256];

	NEEDS_DEVICE;
	machine = new_machine(&config);
	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	for (unsigned i = 0; i < 3; i++) {
		const struct machine_end *end;

		output = (struct test_output){0};
		limits.deadline = machine_now() + 5000000000;
		end = machine_run(machine, &limits);
		if (end->event != MACHINE_HALTED || strcmp(output.console, "ABTW") != 0)
			fail_msg("said \"%s\", end %d %s", output.console, end->event, end->why);
		assert_true(engine_kvm.chips_changed(machine->engine));
		assert_int_equal(snapshot_restore(&snapshot, machine), 0);
		assert_false(engine_kvm.chips_changed(machine->engine));
	}
	snapshot_free(&snapshot);
	machine_free(machine);
}

/* An interrupt that its local APIC has handed over, and the kernel not delivered, is in service: nobody else has it. */
static void interrupts_under_way(void **state)
{
	struct test_output output = {0};
	struct kvm_vcpu_events events = {0};
	struct vcpu_state saved;
	struct snapshot snapshot;
	struct machine *machine;
	const struct kvm_vcpu *vcpu;

	NEEDS_DEVICE;
	machine = boot(&output, spins, spins_end);
	vcpu = kvm_vcpu_of(machine->vcpu);
	assert_int_equal(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events), 0);
	events.interrupt.injected = 1;
	events.interrupt.nr = 0x42;
	assert_int_equal(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events), 0);
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	kvm_vcpu_save(machine->vcpu, &saved);
	assert_int_equal(kvm_vcpu_load(machine->vcpu, &saved), 0);
	assert_int_equal(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events), 0);
	assert_int_equal(events.interrupt.injected, 0);
	assert_int_equal(snapshot_restore(&snapshot, machine), 0);
	assert_int_equal(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events), 0);
	assert_int_equal(events.interrupt.injected, 1);
	assert_int_equal(events.interrupt.nr, 0x42);
	snapshot_free(&snapshot);
	machine_free(machine);
}

/* A wake-up that is lost leaves all of them asleep; the end comes from any of their threads. */
static void wakes_are_not_lost(void **state)
{
	static const struct boot_options none;
	struct image image = {
		.path = "test", .data = (uint8_t *)(uintptr_t)ring, .size = (size_t)(ring_end - ring)};

	NEEDS_DEVICE;
	for (unsigned i = 0; i < 3; i++) {
		struct test_output output = {0};
		struct machine_config config = {
			.owner = &output, .console = test_console, .serial = test_serial, .vcpus = 4};
		struct machine_limits limits = {
			.insns = UINT64_MAX, .deadline = machine_now() + 10000000000, .output = 4096};
		struct machine *machine = new_machine(&config);
		const struct machine_end *end;
		char why[256];

		assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
		end = machine_run(machine, &limits);
		if (end->event != MACHINE_EXIT || end->value != 0x21 || strcmp(output.console, "1234") != 0)
			fail_msg("said \"%s\" after %u rounds, end %d %s", output.console,
				 *(uint32_t *)(machine->ram + 0x7000), end->event, end->why);
		machine_free(machine);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(why_not),
		cmocka_unit_test(other_profiles),
		cmocka_unit_test(no_permission),
		cmocka_unit_test(slots_and_pages),
		cmocka_unit_test(state_goes_round),
		cmocka_unit_test(every_run_is_the_first),
		cmocka_unit_test(each_end),
		cmocka_unit_test(nmi_ends_a_halt),
		cmocka_unit_test(steps),
		cmocka_unit_test(sample_of_the_suite),
		cmocka_unit_test(two_vcpus),
		cmocka_unit_test(interrupts_under_way),
		cmocka_unit_test(wakes_are_not_lost), cmocka_unit_test(time_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
