/*
 * exchange.h: the page below 1 MiB through which C and the assembler of all modes pass a case's
 * state, and the addresses of the trampoline. Read by C and by the assembler.
 */
#ifndef TRAPLINE_GUESTS_LIB_EXCHANGE_H
#define TRAPLINE_GUESTS_LIB_EXCHANGE_H

#define TRAMPOLINE 0x20000 /* real-mode code, copied there at boot */
#define TRAMPOLINE_SEGMENT 0x2000
#define EXCHANGE 0x21000

#define EX_IN (EXCHANGE + 0x000)  /* struct machine_state to load */
#define EX_OUT (EXCHANGE + 0x200) /* struct machine_state as found */
#define EX_IN_GDTR (EXCHANGE + 0x400)
#define EX_IN_IDTR (EXCHANGE + 0x410)
#define EX_OUT_GDTR (EXCHANGE + 0x420)
#define EX_OUT_IDTR (EXCHANGE + 0x430)
#define EX_EARLY_IDTR (EXCHANGE + 0x440) /* 32-bit IDT while the state is loaded */
#define EX_MONITOR_GDTR (EXCHANGE + 0x450)
#define EX_MONITOR_IDTR (EXCHANGE + 0x460)
#define EX_VECTOR (EXCHANGE + 0x470)      /* what ended the case */
#define EX_FRAME_OFFSET (EXCHANGE + 0x478) /* the handler's stack pointer at the pushed frame */
#define EX_FRAME_SS (EXCHANGE + 0x480)
#define EX_MONITOR_RSP (EXCHANGE + 0x488)
#define EX_MONITOR_CR0 (EXCHANGE + 0x490)
#define EX_MONITOR_CR3 (EXCHANGE + 0x498)
#define EX_MONITOR_CR4 (EXCHANGE + 0x4a0)
#define EX_MONITOR_EFER (EXCHANGE + 0x4a8)
#define EX_REAL (EXCHANGE + 0x4b0)  /* not 0: enter_legacy goes to real mode */
#define EX_DETECT (EXCHANGE + 0x4b8) /* not 0: reading DR7 met DR7.GD */
#define EX_STACK (EXCHANGE + 0x4c0) /* SS:ESP of the frame for IRETD, as LSS reads it */
#define EX_FAR32 (EXCHANGE + 0x4c8) /* 16:32 pointer to enter_legacy's 32-bit part */
#define EX_SEGMENTS (EXCHANGE + 0x4d0) /* selectors to load: ES, DS, FS, GS, 4 bytes each */
#define EX_FRAME (EXCHANGE + 0x4e0) /* the frame for IRETQ, 5 quadwords */
#define EX_VMXON (EXCHANGE + 0x508) /* not 0: enter_legacy executes VMXON of it, the way back VMXOFF */
#define EX_VMCS (EXCHANGE + 0x510)  /* and VMPTRLD of it */
/*
 * The frame for IRETD to an outer ring, 9 doublewords: below 64 KiB, because a return to a 16-bit stack
 * leaves bits 31:16 of ESP as they were.
 */
#define LEGACY_FRAME 0xf000

/* The monitor's GDT; where a case has the same descriptor the selector is the same too. */
#define MONITOR_CS64 0x08
#define MONITOR_DS 0x10
#define MONITOR_CS16 0x18 /* base TRAMPOLINE */
#define MONITOR_DS16 0x20 /* base 0, limit 0xffff */
#define MONITOR_TSS 0x28   /* 32-bit, never used */
#define MONITOR_CS32 0x38

#ifdef __ASSEMBLER__

#define MSR_EFER 0xc0000080
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101

/* Offsets of the fields of struct machine_state: STATE_rax and so on. */
.set state_next, 0
#define STATE_FIELD(name) .set STATE_##name, state_next; .set state_next, state_next + 8
#include "x86/machine_state.def"
#undef STATE_FIELD

#else

#include <stdint.h>

#include "x86/case.h"
#include "x86/msr.h"

struct table_pointer {
	uint16_t limit;
	uint64_t base;
	uint8_t unused[6];
} __attribute__((packed));

struct exchange {
	struct machine_state in;
	uint8_t unused_in[0x200 - sizeof(struct machine_state)];
	struct machine_state out;
	uint8_t unused_out[0x200 - sizeof(struct machine_state)];
	struct table_pointer in_gdtr, in_idtr, out_gdtr, out_idtr, early_idtr, monitor_gdtr, monitor_idtr;
	uint64_t vector, frame_offset, frame_ss;
	uint64_t monitor_rsp, monitor_cr0, monitor_cr3, monitor_cr4, monitor_efer;
	uint64_t real, detect;
	uint32_t stack_offset, stack_selector;
	uint32_t far32_offset, far32_selector;
	uint32_t segments[4];
	uint64_t frame64[5];
	uint64_t vmxon, vmcs;
};

_Static_assert(__builtin_offsetof(struct exchange, in_gdtr) == EX_IN_GDTR - EXCHANGE, "in_gdtr");
_Static_assert(__builtin_offsetof(struct exchange, vector) == EX_VECTOR - EXCHANGE, "vector");
_Static_assert(__builtin_offsetof(struct exchange, real) == EX_REAL - EXCHANGE, "real");
_Static_assert(__builtin_offsetof(struct exchange, frame64) == EX_FRAME - EXCHANGE, "frame");
_Static_assert(__builtin_offsetof(struct exchange, vmxon) == EX_VMXON - EXCHANGE, "vmxon");

extern struct exchange exchange;    /* placed at EXCHANGE by the linker script */
extern uint32_t legacy_frame[9]; /* at LEGACY_FRAME */

/*
 * Load exchange.in, run the case in long or compat (enter_long), or in any other mode
 * (enter_legacy), and come back when it ended, with exchange.out filled as far as the
 * assembler does it (enter.S says which fields) and the monitor's own state in force.
 */
void enter_long(void);
/* Before enter_long, where the case sets CR4.LA57: goes on in 5-level paging with the case's CR3. */
void enter_la57(void);
void enter_legacy(void);

#endif
#endif
