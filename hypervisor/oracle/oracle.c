/* oracle.c: the run: jobs, batches, counts, reports. */
#include "oracle/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oracle/shrink.h"

/* One process of the run. */
struct job {
	const struct oracle_options *options;
	oracle_report *report;
	void *owner;
	struct oracle_counts *counts;
	struct sides sides;
	uint8_t *reported; /* times, for each row of opcode_table and one more */
};

/* ---- reports ---- */

struct text {
	char at[16384];
	size_t used;
};

static __attribute__((format(printf, 2, 3))) void add(struct text *t, const char *format, ...)
{
	va_list arguments;
	int wrote;

	va_start(arguments, format);
	wrote = vsnprintf(t->at + t->used, sizeof(t->at) - t->used, format, arguments);
	va_end(arguments);
	if (wrote > 0)
		t->used += (size_t)wrote;
	if (t->used >= sizeof(t->at))
		t->used = sizeof(t->at) - 1;
}

static void add_line(void *owner, const char *line) { add(owner, "    %s\n", line); }

static void add_code(struct text *t, const struct generator *g, const struct oracle_case *c)
{
	enum decode_result result;
	char words[160];
	struct insn insn;

	for (unsigned at = 0, n = 0; n < c->insns && at < c->size; n++, at += insn.length) {
		unsigned last;

		classify(g, c, at, &insn, &result);
		last = result == DECODE_OK ? at + insn.length : c->size;
		add(t, "    %016" PRIx64 " ", c->in.rip + at);
		for (unsigned i = at; i < last; i++)
			add(t, " %02x", c->memory[c->in.rip - ARENA_AT + i]);
		if (result == DECODE_OK)
			disassemble(&insn, c->in.rip + at, words, sizeof(words));
		else
			snprintf(words, sizeof(words), "#UD or longer than 15 bytes");
		add(t, "  %s\n", words);
		if (result != DECODE_OK)
			break;
	}
}

static void report_failure(struct job *job, const struct oracle_case *original)
{
	static const char *const modes[] = {"both", "long", "compat"};
	struct oracle_case c = *original;
	struct oracle_outcome host, model;
	struct undefined undefined;
	struct text *text = calloc(1, sizeof(*text));

	if (!text)
		return;
	shrink(&job->sides, &c);
	if (sides_agree(&job->sides, &c, &host, &model))
		add(text, "differs, but not when it runs again: case %" PRIu64 "\n", c.number);
	undefined = undefined_of(&job->sides.generator, &c);
	add(text, "differs: case %" PRIu64 ", %s mode%s\n", c.number,
	    c.compatibility ? "compatibility" : "64-bit", c.traps ? ", by single step" : "");
	add_code(text, &job->sides.generator, &c);
	outcomes_explain(&c, &host, &model, &undefined, add_line, text);
	add(text, "    again: visor oracle --seed %" PRIu64 " --from %" PRIu64 " --count 1 --mode %s%s%s\n",
	    job->options->seed, c.number, modes[job->options->mode], job->options->only ? " --only " : "",
	    job->options->only ? job->options->only : "");
	job->report(job->owner, text->at);
	free(text);
}

/* ---- cases ---- */

static const struct opcode *first_row(const struct generator *g, const struct oracle_case *c)
{
	enum decode_result result;
	struct insn insn;

	classify(g, c, 0, &insn, &result);
	return result == DECODE_OK ? &opcode_table[insn.opcode] : NULL;
}

static bool any_dependent(const struct generator *g, const struct oracle_case *c)
{
	enum decode_result result;
	struct insn insn;

	for (unsigned at = 0, n = 0; n < c->insns && at < c->size; n++, at += insn.length) {
		classify(g, c, at, &insn, &result);
		if (result != DECODE_OK)
			return false;
		if (is_dependent(&opcode_table[insn.opcode]))
			return true;
	}
	return false;
}

static void count_agreed(struct job *job, const struct oracle_case *c, const struct oracle_outcome *o)
{
	struct oracle_counts *n = job->counts;

	n->agreed++;
	n->instructions += c->insns;
	n->faulted += o->vector != NO_FAULT && o->out.rip == c->in.rip;
	n->sequences += c->insns > 1;
	n->compatibility += c->compatibility;
	n->dependent += any_dependent(&job->sides.generator, c);
}

static void judge(struct job *job, const struct oracle_case *c, const struct oracle_outcome *host)
{
	struct oracle_outcome model;
	struct undefined undefined = undefined_of(&job->sides.generator, c);
	const struct opcode *row;
	uint8_t *times;

	model_run(job->sides.model, c, &model);
	if (model.unmodelled) {
		job->counts->unmodelled++;
		return;
	}
	if (overwrote_code(c, host) || overwrote_code(c, &model)) {
		job->counts->overwrote++;
		return;
	}
	if (outcomes_agree(c, host, &model, &undefined)) {
		count_agreed(job, c, host);
		return;
	}
	job->counts->differed++;
	row = first_row(&job->sides.generator, c);
	times = &job->reported[row ? (size_t)(row - opcode_table) : opcode_count];
	if (*times >= job->options->reports)
		return;
	++*times;
	report_failure(job, c);
}

/* Fills the batch from case @number on, and passes it by what does not run. Answers how many it holds. */
static unsigned fill_batch(struct job *job, uint64_t first, unsigned wanted)
{
	struct oracle_case *cases = host_cases(job->sides.host);
	unsigned filled = 0;

	for (unsigned i = 0; i < wanted; i++) {
		switch (generate(&job->sides.generator, first + i, &cases[filled])) {
		case GENERATED_LEFT_OUT: job->counts->left_out++; continue;
		case GENERATED_UNMODELLED: job->counts->unmodelled++; continue;
		default: break;
		}
		if (undefined_of(&job->sides.generator, &cases[filled]).result)
			job->counts->undefined++;
		else
			filled++;
	}
	return filled;
}

static int run_batch(struct job *job, uint64_t first, unsigned wanted, struct oracle_case *cases,
		     struct oracle_outcome *outcomes)
{
	unsigned filled = fill_batch(job, first, wanted);
	int error;

	if (!filled)
		return 0;
	error = host_run(job->sides.host, filled);
	if (error)
		return error;
	/* Shrinking uses the same place. */
	memcpy(cases, host_cases(job->sides.host), filled * sizeof(cases[0]));
	memcpy(outcomes, host_outcomes(job->sides.host), filled * sizeof(outcomes[0]));
	for (unsigned i = 0; i < filled; i++)
		judge(job, &cases[i], &outcomes[i]);
	return 0;
}

static int run_job(struct job *job, unsigned number)
{
	const struct oracle_options *o = job->options;
	struct oracle_case *cases = calloc(HOST_BATCH, sizeof(*cases));
	struct oracle_outcome *outcomes = calloc(HOST_BATCH, sizeof(*outcomes));
	int error = cases && outcomes ? 0 : -ENOMEM;

	for (uint64_t at = number * (uint64_t)HOST_BATCH; at < o->count && !error;
	     at += o->jobs * (uint64_t)HOST_BATCH) {
		uint64_t left = o->count - at;

		error = run_batch(job, o->from + at, left < HOST_BATCH ? (unsigned)left : HOST_BATCH, cases,
				  outcomes);
	}
	free(cases);
	free(outcomes);
	return error;
}

/* ---- the run ---- */

static int open_sides(struct sides *sides, const struct oracle_options *o, char *why, size_t size)
{
	uint8_t read_only[ARENA_PAGE];
	struct profile profile;
	int error;

	model_host_profile(&profile);
	error = generator_open(&sides->generator, &profile, o->seed, (enum oracle_modes)o->mode, o->only);
	if (error == -ENOENT)
		snprintf(why, size, "%s: no instruction of this name is compared with the host", o->only);
	if (error)
		return error;
	generator_read_only(&sides->generator, read_only);
	sides->model = model_new(&profile, read_only);
	error = sides->model ? host_start(&sides->host, read_only, why, size) : -ENOMEM;
	if (!error)
		return 0;
	if (sides->model)
		model_free(sides->model);
	generator_close(&sides->generator);
	return error;
}

static void close_sides(struct sides *sides)
{
	host_stop(sides->host);
	model_free(sides->model);
	generator_close(&sides->generator);
}

/* All of one job; in a process of its own where there are several. */
static int job_main(struct job *job, unsigned number, char *why, size_t size)
{
	int error = open_sides(&job->sides, job->options, why, size);

	if (error)
		return error;
	job->reported = calloc(opcode_count + 1, 1);
	error = job->reported ? run_job(job, number) : -ENOMEM;
	free(job->reported);
	close_sides(&job->sides);
	return error;
}

static int start_jobs(const struct job *job, struct oracle_counts *counts, pid_t *children)
{
	char why[256];

	for (unsigned i = 0; i < job->options->jobs; i++) {
		children[i] = fork();
		if (children[i] < 0)
			return -errno;
		if (children[i] == 0) {
			struct job mine = *job;

			mine.counts = counts + i;
			_exit(-job_main(&mine, i, why, sizeof(why)));
		}
	}
	return 0;
}

static void add_counts(struct oracle_counts *to, const struct oracle_counts *from)
{
	uint64_t *t = (uint64_t *)to;
	const uint64_t *f = (const uint64_t *)from;

	for (size_t i = 0; i < sizeof(*to) / sizeof(*t); i++)
		t[i] += f[i];
}

static int run_jobs(const struct job *job, struct oracle_counts *total)
{
	size_t size = job->options->jobs * sizeof(struct oracle_counts);
	struct oracle_counts *counts =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t children[ORACLE_JOBS_MAX] = {0};
	int error, status;

	if (counts == MAP_FAILED)
		return -ENOMEM;
	error = start_jobs(job, counts, children);
	for (unsigned i = 0; i < job->options->jobs && children[i] > 0; i++) {
		while (waitpid(children[i], &status, 0) < 0 && errno == EINTR)
			continue;
		if (!error && (!WIFEXITED(status) || WEXITSTATUS(status)))
			error = WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
		add_counts(total, counts + i);
	}
	munmap(counts, size);
	return error;
}

int oracle_run(const struct oracle_options *options, oracle_report *report, void *owner,
	       struct oracle_counts *counts, char *why, size_t size)
{
	struct job job = {.options = options, .report = report, .owner = owner, .counts = counts};
	struct sides probe;
	int error;

	*counts = (struct oracle_counts){0};
	snprintf(why, size, "out of memory");
	if (options->jobs <= 1)
		return job_main(&job, 0, why, size);
	/* What is wrong on every job is said once, in words. */
	error = open_sides(&probe, options, why, size);
	if (error)
		return error;
	close_sides(&probe);
	error = run_jobs(&job, counts);
	if (error)
		snprintf(why, size, "a process of the run failed: %s", strerror(-error));
	return error;
}
