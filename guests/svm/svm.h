/*
 * svm.h: what the stories of AMD-V share: the settings of a row, and small guests in 64-bit mode.
 */
#ifndef TRAPLINE_GUESTS_SVM_SVM_H
#define TRAPLINE_GUESTS_SVM_SVM_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/story.h"
#include "lib/svm_world.h"

/* Applies the SETTING_CONTROL… of @spec to the VMCB and the maps. */
void svm_apply_controls(const struct case_spec *spec);

/* The bytes of a guest's code, as an expression: SVM_CODE(0xf4) is HLT. */
#define SVM_CODE(...) svm_code((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#endif
