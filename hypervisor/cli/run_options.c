#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/line.h"
#include "cli/run.h"

static const char help[] =
	"usage: visor run [OPTION]… IMAGE\n"
	"Boots a guest. One that holds cases runs them, each on a fresh machine; another runs until it ends\n"
	"itself, and its debug-exit value is the exit code: (value << 1) | 1.\n"
	"  --engine NAME         soft: the software reference CPU (default); kvm or kvm:DEVICE: a device\n"
	"                        that speaks the KVM ABI (default /dev/kvm)\n"
	"  --cpu PROFILE         NAME[,+feature,-feature…] (default amd), see `visor info`; under kvm\n"
	"                        the processor is the host's: host (default)\n"
	"  --mem SIZE            memory: bytes, or with K, M or G (default 128M); what is above 3G lies\n"
	"                        behind 4 GiB\n"
	"  --smp N               vCPUs, 1 to 64 (default 1)\n"
	"  --seed N              under soft, how vCPUs take turns, and random numbers that the guest gets:\n"
	"                        the same run for the same N (default 0)\n"
	"  --slice N             under soft, most instructions of a vCPU's turn, down to 1 (default 4096)\n"
	"  --append STRING       command line for the guest\n"
	"  --rtc TIME            what the real-time clock begins with: YYYY-MM-DDTHH:MM:SS, or host for "
	"this\n"
	"                        machine's time (UTC; default 2026-01-01T00:00:00)\n"
	"  --no-hpet             a machine without HPET\n"
	"  --depth N             run IMAGE, a multiboot or PVH guest or a Linux bzImage, under N of our own\n"
	"                        hypervisors, each a guest of the one below it (default 0)\n"
	"  --l1 FILE             that hypervisor (default: as it was built or installed with visor)\n"
	"  --initrd FILE         Linux's initrd, or the first module of multiboot and PVH\n"
	"  --module 'FILE ARGUMENTS'\n"
	"                        another module for multiboot and PVH, with a command line of its own or without;\n"
	"                        repeatable, in this order\n"
	"  --disk FILE           virtio disk, raw or qcow2 by its first bytes, or raw:FILE, qcow2:FILE;\n"
	"                        the guest writes to it. Repeatable. qcow2 needs qemu-nbd\n"
	"  --disk-ro FILE        the same, read-only\n"
	"  --disk-image          the IMAGE itself as a disk, read-only\n"
	"  --entropy             virtio entropy device; its numbers follow from --seed\n"
	"  --virtio-console      virtio console on standard output and, once the guest listens, input\n"
	"  --cases WORDS         ids and globs separated by commas, or @FILE with one a line; repeatable\n"
	"  --json                JSON lines instead of text\n"
	"  --trace FILE          instructions, events and device accesses\n"
	"  --max-insns N         instruction budget, of each case (default 2000000; four times as much for\n"
	"                        each hypervisor of --depth) or of the guest (none);\n"
	"                        not under kvm, which does not count\n"
	"  --timeout SECONDS     time limit, of each case (default 10) or of the guest (none)\n"
	"  --statistics          at the end, what the engine counted (instructions; exits, under kvm),\n"
	"                        on standard error\n"
	"  --reboot              a guest that resets the machine boots again, as does a triple fault;\n"
	"  --no-reboot           either ends the run (default)\n"
	"  --open-bus            accesses that no device claims read as ones (default for guests without cases,\n"
	"                        there with a warning for each port and page)\n"
	"  --no-open-bus         the first of them ends the run (default for guests with cases)\n"
	"  --move every=N[,seed=S][,compare][,to=ENGINE[:PROFILE]]\n"
	"                        move the guest to another machine of this process and back, each N instructions, or\n"
	"                        with a seed 1 to N; one with cases, from READY on. compare: a third machine runs it\n"
	"                        without moves, and a difference ends the run, or fails the case, by name\n"
	"  --control unix:PATH   listen there for JSON commands, in QMP's manner: query-status, stop, cont, migrate, …\n"
	"                        (hypervisor/monitor/PROTOCOL.md); a guest with cases runs as on any other machine then\n"
	"  --incoming URI        in place of an IMAGE, wait for a guest that another visor sends, at unix:PATH,\n"
	"                        tcp:HOST:PORT, file:PATH or fd:N; defer: where migrate-incoming says. It brings its\n"
	"                        machine; what options say of that must fit, and disks have to be named\n"
	"  --break NAME          break one check of the software CPU once the guest is ready\n"
	"  --list-breaks         the names that --break takes; with --move, the fields of states that it leaves out\n"
	"  --coverage            with --json: which of these mattered to each case\n"
	"  --fail-fast           stop behind the first case that fails\n"
	"  --invert              judge each case against the opposite of its expectation\n"
	"Exit codes: 0 all as expected, 1 not, 2 wrong command line or file, 3 the harness failed or the "
	"run\n"
	"is incomplete, 5 no case was selected, 128+n stopped by signal n. Of a guest without cases, 0 is "
	"also power-off,\n"
	"4 a reset, 6 a triple fault.\n";

enum {
	ENGINE,
	CPU,
	MEM,
	APPEND,
	RTC,
	NO_HPET,
	DEPTH,
	L1,
	INITRD,
	MODULE,
	SMP,
	SEED,
	SLICE,
	DISK,
	DISK_RO,
	ENTROPY,
	VIRTIO_CONSOLE,
	DISK_IMAGE,
	CASES,
	JSON,
	TRACE,
	MAX_INSNS,
	TIMEOUT,
	STATISTICS,
	OPEN_BUS,
	NO_OPEN_BUS,
	REBOOT,
	NO_REBOOT,
	MOVE,
	CONTROL,
	INCOMING,
	BREAK,
	LIST_BREAKS,
	COVERAGE,
	FAIL_FAST,
	INVERT,
	HELP
};

static const struct option longs[] = {{"engine", required_argument, NULL, ENGINE},
				      {"cpu", required_argument, NULL, CPU},
				      {"mem", required_argument, NULL, MEM},
				      {"append", required_argument, NULL, APPEND},
				      {"rtc", required_argument, NULL, RTC},
				      {"no-hpet", no_argument, NULL, NO_HPET},
				      {"depth", required_argument, NULL, DEPTH},
				      {"l1", required_argument, NULL, L1},
				      {"initrd", required_argument, NULL, INITRD},
				      {"module", required_argument, NULL, MODULE},
				      {"smp", required_argument, NULL, SMP},
				      {"seed", required_argument, NULL, SEED},
				      {"slice", required_argument, NULL, SLICE},
				      {"disk", required_argument, NULL, DISK},
				      {"disk-ro", required_argument, NULL, DISK_RO},
				      {"disk-image", no_argument, NULL, DISK_IMAGE},
				      {"entropy", no_argument, NULL, ENTROPY},
				      {"virtio-console", no_argument, NULL, VIRTIO_CONSOLE},
				      {"cases", required_argument, NULL, CASES},
				      {"json", no_argument, NULL, JSON},
				      {"trace", required_argument, NULL, TRACE},
				      {"max-insns", required_argument, NULL, MAX_INSNS},
				      {"timeout", required_argument, NULL, TIMEOUT},
				      {"statistics", no_argument, NULL, STATISTICS},
				      {"open-bus", no_argument, NULL, OPEN_BUS},
				      {"no-open-bus", no_argument, NULL, NO_OPEN_BUS},
				      {"reboot", no_argument, NULL, REBOOT},
				      {"no-reboot", no_argument, NULL, NO_REBOOT},
				      {"move", required_argument, NULL, MOVE},
				      {"control", required_argument, NULL, CONTROL},
				      {"incoming", required_argument, NULL, INCOMING},
				      {"break", required_argument, NULL, BREAK},
				      {"list-breaks", no_argument, NULL, LIST_BREAKS},
				      {"coverage", no_argument, NULL, COVERAGE},
				      {"fail-fast", no_argument, NULL, FAIL_FAST},
				      {"invert", no_argument, NULL, INVERT},
				      {"help", no_argument, NULL, HELP},
				      {0}};

static int parse_engine(struct run_options *options, const char *text)
{
	size_t size = strcspn(text, ":");

	options->engine = engine_find(text, size);
	if (!options->engine)
		return cli_fail(EXIT_USAGE, "--engine %s: there is no such engine; see `visor info`", text);
	options->engine_text = text;
	options->device = text[size] ? text + size + 1 : NULL;
	if (options->device && !options->engine->takes_device)
		return cli_fail(EXIT_USAGE, "--engine %s: %s takes no device", text, options->engine->name);
	if (options->device && !*options->device)
		return cli_fail(EXIT_USAGE, "--engine %s: the device has no name", text);
	return 0;
}

static int parse_memory(struct run_options *options, const char *text)
{
	static const char units[] = "KMG";
	char *end;
	const char *unit;

	errno = 0;
	options->memory = strtoull(text, &end, 0);
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit && *unit && !errno && options->memory <= MEMORY_MAX) {
		options->memory <<= 10 * (unit - units + 1);
		end++;
	}
	if (errno || *text < '0' || *text > '9' || *end)
		return cli_fail(EXIT_USAGE, "--mem %s: not a size such as 64M", text);
	if (options->memory < MEMORY_MIN || options->memory > MEMORY_MAX || options->memory % 4096)
		return cli_fail(EXIT_USAGE, "--mem %s: not between 2M and 512G in whole pages", text);
	return 0;
}

static int parse_vcpus(struct run_options *options, const char *text)
{
	uint64_t vcpus;

	if (!span_number(span_of(text), &vcpus) || vcpus == 0 || vcpus > ENGINE_VCPUS_MAX)
		return cli_fail(EXIT_USAGE, "--smp %s: not a number from 1 to %u", text, ENGINE_VCPUS_MAX);
	options->vcpus = (unsigned)vcpus;
	return 0;
}

static int parse_seed(struct run_options *options, const char *text)
{
	if (!span_number(span_of(text), &options->seed))
		return cli_fail(EXIT_USAGE, "--seed %s: not a number", text);
	return 0;
}

static int add_module(struct run_options *options, const char *text)
{
	const unsigned most = BOOT_MODULES_MAX - 1;

	if (options->modules == most)
		return cli_fail(EXIT_USAGE, "--module %s: more than %u modules", text, most);
	options->module[options->modules++] = text;
	return 0;
}

static int add_disk(struct run_options *options, const char *name, bool read_only)
{
	if (options->disks == DISKS_MAX)
		return cli_fail(EXIT_USAGE, "--disk %s: more than %u disks", name, DISKS_MAX);
	options->disk[options->disks].name = name;
	options->disk[options->disks++].read_only = read_only;
	return 0;
}

static int parse_insns(struct run_options *options, const char *text)
{
	if (!span_number(span_of(text), &options->max_insns) || options->max_insns == 0)
		return cli_fail(EXIT_USAGE, "--max-insns %s: not a number above 0", text);
	return 0;
}

static int parse_slice(struct run_options *options, const char *text)
{
	if (!span_number(span_of(text), &options->slice) || options->slice == 0)
		return cli_fail(EXIT_USAGE, "--slice %s: not a number above 0", text);
	return 0;
}

static int parse_rtc(struct run_options *options, const char *text)
{
	unsigned year, month, day, hour, minute, second;
	int end = 0;

	if (strcmp(text, "host") == 0) {
		static char now[32]; /* said as it was, so that the run can be repeated */
		time_t host = time(NULL);

		options->rtc_start = host;
		strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", gmtime(&host));
		options->rtc_text = now;
		return 0;
	}
	if (sscanf(text, "%4u-%2u-%2uT%2u:%2u:%2u%n", &year, &month, &day, &hour, &minute, &second, &end) !=
		    6 ||
	    text[end] || !rtc_seconds(year, month, day, hour, minute, second, &options->rtc_start))
		return cli_fail(EXIT_USAGE, "--rtc %s: not a time such as 2026-01-31T23:59:59, nor host",
				text);
	options->rtc_text = text;
	return 0;
}

static int parse_timeout(struct run_options *options, const char *text)
{
	char *end;

	options->timeout = strtod(text, &end);
	if (end == text || *end || !(options->timeout > 0) || options->timeout > 1e8)
		return cli_fail(EXIT_USAGE, "--timeout %s: not a number of seconds", text);
	return 0;
}

static int parse_depth(struct run_options *options, const char *text)
{
	uint64_t depth;

	if (!span_number(span_of(text), &depth) || depth > DEPTH_MAX)
		return cli_fail(EXIT_USAGE, "--depth %s: not a number from 0 to %u", text, DEPTH_MAX);
	options->depth = (unsigned)depth;
	return 0;
}

static int parse_break(struct run_options *options, const char *text)
{
	options->break_check = text;
	if (run_breaks_state(options))
		return 0;
	for (unsigned i = 0; options->engine->check_name(i); i++)
		if (strcmp(options->engine->check_name(i), text) == 0)
			return 0;
	return cli_fail(EXIT_USAGE, "--break %s: no check is called that; see --list-breaks", text);
}

static int parse_option(struct run_options *options, int option, const char *value)
{
	switch (option) {
	case ENGINE: return parse_engine(options, value);
	case CPU:
		options->cpu = value;
		options->given.cpu = true;
		return 0;
	case MEM: options->given.memory = true; return parse_memory(options, value);
	case APPEND: options->append = value; return 0;
	case RTC: options->given.rtc = true; return parse_rtc(options, value);
	case NO_HPET: options->no_hpet = options->given.hpet = true; return 0;
	case DEPTH: return parse_depth(options, value);
	case L1: options->l1 = value; return 0;
	case INITRD: options->initrd = value; return 0;
	case MODULE: return add_module(options, value);
	case SMP: options->given.vcpus = true; return parse_vcpus(options, value);
	case SEED: options->given.seed = true; return parse_seed(options, value);
	case SLICE: options->given.slice = true; return parse_slice(options, value);
	case DISK: return add_disk(options, value, false);
	case DISK_RO: return add_disk(options, value, true);
	case DISK_IMAGE: options->disk_image = true; return 0;
	case ENTROPY: options->entropy = options->given.entropy = true; return 0;
	case VIRTIO_CONSOLE: options->virtio_console = options->given.console = true; return 0;
	case CASES: return patterns_add(&options->patterns, value);
	case JSON: options->json = true; return 0;
	case TRACE: options->trace = value; return 0;
	case MAX_INSNS: return parse_insns(options, value);
	case TIMEOUT: return parse_timeout(options, value);
	case STATISTICS: options->statistics = true; return 0;
	case OPEN_BUS: options->bus = BUS_OPEN; return 0;
	case NO_OPEN_BUS: options->bus = BUS_STRICT; return 0;
	case REBOOT: options->reboot = true; return 0;
	case NO_REBOOT: options->reboot = false; return 0;
	case MOVE: return run_parse_move(options, value);
	case CONTROL: options->control = value; return 0;
	case INCOMING: options->incoming = value; return 0;
	case BREAK: return parse_break(options, value);
	case LIST_BREAKS: options->list_breaks = true; return 0;
	case COVERAGE: options->coverage = true; return 0;
	case FAIL_FAST: options->fail_fast = true; return 0;
	case INVERT: options->invert = true; return 0;
	case HELP: fputs(help, stdout); return -1;
	default: return EXIT_USAGE;
	}
}

/* A guest that comes and goes is a plain one: which case it runs, and what the judge has heard, does not travel. */
static int check_live(const struct run_options *options)
{
	const char *option = options->control ? "--control" : "--incoming";

	if (options->patterns.count || options->json || options->invert || options->coverage)
		return cli_fail(EXIT_USAGE, "%s: not with --cases, --json, --invert or --coverage; a guest's own command "
					    "line may name cases", option);
	if (options->move.text)
		return cli_fail(EXIT_USAGE, "%s: not with --move", option);
	return 0;
}

int run_parse(int argc, char **argv, struct run_options *options)
{
	int option, code;

	*options = (struct run_options){.engine = &engine_soft,
					.engine_text = engine_soft.name,
					.memory = MEMORY_DEFAULT,
					.rtc_start = RTC_START_DEFAULT,
					.vcpus = 1};
	while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		code = parse_option(options, option, optarg);
		if (code)
			return code;
	}
	if (!options->cpu)
		options->cpu = options->engine->cpu_default;
	if (options->list_breaks)
		return options->disk_image && optind < argc ? add_disk(options, argv[optind], true) : 0;
	if (options->coverage && !(options->engine->take_reached && options->json))
		return cli_fail(EXIT_USAGE,
				"--coverage: only with --json and an engine that has checks to break");
	if (options->max_insns && !options->engine->counts)
		return cli_fail(EXIT_USAGE, "--max-insns: %s does not count instructions; use --timeout",
				options->engine->name);
	if (options->slice && !options->engine->counts)
		return cli_fail(EXIT_USAGE, "--slice: %s does not count instructions", options->engine->name);
	if (options->modules && options->depth)
		return cli_fail(EXIT_USAGE, "--module: not with --depth, whose hypervisors hand on an initrd alone");
	if (run_breaks_state(options) && !options->move.text)
		return cli_fail(EXIT_USAGE, "--break %s: only with --move", options->break_check);
	if (options->move.compare && options->reboot)
		return cli_fail(EXIT_USAGE, "--move: compare does not go with --reboot");
	if (options->control || options->incoming) {
		code = check_live(options);
		if (code || (options->incoming && optind == argc))
			return code;
	}
	if (optind + 1 != argc)
		return cli_fail(EXIT_USAGE, "run takes one IMAGE; see `visor run --help`");
	options->image = argv[optind];
	return options->disk_image ? add_disk(options, options->image, true) : 0;
}

/* ---- reproduction ---- */

/* As one word of a POSIX shell. */
static void quoted(struct line *line, const char *option, const char *value)
{
	if (!value)
		return;
	line_format(line, " --%s '", option);
	for (; *value; value++) {
		if (*value == '\'')
			line_text(line, "'\\'");
		line_add(line, (struct span){value, 1});
	}
	line_text(line, "'");
}

char *run_again(const struct run_options *options)
{
	struct line line = {0};

	if (options->memory != MEMORY_DEFAULT)
		line_format(&line, " --mem %" PRIu64, options->memory);
	if (options->vcpus > 1)
		line_format(&line, " --smp %u", options->vcpus);
	if (options->seed)
		line_format(&line, " --seed %" PRIu64, options->seed);
	if (options->slice)
		line_format(&line, " --slice %" PRIu64, options->slice);
	line_text(&line, options->disk_image ? " --disk-image" : "");
	for (unsigned i = 0; i < options->disks - options->disk_image; i++)
		quoted(&line, options->disk[i].read_only ? "disk-ro" : "disk", options->disk[i].name);
	line_text(&line, options->entropy ? " --entropy" : "");
	line_text(&line, options->virtio_console ? " --virtio-console" : "");
	quoted(&line, "append", options->append);
	quoted(&line, "rtc", options->rtc_text);
	line_text(&line, options->no_hpet ? " --no-hpet" : "");
	quoted(&line, "initrd", options->initrd);
	for (unsigned i = 0; i < options->modules; i++)
		quoted(&line, "module", options->module[i]);
	if (options->depth)
		line_format(&line, " --depth %u", options->depth);
	quoted(&line, "l1", options->l1);
	quoted(&line, "move", options->move.text);
	quoted(&line, "break", options->break_check);
	if (options->max_insns)
		line_format(&line, " --max-insns %" PRIu64, options->max_insns);
	if (options->timeout > 0)
		line_format(&line, " --timeout %g", options->timeout);
	line_text(&line, options->bus == BUS_OPEN ? " --open-bus" : "");
	line_text(&line, options->reboot ? " --reboot" : "");
	line_text(&line, options->invert ? " --invert" : "");
	line_add(&line, (struct span){"", 1});
	return line.at;
}
