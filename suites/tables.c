/* tables.c: the tables that all suites share: instructions, conditions, clauses, features. */
#include "notation.h"

const struct insn insn_table[INSN_COUNT] = {
#define INSN(key_, ...) [key_] = {.key = #key_, __VA_ARGS__},
#include "instructions.def"
#undef INSN
};

const struct condition condition_table[] = {
#define CONDITION(name_, where_, text_) {.name = #name_, .where = (where_), .text = text_},
#include "conditions.def"
#undef CONDITION
};
const unsigned condition_count = sizeof(condition_table) / sizeof(condition_table[0]);

struct manual manual_table[] = {
#define MANUAL_SDM(key_, volume_, section_, title_)                                                          \
	{.key = "SDM_" #key_, .manual = "SDM", .volume = volume_, .section = section_, .title = title_},
#define MANUAL_APM(key_, volume_, section_, title_)                                                          \
	{.key = "APM_" #key_, .manual = "APM", .volume = volume_, .section = section_, .title = title_},
#define DATA_SHEET(chip_, key_, section_, title_)                                                            \
	{.key = #chip_ "_" #key_, .manual = #chip_, .volume = "-", .section = section_, .title = title_},
#include "manuals.def"
#undef DATA_SHEET
#undef MANUAL_SDM
#undef MANUAL_APM
};
const unsigned manual_count = sizeof(manual_table) / sizeof(manual_table[0]);

enum { REG_eax, REG_ebx, REG_ecx, REG_edx };

const struct feature_bit feature_table[] = {
#define FEATURE(name_, leaf_, subleaf_, reg_, bit_)                                                          \
	{.name = #name_, .leaf = (leaf_), .subleaf = (subleaf_), .reg = REG_##reg_, .bit = (bit_)},
#include "x86/features.def"
#undef FEATURE
};
const unsigned feature_count = sizeof(feature_table) / sizeof(feature_table[0]);
