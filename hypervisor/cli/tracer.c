#include "cli/tracer.h"

#include <errno.h>
#include <inttypes.h>

static void insn(void *owner, uint64_t rip, const char *text)
{
	fprintf(owner, "%016" PRIx64 "  %s\n", rip, text);
}

static void event(void *owner, uint64_t rip, const char *text)
{
	fprintf(owner, "%016" PRIx64 "  -- %s\n", rip, text);
}

void tracer_access(void *file, const struct bus_access *access)
{
	char text[128];

	bus_access_text(access, text, sizeof(text));
	fprintf(file, "%16s  -- exit: %s\n", "", text);
}

int tracer_open(struct tracer *tracer, const char *path)
{
	tracer->file = fopen(path, "we");
	if (!tracer->file)
		return -errno;
	tracer->trace = (struct engine_trace){.owner = tracer->file, .insn = insn, .event = event};
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
