/*
 * legacy.h: hosts in 32-bit protected mode, by their paging, and the tables that their guests run under.
 */
#ifndef TRAPLINE_GUESTS_SVM_LEGACY_H
#define TRAPLINE_GUESTS_SVM_LEGACY_H

#include <stdint.h>

enum { HOST_NO_PAGING, HOST_PAE, HOST_32, HOST_PSE };

/* Builds tables that map all as it is, as a host of @mode has them; CR0, CR3 and CR4 for svm_run_legacy(). */
void svm_legacy_tables(unsigned mode, uint32_t cr[3]);

#endif
