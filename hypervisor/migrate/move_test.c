/* A machine that is moved between two while it runs: it goes on as the one that was never moved. */
#include <errno.h>

#include "migrate/move.h"
#include "vm/test_machine.h"

/* Says READY, then writes memory, its own code, a device and the console, and says DONE. */
/* clang-format off */
TEST_IMAGE(worker, "0:\n"
		   "movl $0x5454, %edx\n"
		   "movl $1, %eax\n"
		   "movl $0x11, 0x200000\n"
		   "outl %eax, %dx\n"
		   "incl 0x200000\n"
		   "incl 0x2ffffe\n" /* two pages */
		   "movl $0x10, %ecx\n"
		   "movl $0x300000, %edi\n"
		   "1: incl (%edi)\n"
		   "addl $0x1000, %edi\n"
		   "loop 1b\n"
		   "movl $0x100, %ecx\n"
		   "movl $0x200000, %esi\n"
		   "movl $0x201000, %edi\n"
		   "rep movsb\n" /* a boundary between any two iterations */
		   "2: incl (3f - 0b + 0x100020 + 1)\n" /* the immediate below */
		   "3: movl $5, %ebx\n"
		   "movw $0x3ff, %dx\n"
		   "movb %bl, %al\n"
		   "outb %al, %dx\n" /* the serial port's scratch register */
		   "movb $0x41, %al\n"
		   "outb %al, $0xe9\n"
		   "movl $0x5454, %edx\n"
		   "movl $2, %eax\n"
		   "outl %eax, %dx\n"
		   "hlt");
/* clang-format on */

struct pair {
	struct test_output output, quiet;
	struct machine *first, *second, *reference;
	struct mover *mover;
};

static struct pair *new_pair(uint64_t every, bool random, bool compared)
{
	static const struct boot_options none;
	struct image image = {.path = "worker",
			      .data = (uint8_t *)(uintptr_t)worker,
			      .size = (size_t)(worker_end - worker)};
	static struct pair pair;
	struct move_config config = {.every = every, .random = random, .seed = 7};
	char why[STREAM_WHY];

	pair = (struct pair){0};
	pair.first = test_machine(&pair.output);
	pair.second = test_machine(&pair.output);
	if (compared)
		config.reference = pair.reference = test_machine(&pair.quiet);
	assert_int_equal(boot_image(pair.first, &image, &none, why, sizeof(why)), 0);
	if (mover_new(&pair.mover, pair.first, pair.second, &config, why, sizeof(why)))
		fail_msg("%s", why);
	return &pair;
}

static void free_pair(struct pair *pair)
{
	mover_free(pair->mover);
	machine_free(pair->first);
	machine_free(pair->second);
	machine_free(pair->reference);
}

static const struct machine_end *run(struct pair *pair) { return mover_run(pair->mover, &test_limits); }

/* What the guest leaves, wherever it is. */
static void check_done(struct machine *machine)
{
	struct vcpu_state state;

	machine->engine->ops->vcpu_save(machine->vcpu, &state);
	assert_int_equal(state.gpr[RBX], 6);
	assert_int_equal(machine->serial.scr, 6);
	assert_int_equal(machine->ram[0x200000], 0x12);
	assert_int_equal(machine->ram[0x201000], 0x12);
	assert_int_equal(machine->ram[0x30f000], 1);
}

static void moved_at_every_instruction(void **state)
{
	struct pair *pair = new_pair(1, false, true);

	(void)state;
	assert_int_equal(run(pair)->event, MACHINE_READY);
	assert_int_equal(run(pair)->event, MACHINE_DONE);
	check_done(pair->mover->machine);
	/* 10 up to DONE, 3 * 16, 256 of REP MOVSB, and some; all of them but those at whose end the guest
	 * speaks to us. */
	assert_true(pair->mover->moves >= pair->mover->retired - 2);
	assert_true(pair->mover->retired > 10 + 3 * 16 + 256);
	assert_true(pair->mover->bytes > pair->mover->moves * 1000);
	assert_int_equal(pair->output.console_size, 1); /* each byte once */
	assert_int_equal(pair->quiet.console_size, 1);
	free_pair(pair);
}

static void moved_now_and_then(void **state)
{
	struct pair *pair = new_pair(50, true, true);

	(void)state;
	assert_int_equal(run(pair)->event, MACHINE_READY);
	assert_int_equal(run(pair)->event, MACHINE_DONE);
	check_done(pair->mover->machine);
	assert_in_range(pair->mover->moves, pair->mover->retired / 50, pair->mover->retired / 5);
	free_pair(pair);
}

/* Both machines are put back, whichever of them has the guest. */
static void each_case_is_the_first(void **state)
{
	struct pair *pair = new_pair(3, true, true);
	struct snapshot snapshot;
	uint64_t insns = 0;

	(void)state;
	assert_int_equal(run(pair)->event, MACHINE_READY);
	assert_int_equal(mover_snapshot(pair->mover, &snapshot), 0);
	assert_int_equal(snapshot.image[0x200000], 0x11);
	for (unsigned i = 0; i < 7; i++) {
		uint64_t began = pair->mover->retired;

		assert_int_equal(run(pair)->event, MACHINE_DONE);
		check_done(pair->mover->machine);
		assert_int_equal(mover_restore(pair->mover, &snapshot), 0);
		assert_memory_equal(pair->first->ram, snapshot.image, TEST_MEMORY);
		assert_memory_equal(pair->second->ram, snapshot.image, TEST_MEMORY);
		assert_memory_equal(pair->reference->ram, snapshot.image, TEST_MEMORY);
		assert_int_equal(pair->mover->machine->serial.scr, 0);
		insns = insns ? insns : pair->mover->retired - began;
		assert_int_equal(pair->mover->retired - began, insns);
	}
	snapshot_free(&snapshot);
	free_pair(pair);
}

/* What is left out of a move is found by the comparison, and by name. */
static void a_difference_is_named(void **state)
{
	static const struct {
		const char *field, *name;
	} mutants[] = {{"STATE:vcpu.gpr", "vcpu 0: gpr"}, {"STATE:serial.scr", "serial 0: scr"}};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *pair = new_pair(1, false, true);
		const struct machine_end *end;

		assert_int_equal(run(pair)->event, MACHINE_READY);
		assert_true(parts_break(pair->first, mutants[i].field));
		end = run(pair);
		parts_break(pair->first, NULL);
		assert_int_equal(end->event, MACHINE_FAILED);
		assert_non_null(strstr(end->why, "never moved"));
		if (i == 1)
			assert_non_null(strstr(end->why, mutants[i].name));
		free_pair(pair);
	}
}

/* A budget that ends within, and the rest behind it. */
static void budgets_are_kept(void **state)
{
	struct machine_limits limits = test_limits;
	struct pair *pair = new_pair(7, false, true);

	(void)state;
	assert_int_equal(run(pair)->event, MACHINE_READY);
	for (unsigned i = 0; i < 10; i++) {
		uint64_t began = pair->mover->retired;

		limits.insns = 5 + i;
		assert_int_equal(mover_run(pair->mover, &limits)->event, MACHINE_BUDGET);
		assert_int_equal(pair->mover->retired - began, 5 + i);
	}
	assert_int_equal(run(pair)->event, MACHINE_DONE);
	check_done(pair->mover->machine);
	free_pair(pair);
}

static void another_machine_is_refused(void **state)
{
	struct test_output output = {0};
	struct machine *first = test_machine(&output), *second;
	struct machine_config config = first->config;
	const struct move_config every = {.every = 1};
	struct mover *mover;
	char why[STREAM_WHY];

	(void)state;
	config.memory = 2 * TEST_MEMORY;
	assert_int_equal(machine_new(&second, &config, why, sizeof(why)), 0);
	assert_int_equal(mover_new(&mover, first, second, &every, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "memory: the guest has 4194304, this machine 8388608");
	machine_free(first);
	machine_free(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moved_at_every_instruction), cmocka_unit_test(moved_now_and_then),
		cmocka_unit_test(each_case_is_the_first),     cmocka_unit_test(a_difference_is_named),
		cmocka_unit_test(budgets_are_kept),           cmocka_unit_test(another_machine_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
