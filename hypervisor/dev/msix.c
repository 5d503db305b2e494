#include "dev/msix.h"

#include <string.h>

#define CAPABILITY_MSIX 0x11
#define CAPABILITY_SIZE 12
#define CONTROL         2 /* offsets in the capability */
#define TABLE           4
#define PENDING         8
#define CONTROL_ENABLE  0x8000u
#define CONTROL_MASK    0x4000u
#define VECTOR_MASK     1u
enum { ADDRESS, ADDRESS_HIGH, DATA, VECTOR_CONTROL };

static unsigned control(const struct msix *msix)
{
	return pci_config16(msix->function, msix->capability + CONTROL);
}

bool msix_enabled(const struct msix *msix) { return control(msix) & CONTROL_ENABLE; }

static bool masked(const struct msix *msix, unsigned index)
{
	return (control(msix) & CONTROL_MASK) || (msix->table[index][VECTOR_CONTROL] & VECTOR_MASK);
}

void msix_send(struct msix *msix, unsigned index)
{
	const uint32_t *entry = msix->table[index < msix->count ? index : 0];

	if (index >= msix->count || !msix_enabled(msix))
		return;
	if (masked(msix, index)) {
		msix->pending |= 1ull << index;
		return;
	}
	msix->pending &= ~(1ull << index);
	pci_message(msix->function, entry[ADDRESS] | (uint64_t)entry[ADDRESS_HIGH] << 32, entry[DATA]);
}

static void send_pending(struct msix *msix)
{
	for (unsigned i = 0; i < msix->count; i++)
		if (msix->pending >> i & 1)
			msix_send(msix, i);
}

void msix_config_written(struct msix *msix) { send_pending(msix); }

/* Reads of the table and of pending bits; what lies behind them in the page is reserved and reads as zeros.
 */
static uint64_t table_read(void *device, uint64_t offset, unsigned size)
{
	const struct msix *msix = device;
	uint8_t page[sizeof(msix->table)];
	uint64_t value = 0;

	memcpy(page, msix->table, sizeof(page));
	if (offset + size <= msix->count * sizeof(msix->table[0]))
		memcpy(&value, page + offset, size);
	else if (offset >= MSIX_PENDING && offset + size <= MSIX_PENDING + 8)
		value = msix->pending >> (8 * (offset - MSIX_PENDING));
	return value;
}

/* Software writes whole doublewords (6.8.2); pending bits are read-only. */
static void table_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	static const uint32_t defined[4] = {~3u, ~0u, ~0u, VECTOR_MASK};
	struct msix *msix = device;
	uint64_t index = offset / sizeof(msix->table[0]);
	unsigned word = offset / 4 % 4;

	if (size != 4 || offset % 4 || index >= msix->count)
		return;
	msix->table[index][word] = (uint32_t)value & defined[word];
	send_pending(msix);
}

static const struct bus_ops ops = {
	.name = "MSI-X table", .width = 4, .read = table_read, .write = table_write};

void msix_init(struct msix *msix, struct pci_function *function, unsigned bar, unsigned count)
{
	uint8_t *config = function->config;
	unsigned at = pci_function_capability(function, CAPABILITY_MSIX, CAPABILITY_SIZE);

	msix->function = function;
	msix->count = count;
	msix->capability = (uint8_t)at;
	config[at + CONTROL] = (uint8_t)(count - 1);
	function->mask[at + CONTROL + 1] = (CONTROL_ENABLE | CONTROL_MASK) >> 8;
	config[at + TABLE] = (uint8_t)bar;
	config[at + PENDING] = (uint8_t)bar;
	config[at + PENDING + 1] = MSIX_PENDING >> 8;
	pci_function_bar(function, bar, MSIX_BAR_SIZE, false, &ops, msix);
	msix_reset(msix);
}

void msix_reset(struct msix *msix)
{
	memset(msix->table, 0, sizeof(msix->table));
	for (unsigned i = 0; i < MSIX_VECTORS_MAX; i++)
		msix->table[i][VECTOR_CONTROL] = VECTOR_MASK;
	msix->pending = 0;
}
