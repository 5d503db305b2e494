/*
 * properties.h: resource control and efficiency, the two of Popek and Goldberg's properties that need a hypervisor of
 * ours above the guest: it says that every intercept was on, and what has exited (x86/l1.h).
 */
#ifndef TRAPLINE_VM_PROPERTIES_H
#define TRAPLINE_VM_PROPERTIES_H

#include "vm/case_section.h"

#define PROPERTIES_EXITS_MAX 8

enum property { PROPERTY_NOT_JUDGED, PROPERTY_HELD, PROPERTY_BROKEN };
extern const char *const property_names[]; /* "not judged", "held", "broken" */

/* Of one case: what the hypervisor has told. Zeros before it begins. */
struct properties {
	bool armed;
	unsigned vendor; /* 0 svm, 1 vmx; of armed */
	bool told;       /* @controls, secondary ones of VT-x that are on, were */
	uint64_t controls;
	unsigned count;  /* of exits; those behind the last that fits are counted alone */
	uint32_t code[PROPERTIES_EXITS_MAX];
	bool behind[PROPERTIES_EXITS_MAX]; /* by an instruction behind the first */
	char text[PROPERTIES_EXITS_MAX][80]; /* as told: VENDOR=CODE WORDS */
	enum property control, efficiency;
};

/* "svm", or "vmx controls=0x…", of an `armed` line; "svm=0x7b info1=0x…" of an `exit` line. False: neither. */
bool properties_armed(struct properties *properties, struct span words);
bool properties_exit(struct properties *properties, struct span words);

/*
 * Judges what was told of @entry, whose outcome is @got: the instruction completed where that is RUNS without an
 * event, or HANG. Where a property is broken, @why says how.
 */
void properties_judge(struct properties *properties, const struct case_list *list,
		      const struct case_entry *entry, struct span got, char *why, size_t size);

#endif
