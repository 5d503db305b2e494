/* The case table of the selftest guest, from cases.def. */
#include "x86/case_layout.h"

#define BYTES(...) __VA_ARGS__
#define SETTINGS(...) __VA_ARGS__
#define WATCH(...) __VA_ARGS__
#define SET(name, number) {.kind = SETTING_SET, .field = STATE_##name, .value = (number)}
#define OR(name, number) {.kind = SETTING_OR, .field = STATE_##name, .value = (number)}
#define POKE(size, where, number) {.kind = SETTING_POKE##size, .address = (where), .value = (number)}
#define NEEDS(leaf, subleaf, reg, number) \
	{.kind = SETTING_NEEDS, .bit = (number), .field = (reg), .address = (leaf), .value = (subleaf)}
#define FIELD(name) {.field = STATE_##name}
#define MEMORY(where, bytes) {.address = (where), .size = (bytes)}
#define CASE(name, in_mode, at_cpl, code, given, watching, insn, want, cite)                        \
	{                                                                                           \
		.id = "selftest." name, .settings = (const struct case_setting[]){given},           \
		.setting_count = sizeof((const struct case_setting[]){given}) /                     \
				 sizeof(struct case_setting),                                       \
		.mode = in_mode, .cpl = at_cpl, .length = sizeof((const uint8_t[]){code}),          \
		.watch_count = sizeof((const struct case_watch[]){watching}) /                      \
			       sizeof(struct case_watch),                                           \
		.bytes = {code}, .watch = (const struct case_watch[]){watching},                                               \
	},

const char case_suite[] = "selftest";
const struct case_spec case_table[] = {
#include "cases.def"
};
const uint32_t case_count = sizeof(case_table) / sizeof(case_table[0]);
