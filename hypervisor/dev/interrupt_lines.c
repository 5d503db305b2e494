#include "dev/interrupt_lines.h"

static const struct state_field fields[] = {STATE(struct interrupt_lines, source),
					    STATE(struct interrupt_lines, cut),
					    STATE(struct interrupt_lines, told)};
STATE_TABLE(interrupt_lines_state, "lines", 1, fields);

static void tell(struct interrupt_lines *lines)
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

void interrupt_lines_set(struct interrupt_lines *lines, enum line_source source, unsigned line, bool raised)
{
	uint32_t bit = 1u << line;

	lines->source[source] = raised ? lines->source[source] | bit : lines->source[source] & ~bit;
	tell(lines);
}

void interrupt_lines_cut(struct interrupt_lines *lines, enum line_source source, bool cut)
{
	uint32_t bit = 1u << source;

	lines->cut = cut ? lines->cut | bit : lines->cut & ~bit;
	tell(lines);
}
