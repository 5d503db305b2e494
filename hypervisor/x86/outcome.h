/*
 * outcome.h: what a case did, as data, and the report lines that carry it.
 *
 * A guest prints plain ASCII lines, each ended by '\n', the same on every target:
 *
 *   trapline 1 SUITE CASES        first line: protocol version, suite, number of cases
 *   cpuid LEAF SUBLEAF EAX EBX ECX EDX    hex without 0x; one line a (sub)leaf
 *   msr INDEX VALUE               what the judge's predicates may ask for
 *   ready
 *   start ID
 *   armed VENDOR WORDS            a hypervisor of ours intercepts all that it can from here (x86/l1.h)
 *   exit VENDOR=CODE WORDS        and this came of it
 *   end ID OUTCOME
 *   dirty ID FIELD=VALUE          without the control device: the machine's own
 *                                 baseline has changed, and the boot ends
 *   bye                           all selected cases were run
 *
 * An OUTCOME is one kind, then effects in any order, separated by one space:
 *
 *   RUNS NAME=VALUE…              the instruction completed
 *   FAULT vector=N error=N NAME=VALUE…   error only where a code was pushed; vector in
 *                                 decimal, error in hex with 0x; intinfo=N, nrip=N as of EXIT;
 *                                 info=N: the interruption information of VT-x, where it is not as 28.2.2 has it
 *   VMFAIL n=N | ENTRY_FAILS reason=N | SHUTDOWN | HANG
 *   EXIT code=N info1=N info2=N NAME=VALUE…   the instruction ran in a guest of the case's own and left it for
 *                                 the hypervisor; as AMD-V names it, EXITCODE and EXITINFO; intinfo=N
 *                                 (EXITINTINFO) where it is valid, nrip=N where it is not as 15.7.1 has it
 *                                 (a story's checks, as below, may stand behind)
 *   NOTSUP PROBE                  a precondition that this machine cannot set up,
 *                                 and the CPUID or MSR probe that says so
 *                                 (cpuid.7.0.ebx[2]=0)
 *   ERROR WORDS                   the guest's library could not run the case
 *
 * An effect names a field of struct machine_state (case.h) or a part of the case's
 * memory ([0xADDRESS:SIZE], SIZE in bytes) whose value after the instruction is not
 * its value before, and the value found, in hex with 0x, most significant digit first;
 * memory is little endian and of any size. RIP is an effect on RUNS where it is not the next
 * instruction, on FAULT where it is not the instruction itself.
 *
 *
 * The guest puts an undefined instruction (CASE_END, case_layout.h) behind the bytes under
 * test and wherever they may lead: #UD at one that is not at the case's RIP ends it as RUNS. Whatever else is delivered through vectors 0 to 31,
 * a software INT n too, is FAULT vector=n; through 32 to 255 it is RUNS event=0xN (INT 0x40: RUNS
 * event=0x40, and no RIP, since the pushed RIP is the next instruction).
 * RF in the image that an exception pushed is never part of rflags on a FAULT of the fault
 * class: rf=0x0 stands there where it was clear though the manual promises it set.
 *
 * Of changed quadwords that the case does not watch, the first 16 are told one by one;
 * where there are more, changed=0xN says how many in all.
 *
 * A story (case.h) is a case whose guest code compares by itself: of each check that found something else
 * it reports two effects, NAME:want=VALUE and NAME:got=VALUE, which nothing expects.
 *
 * An expectation is written in the same words, where VALUE may also be
 *   *          anything, changed or not (the manual leaves it undefined)
 *   V&M        the bits of mask M have value V, the others are undefined
 *   V|W        one of several values
 * An effect that an expectation names must be in the outcome unless its value is
 * `*`; the guest knows from its case which fields to report even when they have not
 * changed. An effect that no expectation names makes the case fail.
 */
#ifndef TRAPLINE_X86_OUTCOME_H
#define TRAPLINE_X86_OUTCOME_H

enum outcome_kind {
	OUTCOME_RUNS,
	OUTCOME_FAULT,
	OUTCOME_VMFAIL,
	OUTCOME_ENTRY_FAILS,
	OUTCOME_SHUTDOWN,
	OUTCOME_HANG,
	OUTCOME_EXIT,
	OUTCOME_NOTSUP,
	OUTCOME_ERROR
};

#define REPORT_VERSION 1

#endif
