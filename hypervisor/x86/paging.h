/*
 * paging.h: page-table entries (SDM 3A 4.3 to 4.5, APM 2 5.3).
 */
#ifndef TRAPLINE_X86_PAGING_H
#define TRAPLINE_X86_PAGING_H

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096u
#define PAGE_MASK  0xfffull

#define PTE_P   (1ull << 0)
#define PTE_W   (1ull << 1)
#define PTE_U   (1ull << 2)
#define PTE_PWT (1ull << 3)
#define PTE_PCD (1ull << 4)
#define PTE_A   (1ull << 5)
#define PTE_D   (1ull << 6)
#define PTE_PS  (1ull << 7)
#define PTE_G   (1ull << 8)
#define PTE_PAT_LARGE (1ull << 12)
#define PTE_PK_SHIFT 59
#define PTE_NX  (1ull << 63)

#endif
