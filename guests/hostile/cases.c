/* The case table of the hostile guest, from cases.def. */
#include "x86/case_layout.h"
#include "x86/control_device.h"

#define ENTRY(name) extern const uint8_t attack_##name[];
ENTRY(all_ports)
ENTRY(console_without_end)
ENTRY(cr3_beyond)
ENTRY(cr3_itself)
ENTRY(cr3_ones)
ENTRY(cr3_zeros)
ENTRY(endless_ac)
ENTRY(endless_breakpoint)
ENTRY(endless_int)
ENTRY(endless_pf)
ENTRY(endless_step)
ENTRY(endless_ud)
ENTRY(entry_beyond)
ENTRY(ist_not_canonical)
ENTRY(ist_unmapped)
ENTRY(modify_by_frame)
ENTRY(modify_by_walk)
ENTRY(modify_forever)
ENTRY(newlines_without_end)
ENTRY(no_gdt)
ENTRY(print_bye)
ENTRY(print_cpuid)
ENTRY(print_dirty)
ENTRY(print_end_and_hang)
ENTRY(print_end_and_shutdown)
ENTRY(print_end_bad_outcome)
ENTRY(print_end_cut)
ENTRY(print_end_notsup)
ENTRY(print_end_of_another)
ENTRY(print_end_of_nobody)
ENTRY(print_end_twice)
ENTRY(print_escapes)
ENTRY(print_garbage)
ENTRY(print_header)
ENTRY(print_header_of_another)
ENTRY(print_header_of_the_future)
ENTRY(print_long_end)
ENTRY(print_long_line)
ENTRY(print_markup)
ENTRY(print_msr)
ENTRY(print_nothing)
ENTRY(print_nuls)
ENTRY(print_quotes)
ENTRY(print_ready)
ENTRY(print_start)
ENTRY(rep_outs_console)
ENTRY(run_across_end_of_ram)
ENTRY(run_end_of_ram)
ENTRY(scribble_bss_letters)
ENTRY(scribble_bss_ones)
ENTRY(scribble_bss_zeros)
ENTRY(scribble_everything)
ENTRY(scribble_exchange)
ENTRY(scribble_gdt_zeros)
ENTRY(scribble_idt_ones)
ENTRY(scribble_idt_zeros)
ENTRY(scribble_low_memory)
ENTRY(scribble_paging_ones)
ENTRY(scribble_paging_zeros)
ENTRY(scribble_text_hlt)
ENTRY(scribble_text_int3)
ENTRY(scribble_text_zeros)
ENTRY(serial_without_end)
ENTRY(stack_esp_zero)
#undef ENTRY

#define ADDRESS(symbol) (uintptr_t)(symbol)
#define BYTES(...) __VA_ARGS__
#define SETTINGS(...) __VA_ARGS__
#define SET(name, number) {.kind = SETTING_SET, .field = STATE_##name, .value = (number)}
#define POKE(size, where, number) {.kind = SETTING_POKE##size, .address = (where), .value = (number)}
#define CASE(name, in_mode, at_cpl, code, given)                                                            \
	{                                                                                                    \
		.id = "hostile." name, .settings = (const struct case_setting[]){given},                     \
		.setting_count =                                                                             \
			sizeof((const struct case_setting[]){given}) / sizeof(struct case_setting),          \
		.mode = in_mode, .cpl = at_cpl, .length = sizeof((const uint8_t[]){code}), .bytes = {code},  \
	},

/* ADD DL, DL; STOSB: registers, flags and memory must be found as they are always found. */
#define HOSTILE(name, in_mode, at_cpl, code, given, want, verdict, words)                                    \
	CASE(name, in_mode, at_cpl, BYTES(code), SETTINGS(given))                                            \
	CASE(name ".after", in_mode, at_cpl, BYTES(0x00, 0xd2, 0xaa), SETTINGS(SET(rdx, 0x41)))

const char case_suite[] = "hostile";
const struct case_spec case_table[] = {
#include "cases.def"
};
const uint32_t case_count = sizeof(case_table) / sizeof(case_table[0]);
