/*
 * attacks.S: what the cases of cases.def lead to. Each begins with the baseline of its mode at CPL 0
 * and its own address in RAX; what it must end in stands in its row.
 */
#include "lib/exchange.h"

	.set idt, 0x11000         /* CASE_IDT64 */
	.set idt_size, 0x1000
	.set gdt, 0x10000         /* CASE_GDT */
	.set tss, 0x10400         /* CASE_TSS64 */
	.set ist1, tss + 0x24
	.set stub, 0x13000        /* CASE_STUB */
	.set land, 0x18000        /* CASE_LAND_SUPERVISOR */
	.set land_user, 0x19000   /* CASE_LAND_USER */
	.set tables, 0x30000      /* CASE_CR3_LONG and what follows it */
	.set tables_end, 0x37000
	.set page_table, 0x33000  /* CASE_PT */
	.set free, 0x600000       /* memory that nobody uses */
	.set ram_end, 0x8000000
	.set hole, 0x20000000
	.set console, 0xe9
	.set serial, 0x3f8
	.set command, 0x5454
	.set done, 2

	.section .text
	.code64

.macro attack name
	.global attack_\name
attack_\name:
.endm

/* Lead a vector to a handler, which starts on IST 1. */
.macro gate vector, handler
	mov $\handler, %eax
	mov %ax, idt + 16 * \vector
	shr $16, %eax
	mov %ax, idt + 16 * \vector + 6
.endm

/* ---- exceptions without end ---- */

attack endless_ud
	gate 6, 1f
1:	ud2

attack endless_pf
	gate 14, 1f
1:	mov 0x7fffffff0000, %al

attack endless_step
	gate 1, 2f
	pushfq
	orl $0x100, (%rsp)
	popfq
1:	jmp 1b
2:	iretq

attack endless_breakpoint
	gate 1, 2f
	mov $1f, %eax
	mov %rax, %dr0
	mov $0x402, %eax
	mov %rax, %dr7
1:	nop
	jmp 1b
2:	btrl $16, 16(%rsp)
	iretq

attack endless_ac
	gate 17, 1f
	mov %cr0, %rax
	bts $18, %rax
	mov %rax, %cr0
	/* MOV EAX, [land_user + 1]; JMP back to it */
	mov $0x0001900125048b, %rax
	mov %rax, land_user
	movw $0xf7eb, land_user + 7
	push $0x23
	push $land_user + 0x800
	push $0x40002
	push $0x2b
	push $land_user
	iretq
1:	add $8, %rsp
	iretq

attack endless_int
	gate 0x40, 1f
1:	int $0x40

/* ---- triple faults ---- */

nothing:
	.word 0
	.quad 0

attack no_gdt
	lgdt nothing
	ud2

attack ist_not_canonical
	movabs $0x800000000100, %rax
	mov %rax, ist1
	ud2

attack ist_unmapped
	movabs $0x7fffff000000, %rax
	mov %rax, ist1
	ud2

attack cr3_zeros
	mov $free, %eax
	mov %rax, %cr3
	hlt

attack cr3_itself
	mov $free, %edi
	mov $free + 7, %eax
	mov $512, %ecx
	rep stosq
	mov $free, %eax
	mov %rax, %cr3
	hlt

attack cr3_ones
	mov $free, %edi
	mov $-1, %rax
	mov $512, %ecx
	rep stosq
	mov $free, %eax
	mov %rax, %cr3
	hlt

attack cr3_beyond
	mov $hole, %eax
	mov %rax, %cr3
	hlt

/* The whole of the address space leads to tables in the hole. */
attack entry_beyond
	mov $free, %edi
	mov $hole + 7, %eax
	mov $512, %ecx
	rep stosq
	mov $free, %eax
	mov %rax, %cr3
	hlt

attack run_end_of_ram
	mov $ram_end - 16, %edi
	mov $0x90, %eax
	mov $16, %ecx
	rep stosb
	mov $ram_end - 16, %eax
	jmp *%rax

attack run_across_end_of_ram
	movb $0xb8, ram_end - 1
	mov $ram_end - 1, %eax
	jmp *%rax

/* Every value of every width to every port that no device claims, and a read of each. */
attack all_ports
	xor %edx, %edx
1:	mov %edx, %eax
	cmp $0xe9, %edx
	je 2f
	lea -0xf1(%rdx), %ecx
	cmp $8, %ecx
	jb 2f
	lea -0x3f5(%rdx), %ecx
	cmp $12, %ecx
	jb 2f
	lea -0xcf6(%rdx), %ecx
	cmp $12, %ecx
	jb 2f
	lea -0x544d(%rdx), %ecx
	cmp $20, %ecx
	jb 2f
	out %al, %dx
	out %ax, %dx
	out %eax, %dx
	in %dx, %al
	in %dx, %eax
2:	inc %edx
	cmp $0x10000, %edx
	jb 1b
	jmp come_back

/* ---- printing ---- */

/* Behind the stub's JMP stands the case's own end. */
come_back:
	mov $stub + 2, %eax
	jmp *%rax

say_done:
	mov $command, %edx
	mov $done, %eax
	out %eax, %dx
	hlt

.macro say start, end
	mov $\start, %esi
	mov $\end - \start, %ecx
	mov $console, %edx
	rep outsb
.endm

/* Prints @text as it stands, then goes where @then says. */
.macro prints name, then, text:vararg
	attack print_\name
	say 1f, 2f
	jmp \then
1:	.ascii \text
2:
.endm

attack console_without_end
	mov $console, %edx
	mov $'x', %eax
1:	out %al, %dx
	jmp 1b

attack serial_without_end
	mov $serial, %edx
	mov $'x', %eax
1:	out %al, %dx
	jmp 1b

attack newlines_without_end
	mov $console, %edx
	mov $'\n', %eax
1:	out %al, %dx
	jmp 1b

attack rep_outs_console
	mov $console, %edx
	mov $-1, %rcx
	rep outsb
	hlt

hang:	jmp hang

shut_down:
	lidt nothing
	ud2

#define ID(name) "hostile.print_" #name ".long.cpl0"

	prints nothing, say_done, ""
	prints nuls, say_done, "\0\0\0\0\0\0\0\0"
	prints garbage, come_back, "\001\177\200\377\0\300\200\n"
	prints escapes, come_back, "\033[2J\033]0;title\007\033[31mend ", ID(escapes), " RUNS\n"
	prints markup, come_back, "<script>alert(1)</script>&amp;<b>\n"
	prints quotes, come_back, "\",\"verdict\":\"PASS\"}{'\\\\\n"
	prints start, come_back, "start ", ID(bye), "\n"
	prints end_of_another, come_back, "end ", ID(bye), " RUNS\n"
	prints end_of_nobody, come_back, "end nobody RUNS\n"
	prints end_twice, come_back, "end ", ID(end_twice), " RUNS\n"
	prints end_bad_outcome, say_done, "end ", ID(end_bad_outcome), " RUNS rax\n"
	prints end_and_hang, hang, "end ", ID(end_and_hang), " RUNS\n"
	prints end_and_shutdown, shut_down, "end ", ID(end_and_shutdown), " RUNS\n"
	prints end_notsup, say_done, "end ", ID(end_notsup), " NOTSUP cpuid.0.0.ebx[0]=0\n"
	prints end_cut, say_done, "end ", ID(end_cut), " RUN"
	prints ready, come_back, "ready\n"
	prints bye, come_back, "bye\n"
	prints dirty, come_back, "dirty ", ID(dirty), " cr0=0x1\n"
	prints cpuid, come_back, "cpuid 0 0 0 0 0 0\n"
	prints msr, come_back, "msr 10 0\n"
	prints header, come_back, "trapline 1 hostile 1\n"
	prints header_of_another, come_back, "trapline 1 another 3\n"
	prints header_of_the_future, come_back, "trapline 9 hostile 1\n"

.macro long_text
	mov $console, %edx
	mov $'x', %eax
	mov $5000, %ecx
1:	out %al, %dx
	loop 1b
	mov $'\n', %eax
	out %al, %dx
.endm

attack print_long_line
	long_text
	jmp come_back

attack print_long_end
	say 3f, 4f
	long_text
	jmp say_done
3:	.ascii "end ", ID(long_end), " RUNS "
4:

/* ---- scribbling ---- */

/* REP STOSB; MOV RAX, CR3; MOV CR3, RAX; UD2, from where it does not hit itself. */
.macro scribble name, from, to, value
	attack scribble_\name
	mov $\from, %edi
	mov $\to, %ecx
	mov $\value, %eax
	jmp scribble_from_there
.endm
scribble_from_there:
	sub %edi, %ecx
	mov $land, %ebx
	movabs $0x220fd8200faaf3, %rdx
	mov %rdx, (%rbx)
	movl $0x0b0fd822, 6(%rbx)
	jmp *%rbx

	scribble text_hlt, text_start, text_end, 0xf4
	scribble text_int3, text_start, text_end, 0xcc
	scribble text_zeros, text_start, text_end, 0
	scribble bss_ones, bss_start, image_end, 0xff
	scribble bss_zeros, bss_start, image_end, 0
	scribble bss_letters, bss_start, image_end, 'A'
	scribble exchange, EXCHANGE, EXCHANGE + 0x1000, 0xff
	scribble idt_zeros, idt, idt + idt_size, 0
	scribble idt_ones, idt, idt + idt_size, 0xff
	scribble gdt_zeros, gdt, gdt + 0x200, 0
	scribble paging_ones, tables, tables_end, 0xff
	scribble paging_zeros, tables, tables_end, 0
	scribble everything, tables_end, ram_end, 0xf4
	scribble low_memory, 0, tables, 0xf4

/* ---- code that changes under its own feet ---- */

	.set page, 0x2f000
	.set handler, page + 8 /* where a frame begins that ends at a multiple of 16 */

/*
 * The handler's first instruction, which has run before, is replaced by the frame that its own
 * exception pushes: RIP there ends in EB FE.
 */
attack modify_by_frame
	movw $0xe7ff, handler /* JMP RDI */
	mov $1f, %edi
	mov $handler, %eax
	jmp *%rax
1:	mov $shut_down, %edi
	gate 6, handler
	movq $handler + 40, ist1
	movw $0x0b0f, page + 0xeeb
	mov $page + 0xeeb, %eax
	jmp *%rax

attack modify_forever
1:	movb $0x90, 2f
2:	nop
	jmp 1b

/* An entry of the page table is ADD EAX, EAX; RET, and AND EAX, EAX; RET once it has been used. */
attack modify_by_walk
	movq $0x00c3c003, page_table + 0x40 * 8
	mov $page_table + 0x40 * 8, %ebx
	mov $1, %eax
	call *%rbx
	cmp $2, %eax
	jne shut_down
	invlpg 0x40000
	mov 0x40000, %cl
	mov $1, %eax
	call *%rbx
	cmp $1, %eax
	jne shut_down
	jmp hang

/* ---- stacks ---- */

	.code32
attack stack_esp_zero
	xor %esp, %esp
	ud2
