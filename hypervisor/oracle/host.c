/* host.c: cases on the host's own processor, in a child that can do nothing else. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_RIP, MAP_FIXED_NOREPLACE */
#endif
#include "oracle/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define ALTERNATE_STACK 65536
#define PATIENCE        5000 /* milliseconds for a batch */

/* What the two processes share. */
struct shared {
	volatile unsigned current; /* the case that runs */
	struct oracle_case cases[HOST_BATCH];
	struct oracle_outcome outcomes[HOST_BATCH];
};

struct host {
	struct shared *shared;
	uint8_t read_only[ARENA_PAGE];
	pid_t child;
	int to_child, from_child;
};

struct oracle_case *host_cases(struct host *host) { return host->shared->cases; }
const struct oracle_outcome *host_outcomes(const struct host *host) { return host->shared->outcomes; }

/* ---- the child: everything here runs inside its signal handler ---- */

/* Instrumented code and the C library use thread-local and shadow memory, which a case could reach. */
#define BARE __attribute__((no_stack_protector, no_sanitize("address", "undefined", "thread")))

struct kernel_sigaction {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};
#define KERNEL_SA_RESTORER 0x04000000ul

void oracle_host_entry(int number, siginfo_t *info, void *context);
void oracle_host_return(void);
void oracle_host_caught(int number, siginfo_t *info, void *context);
long oracle_host_syscall(long number, long a, long b, long c);
extern const char oracle_host_syscall_end[], oracle_host_return_end[];

/* FS and GS bases: the child's own, what the case left, and what the next one begins with. */
struct oracle_host_bases {
	uint64_t own_fs, case_fs, case_gs;
} oracle_host_bases;

static struct shared *child_shared;
static unsigned child_count;
static bool child_idle;
static bool child_avx; /* the signal frame has the YMM registers' upper halves */
static int child_in, child_out;

/*
 * The case's flags (AC above all) and bases must not reach C code; the kernel has saved all else but
 * the data segments, which no case that runs should change.
 * The system calls stand alone, because the filter knows them by their addresses.
 */
__asm__(".text\n"
	".globl oracle_host_entry\n.type oracle_host_entry, @function\noracle_host_entry:\n"
	"pushq $0x202\npopfq\n"
	"rdfsbase %rax\nmov %rax, 8+oracle_host_bases(%rip)\n"
	"rdgsbase %rax\nmov %rax, 16+oracle_host_bases(%rip)\n"
	"mov $0x2b, %eax\nmov %eax, %ds\nmov %eax, %es\nmov %eax, %fs\nmov %eax, %gs\n"
	"mov oracle_host_bases(%rip), %rax\nwrfsbase %rax\n"
	"subq $8, %rsp\ncall oracle_host_caught\naddq $8, %rsp\n"
	"mov 8+oracle_host_bases(%rip), %rax\nwrfsbase %rax\n"
	"mov 16+oracle_host_bases(%rip), %rax\nwrgsbase %rax\n"
	"ret\n"
	".globl oracle_host_return, oracle_host_return_end\n"
	"oracle_host_return:\nmov $15, %eax\nsyscall\noracle_host_return_end:\nud2\n"
	".globl oracle_host_syscall, oracle_host_syscall_end\n"
	".type oracle_host_syscall, @function\n"
	"oracle_host_syscall:\n"
	"mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\nsyscall\n"
	"oracle_host_syscall_end:\nret\n");

static BARE void copy(void *to, const void *from, size_t size)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

/* gregs in the order of ModRM. */
static const uint8_t greg[GPR_COUNT] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
					REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
					REG_R12, REG_R13, REG_R14, REG_R15};

/*
 * The signal frame holds an XSAVE area in the standard form: XSTATE_BV, and the AVX component at its fixed place
 * (SDM 1 13.4.2, 13.5.3).
 */
#define FRAME_XSTATE_BV 512
#define FRAME_AVX       576

static BARE uint8_t *frame_at(const ucontext_t *uc, unsigned offset)
{
	return (uint8_t *)(uintptr_t)uc->uc_mcontext.fpregs + offset;
}

static BARE uint64_t *frame_xstate_bv(const ucontext_t *uc) { return (uint64_t *)(void *)frame_at(uc, FRAME_XSTATE_BV); }

static BARE void child_store(struct oracle_outcome *to, int number, const ucontext_t *uc)
{
	const greg_t *gregs = uc->uc_mcontext.gregs;
	unsigned trap = (unsigned)gregs[REG_TRAPNO];

	for (unsigned i = 0; i < GPR_COUNT; i++)
		to->out.gpr[i] = (uint64_t)gregs[greg[i]];
	to->out.rip = (uint64_t)gregs[REG_RIP];
	to->out.rflags = (uint64_t)gregs[REG_EFL];
	to->out.fs_base = oracle_host_bases.case_fs;
	to->out.gs_base = oracle_host_bases.case_gs;
	copy(&to->out.fx, uc->uc_mcontext.fpregs, sizeof(to->out.fx));
	if (child_avx && *frame_xstate_bv(uc) & XCR0_AVX)
		copy(to->out.ymm_high, frame_at(uc, FRAME_AVX), sizeof(to->out.ymm_high));
	else
		for (unsigned i = 0; i < 16; i++)
			*(__int128 *)(void *)to->out.ymm_high[i] = 0;
	to->lost = number == SIGSYS;
	to->vector = number == SIGSYS || trap == VECTOR_DB ? NO_FAULT : (uint8_t)trap;
	to->error_code = (uint32_t)gregs[REG_ERR];
	to->address = trap == VECTOR_PF ? (uint64_t)gregs[REG_CR2] : 0;
	copy(to->memory, (const void *)(uintptr_t)ARENA_AT, ARENA_WRITABLE);
}

static BARE void child_load(const struct oracle_case *from, ucontext_t *uc)
{
	greg_t *gregs = uc->uc_mcontext.gregs;
	uint64_t selectors;

	copy((void *)(uintptr_t)ARENA_AT, from->memory, ARENA_WRITABLE);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		gregs[greg[i]] = (greg_t)from->in.gpr[i];
	gregs[REG_RIP] = (greg_t)from->in.rip;
	gregs[REG_EFL] = (greg_t)(from->in.rflags | (from->traps ? RFLAGS_TF : 0));
	/* CS is the low word of this quadword and SS the high one. */
	selectors = ((uint64_t)gregs[REG_CSGSFS] & 0x0000ffffffff0000ull) | (uint64_t)ORACLE_DATA << 48;
	gregs[REG_CSGSFS] = (greg_t)(selectors | (from->compatibility ? ORACLE_CS32 : ORACLE_CS64));
	copy(uc->uc_mcontext.fpregs, &from->in.fx, 464);
	/* These as given, all else in its initial state. */
	*frame_xstate_bv(uc) = XCR0_X87 | XCR0_SSE | (child_avx ? XCR0_AVX : 0);
	if (child_avx)
		copy(frame_at(uc, FRAME_AVX), from->in.ymm_high, sizeof(from->in.ymm_high));
	oracle_host_bases.case_fs = from->in.fs_base;
	oracle_host_bases.case_gs = from->in.gs_base;
}

/* Says that the batch is done, and waits for the next. The end of the pipe is the end. */
static BARE void child_next_batch(void)
{
	uint8_t count = 0;

	oracle_host_syscall(SYS_write, child_out, (long)(uintptr_t)&count, 1);
	if (oracle_host_syscall(SYS_read, child_in, (long)(uintptr_t)&count, 1) != 1)
		oracle_host_syscall(SYS_exit_group, 0, 0, 0);
	child_count = count;
}

BARE __attribute__((used)) void oracle_host_caught(int number, siginfo_t *info, void *context)
{
	struct shared *s = child_shared;
	ucontext_t *uc = context;

	(void)info;
	if (!child_idle) {
		child_store(&s->outcomes[s->current], number, uc);
		s->current++;
	}
	child_idle = false;
	if (s->current >= child_count)
		child_next_batch();
	child_load(&s->cases[s->current], uc);
}

/* ---- its sandbox ---- */

#define ALLOW_AT(label)                                                                                      \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(uintptr_t)(label), 0, 3),                             \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),  \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)((uintptr_t)(label) >> 32), 0, 1),             \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),                                                \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer))

/* System calls from the handler's own two places; SIGSYS for all others. */
static int sandbox_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
		ALLOW_AT(oracle_host_syscall_end),
		ALLOW_AT(oracle_host_return_end),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) ? -errno : 0;
}

static int sandbox_limits(void)
{
	static const __rlimit_resource_t limits[] = {RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_MEMLOCK};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (setrlimit(limits[i], &(struct rlimit){0, 0}))
			return -errno;
	return 0;
}

static int sandbox_arena(const uint8_t *read_only)
{
	uint8_t *at = mmap((void *)(uintptr_t)ARENA_AT, ARENA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	memset(at, ARENA_FILL, ARENA_WRITABLE);
	memcpy(at + ARENA_WRITABLE, read_only, ARENA_PAGE);
	if (mprotect(at + ARENA_PAGE, ARENA_PAGE, PROT_READ | PROT_WRITE) ||
	    mprotect(at + ARENA_WRITABLE, ARENA_PAGE, PROT_READ))
		return -errno;
	return 0;
}

static int sandbox_signals(void)
{
	static const int numbers[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS};
	static uint8_t alternate[ALTERNATE_STACK];
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	struct kernel_sigaction action = {.handler = oracle_host_entry,
					  .flags = SA_SIGINFO | SA_ONSTACK | KERNEL_SA_RESTORER,
					  .restorer = oracle_host_return,
					  .mask = ~0ull};

	if (sigaltstack(&stack, NULL))
		return -errno;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (syscall(SYS_rt_sigaction, numbers[i], &action, NULL, sizeof(action.mask)))
			return -errno;
	return 0;
}

/* Closes all but the two pipes. */
static void sandbox_files(int in, int out)
{
	for (int fd = 0; fd < 1024; fd++)
		if (fd != in && fd != out)
			close(fd);
}

static _Noreturn void child_run(struct host *host, int in, int out)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sandbox_files(in, out);
	child_shared = host->shared;
	child_count = 0;
	child_idle = true;
	child_avx = __builtin_cpu_supports("avx");
	child_in = in;
	child_out = out;
	error = sandbox_arena(host->read_only);
	if (!error)
		error = sandbox_signals();
	if (!error)
		error = sandbox_limits();
	if (!error)
		error = sandbox_filter();
	if (error)
		_exit(-error);
	__asm__ volatile("rdfsbase %0" : "=r"(oracle_host_bases.own_fs));
	/* Compatibility mode needs segments that are not null; the bases of FS and GS come later. */
	__asm__ volatile("mov %0, %%ds\nmov %0, %%es\nmov %0, %%fs\nmov %0, %%gs\nwrfsbase %1\nint3"
			 :
			 : "r"(ORACLE_DATA), "r"(oracle_host_bases.own_fs)
			 : "memory");
	__builtin_unreachable();
}

/* ---- the parent ---- */

/* Waits for the child's byte. 0; -ETIMEDOUT; -EPIPE where it is gone. */
static int await_child(struct host *host)
{
	struct pollfd poll_for = {.fd = host->from_child, .events = POLLIN};
	uint8_t byte;
	int ready;

	do {
		ready = poll(&poll_for, 1, PATIENCE);
	} while (ready < 0 && errno == EINTR);
	if (ready == 0)
		return -ETIMEDOUT;
	return read(host->from_child, &byte, 1) == 1 ? 0 : -EPIPE;
}

static int end_child(struct host *host)
{
	int status = 0;

	if (host->child <= 0)
		return 0;
	kill(host->child, SIGKILL);
	close(host->to_child);
	close(host->from_child);
	while (waitpid(host->child, &status, 0) < 0 && errno == EINTR)
		continue;
	host->child = 0;
	return status;
}

static int start_child(struct host *host)
{
	int down[2], up[2], error;

	if (pipe2(down, O_CLOEXEC))
		return -errno;
	if (pipe2(up, O_CLOEXEC)) {
		error = -errno;
		close(down[0]);
		close(down[1]);
		return error;
	}
	host->shared->current = 0;
	host->child = fork();
	if (host->child == 0)
		child_run(host, down[0], up[1]);
	error = host->child < 0 ? -errno : 0;
	close(down[0]);
	close(up[1]);
	host->to_child = down[1];
	host->from_child = up[0];
	if (error) {
		close(host->to_child);
		close(host->from_child);
		return error;
	}
	error = await_child(host);
	if (error) {
		int status = end_child(host);

		return WIFEXITED(status) ? -WEXITSTATUS(status) : error;
	}
	return 0;
}

int host_start(struct host **host, const uint8_t read_only[ARENA_PAGE], char *why, size_t size)
{
	struct host *h;
	int error;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	snprintf(why, size, "the sanitizer of this build has mapped what cases expect to be free");
	return -ENOTSUP;
#endif
	if (!(getauxval(AT_HWCAP2) & 2)) { /* HWCAP2_FSGSBASE */
		snprintf(why, size, "this kernel or processor has no FSGSBASE for programs (Linux 5.9)");
		return -ENOTSUP;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	memcpy(h->read_only, read_only, ARENA_PAGE);
	h->shared = mmap(NULL, sizeof(*h->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (h->shared == MAP_FAILED) {
		free(h);
		return -ENOMEM;
	}
	error = start_child(h);
	if (error) {
		snprintf(why, size, "the process for the host's side cannot be set up: %s", strerror(-error));
		munmap(h->shared, sizeof(*h->shared));
		free(h);
		return error;
	}
	*host = h;
	return 0;
}

void host_stop(struct host *host)
{
	end_child(host);
	munmap(host->shared, sizeof(*host->shared));
	free(host);
}

int host_run(struct host *host, unsigned count)
{
	uint8_t byte = (uint8_t)count;

	host->shared->current = 0;
	for (;;) {
		unsigned killer;
		int error;

		if (write(host->to_child, &byte, 1) == 1 && await_child(host) == 0)
			return 0;
		killer = host->shared->current;
		if (killer >= count)
			return -EPIPE;
		host->shared->outcomes[killer].lost = true;
		end_child(host);
		error = start_child(host);
		if (error)
			return error;
		if (killer + 1 == count)
			return 0;
		host->shared->current = killer + 1;
	}
}
