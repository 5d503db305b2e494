/* Prints the text section (x86/case_section.h) of the hostile guest, from cases.def. */
#include <stdio.h>

#include "x86/case_layout.h"
#include "x86/case_section.h"

struct text {
	const char *id, *want;
	unsigned mode, cpl;
};

#define HOSTILE(name, in_mode, at_cpl, code, given, want, verdict, words) {name, want, in_mode, at_cpl},

static const struct text cases[] = {
#include "cases.def"
};

/* What the plain case behind each attack does (cases.c). */
#define AFTER                                                                                                \
	"RUNS rdx=0x82 rdi=0x4c01|0x14c01 rflags=0x886|0x20886 [0x14c00:8]=0xa5a5a5a5a5a5a500"

int main(void)
{
	static const char *const modes[] = {"real", "vm86", "prot16", "prot32", "compat", "long"};
	size_t count = sizeof(cases) / sizeof(cases[0]);

	printf("trapline-cases %d hostile %zu\n", CASE_SECTION_VERSION, 2 * count);
	for (const struct text *c = cases; c < cases + count; c++) {
		printf("case hostile.%s attack %s %u privileged\nwant always %s\n"
		       "cite SDM 3A 6 Interrupt and exception handling\n",
		       c->id, modes[c->mode], c->cpl, c->want);
		printf("case hostile.%s.after add %s %u innocuous\nwant always " AFTER "\n"
		       "cite SDM 2A ADD ADD-Add\n",
		       c->id, modes[c->mode], c->cpl);
	}
	printf("end\n");
	return fflush(stdout) ? 1 : 0;
}
