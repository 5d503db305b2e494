/* The subcommands as a user meets them: exit codes, output, messages. Each runs in a child. */
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "cli/cli.h"
#include "vm/test_machine.h"

#define PRINT(label) "movl $" HERE(label) ", %esi\ncall print\n"

/* RUNS, a triple fault, a fault, and a #UD that nothing catches. Prints the same on both channels. */
/* clang-format off */
TEST_IMAGE(suite_guest,
	   "0:\n"
	   "movl $0x180000, %esp\n" PRINT(header) "movl $0x5454, %edx\n"
	   "movl $1, %eax\n"
	   "outl %eax, %dx\n"
	   "movl $0x5458, %edx\n"
	   "inl %dx, %eax\n"
	   "testl %eax, %eax\n"
	   "jz nop\n"
	   "decl %eax\n"
	   "jz shutdown\n"
	   "decl %eax\n"
	   "jz fault\n"
	   ".byte 0xf0\nlidt " HERE(nothing) "\n" PRINT(lock_text) "jmp done\n"
	   "fault: " PRINT(fault_text) "jmp done\n"
	   "nop: " PRINT(nop_text)
	   "done: movl $0x5454, %edx\nmovl $2, %eax\noutl %eax, %dx\nhlt\n"
	   "shutdown: lidt " HERE(nothing) "\nint3\n"
	   "print:\n"
	   "1: movl $0xe9, %edx\n"
	   "lodsb\n"
	   "testb %al, %al\n"
	   "jz 2f\n"
	   "outb %al, %dx\n"
	   "movw $0x3f8, %dx\n"
	   "outb %al, %dx\n"
	   "jmp 1b\n"
	   "2: ret\n"
	   "nothing: .word 0\n.long 0\n"
	   "header: .asciz \"trapline 1 t 4\\ncpuid 0 0 1 68747541 444d4163 69746e65\\nready\\n\"\n"
	   "nop_text: .asciz \"start t.nop\\nend t.nop RUNS\\n\"\n"
	   "lock_text: .asciz \"start t.lock\\nend t.lock RUNS\\n\"\n"
	   "fault_text: .asciz \"start t.fault\\nend t.fault FAULT vector=6\\n\"\n");
/* clang-format on */

static const char section[] =
	"trapline-cases 1 t 4\n"
	"case t.nop NOP long 0 innocuous\nwant always RUNS\ncite SDM 2B NOP No Operation\n"
	"case t.down INT3 long 0 control\nwant vendor=amd SHUTDOWN\ncite APM 2 8.2 x\n"
	"case t.fault UD2 long 0 innocuous\nwant always FAULT vector=6\ncite SDM 2B UD x\n"
	"case t.lock LIDT long 0 control\nwant always SHUTDOWN\ncite SDM 2A LOCK x\n"
	"cell AAA long 0 - untested no time\n"
	"clause SDM_NOP SDM 2B NOP No Operation\n"
	"end\n";

/* Echoes a byte from the serial port to it, then ends with its value. */
/* clang-format off */
TEST_IMAGE(plain_guest, "0:\n"
			"movl $0x3fd, %edx\n"
			"1: inb %dx, %al\n"
			"testb $1, %al\n"
			"jz 1b\n"
			"movl $0x3f8, %edx\n"
			"inb %dx, %al\n"
			"outb %al, %dx\n"
			"outb %al, $0xe9\n"
			"outb %al, $0xf4\n"
			"hlt");
/* clang-format on */

struct result {
	int code;
	char out[65536], err[4096];
};

static char folder[] = "/tmp/cli_test.XXXXXX";
static char suite_path[64], plain_path[64], trace_path[64], list_path[64];

static void write_file(const char *path, const void *data, size_t size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

/* The guest as an ELF file with a case section; it boots by its multiboot header. */
static void write_suite(void)
{
	static struct {
		Elf64_Ehdr header;
		Elf64_Phdr program;
		Elf64_Shdr section[3];
		char names[32], cases[sizeof(section)];
		uint8_t code[1024] __attribute__((aligned(16)));
	} f = {.header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			  .e_type = ET_EXEC,
			  .e_machine = EM_X86_64,
			  .e_version = EV_CURRENT,
			  .e_ehsize = sizeof(Elf64_Ehdr),
			  .e_phentsize = sizeof(Elf64_Phdr),
			  .e_phnum = 1,
			  .e_shentsize = sizeof(Elf64_Shdr),
			  .e_shnum = 3,
			  .e_shstrndx = 1},
	       .names = "\0.names\0" CASE_SECTION_NAME};

	f.header.e_phoff = (uint64_t)((uint8_t *)&f.program - (uint8_t *)&f);
	f.header.e_shoff = (uint64_t)((uint8_t *)f.section - (uint8_t *)&f);
	f.program = (Elf64_Phdr){.p_type = PT_LOAD,
				 .p_offset = (uint64_t)(f.code - (uint8_t *)&f),
				 .p_paddr = 0x100000,
				 .p_filesz = sizeof(f.code),
				 .p_memsz = sizeof(f.code)};
	f.section[1] = (Elf64_Shdr){.sh_name = 1,
				    .sh_type = SHT_STRTAB,
				    .sh_offset = (uint64_t)((uint8_t *)f.names - (uint8_t *)&f),
				    .sh_size = sizeof(f.names)};
	f.section[2] = (Elf64_Shdr){.sh_name = 8,
				    .sh_type = SHT_PROGBITS,
				    .sh_offset = (uint64_t)((uint8_t *)f.cases - (uint8_t *)&f),
				    .sh_size = sizeof(section) - 1};
	memcpy(f.cases, section, sizeof(section));
	assert_true((size_t)(suite_guest_end - suite_guest) <= sizeof(f.code));
	memcpy(f.code, suite_guest, (size_t)(suite_guest_end - suite_guest));
	write_file(suite_path, &f, sizeof(f));
}

static void slurp(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	text[fread(text, 1, size - 1, file)] = 0;
	fclose(file);
}

static _Noreturn void child(const char *const *words, const char *input, const char *out, const char *err)
{
	int argc = 0, code;
	char **argv = calloc(32, sizeof(*argv));

	dup2(open(input, O_RDONLY), 0);
	dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
	/* NULL: closed, which main() turns into a descriptor that cannot be written. */
	dup2(out ? open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600) : open("/dev/null", O_RDONLY), 1);
	for (; words[argc]; argc++)
		argv[argc] = strdup(words[argc]);
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(argv[0], "run") == 0)
		code = cmd_run(argc, argv);
	else if (strcmp(argv[0], "list") == 0)
		code = cmd_list(argc, argv);
	else if (strcmp(argv[0], "judge") == 0)
		code = cmd_judge(argc, argv);
	else
		code = cmd_info(argc, argv);
	fflush(stdout);
	_exit(code);
}

static struct result *visor_to(const char *out, const char *input, const char *const *words)
{
	static struct result result;
	char err[64], own_out[64];
	int status;
	pid_t pid;

	snprintf(err, sizeof(err), "%s/err", folder);
	snprintf(own_out, sizeof(own_out), "%s/out", folder);
	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (pid == 0)
		child(words, input, out && !*out ? own_out : out, err);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	result.code = WEXITSTATUS(status);
	result.out[0] = 0;
	if (out && !*out)
		slurp(own_out, result.out, sizeof(result.out));
	slurp(err, result.err, sizeof(result.err));
	return &result;
}

#define VISOR(...) visor_to("", "/dev/null", (const char *const[]){__VA_ARGS__, NULL})

static void check_code(const struct result *result, int code, const char *message)
{
	const char *newline = strchr(result->err, '\n');

	if (result->code != code || !strstr(result->err, message))
		fail_msg("code %d, wanted %d with \"%s\": %s", result->code, code, message, result->err);
	/* A message is one line. */
	assert_true(!newline || !newline[1]);
}

/* Each line of the output is an object; their types, joined by a space. */
static void check_types(const char *text, const char *wanted)
{
	char types[1024] = "";

	while (*text) {
		const char *end = strchr(text, '\n');
		json_error_t error;
		json_t *object;

		assert_non_null(end);
		object = json_loadb(text, (size_t)(end - text), 0, &error);
		if (!object)
			fail_msg("%s", error.text);
		if (*types)
			strcat(types, " ");
		strcat(types, json_string_value(json_object_get(object, "t")));
		json_decref(object);
		text = end + 1;
	}
	assert_string_equal(types, wanted);
}

static void list(void **state)
{
	struct result *r = VISOR("list", suite_path);

	(void)state;
	check_code(r, 0, "");
	assert_string_equal(r->out, "t.nop\tRUNS\tSDM 2B NOP No Operation\n"
				    "t.down\tif vendor=amd: SHUTDOWN\tAPM 2 8.2 x\n"
				    "t.fault\tFAULT vector=6\tSDM 2B UD x\n"
				    "t.lock\tSHUTDOWN\tSDM 2A LOCK x\n");
	r = VISOR("list", "--json", suite_path);
	check_code(r, 0, "");
	check_types(r->out, "case case case case cell clause");
	if (!strstr(r->out, "{\"t\":\"clause\",\"key\":\"SDM_NOP\",\"manual\":\"SDM\",\"volume\":\"2B\","
			    "\"section\":\"NOP\",\"title\":\"No Operation\"}"))
		fail_msg("%s", r->out);
	r = VISOR("list", "--cases", "t.d*,t.nop", "--json", suite_path);
	check_types(r->out, "case case");
	check_code(VISOR("list", plain_path), 2, "holds no cases");
	check_code(VISOR("list"), 2, "one IMAGE");
	check_code(VISOR("list", "--nonsense", suite_path), 2, "nonsense");
}

static void run(void **state)
{
	struct result *r = VISOR("run", suite_path);

	(void)state;
	check_code(r, 0, "");
	assert_string_equal(r->out, "4 cases: 4 pass\n");
	r = VISOR("run", "--json", "--cpu", "intel,-umip", suite_path);
	check_code(r, 0, "");
	check_types(r->out, "run start end start end start end start end done");
	r = VISOR("run", "--json", "--cases", "t.fault", suite_path);
	check_types(r->out, "run start end done");
	assert_non_null(strstr(
		r->out, "\"verdict\":\"PASS\",\"got\":\"FAULT vector=6\",\"want\":[\"FAULT vector=6\"]"));
	write_file(list_path, "t.nop\nt.down\n", 13);
	{
		char at[80];

		snprintf(at, sizeof(at), "@%s", list_path);
		r = VISOR("run", "--cases", at, suite_path);
		assert_string_equal(r->out, "2 cases: 2 pass\n");
	}
}

static void every_expectation_can_fail(void **state)
{
	struct result *r = VISOR("run", "--invert", "--mem", "8M", suite_path);

	(void)state;
	check_code(r, 1, "");
	assert_non_null(strstr(r->out, "4 cases: 0 pass 4 fail\n"));
	assert_non_null(strstr(
		r->out, "again   visor run --engine soft --cpu amd --mem 8388608 --invert --cases t.nop"));
}

/* What is said of a device before anything is opened, or where it is none. */
static void devices(void **state)
{
	(void)state;
	check_code(VISOR("run", "--engine", "kvm:/dev/null", suite_path), 2,
		   "--engine kvm:/dev/null: /dev/null is not a KVM device");
	check_code(VISOR("run", "--engine", "kvm:/nonexistent", suite_path), 2, "there is no /nonexistent");
	check_code(VISOR("run", "--engine", "kvm:", suite_path), 2, "the device has no name");
	check_code(VISOR("run", "--engine", "kvm", "--cpu", "intel", suite_path), 2,
		   "--cpu intel: under kvm");
	check_code(VISOR("run", "--engine", "kvm", "--max-insns", "9", suite_path), 2, "does not count");
	check_code(VISOR("run", "--engine", "soft:/dev/kvm", suite_path), 2, "soft takes no device");
	check_code(VISOR("run", "--statistics", suite_path), 0, "statistic instructions ");
	assert_string_equal(VISOR("info", "--engine", "kvm:/dev/null")->out,
			    "kvm   missing: /dev/null is not a KVM device\n");
	check_code(VISOR("info", "--engine", "kvm:/dev/null"), 1, "");
	check_code(VISOR("info", "--engine", "soft"), 0, "");
	check_code(VISOR("info", "--engine", "hard"), 2, "no such engine");
}

/* A gate that is broken once the guest is ready costs the case that needs it, and no other. */
static void broken_gate(void **state)
{
	struct result *r = VISOR("run", "--break", "LIDT.LOCK", suite_path);

	(void)state;
	check_code(r, 1, "");
	assert_non_null(strstr(r->out, "4 cases: 3 pass 1 fail\n"));
	assert_non_null(strstr(r->out, "FAIL t.lock\n  wanted  SHUTDOWN\n  got     RUNS\n"));
	assert_non_null(strstr(r->out, " --break 'LIDT.LOCK' --cases t.lock"));
	r = VISOR("run", "--list-breaks");
	assert_non_null(strstr(r->out, "\nIDT_LIMIT\n"));
}

/* Each case tells which checks mattered to it, and only to it. */
static void coverage(void **state)
{
	struct result *r = VISOR("run", "--json", "--coverage", suite_path);
	const char *lock;

	(void)state;
	lock = strstr(r->out, "\"id\":\"t.lock\",\"verdict\":");
	assert_non_null(lock);
	lock = strstr(lock, ",\"reached\":[");
	assert_non_null(lock);
	assert_non_null(strstr(lock, "\"LIDT.LOCK\""));
	assert_true(strstr(lock, "\"LIDT.LOCK\"") < strchr(lock, '\n'));
	assert_null(strstr(strchr(lock, '\n'), "\"LIDT.LOCK\""));
	r = VISOR("run", "--json", suite_path);
	assert_null(strstr(r->out, "\"reached\""));
	check_code(VISOR("run", "--coverage", suite_path), 2, "--coverage: only with --json");
}

/* Cases behind the first that fails are not run, and the run says that it is not complete. */
static void fail_fast(void **state)
{
	struct result *r = VISOR("run", "--json", "--fail-fast", "--break", "LIDT.LOCK", suite_path);

	(void)state;
	check_code(r, 1, "");
	assert_non_null(strstr(r->out, "\"id\":\"t.lock\",\"verdict\":\"FAIL\""));
	assert_non_null(strstr(r->out, "\"fail\":1,"));
	assert_non_null(strstr(r->out, "\"complete\":false"));
	r = VISOR("run", "--fail-fast", "--invert", suite_path);
	assert_non_null(strstr(r->out, "1 cases: 0 pass 1 fail"));
	r = VISOR("run", "--json", "--fail-fast", suite_path);
	check_code(r, 0, "");
	assert_non_null(strstr(r->out, "\"complete\":true"));
}

static void trace(void **state)
{
	char text[16384];

	(void)state;
	check_code(VISOR("run", "--cases", "t.down", "--trace", trace_path, suite_path), 0, "");
	slurp(trace_path, text, sizeof(text));
	assert_memory_equal(text, "case t.down\n", 12);
	assert_non_null(strstr(text, "exit: in 0x5458 size 4 value 0x1"));
	assert_non_null(strstr(text, "vector=3"));
	assert_non_null(strstr(text, "PASS SHUTDOWN"));
	check_code(VISOR("run", "--trace", "/nonexistent/x", suite_path), 2, "/nonexistent/x");
	check_code(VISOR("run", "--trace", "/dev/full", suite_path), 3, "/dev/full");
}

static void wrong_words(void **state)
{
	(void)state;
	check_code(VISOR("run", "--cases", "t.unknown", suite_path), 2, "no case is called \"t.unknown\"");
	check_code(VISOR("run", "--cases", "x.*", suite_path), 5, "no case was selected");
	check_code(VISOR("run", "--cases", "@/nonexistent", suite_path), 2, "/nonexistent");
	check_code(VISOR("run", "--cpu", "z80", suite_path), 2, "--cpu z80");
	check_code(VISOR("run", "--cpu", "amd,+nonsense", suite_path), 2, "nonsense");
	check_code(VISOR("run", "--engine", "warp", suite_path), 2, "no such engine");
	check_code(VISOR("run", "--engine", "soft:/dev/x", suite_path), 2, "no device");
	check_code(VISOR("run", "--mem", "1K", suite_path), 2, "--mem");
	check_code(VISOR("run", "--mem", "-1", suite_path), 2, "--mem");
	check_code(VISOR("run", "--mem", "9999999999G", suite_path), 2, "--mem");
	check_code(VISOR("run", "--max-insns", "0", suite_path), 2, "--max-insns");
	check_code(VISOR("run", "--timeout", "soon", suite_path), 2, "--timeout");
	check_code(VISOR("run", "--break", "NOTHING", suite_path), 2, "--break NOTHING");
	check_code(VISOR("run", "--initrd", "/nonexistent", suite_path), 2, "/nonexistent");
	check_code(VISOR("run", "--module", "/nonexistent argument", suite_path), 2, "/nonexistent: No such file");
	check_code(VISOR("run", "--depth", "1", "--module", suite_path, suite_path), 2, "--module: not with --depth");
	check_code(VISOR("run", "--module", "a", "--module", "b", "--module", "c", "--module", "d", "--module", "e",
			 "--module", "f", "--module", "g", "--module", "h", suite_path),
		   2, "--module h: more than 7 modules");
	check_code(VISOR("run", "/nonexistent"), 2, "/nonexistent: No such file");
	check_code(VISOR("run", "--json", plain_path), 2, "holds no cases");
	check_code(VISOR("run", suite_path, plain_path), 2, "one IMAGE");
}

static void plain(void **state)
{
	struct result *r;

	(void)state;
	write_file(list_path, "\x15", 1);
	r = visor_to("", list_path, (const char *const[]){"run", plain_path, NULL});
	assert_int_equal(r->code, 0x15 << 1 | 1);
	assert_string_equal(r->out, "\x15");
	assert_string_equal(r->err, "\x15");
	check_code(VISOR("run", "--max-insns", "1000", plain_path), 1, "budget");
	check_code(VISOR("run", "--timeout", "0.05", plain_path), 1, "time limit");
}

static void output_that_cannot_be_written(void **state)
{
	static const char *const commands[][5] = {
		{"run", "--json", suite_path}, {"run", suite_path}, {"list", suite_path}, {"info"}};

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		check_code(visor_to("/dev/full", "/dev/null", commands[i]), 3, "No space left");
		check_code(visor_to(NULL, "/dev/null", commands[i]), 3, "standard output");
	}
}

static const char report[] = "trapline 1 t 4\ncpuid 0 0 1 68747541 444d4163 69746e65\nready\n"
			     "start t.nop\nend t.nop RUNS\nstart t.down\n";

static void judge(void **state)
{
	struct result *r;

	(void)state;
#define JUDGE(...) visor_to("", list_path, (const char *const[]){"judge", __VA_ARGS__, NULL})
	write_file(list_path, report, sizeof(report) - 1);
	r = JUDGE("--json", "--ended", "shutdown", suite_path);
	check_code(r, 0, "");
	check_types(r->out, "run start end start end done");
	check_code(JUDGE(suite_path), 1, "");
	check_code(JUDGE("--ended", "crash", suite_path), 1, "");
	check_code(JUDGE("--ended", "well", suite_path), 2, "--ended well");
	check_code(JUDGE("--ended", "shutdown", "--invert", suite_path), 1, "");
	/* All as wanted, but no bye. */
	write_file(list_path, report, sizeof(report) - 1 - strlen("start t.down\n"));
	check_code(JUDGE(suite_path), 3, "");
	write_file(list_path, "nothing\n", 8);
	check_code(JUDGE(suite_path), 2, "no report");
	write_file(list_path, "trapline 1 t 4\nready\nbye\n", 25);
	check_code(JUDGE(suite_path), 5, "no case");
	write_file(list_path, "trapline 1 other 3\n", 19);
	check_code(JUDGE(suite_path), 2, "not of this image");
}

static void info(void **state)
{
	struct result *r = VISOR("info");

	(void)state;
	check_code(r, 0, "");
	assert_memory_equal(r->out, "soft  available", 15);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(suite_path, sizeof(suite_path), "%s/suite.elf", folder);
	snprintf(plain_path, sizeof(plain_path), "%s/plain.bin", folder);
	snprintf(trace_path, sizeof(trace_path), "%s/trace", folder);
	snprintf(list_path, sizeof(list_path), "%s/list", folder);
	write_suite();
	write_file(plain_path, plain_guest, (size_t)(plain_guest_end - plain_guest));
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list),
		cmocka_unit_test(run),
		cmocka_unit_test(every_expectation_can_fail),
		cmocka_unit_test(devices),
		cmocka_unit_test(fail_fast),
		cmocka_unit_test(broken_gate),
		cmocka_unit_test(coverage),
		cmocka_unit_test(trace),
		cmocka_unit_test(wrong_words),
		cmocka_unit_test(plain),
		cmocka_unit_test(output_that_cannot_be_written),
		cmocka_unit_test(judge),
		cmocka_unit_test(info),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
