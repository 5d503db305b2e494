/*
 * case.h: one case as the guest runs it. The generator (suites/) writes an array of these
 * into the guest; guests/lib runs them. What the manuals promise of a case stands in the
 * text section instead (case_section.h), in the same order.
 *
 * A case starts from the baseline of its mode and CPL (guests/lib, case_layout.h), applies
 * its settings in order, loads that state, runs the bytes under test, and catches what comes.
 * Then every field of struct machine_state and the case's memory are compared with what was
 * loaded: differences, and the fields in @watch, are the effects that it reports.
 */
#ifndef TRAPLINE_X86_CASE_H
#define TRAPLINE_X86_CASE_H

#include <stdint.h>

enum case_mode { MODE_REAL, MODE_VM86, MODE_PROT16, MODE_PROT32, MODE_COMPAT, MODE_LONG, MODE_COUNT };

enum state_field {
#define STATE_FIELD(name) STATE_##name,
#include "x86/machine_state.def"
#undef STATE_FIELD
	STATE_COUNT
};

struct machine_state {
	uint64_t field[STATE_COUNT];
};

enum setting_kind {
	SETTING_SET,   /* field = value */
	SETTING_OR,    /* field |= value */
	SETTING_CLEAR, /* field &= ~value */
	SETTING_POKE1, /* memory at address = value, 1, 2, 4 or 8 bytes; before the state is loaded */
	SETTING_POKE2,
	SETTING_POKE4,
	SETTING_POKE8,
	SETTING_PHYSICAL_BITS, /* precondition: CPUID 80000008H tells at most @value, else NOTSUP */
	SETTING_INTERRUPT, /* the local APIC holds external interrupt `value` pending when the case begins */
	SETTING_NMI,       /* an NMI is pending */
	SETTING_PARAMETER, /* of a story: parameter `field` (enum story_parameter) is `value` */
	SETTING_CONTROL, /* of a guest of the case's own: its control structure (a VMCB) holds `value` at `address` */
	SETTING_CONTROL_OR, /* the same, or-ed into it; `bit`: how many bytes */
	SETTING_CONTROL_CLEAR,
	SETTING_NEEDS  /* precondition: CPUID leaf/subleaf/register/bit has this value, else NOTSUP */
};

struct case_setting {
	uint8_t kind;     /* enum setting_kind */
	uint8_t bit;      /* NEEDS: bit number; bit 7 set: the bit must be 0 */
	uint16_t field;   /* enum state_field; NEEDS: register 0 to 3 for EAX to EDX */
	uint32_t address; /* POKE: physical and linear; NEEDS: CPUID leaf */
	uint64_t value;   /* NEEDS: subleaf */
};

#define CASE_BYTES_MAX 64
#define CASE_WATCH_MAX 24

struct case_watch {
	uint32_t address; /* memory to report whole, always, as [0xADDRESS:SIZE]=0x…; 0: a field */
	uint16_t size;    /* bytes */
	uint16_t field;   /* enum state_field, reported always */
};

struct case_spec {
	const char *id;
	const struct case_setting *settings;
	uint16_t setting_count;
	uint8_t mode; /* enum case_mode */
	uint8_t cpl;
	uint8_t length; /* bytes under test */
	uint8_t watch_count;
	uint8_t bytes[CASE_BYTES_MAX];
	const struct case_watch *watch;
	void (*story)(void); /* C that runs in place of bytes (guests/lib/story.h), or NULL */
};

enum story_parameter {
#define STORY_PARAMETER(name) STORY_PARAMETER_##name,
#include "x86/story_parameters.def"
#undef STORY_PARAMETER
	STORY_PARAMETER_COUNT
};

extern const struct case_spec case_table[];
extern const uint32_t case_count;
extern const char case_suite[];

#endif
