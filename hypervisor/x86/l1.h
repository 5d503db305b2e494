/*
 * l1.h: how a guest and our hypervisor above it (kmod/core) speak with each other: by CPUID, which a hypervisor
 * sees on both vendors, and which does nothing anywhere else.
 *
 *   EAX = L1_LEAF, ECX = enum l1_call; other registers as below
 *
 * A guest whose CPUID answers L1_CALL_IDENTIFY with L1_SIGNATURE has such a hypervisor, L1_LEAF being in the range
 * that processors leave to software.
 *
 * Recording. L1_CALL_BEGIN names the physical address at which the instructions under test begin. When the
 * processor is about to execute there, the hypervisor switches on every intercept that an instruction can have.
 * For each exit out of these bytes it prints a line, switches that intercept off and lets the instruction run by
 * itself; the first exit from elsewhere, or L1_CALL_END, switches all of them off again:
 *
 *   armed VENDOR [controls=0x…]               svm or vmx: the intercepts are on; of vmx the secondary controls
 *   exit VENDOR=CODE [at=0x… info1=0x… info2=0x…]    CODE: exit code or reason, 0x…; the others where they are not 0;
 *                                                    at: how far behind the first byte
 *
 * The lines go where the guest's own go. A processor's exits that the hypervisor needs for itself are not told.
 */
#ifndef TRAPLINE_X86_L1_H
#define TRAPLINE_X86_L1_H

#define L1_LEAF 0x4fff5450u

enum l1_call {
	/* EAX = L1_SIGNATURE, EBX = depth at which the caller runs (1: straight under the first hypervisor). */
	L1_CALL_IDENTIFY,
	/* EBX = physical address of the bytes under test, EDX = how many. */
	L1_CALL_BEGIN,
	L1_CALL_END
};

#define L1_SIGNATURE 0x50415254u /* 'TRAP', little endian */

#endif
