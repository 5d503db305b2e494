/* layout.h: addresses and selectors that C and the assembler share. */
#ifndef TRAPLINE_GUESTS_L1_LAYOUT_H
#define TRAPLINE_GUESTS_L1_LAYOUT_H

#define L1_VIRTUAL 0xffffffff80000000 /* physical 0 when loaded, the hidden memory when moved */

#define L1_CS64 0x08
#define L1_DS   0x10
#define L1_TSS  0x18
#define L1_CS32 0x28

#define L1_CPUS       64
#define L1_STACK_SIZE 8192

#endif
