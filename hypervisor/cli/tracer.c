#include "cli/tracer.h"

#include <errno.h>
#include <inttypes.h>

/* The vCPU's number stands first where there are several. */
static void number(const struct tracer *tracer, unsigned vcpu)
{
	if (tracer->several)
		fprintf(tracer->file, "%u: ", vcpu);
}

static void insn(void *owner, unsigned vcpu, uint64_t rip, const char *text)
{
	const struct tracer *tracer = owner;

	number(tracer, vcpu);
	fprintf(tracer->file, "%016" PRIx64 "  %s\n", rip, text);
}

static void event(void *owner, unsigned vcpu, uint64_t rip, const char *text)
{
	const struct tracer *tracer = owner;

	number(tracer, vcpu);
	fprintf(tracer->file, "%016" PRIx64 "  -- %s\n", rip, text);
}

static void tell_access(void *file, const struct bus_access *access)
{
	char text[128];

	bus_access_text(access, text, sizeof(text));
	fprintf(file, "%16s  -- exit: %s\n", "", text);
}

void tracer_watch(struct tracer *tracer, struct bus *bus)
{
	if (!tracer->file)
		return;
	bus->traced = tell_access;
	bus->trace_owner = tracer->file;
}

int tracer_open(struct tracer *tracer, const char *path)
{
	tracer->file = fopen(path, "we");
	if (!tracer->file)
		return -errno;
	tracer->trace = (struct engine_trace){.owner = tracer, .insn = insn, .event = event};
	return 0;
}

int tracer_close(struct tracer *tracer)
{
	int failed, error;

	if (!tracer->file)
		return 0;
	failed = ferror(tracer->file);
	error = fclose(tracer->file) ? -errno : 0;
	tracer->file = NULL;
	return failed && !error ? -EIO : error;
}
