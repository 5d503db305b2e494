/* vmx.h: VT-x as the manual numbers it (SDM 3C chapters 24 to 31, appendix C). */
#ifndef TRAPLINE_X86_VMX_H
#define TRAPLINE_X86_VMX_H

enum vmx_exit {
#define VMX_EXIT(reason, name) VMX_EXIT_##name = (reason),
#include "x86/vmx_exits.def"
#undef VMX_EXIT
	VMX_EXIT_NONE = -1 /* no exit exists */
};

#endif
