/* Prints the text section (x86/case_section.h) of the selftest guest, from cases.def. */
#include <stdio.h>

#include "x86/case_layout.h"
#include "x86/case_section.h"

struct text {
	const char *id, *insn, *want, *cite;
	unsigned mode, cpl;
};

#define CASE(name, in_mode, at_cpl, code, given, watching, insn, want, cite)                                 \
	{"selftest." name, insn, want, cite, in_mode, at_cpl},

static const struct text cases[] = {
#include "cases.def"
};

int main(void)
{
	static const char *const modes[] = {"real", "vm86", "prot16", "prot32", "compat", "long"};
	size_t count = sizeof(cases) / sizeof(cases[0]);

	printf("trapline-cases %d selftest %zu\n", CASE_SECTION_VERSION, count);
	for (const struct text *c = cases; c < cases + count; c++)
		printf("case %s %s %s %u innocuous\n%s%s", c->id, c->insn, modes[c->mode], c->cpl, c->want,
		       c->cite);
	printf("end\n");
	return fflush(stdout) ? 1 : 0;
}
