/*
 * virtio.c: a driver of virtio devices, just large enough to have requests of theirs under way: the entropy device (id 4),
 * the console (3) and a disk (2), which is this guest's own file.
 *
 * Virtual I/O Device 1.2, sections 2.1, 2.6, 2.7, 4.1, 5.2, 5.3; PCI 3.0, 6.8.2 (MSI-X).
 */
#include "lib/apic.h"
#include "migration/board.h"
#include "migration/migration.h"

#define REGIONS 0xe0000000u /* where its base address registers are put */
#define TABLE   0xe0010000u
#define QUEUE   8u

/* struct virtio_pci_common_cfg. */
enum {
	DEVICE_FEATURE_SELECT = 0x00,
	DEVICE_FEATURE = 0x04,
	DRIVER_FEATURE_SELECT = 0x08,
	DRIVER_FEATURE = 0x0c,
	CONFIG_VECTOR = 0x10,
	STATUS = 0x14,
	QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18,
	QUEUE_VECTOR = 0x1a,
	QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e,
	QUEUE_DESC = 0x20,
	QUEUE_DRIVER = 0x28,
	QUEUE_DEVICE = 0x30
};
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};
enum { CONSOLE = 0x1043, DISK = 0x1042 };

static volatile struct ring {
	struct descriptor descriptor[QUEUE];
	struct {
		uint16_t flags, index, ring[QUEUE], used_event;
	} available __attribute__((aligned(64)));
	struct {
		uint16_t flags, index;
		struct {
			uint32_t id, length;
		} ring[QUEUE];
		uint16_t available_event;
	} used __attribute__((aligned(64)));
} ring __attribute__((aligned(4096))), input __attribute__((aligned(4096)));
static volatile uint8_t buffer[QUEUE][64] __attribute__((aligned(4096)));
static volatile uint8_t input_buffer[QUEUE][64] __attribute__((aligned(4096)));

/* A request to the disk: its head, its sectors, its status. */
static volatile struct {
	uint32_t type, reserved;
	uint64_t sector;
	uint8_t status;
} asked[QUEUE];
static volatile uint8_t sectors[QUEUE][1024] __attribute__((aligned(4096)));

static uint32_t device, function, region[CAP_PCI + 1], notify_multiplier, msix;
static uint16_t posted;

static uint8_t get8(uint32_t at) { return *(volatile uint8_t *)(uintptr_t)at; }
static void put8(uint32_t at, uint8_t value) { *(volatile uint8_t *)(uintptr_t)at = value; }
static uint16_t get16(uint32_t at) { return *(volatile uint16_t *)(uintptr_t)at; }
static void put16(uint32_t at, uint16_t value) { *(volatile uint16_t *)(uintptr_t)at = value; }
static uint32_t common(unsigned at) { return region[CAP_COMMON] + at; }

static uint8_t config8(uint32_t at) { return (uint8_t)(pci_read(function | at) >> 8 * (at & 3)); }

static void find_regions(void)
{
	for (uint32_t at = config8(0x34); at; at = config8(at + 1)) {
		uint8_t type = config8(at + 3);

		if (config8(at) == 0x11)
			msix = at;
		if (config8(at) != 9 || type > CAP_PCI)
			continue;
		region[type] = REGIONS + pci_read(function | (at + 8));
		if (type == CAP_NOTIFY)
			notify_multiplier = pci_read(function | (at + 16));
	}
}

/* Finds the device, puts its registers in place and lets it be master. */
static bool begin(uint32_t id)
{
	device = id;
	function = pci_find(id << 16 | 0x1af4);
	if (!story_needs(function != 0, id == 0x1044 ? "no virtio entropy device" :
					id == DISK   ? "no virtio disk" :
						       "no virtio console") ||
	    !story_apic_mode())
		return false;
	pci_write(function | 0x14, TABLE);
	pci_write(function | 0x20, REGIONS);
	if (pci_read(function | 0x20) & 4) /* 64 bits */
		pci_write(function | 0x24, 0);
	pci_write(function | 0x04, 0x0006);
	find_regions();
	return true;
}

static void set_queue_of(unsigned n, volatile struct ring *to)
{
	put16(common(QUEUE_SELECT), (uint16_t)n);
	put16(common(QUEUE_SIZE), QUEUE);
	*mmio32(common(QUEUE_DESC)) = (uint32_t)(uintptr_t)to->descriptor;
	*mmio32(common(QUEUE_DESC + 4)) = 0;
	*mmio32(common(QUEUE_DRIVER)) = (uint32_t)(uintptr_t)&to->available;
	*mmio32(common(QUEUE_DRIVER + 4)) = 0;
	*mmio32(common(QUEUE_DEVICE)) = (uint32_t)(uintptr_t)&to->used;
	*mmio32(common(QUEUE_DEVICE + 4)) = 0;
}

static void set_queue(unsigned n) { set_queue_of(n, &ring); }

/* Entry 0 of the table, for the queue that is selected. */
static void set_vector(unsigned vector)
{
	pci_write(function | msix, pci_read(function | msix) | 1u << 31);
	*mmio32(TABLE) = 0xfee00000u | apic_id() << 12;
	*mmio32(TABLE + 4) = 0;
	*mmio32(TABLE + 8) = vector;
	*mmio32(TABLE + 12) = 0;
	put16(common(QUEUE_VECTOR), 0);
}

/* Reset, features (@event: those of indices), queue @n, and with @vector MSI-X. */
static void drive(unsigned n, bool event, unsigned vector)
{
	machine_fill((void *)(uintptr_t)&ring, 0, sizeof(ring));
	posted = 0;
	put8(common(STATUS), 0);
	put8(common(STATUS), 3);
	*mmio32(common(DRIVER_FEATURE_SELECT)) = 0;
	*mmio32(common(DRIVER_FEATURE)) = event ? 1u << 29 : 0;
	*mmio32(common(DRIVER_FEATURE_SELECT)) = 1;
	*mmio32(common(DRIVER_FEATURE)) = 1;
	hold();
	put8(common(STATUS), 0x0b);
	hold();
	story_check("features", 0x0b, get8(common(STATUS)));
	set_queue(n);
	if (vector)
		set_vector(vector);
	put16(common(QUEUE_ENABLE), 1);
	put8(common(STATUS), 0x0f);
	hold();
}

static void stop(void)
{
	put8(common(STATUS), 0);
	pci_write(function | msix, pci_read(function | msix) & ~(1u << 31));
	pci_write(function | 0x04, 0);
}

static void post(unsigned length, bool written)
{
	unsigned n = posted % QUEUE;

	ring.descriptor[n].address = (uintptr_t)buffer[n];
	ring.descriptor[n].length = length;
	ring.descriptor[n].flags = written ? 2 : 0;
	ring.available.ring[n] = (uint16_t)n;
	ring.available.index = ++posted;
}

/* Types and states of requests to a disk (5.2.6). */
enum { DISK_READ, DISK_WRITE, DISK_GET_ID = 8 };
enum { DISK_OK, DISK_ERROR };

/* A chain of three; two find room in the ring. */
static unsigned post_to_disk(uint32_t type, uint64_t sector, uint32_t size)
{
	unsigned n = posted % 2, head = 3 * n;

	asked[n].type = type;
	asked[n].sector = sector;
	asked[n].status = 0xff;
	ring.descriptor[head] = (struct descriptor){(uintptr_t)&asked[n], 16, 1, (uint16_t)(head + 1)};
	ring.descriptor[head + 1] = (struct descriptor){(uintptr_t)sectors[n], size, type == DISK_WRITE ? 1 : 3, (uint16_t)(head + 2)};
	ring.descriptor[head + 2] = (struct descriptor){(uintptr_t)&asked[n].status, 1, 2, 0};
	ring.available.ring[posted % QUEUE] = (uint16_t)head;
	ring.available.index = ++posted;
	return n;
}

/* Whatever this device does. */
static void post_any(void)
{
	buffer[posted % QUEUE][0] = '\n';
	if (device == DISK)
		post_to_disk(DISK_READ, 0, 512);
	else
		post(1, device != CONSOLE);
}

static void notify(unsigned n)
{
	put16(region[CAP_NOTIFY] + get16(common(QUEUE_NOTIFY_OFF)) * notify_multiplier, (uint16_t)n);
}

static bool wait_used(unsigned count)
{
	for (unsigned i = 0; i < 20000 && ring.used.index != count; i++)
		__asm__ volatile("pause");
	return ring.used.index == count;
}

/* Registers of the device keep what was written into them. */
STORY(virtio_registers_kept)
{
	if (!begin((uint32_t)GIVEN(index)))
		return;
	HELD("base", REGIONS, pci_read(function | 0x20) & ~0xfu);
	HELD("command", 6, pci_read(function | 0x04) & 7);
	pci_write(function | 0x3c, 0x5b);
	HELD("line", 0x5b, pci_read(function | 0x3c) & 0xff);
	put8(common(STATUS), 0);
	put8(common(STATUS), 1);
	HELD("status", 1, get8(common(STATUS)));
	put8(common(STATUS), 3);
	*mmio32(common(DEVICE_FEATURE_SELECT)) = 1;
	HELD("device_select", 1, *mmio32(common(DEVICE_FEATURE_SELECT)));
	story_check("version_1", 1, *mmio32(common(DEVICE_FEATURE)) & 1);
	*mmio32(common(DRIVER_FEATURE_SELECT)) = 1;
	HELD("driver_select", 1, *mmio32(common(DRIVER_FEATURE_SELECT)));
	*mmio32(common(DRIVER_FEATURE)) = 1;
	HELD("driver_feature", 1, *mmio32(common(DRIVER_FEATURE)));
	set_queue(0);
	HELD("queue_size", QUEUE, get16(common(QUEUE_SIZE)));
	HELD("queue_desc", (uint32_t)(uintptr_t)ring.descriptor, *mmio32(common(QUEUE_DESC)));
	HELD("queue_driver", (uint32_t)(uintptr_t)&ring.available, *mmio32(common(QUEUE_DRIVER)));
	HELD("queue_device", (uint32_t)(uintptr_t)&ring.used, *mmio32(common(QUEUE_DEVICE)));
	HELD("no_vector", 0xffff, get16(common(QUEUE_VECTOR)));
	HELD("not_enabled", 0, get16(common(QUEUE_ENABLE)));
	pci_write(function | msix, pci_read(function | msix) | 1u << 31);
	put16(common(QUEUE_VECTOR), 0);
	HELD("queue_vector", 0, get16(common(QUEUE_VECTOR)));
	put16(common(CONFIG_VECTOR), 1);
	HELD("config_vector", 1, get16(common(CONFIG_VECTOR)));
	*mmio32(TABLE + 16) = 0xfee0100c;
	*mmio32(TABLE + 24) = 0x1234;
	HELD("table_address", 0xfee0100c, *mmio32(TABLE + 16));
	HELD("table_data", 0x1234, *mmio32(TABLE + 24));
	HELD("table_masked", 1, *mmio32(TABLE + 28) & 1);
	put16(common(QUEUE_SELECT), 1);
	HELD("queue_select", 1, get16(common(QUEUE_SELECT)));
	if (GIVEN(index) == CONSOLE) { /* there is a second queue, with registers of its own */
		put16(common(QUEUE_SIZE), 4);
		HELD("queue_1_size", 4, get16(common(QUEUE_SIZE)));
		*mmio32(common(QUEUE_DESC)) = 0x00456000;
		*mmio32(common(QUEUE_DRIVER)) = 0x00457000;
		*mmio32(common(QUEUE_DEVICE)) = 0x00458000;
		put16(common(QUEUE_VECTOR), 1);
		HELD("queue_1_desc", 0x00456000, *mmio32(common(QUEUE_DESC)));
		HELD("queue_1_driver", 0x00457000, *mmio32(common(QUEUE_DRIVER)));
		HELD("queue_1_device", 0x00458000, *mmio32(common(QUEUE_DEVICE)));
		HELD("queue_1_vector", 1, get16(common(QUEUE_VECTOR)));
		put16(common(QUEUE_ENABLE), 1);
		HELD("queue_1_enabled", 1, get16(common(QUEUE_ENABLE)));
	}
	stop();
}

/* Entropy, request after request (@mode: 0 polled, 1 by INTx, 2 by MSI-X, 3 with event indices): none lost, none twice, none torn, and no
 * two alike. */
STORY(entropy_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t last = 0;

	if (!begin(0x1044))
		return;
	if (mode == 1 && !board_ioapic_entry(10, LVT_MASKED | 0x68))
		return;
	drive(0, mode == 3, mode >= 2 ? 0x68 : 0);
	ring.available.flags = mode == 0;
	for (unsigned i = 0; i < 12; i++) {
		unsigned n = posted % QUEUE;
		uint64_t first;

		machine_fill((void *)(uintptr_t)buffer[n], 0, 64);
		if (mode == 3)
			ring.available.used_event = posted;
		post(24, true);
		hold();
		notify(0);
		story_check("used", 1, wait_used(i + 1));
		hold();
		story_check_at("id", i, n, ring.used.ring[i % QUEUE].id);
		story_check_at("length", i, 24, ring.used.ring[i % QUEUE].length);
		first = *(volatile uint64_t *)buffer[n];
		story_check_at("new", i, 1, first != last && first != 0);
		story_check_at("behind", i, 0, *(volatile uint64_t *)(buffer[n] + 24));
		last = first;
		if (mode == 1) {
			hold();
			story_check_at("isr", i, 1, get8(region[CAP_ISR]));
			hold();
			story_check_at("isr_read", i, 0, get8(region[CAP_ISR]));
		}
		if (mode >= 2) {
			story_open();
			story_check_at("message", i, i + 1, story_count(0x68));
		}
	}
	HELD("enabled", 1, get16(common(QUEUE_ENABLE)));
	stop();
}

/* With event indices the device says once that the index was passed that its driver waits for (2.7.7.2). @index: the device. */
STORY(index_passed_once)
{
	bool console = GIVEN(index) == CONSOLE;

	if (!begin((uint32_t)GIVEN(index)))
		return;
	drive(console, true, 0x6b);
	ring.available.used_event = 0;
	for (unsigned i = 0; i < 6; i++) {
		post_any();
		hold();
		put16(common(QUEUE_SELECT), console);
		notify(console);
		story_check("used", 1, wait_used(i + 1));
		hold();
		story_open();
		if (i == 0)
			story_check("first", 1, story_count(0x6b));
	}
	story_check("once", 1, story_count(0x6b));
	stop();
}

/* A request that its driver has not told of is not lost: the next notification finds both. */
STORY(entropy_in_flight)
{
	if (!begin(0x1044))
		return;
	drive(0, false, 0);
	ring.available.flags = 1;
	post(16, true);
	hold();
	hold();
	post(16, true);
	hold();
	notify(0);
	story_check("both", 1, wait_used(2));
	hold();
	story_check("first", 0, ring.used.ring[0].id);
	story_check("second", 1, ring.used.ring[1].id);
	story_check("lengths", 32, ring.used.ring[0].length + ring.used.ring[1].length);
	stop();
}

/* A message of a masked vector is pending, and sent when the mask goes. */
STORY(message_pending)
{
	bool console = GIVEN(index) == CONSOLE;

	if (!begin((uint32_t)GIVEN(index)))
		return;
	drive(console, false, 0x69);
	*mmio32(TABLE + 12) = 1;
	post_any();
	put16(common(QUEUE_SELECT), console);
	notify(console);
	story_check("used", 1, wait_used(1));
	HELD("pending", 1, *mmio32(TABLE + 2048) & 1);
	story_open();
	story_check("held", 0, story_total());
	*mmio32(TABLE + 12) = 0;
	hold();
	story_open();
	story_check("sent", 1, story_count(0x69));
	HELD("no_more", 0, *mmio32(TABLE + 2048) & 1);
	stop();
}

/* INTx of the device is a level: raised while ISR is not read, also where another function shares the line, held back while the command
 * register says so. */
STORY(intx_kept)
{
	bool console = GIVEN(index) == CONSOLE;
	unsigned irq;

	if (!begin((uint32_t)GIVEN(index)) || !board_pic())
		return;
	irq = config8(0x3c) == 10 || config8(0x3c) == 11 ? config8(0x3c) : (function >> 11 & 31) % 2 ? 11u : 10u;
	machine_out8(ELCR + 1, 0x0c);
	drive(console, false, 0);
	post_any();
	put16(common(QUEUE_SELECT), console);
	notify(console);
	story_check("used", 1, wait_used(1));
	HELD("raised", 1, board_pic_read(SLAVE, 0x0a) >> (irq - 8) & 1);
	HELD("status", 8, pci_read(function | 4) >> 16 & 8);
	pci_write(function | 4, 0x0406); /* interrupt disable */
	HELD("held_back", 0, board_pic_read(SLAVE, 0x0a) >> (irq - 8) & 1);
	pci_write(function | 4, 0x0006);
	HELD("raised_again", 1, board_pic_read(SLAVE, 0x0a) >> (irq - 8) & 1);
	story_check("isr", 1, get8(region[CAP_ISR]));
	HELD("lowered", 0, board_pic_read(SLAVE, 0x0a) >> (irq - 8) & 1);
	machine_out8(ELCR + 1, 0);
	stop();
}

/* Output of the console: each buffer is taken once, in order. Its text is this machine's affair. */
STORY(console_kept)
{
	static const char text[] = "moved\n";

	if (!begin(CONSOLE))
		return;
	bool intx = GIVEN(mode) == 2, indices = GIVEN(mode) == 1;

	drive(1, indices, indices ? 0x6a : 0);
	ring.available.flags = !intx && !indices;
	put16(common(QUEUE_SELECT), 1);
	HELD("enabled", 1, get16(common(QUEUE_ENABLE)));
	for (unsigned i = 0; i < 10; i++) {
		unsigned n = posted % QUEUE;

		machine_copy((void *)(uintptr_t)buffer[n], text, sizeof(text) - 1);
		ring.available.used_event = posted;
		post(sizeof(text) - 1, false);
		hold();
		put16(common(QUEUE_SELECT), 1);
		notify(1);
		story_check("used", 1, wait_used(i + 1));
		story_check_at("id", i, n, ring.used.ring[i % QUEUE].id);
		hold();
		story_open();
		if (indices)
			story_check_at("message", i, i + 1, story_count(0x6a));
		if (!intx)
			continue;
		HELD("status", 8, pci_read(function | 4) >> 16 & 8);
		story_check_at("isr", i, 1, get8(region[CAP_ISR]));
		hold();
		story_check_at("isr_read", i, 0, get8(region[CAP_ISR]));
		HELD("status_after", 0, pci_read(function | 4) >> 16 & 8);
	}
	stop();
}

/*
 * Input of the console: what it prints comes back, where the machine is one for cases. Each buffer is filled once, in
 * order (@mode: 0 polled, 1 by MSI-X, 2 with event indices as well).
 */
STORY(input_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!begin(CONSOLE))
		return;
	drive(1, mode == 2, 0);
	machine_fill((void *)(uintptr_t)&input, 0, sizeof(input));
	ring.available.flags = 1;
	set_queue_of(0, &input);
	if (mode)
		set_vector(0x6c);
	put16(common(QUEUE_ENABLE), 1);
	HELD("enabled", 1, get16(common(QUEUE_ENABLE)));
	input.available.flags = mode == 0;
	for (unsigned i = 0; i < 10; i++) {
		unsigned n = i % QUEUE, out = posted % QUEUE;

		input_buffer[n][0] = input_buffer[n][3] = 0;
		input.descriptor[n] = (struct descriptor){(uintptr_t)input_buffer[n], 16, 2, 0};
		input.available.ring[n] = (uint16_t)n;
		input.available.used_event = (uint16_t)i;
		input.available.index = (uint16_t)(i + 1);
		hold();
		buffer[out][0] = (uint8_t)('a' + i);
		buffer[out][1] = buffer[out][2] = '\n';
		ring.available.used_event = 0x7000;
		post(3, false);
		hold();
		put16(common(QUEUE_SELECT), 1);
		notify(1);
		story_check("printed", 1, wait_used(i + 1));
		hold();
		story_check("came", i + 1, input.used.index);
		story_check_at("id", i, n, input.used.ring[n].id);
		story_check_at("length", i, 3, input.used.ring[n].length);
		story_check_at("first", i, 'a' + i, input_buffer[n][0]);
		story_check_at("behind", i, 0, input_buffer[n][3]);
		story_open();
		if (mode)
			story_check_at("message", i, i + 1, story_count(0x6c));
	}
	stop();
}

/* With event indices the driver is told once of input that passes the index which it waits for. */
STORY(input_told_once)
{
	if (!begin(CONSOLE))
		return;
	drive(1, true, 0);
	machine_fill((void *)(uintptr_t)&input, 0, sizeof(input));
	set_queue_of(0, &input);
	set_vector(0x6d);
	put16(common(QUEUE_ENABLE), 1);
	for (unsigned i = 0; i < 6; i++) {
		input.descriptor[i] = (struct descriptor){(uintptr_t)input_buffer[i], 16, 2, 0};
		input.available.ring[i] = (uint16_t)i;
	}
	input.available.used_event = 0;
	input.available.index = 6;
	ring.available.used_event = 0x7000;
	for (unsigned i = 0; i < 6; i++) {
		post_any();
		hold();
		put16(common(QUEUE_SELECT), 1);
		notify(1);
		hold();
		story_open();
		story_check_at("told", i, 1, story_count(0x6d));
	}
	story_check("came", 6, input.used.index);
	stop();
}

/* Sectors, request after request: what a first look at them gave comes again (@mode: 0 polled, 1 by INTx, 2 by MSI-X, 3 with event indices). */
STORY(disk_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t words[2] = {0, 0};

	if (!begin(DISK))
		return;
	drive(0, mode == 3, mode >= 2 ? 0x6e : 0);
	ring.available.flags = mode == 0;
	HELD("capacity", 1, *mmio32(region[CAP_DEVICE]) > 16);
	for (unsigned i = 0; i < 12; i++) {
		unsigned n, which = i / 2 % 2;

		machine_fill((void *)(uintptr_t)sectors[posted % 2], 0x5a, 1024);
		ring.available.used_event = posted;
		n = post_to_disk(DISK_READ, 9 * which, 512);
		hold();
		notify(0);
		story_check("used", 1, wait_used(i + 1));
		hold();
		story_check_at("id", i, 3 * n, ring.used.ring[i % QUEUE].id);
		story_check_at("length", i, 513, ring.used.ring[i % QUEUE].length);
		story_check_at("status", i, DISK_OK, asked[n].status);
		if (which == 0)
			story_check_at("magic", i, 0x464c457f, *(volatile uint32_t *)sectors[n]);
		if (i > 3)
			story_check_at("same", i, words[which], *(volatile uint64_t *)(sectors[n] + 16));
		words[which] = *(volatile uint64_t *)(sectors[n] + 16);
		story_check_at("behind", i, 0x5a, sectors[n][512]);
		if (mode == 1)
			story_check_at("isr", i, 1, get8(region[CAP_ISR]));
		if (mode >= 2) {
			story_open();
			story_check_at("message", i, i + 1, story_count(0x6e));
		}
	}
	stop();
}

/* Two requests under way of which the device has not been told, and one that it must refuse: there is one answer to each. */
STORY(disk_in_flight)
{
	unsigned first, second;

	if (!begin(DISK))
		return;
	drive(0, false, 0);
	ring.available.flags = 1;
	first = post_to_disk(DISK_READ, 0, 1024);
	hold();
	second = post_to_disk(DISK_WRITE, 0, 512);
	hold();
	notify(0);
	story_check("both", 1, wait_used(2));
	hold();
	story_check("read", DISK_OK, asked[first].status);
	story_check("magic", 0x464c457f, *(volatile uint32_t *)sectors[first]);
	story_check("read_length", 1025, ring.used.ring[0].length);
	story_check("read_only", DISK_ERROR, asked[second].status);
	first = post_to_disk(DISK_GET_ID, 0, 20);
	hold();
	notify(0);
	story_check("third", 1, wait_used(3));
	story_check("named", DISK_OK, asked[first].status);
	story_check("name", 'd', sectors[first][0]);
	stop();
}

/* A driver that breaks the rules: DEVICE_NEEDS_RESET stays until it resets. */
STORY(needs_reset_kept)
{
	if (!begin(0x1044))
		return;
	drive(0, false, 0);
	ring.descriptor[0].address = (uintptr_t)buffer[0];
	ring.descriptor[0].length = 8;
	ring.descriptor[0].flags = 3; /* goes on at itself */
	ring.descriptor[0].next = 0;
	ring.available.ring[0] = 0;
	ring.available.index = 1;
	notify(0);
	hold();
	if (!story_needs(get8(common(STATUS)) & 0x40, "the device forgives loops"))
		return;
	HELD("needs_reset", 0x4f, get8(common(STATUS)));
	put8(common(STATUS), 0);
	HELD("reset", 0, get8(common(STATUS)));
	stop();
}
