/* hw.c: kmod/core/hw.h on bare metal. Memory is mapped to itself; the image is where boot.S and memory.c put
 * it. */
#include "l1/l1.h"
#include "x86/control_device.h"
#include "x86/msr.h"

static volatile uint32_t pool_lock, print_lock;
uint64_t pool_next, pool_end; /* memory.c */

static void lock(volatile uint32_t *word)
{
	while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE))
		hw_pause();
}

static void unlock(volatile uint32_t *word) { __atomic_store_n(word, 0, __ATOMIC_RELEASE); }

/* ---- memory ---- */

void *hw_pages(unsigned count)
{
	uint64_t size = (uint64_t)count * CORE_PAGE;
	void *pages = NULL;

	lock(&pool_lock);
	if (size <= pool_end - pool_next) {
		pages = (void *)pool_next;
		pool_next += size;
	}
	unlock(&pool_lock);
	if (pages)
		clear(pages, size);
	return pages;
}

void hw_copy_page(void *to, const void *from)
{
	uint64_t quads = CORE_PAGE / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(quads) : : "memory");
}

void hw_clear_page(void *page)
{
	uint64_t quads = CORE_PAGE / 8;

	__asm__ volatile("rep stosq" : "+D"(page), "+c"(quads) : "a"(0) : "memory");
}

uint64_t hw_physical(const void *page) { return (uint64_t)page; }

void *hw_map(uint64_t physical) { return (void *)physical; }

/* ---- registers ---- */

void hw_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(leaf), "c"(subleaf));
}

uint64_t hw_read_msr(uint32_t index)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (uint64_t)high << 32 | low;
}

void hw_write_msr(uint32_t index, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

uint64_t hw_read_cr(unsigned number)
{
	uint64_t value = 0;

	switch (number) {
	case 0: __asm__ volatile("mov %%cr0, %0" : "=r"(value)); break;
	case 2: __asm__ volatile("mov %%cr2, %0" : "=r"(value)); break;
	case 3: __asm__ volatile("mov %%cr3, %0" : "=r"(value)); break;
	case 4: __asm__ volatile("mov %%cr4, %0" : "=r"(value)); break;
	case 8: __asm__ volatile("mov %%cr8, %0" : "=r"(value)); break;
	default: hw_stop("no such control register", number);
	}
	return value;
}

void hw_write_cr(unsigned number, uint64_t value)
{
	switch (number) {
	case 0: __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory"); break;
	case 2: __asm__ volatile("mov %0, %%cr2" : : "r"(value) : "memory"); break;
	case 3: __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory"); break;
	case 4: __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory"); break;
	case 8: __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory"); break;
	default: hw_stop("no such control register", number);
	}
}

void hw_svm_load(uint64_t vmcb) { __asm__ volatile("vmload %0" : : "a"(vmcb) : "memory"); }
void hw_svm_save(uint64_t vmcb) { __asm__ volatile("vmsave %0" : : "a"(vmcb) : "memory"); }
void hw_svm_clgi(void) { __asm__ volatile("clgi" : : : "memory"); }

uint64_t hw_dr6(void)
{
	uint64_t value;

	__asm__ volatile("mov %%dr6, %0" : "=r"(value));
	return value;
}

void hw_set_dr6(uint64_t value) { __asm__ volatile("mov %0, %%dr6" : : "r"(value)); }

void hw_wbinvd(void) { __asm__ volatile("wbinvd" : : : "memory"); }

uint32_t hw_pkru(void)
{
	uint64_t cr4 = hw_read_cr(4);
	uint32_t value;

	hw_write_cr(4, cr4 | CR4_PKE);
	__asm__ volatile("rdpkru" : "=a"(value) : "c"(0) : "rdx");
	hw_write_cr(4, cr4);
	return value;
}

/* ---- VT-x ---- */

/* An instruction with one memory operand, or two operands; ZF and CF say how it went (31.2). */
#define VMX_INSTRUCTION(text, ...)                                                                           \
	({                                                                                                   \
		bool valid, invalid;                                                                         \
		__asm__ volatile(text : "=@ccz"(valid), "=@ccc"(invalid) : __VA_ARGS__ : "memory");          \
		invalid ? HW_VMX_FAIL_INVALID : valid ? HW_VMX_FAIL_VALID : HW_VMX_DONE;                     \
	})

enum hw_vmx hw_vmx_on(uint64_t region) { return VMX_INSTRUCTION("vmxon %2", "m"(region)); }
enum hw_vmx hw_vmx_clear(uint64_t vmcs) { return VMX_INSTRUCTION("vmclear %2", "m"(vmcs)); }
enum hw_vmx hw_vmx_load(uint64_t vmcs) { return VMX_INSTRUCTION("vmptrld %2", "m"(vmcs)); }

enum hw_vmx hw_vmx_read(uint64_t field, uint64_t *value)
{
	return VMX_INSTRUCTION("vmread %2, (%3)", "r"(field), "r"(value));
}

enum hw_vmx hw_vmx_write(uint64_t field, uint64_t value)
{
	return VMX_INSTRUCTION("vmwrite %3, %2", "r"(field), "r"(value));
}

enum hw_vmx hw_vmx_invept(uint64_t type, uint64_t eptp)
{
	uint64_t descriptor[2] = {eptp, 0};

	return VMX_INSTRUCTION("invept %3, %2", "r"(type), "m"(descriptor));
}

enum hw_vmx hw_vmx_invvpid(uint64_t type, uint16_t vpid, uint64_t linear)
{
	uint64_t descriptor[2] = {vpid, linear};

	return VMX_INSTRUCTION("invvpid %3, %2", "r"(type), "m"(descriptor));
}

/* Where the NMI handler leaves word, at GS:0. */
static uint64_t nmi_seen[L1_CPUS];

void hw_vmx_host(struct hw_vmx_host *host)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdtr, idtr;
	uint32_t r[4];

	hw_cpuid(1, 0, r);
	__asm__ volatile("sgdt %0" : "=m"(gdtr));
	__asm__ volatile("sidt %0" : "=m"(idtr));
	*host = (struct hw_vmx_host){.es = L1_DS,
				     .cs = L1_CS64,
				     .ss = L1_DS,
				     .ds = L1_DS,
				     .tr = L1_TSS,
				     .gs_base = (uint64_t)&nmi_seen[r[1] >> 24],
				     .gdtr_base = gdtr.base,
				     .idtr_base = idtr.base};
	hw_write_msr(MSR_GS_BASE, host->gs_base);
}

bool hw_vmx_take_nmi(void)
{
	uint64_t seen = 0;

	__asm__ volatile("xchg %0, %%gs:0" : "+r"(seen) : : "memory");
	return seen;
}

/* ---- the report ---- */

void hw_pause(void) { __asm__ volatile("pause"); }

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* As guests/lib/report.c: the debug console where there is one, and the serial port where visor is not. */
static bool console, serial;

void hw_find_consoles(void)
{
	console = in8(DEBUG_CONSOLE_PORT) == DEBUG_CONSOLE_PORT;
	serial = in32(CONTROL_PORT_SIGNATURE) != CONTROL_SIGNATURE;
	out8(SERIAL1_PORT + 7, 0x5a);
	serial &= in8(SERIAL1_PORT + 7) == 0x5a;
}

static void send(const char *text)
{
	uint64_t size = 0;

	while (text[size])
		size++;
	if (console) {
		const char *at = text;
		uint64_t left = size;

		__asm__ volatile("rep outsb"
				 : "+S"(at), "+c"(left)
				 : "d"((uint16_t)DEBUG_CONSOLE_PORT)
				 : "memory");
	}
	for (; serial && *text; text++) {
		while (!(in8(SERIAL1_PORT + 5) & 0x20))
			hw_pause();
		out8(SERIAL1_PORT, (uint8_t)*text);
	}
}

void hw_print(const char *line)
{
	lock(&print_lock);
	send(line);
	send("\n");
	unlock(&print_lock);
}

#define EXIT_STOPPED 0x12

static _Noreturn void finish(void)
{
	const char *text = "Shutdown";

	__asm__ volatile("outl %0, %1" : : "a"(EXIT_STOPPED), "Nd"((uint16_t)DEBUG_EXIT_PORT));
	while (*text)
		out8(0x8900, (uint8_t)*text++);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void l1_refuse(const char *why)
{
	send("l1 cannot run: ");
	send(why);
	send("\n");
	finish();
}

/* A fault without an IDT is a triple one. */
void hw_shutdown(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};

	for (;;)
		__asm__ volatile("lidt %0; ud2" : : "m"(none));
}

void hw_stop(const char *why, uint64_t value)
{
	char digits[17];

	for (unsigned i = 0; i < 16; i++)
		digits[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
	digits[16] = 0;
	send("l1 stopped: ");
	send(why);
	send(" 0x");
	send(digits);
	send("\n");
	finish();
}
