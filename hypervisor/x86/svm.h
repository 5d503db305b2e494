/* svm.h: AMD-V as the manual numbers it (APM 2 chapter 15, appendices B and C). */
#ifndef TRAPLINE_X86_SVM_H
#define TRAPLINE_X86_SVM_H

enum svm_exit {
#define SVM_EXIT(code, name) SVM_EXIT_##name = (code),
#include "x86/svm_exits.def"
#undef SVM_EXIT
	SVM_EXIT_NONE = -2 /* no intercept exists */
};

#endif
