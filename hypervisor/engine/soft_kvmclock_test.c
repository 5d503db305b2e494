/* KVM's clock: what CPUID says of it, what the guest is told, and that it holds when the TSC is written. */
#include "cpu/profile.h"
#include "vm/test_machine.h"

#define START 1234567890

#define WRMSR(index, high, low) "movl $" index ", %ecx\nmovl $" high ", %edx\nmovl $" low ", %eax\nwrmsr\n"
#define KEEP(address)           "rdtsc\nmovl %eax, " address "\n"

/* The old MSRs, then the new ones; what RDTSC gives behind each. */
TEST_IMAGE(asks,
	   "0:\n" WRMSR("0x11", "0", "0x200100") WRMSR("0x12", "0", "0x200001") KEEP("0x200200")
		   WRMSR("0x4b564d00", "0", "0x200110") WRMSR("0x4b564d01", "0", "0x200041") KEEP("0x200204")
			   WRMSR("0x10", "0x5", "0")
				   KEEP("0x200208") "movl $0x4b564d01, %ecx\nrdmsr\nmovl %eax, 0x20020c\n"
						    "cli\nhlt\n");
/* Elsewhere they are no MSRs: a fault that nothing catches. */
TEST_IMAGE(has_none, "0:\n" WRMSR("0x12", "0", "0x200001") "cli\nhlt\n");

static struct machine *run(const char *cpu, const uint8_t *code, const uint8_t *end, enum machine_event event)
{
	static struct test_output output;
	struct machine_config config = {.engine = &engine_soft,
					.cpu = cpu,
					.memory = TEST_MEMORY,
					.rtc_start = START,
					.owner = &output,
					.console = test_console,
					.serial = test_serial};
	struct image image = {
		.path = "test", .data = (uint8_t *)(uintptr_t)code, .size = (size_t)(end - code)};
	static const struct boot_options none;
	struct machine *machine;
	char why[256];

	if (machine_new(&machine, &config, why, sizeof(why)) ||
	    boot_image(machine, &image, &none, why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(machine_run(machine, &test_limits)->event, event);
	return machine;
}

struct info {
	uint32_t version, reserved;
	uint64_t tsc, time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags;
};

/* The time that @info gives for a TSC. */
static uint64_t time_at(const struct info *info, uint64_t tsc)
{
	return info->time +
	       (uint64_t)((unsigned __int128)((tsc - info->tsc) << info->shift) * info->mul >> 32);
}

static void told(const char *cpu)
{
	struct machine *machine = run(cpu, asks, asks_end, MACHINE_HALTED);
	const uint32_t *words = (const uint32_t *)(machine->ram + 0x200000);
	struct info old, new;

	memcpy(&old, machine->ram + 0x200000, sizeof(old));
	memcpy(&new, machine->ram + 0x200040, sizeof(new));
	assert_int_equal(old.version, 2);
	assert_int_equal(old.flags, 1);
	assert_int_equal(old.tsc, old.time); /* nothing has written the TSC */
	assert_int_equal(time_at(&old, words[0x200 / 4]), words[0x200 / 4]);
	assert_true(words[0x200 / 4] > old.tsc && words[0x200 / 4] < old.tsc + 10);
	/* The last telling is that of the TSC's write. */
	assert_int_equal(new.version, 6);
	assert_int_equal(new.tsc, 0x500000000);
	assert_in_range(new.time, words[0x204 / 4], words[0x204 / 4] + 10);
	assert_in_range(time_at(&new, 0x500000000 | words[0x208 / 4]), new.time, new.time + 10);
	assert_int_equal(words[0x20c / 4], 0x200041);
	for (unsigned at = 0x100; at <= 0x110; at += 0x10) {
		assert_int_equal(words[at / 4] & 1, 0);
		assert_int_equal(words[at / 4 + 1], START);
		assert_int_equal(words[at / 4 + 2], 0);
	}
	machine_free(machine);
}

static void the_guest_is_told(void **state)
{
	(void)state;
	told("amd,+kvmclock");
	told("intel,+kvmclock");
}

static void only_where_advertised(void **state)
{
	struct profile profile;
	char why[128];

	(void)state;
	machine_free(run("amd", has_none, has_none_end, MACHINE_SHUTDOWN));
	machine_free(run("intel", has_none, has_none_end, MACHINE_SHUTDOWN));
	assert_int_equal(profile_parse(&profile, "intel", why, sizeof(why)), 0);
	assert_int_equal(profile_cpuid(&profile, 1, 0).ecx >> 31, 0);
	assert_int_not_equal(profile_cpuid(&profile, 0x40000000, 0).ebx, 0x4b4d564b);
	assert_int_equal(profile_parse(&profile, "intel,+kvmclock", why, sizeof(why)), 0);
	assert_int_equal(profile_cpuid(&profile, 1, 0).ecx >> 31, 1);
	assert_int_equal(profile_cpuid(&profile, 0x40000000, 0).eax, 0x40000001);
	assert_int_equal(profile_cpuid(&profile, 0x40000000, 0).ebx, 0x4b4d564b);
	assert_int_equal(profile_cpuid(&profile, 0x40000001, 0).eax, 1u << 0 | 1u << 3 | 1u << 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_guest_is_told),
					   cmocka_unit_test(only_where_advertised)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
