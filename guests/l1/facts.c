/* facts.c: what a loader tells (multiboot 0.6.96, section 3.3; Xen's x86/HVM direct boot ABI), and telling it
 * on. */
#include "l1/l1.h"
#include "x86/boot_protocol.h"

#define MEBIBYTE 0x100000ull

static void add_range(struct facts *facts, uint64_t base, uint64_t end, uint32_t type)
{
	if (facts->ranges == FACTS_RANGES)
		l1_refuse("the loader's memory map is too long");
	facts->range[facts->ranges++] = (struct facts_range){base, end, type};
}

static void add_module(struct facts *facts, uint64_t start, uint64_t end, uint64_t text)
{
	if (facts->modules == FACTS_MODULES)
		l1_refuse("the loader brings too many modules");
	facts->module[facts->modules++] = (struct facts_module){start, end, (const char *)text};
}

static const void *at(uint64_t address) { return (const void *)address; }

static void read_multiboot(struct facts *facts, const struct multiboot_info *info)
{
	const struct multiboot_module *module = at(info->mods_addr);
	uint64_t entry = info->mmap_addr, end = entry + info->mmap_length;

	if (info->flags & MULTIBOOT_INFO_CMDLINE)
		facts->line = at(info->cmdline);
	for (unsigned i = 0; info->flags & MULTIBOOT_INFO_MODULES && i < info->mods_count; i++)
		add_module(facts, module[i].start, module[i].end, module[i].string);
	while (info->flags & MULTIBOOT_INFO_MMAP && entry < end) {
		const struct multiboot_mmap *mmap = at(entry);

		add_range(facts, mmap->base, mmap->base + mmap->length, mmap->type);
		entry += mmap->size + sizeof(mmap->size);
	}
	if (!facts->ranges && info->flags & MULTIBOOT_INFO_MEMORY) {
		add_range(facts, 0, (uint64_t)info->mem_lower << 10, MEMORY_RAM);
		add_range(facts, MEBIBYTE, MEBIBYTE + ((uint64_t)info->mem_upper << 10), MEMORY_RAM);
	}
}

static void read_start_info(struct facts *facts, const struct start_info *info)
{
	const struct start_info_module *module = at(info->modlist);
	const struct start_info_memmap *map = at(info->memmap);

	facts->rsdp = info->rsdp;
	if (info->cmdline)
		facts->line = at(info->cmdline);
	for (unsigned i = 0; i < info->nr_modules; i++)
		add_module(facts, module[i].address, module[i].address + module[i].size, module[i].cmdline);
	for (unsigned i = 0; info->version && i < info->memmap_entries; i++)
		add_range(facts, map[i].base, map[i].base + map[i].length, map[i].type);
}

void facts_read(struct facts *facts, enum l1_protocol protocol, const void *information)
{
	*facts = (struct facts){.protocol = protocol, .line = ""};
	if (protocol == L1_MULTIBOOT)
		read_multiboot(facts, information);
	else
		read_start_info(facts, information);
	if (!facts->ranges)
		l1_refuse("the loader tells nothing of memory");
}

void facts_hide(struct facts *facts, uint64_t base)
{
	for (unsigned i = 0; i < facts->ranges; i++)
		if (facts->range[i].type == MEMORY_RAM && facts->range[i].base < base &&
		    base < facts->range[i].end)
			facts->range[i].end = base;
}

/* ---- telling it on ---- */

static uint64_t length(const char *text)
{
	uint64_t size = 0;

	while (text && text[size])
		size++;
	return size;
}

/* Where something of @size bytes goes below *@top. */
static void *below(uint64_t *top, uint64_t size)
{
	*top = (*top - size) & ~15ull;
	return (void *)*top;
}

static uint32_t put_text(uint64_t *top, const char *text)
{
	char *to = below(top, length(text) + 1);

	copy(to, text, length(text));
	to[length(text)] = 0;
	return (uint32_t)*top;
}

const char *facts_lift(const char *text, uint64_t *top)
{
	return text ? (const char *)(uint64_t)put_text(top, text) : NULL;
}

static void put_module(const struct facts_module *module, struct multiboot_module *multiboot,
		       struct start_info_module *pvh, uint32_t text)
{
	if (multiboot)
		*multiboot =
			(struct multiboot_module){(uint32_t)module->start, (uint32_t)module->end, text, 0};
	else
		*pvh = (struct start_info_module){module->start, module->end - module->start, text, 0};
}

static uint32_t put_modules(const struct facts *facts, enum l1_protocol protocol, unsigned first,
			    uint64_t *top)
{
	uint64_t size =
		protocol == L1_MULTIBOOT ? sizeof(struct multiboot_module) : sizeof(struct start_info_module);
	uint8_t *to = below(top, size * (facts->modules - first));
	uint32_t list = (uint32_t)*top;

	for (unsigned i = first; i < facts->modules; i++, to += size) {
		uint32_t text = facts->module[i].text ? put_text(top, facts->module[i].text) : 0;

		put_module(&facts->module[i], protocol == L1_MULTIBOOT ? (void *)to : NULL, (void *)to, text);
	}
	return list;
}

static uint32_t put_map(const struct facts *facts, enum l1_protocol protocol, uint64_t *top)
{
	struct multiboot_mmap *mmap = NULL;
	struct start_info_memmap *map = NULL;

	if (protocol == L1_MULTIBOOT)
		mmap = below(top, facts->ranges * sizeof(*mmap));
	else
		map = below(top, facts->ranges * sizeof(*map));
	for (unsigned i = 0; i < facts->ranges; i++) {
		const struct facts_range *range = &facts->range[i];
		uint64_t size = range->end - range->base;

		if (mmap)
			mmap[i] = (struct multiboot_mmap){sizeof(*mmap) - sizeof(mmap->size), range->base,
							  size, range->type};
		else
			map[i] = (struct start_info_memmap){range->base, size, range->type, 0};
	}
	return (uint32_t)*top;
}

/* The end of the RAM that begins at @base, in KiB from there. */
static uint32_t kibibytes(const struct facts *facts, uint64_t base)
{
	for (unsigned i = 0; i < facts->ranges; i++)
		if (facts->range[i].type == MEMORY_RAM && facts->range[i].base <= base &&
		    base < facts->range[i].end)
			return (uint32_t)((facts->range[i].end - base) >> 10);
	return 0;
}

uint64_t facts_write(const struct facts *facts, enum l1_protocol protocol, unsigned first, uint64_t top)
{
	uint32_t modules = put_modules(facts, protocol, first, &top), count = facts->modules - first;
	uint32_t map = put_map(facts, protocol, &top), line = put_text(&top, facts->line);

	if (protocol == L1_MULTIBOOT) {
		struct multiboot_info *info = below(&top, sizeof(*info));

		*info = (struct multiboot_info){
			.flags = MULTIBOOT_INFO_MEMORY | MULTIBOOT_INFO_CMDLINE | MULTIBOOT_INFO_MMAP |
				 (count ? MULTIBOOT_INFO_MODULES : 0),
			.mem_lower = kibibytes(facts, 0),
			.mem_upper = kibibytes(facts, MEBIBYTE),
			.cmdline = line,
			.mods_count = count,
			.mods_addr = count ? modules : 0,
			.mmap_length = facts->ranges * (uint32_t)sizeof(struct multiboot_mmap),
			.mmap_addr = map};
	} else {
		struct start_info *info = below(&top, sizeof(*info));

		*info = (struct start_info){.magic = START_INFO_MAGIC,
					    .version = 1,
					    .nr_modules = count,
					    .modlist = count ? modules : 0,
					    .cmdline = line,
					    .rsdp = facts->rsdp,
					    .memmap = map,
					    .memmap_entries = facts->ranges};
	}
	return top;
}

/* ---- the command line ---- */

/* Behind @name on @line, or NULL. */
static const char *value_of(const char *line, const char *name)
{
	while (*line) {
		uint64_t i = 0;

		while (*line == ' ')
			line++;
		while (name[i] && line[i] == name[i])
			i++;
		if (!name[i])
			return line + i;
		while (*line && *line != ' ')
			line++;
	}
	return NULL;
}

unsigned facts_number(const char *line, const char *name, unsigned otherwise)
{
	const char *text = value_of(line, name);
	unsigned number = 0;

	if (!text || *text < '0' || *text > '9')
		return otherwise;
	while (*text >= '0' && *text <= '9')
		number = number * 10 + (unsigned)(*text++ - '0');
	return number;
}

void facts_one_less(char *line, const char *name)
{
	char *text = (char *)value_of(line, name);

	while (text && text[1] >= '0' && text[1] <= '9')
		text++;
	if (text)
		--*text;
}
