/* What the tests of vm/ share. */
#ifndef TRAPLINE_VM_TEST_H
#define TRAPLINE_VM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vm/case_section.h"

static const char test_section[] = "trapline-cases 1 demo 3\n"
				   "case demo.sgdt.long.cpl3 SGDT long 3 behaviour\n"
				   "want cpuid.7.0.ecx[2]=1 FAULT vector=13 error=0x0\n"
				   "want always RUNS [0x2000:10]=0x12&0xff\n"
				   "or RUNS rax=1|2\n"
				   "cite SDM 2B SGDT Store Global Descriptor Table Register\n"
				   "cite APM 3 SGDT Store\n"
				   "case demo.hlt.long.cpl0 HLT long 0 privileged+control\n"
				   "want vendor=intel HANG\n"
				   "want vendor=amd SHUTDOWN\n"
				   "cite SDM 2A HLT Halt\n"
				   "cell STR real 0 - not_encodable\n"
				   "case demo.nop.real.cpl0 NOP real 0 innocuous\n"
				   "want always RUNS\n"
				   "cite SDM 2B NOP No Operation\n"
				   "cell XSTORE long 3 - untested not modelled yet\n"
				   "end\n";

static inline struct span test_span(void) { return (struct span){test_section, sizeof(test_section) - 1}; }

#endif
