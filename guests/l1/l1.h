/*
 * l1.h: the hypervisor on bare metal. kmod/core runs the guest; here is what it is built into.
 *
 *   boot.S    from the loader, or a SIPI, to long mode
 *   main.c    in which order everything happens
 *   facts.c   what the loader tells: memory, command line, modules; and telling it on
 *   memory.c  to the top of memory; pages; the page tables
 *   image.c   a guest's ELF file, to where it belongs
 *   linux.c   the same of a Linux kernel as it is installed (bzImage)
 *   cpus.c    other processors
 *   hw.c, entry.S   kmod/core/hw.h, as instructions
 *
 * It stands where its guest will, so it moves away first: to whole blocks of 2 MiB at the top of the highest
 * memory below 4 GiB, which the guest is not told of. With `l1.depth=N` above 1 on the command line the guest
 * is another copy of the hypervisor, told a depth one less; else it is the first module. What else the
 * command line holds goes to the guest, as do the other modules.
 *
 *   l1.depth=N    1 by itself
 *   l1.nest=0     offers the guest no virtualization extension
 */
#ifndef TRAPLINE_GUESTS_L1_L1_H
#define TRAPLINE_GUESTS_L1_L1_H

#include "kmod/core/core.h"
#include "l1/layout.h"

enum l1_protocol { L1_MULTIBOOT = 1, L1_PVH = 2, L1_LINUX = 3 };

#define FACTS_RANGES  32u
#define FACTS_MODULES 16u
#define MEMORY_RAM    1u

struct facts_range {
	uint64_t base, end;
	uint32_t type;
};

struct facts_module {
	uint64_t start, end;
	const char *text; /* its command line; NULL for none */
};

/* All pointers are to identity-mapped memory of the loader. */
struct facts {
	enum l1_protocol protocol;
	const char *line;
	uint64_t rsdp;
	unsigned ranges, modules;
	struct facts_range range[FACTS_RANGES];
	struct facts_module module[FACTS_MODULES];
};

/* Stops where there is more than fits. */
void facts_read(struct facts *facts, enum l1_protocol protocol, const void *information);
/*
 * Writes what @facts tell, from module @first on, as @protocol has it, to below @top; the new top, which is
 * where the information begins.
 */
uint64_t facts_write(const struct facts *facts, enum l1_protocol protocol, unsigned first, uint64_t top);
/* Takes [@base, end of its range) away from the guest. */
void facts_hide(struct facts *facts, uint64_t base);
/* A copy of @text below *@top, which it lowers; NULL for NULL. */
const char *facts_lift(const char *text, uint64_t *top);
/* Makes the number behind @name on @line, which is above 0 and not a multiple of ten, one less. */
void facts_one_less(char *line, const char *name);
/* The number behind @name on the command line, or @otherwise. @name has its `=`. */
unsigned facts_number(const char *line, const char *name, unsigned otherwise);

/* Where messages and reports go. First of all. */
void hw_find_consoles(void);

/* Moves the hypervisor, and notes in @machine what is hidden now. */
void memory_move(struct facts *facts, struct core_machine *machine);
/* A page below 1 MiB for processors that start; hidden from the guest. */
uint8_t memory_low_page(struct facts *facts);

/* Puts the guest of [@file, @file + @size) into memory, whose end is @top. */
struct image_entry {
	enum l1_protocol protocol;
	uint32_t address;
};
struct image_entry image_load(const uint8_t *file, uint64_t size, uint64_t top);

/* Whether the file is a Linux kernel, a bzImage with a 32-bit entry. */
bool linux_is(const uint8_t *file, uint64_t size);
/* Puts it into memory, whose end is @top. */
struct image_entry linux_load(const uint8_t *file, uint64_t size, uint64_t top);
/* Writes what @facts tell, with the kernel's own @file, to below @top; the new top, which is where the
 * information begins. The initrd is module @first, where there is one. */
uint64_t linux_write(const struct facts *facts, const uint8_t *file, unsigned first, uint64_t top);

/* Code for processors that start, in the page @page. */
void cpus_prepare(uint8_t page);
/* How many CPUID tells of. */
unsigned cpus_count(void);
/* Exceptions of the hypervisor's own, on the processor that calls. */
void cpus_load_idt(void);

extern struct core_machine l1_machine;
extern struct core_vcpu l1_vcpus[L1_CPUS];

/* A message instead of the guest; the machine ends. Before anything runs: why that cannot be. */
_Noreturn void l1_refuse(const char *why);

static inline void copy(void *to, const void *from, uint64_t size)
{
	uint64_t quads = size / 8, rest = size % 8;

	__asm__ volatile("rep movsq\n\tmov %3, %2\n\trep movsb"
			 : "+D"(to), "+S"(from), "+&c"(quads)
			 : "r"(rest)
			 : "memory");
}

/* The same where they overlap and @to is above; both are page-aligned. */
static inline void copy_up(void *to, const void *from, uint64_t size)
{
	uint64_t quads = (size + 7) / 8;
	void *t = (uint8_t *)to + 8 * quads - 8;
	const void *f = (const uint8_t *)from + 8 * quads - 8;

	__asm__ volatile("std; rep movsq; cld" : "+D"(t), "+S"(f), "+c"(quads) : : "memory");
}

static inline void clear(void *to, uint64_t size)
{
	uint64_t quads = size / 8, rest = size % 8;

	__asm__ volatile("rep stosq\n\tmov %2, %1\n\trep stosb"
			 : "+D"(to), "+&c"(quads)
			 : "r"(rest), "a"(0)
			 : "memory");
}

#endif
