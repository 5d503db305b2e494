#include "dev/lines.h"

static const struct state_field fields[] = {STATE(struct lines, source), STATE(struct lines, cut),
					    STATE(struct lines, told)};
STATE_TABLE(lines_state, "lines", 1, fields);

static void tell(struct lines *lines)
{
	uint32_t levels = 0, changed;

	for (unsigned i = 0; i < LINE_SOURCES; i++)
		levels |= lines->cut >> i & 1 ? 0 : lines->source[i];
	changed = levels ^ lines->told;
	lines->told = levels;
	for (unsigned line = 0; changed; line++, changed >>= 1)
		if (changed & 1)
			lines->changed(lines->owner, line, levels >> line & 1);
}

void lines_set(struct lines *lines, enum line_source source, unsigned line, bool raised)
{
	uint32_t bit = 1u << line;

	lines->source[source] = raised ? lines->source[source] | bit : lines->source[source] & ~bit;
	tell(lines);
}

void lines_cut(struct lines *lines, enum line_source source, bool cut)
{
	uint32_t bit = 1u << source;

	lines->cut = cut ? lines->cut | bit : lines->cut & ~bit;
	tell(lines);
}
