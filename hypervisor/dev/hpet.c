#include "dev/hpet.h"

/* Registers, by their offset (section 2.3). */
enum { CAPABILITIES = 0x00, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMERS = 0x100, TIMER_SIZE = 0x20 };
enum { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08 };

#define ENABLE         1u
#define LEGACY         2u
#define CONFIG_DEFINED (ENABLE | LEGACY)
#define STATUS_DEFINED ((1u << HPET_TIMERS) - 1)
#define CAPABILITY     ((uint64_t)HPET_NS * 1000000 << 32 | HPET_ID) /* the period in femtoseconds */

#define TN_LEVEL        0x0002u
#define TN_ENABLE       0x0004u
#define TN_PERIODIC     0x0008u
#define TN_PERIODIC_CAP 0x0010u
#define TN_SIZE_CAP     0x0020u
#define TN_VAL_SET      0x0040u
#define TN_32           0x0100u
#define TN_ROUTE        0x3e00u
#define TN_ROUTE_SHIFT  9
#define TN_WRITABLE     (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_VAL_SET | TN_32 | TN_ROUTE)
#define TN_FIXED        ((uint64_t)HPET_INPUTS << 32 | TN_SIZE_CAP | TN_PERIODIC_CAP)

static const struct state_field fields[] = {
	STATE(struct hpet, config), STATE(struct hpet, status), STATE(struct hpet, counter),
	STATE(struct hpet, since),  STATE(struct hpet, timer),  STATE(struct hpet, edges),
	STATE(struct hpet, lines),  STATE(struct hpet, matched),
};

static bool enabled(const struct hpet *hpet) { return hpet->config & ENABLE; }

bool hpet_replaces_legacy(const struct hpet *hpet)
{
	return (hpet->config & CONFIG_DEFINED) == CONFIG_DEFINED;
}

static uint64_t counter_at(const struct hpet *hpet, uint64_t time)
{
	return hpet->counter + (enabled(hpet) ? (time - hpet->since) / HPET_NS : 0);
}

static uint64_t counter_now(const struct hpet *hpet) { return counter_at(hpet, clock_now(hpet->clock)); }

/* ---- interrupts ---- */

static unsigned input_of(const struct hpet *hpet, unsigned index)
{
	if (hpet_replaces_legacy(hpet) && index < 2)
		return index == 0 ? 0 : 8;
	return (unsigned)(hpet->timer[index].config & TN_ROUTE) >> TN_ROUTE_SHIFT;
}

/* An input that a timer may not use leads nowhere. */
static bool input_valid(const struct hpet *hpet, unsigned index)
{
	return (hpet_replaces_legacy(hpet) && index < 2) || (HPET_INPUTS >> input_of(hpet, index) & 1);
}

static void tell(struct hpet *hpet, unsigned input, bool raised)
{
	if (hpet->interrupt)
		hpet->interrupt(hpet->owner, input, raised);
}

/* Timers may share an input: it is raised while one of them wants it to be. */
static void update_lines(struct hpet *hpet)
{
	uint32_t wanted = 0, changed;

	for (unsigned i = 0; i < HPET_TIMERS; i++)
		if (((hpet->timer[i].config & TN_LEVEL ? hpet->status : hpet->edges) >> i & 1) &&
		    (hpet->timer[i].config & TN_ENABLE) && enabled(hpet) && input_valid(hpet, i))
			wanted |= 1u << input_of(hpet, i);
	changed = wanted ^ hpet->lines;
	hpet->lines = wanted;
	for (unsigned input = 0; input < 32; input++)
		if (changed >> input & 1)
			tell(hpet, input, wanted >> input & 1);
}

static void raise(struct hpet *hpet, unsigned index)
{
	if (hpet->timer[index].config & TN_LEVEL) {
		hpet->status |= 1u << index;
	} else {
		hpet->edges &= (uint8_t) ~(1u << index);
		update_lines(hpet);
		hpet->edges |= (uint8_t)(1u << index);
	}
	update_lines(hpet);
}

/* ---- comparators ---- */

static uint64_t mask_of(const struct hpet_timer *timer)
{
	return timer->config & TN_32 ? UINT32_MAX : UINT64_MAX;
}

/* The time when the counter has counted @ticks more than at @since's count @from; CLOCK_NEVER: past all time.
 */
static uint64_t time_of(const struct hpet *hpet, uint64_t ticks)
{
	uint64_t ns, at;

	if (__builtin_mul_overflow(ticks, (uint64_t)HPET_NS, &ns) ||
	    __builtin_add_overflow(hpet->since, ns, &at))
		return CLOCK_NEVER;
	return at;
}

/* Arms for the next match, at the counter's value of @time or, where @passed, behind it. */
static void arm(struct hpet *hpet, unsigned index, uint64_t time, bool passed)
{
	const struct hpet_timer *timer = &hpet->timer[index];
	uint64_t mask = mask_of(timer), counter = counter_at(hpet, time), ticks;

	/* Without interrupt and status, a match of a timer that is not periodic changes nothing. */
	if (!enabled(hpet) || !(timer->config & (TN_ENABLE | TN_LEVEL | TN_PERIODIC))) {
		clock_arm(&hpet->due[index], CLOCK_NEVER);
		return;
	}
	ticks = (timer->comparator - counter) & mask;
	if (ticks == 0 && passed) {
		if (mask == UINT64_MAX) {
			clock_arm(&hpet->due[index], CLOCK_NEVER);
			return;
		}
		ticks = mask + 1;
	}
	if (__builtin_add_overflow(ticks, counter - hpet->counter, &ticks))
		clock_arm(&hpet->due[index], CLOCK_NEVER);
	else
		clock_arm(&hpet->due[index], time_of(hpet, ticks));
}

/* The timer, or what it counts by, was set: it may fire at once. */
static void arm_anew(struct hpet *hpet, unsigned index)
{
	hpet->matched[index] = UINT64_MAX;
	arm(hpet, index, clock_now(hpet->clock), false);
}

static void arm_all(struct hpet *hpet)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		arm_anew(hpet, i);
}

/*
 * The comparator of a periodic timer goes on by its period. Where several periods have passed (nobody
 * looked), they are one interrupt, so that a period of one tick cannot keep the machine from running.
 */
static void fired(void *owner, uint64_t due)
{
	const struct hpet_owner *self = owner;
	struct hpet *hpet = self->hpet;
	struct hpet_timer *timer = &hpet->timer[self->index];

	(void)due;
	if (timer->config & TN_PERIODIC) {
		uint64_t mask = mask_of(timer), period = timer->period & mask;
		uint64_t late = (counter_now(hpet) - timer->comparator) & mask;

		if (period)
			timer->comparator = (timer->comparator + (late / period + 1) * period) & mask;
	}
	raise(hpet, self->index);
	hpet->matched[self->index] = counter_now(hpet);
	arm(hpet, self->index, clock_now(hpet->clock), true);
}

static void loaded(void *device)
{
	struct hpet *hpet = device;

	for (unsigned i = 0; i < HPET_TIMERS; i++)
		arm(hpet, i, clock_now(hpet->clock), hpet->matched[i] == counter_now(hpet));
}
STATE_TABLE(hpet_state, "hpet", 2, fields, loaded);

/* ---- registers ---- */

static uint64_t read_register(const struct hpet *hpet, unsigned offset)
{
	switch (offset) {
	case CAPABILITIES: return CAPABILITY;
	case CONFIG: return hpet->config;
	case STATUS: return hpet->status;
	case COUNTER: return counter_now(hpet);
	default: break;
	}
	if (offset < TIMERS || (offset - TIMERS) / TIMER_SIZE >= HPET_TIMERS)
		return 0;
	switch ((offset - TIMERS) % TIMER_SIZE) {
	case TIMER_CONFIG: return hpet->timer[(offset - TIMERS) / TIMER_SIZE].config | TN_FIXED;
	case TIMER_COMPARATOR: return hpet->timer[(offset - TIMERS) / TIMER_SIZE].comparator;
	default: return 0; /* FSB route: not there */
	}
}

static void set_config(struct hpet *hpet, uint64_t config)
{
	bool replaced = hpet_replaces_legacy(hpet);

	hpet->config = config;
	update_lines(hpet);
	if (replaced != hpet_replaces_legacy(hpet) && hpet->legacy)
		hpet->legacy(hpet->owner, !replaced);
}

/* The counter keeps its value while it is disabled. */
static void write_config(struct hpet *hpet, uint64_t value)
{
	hpet->counter = counter_now(hpet);
	hpet->since = clock_now(hpet->clock);
	if ((hpet->config ^ value) & CONFIG_DEFINED)
		hpet->edges = 0;
	set_config(hpet, value & CONFIG_DEFINED);
	arm_all(hpet);
}

static void write_timer_config(struct hpet *hpet, unsigned index, uint64_t value)
{
	struct hpet_timer *timer = &hpet->timer[index];

	/* What is raised for the old setting is not raised for the new one. */
	if ((timer->config ^ value) & TN_WRITABLE & ~TN_VAL_SET)
		hpet->edges &= (uint8_t) ~(1u << index);
	timer->config = value & TN_WRITABLE;
	if (!(value & TN_PERIODIC))
		timer->config &= ~(uint64_t)TN_VAL_SET;
	/* In 32-bit mode the upper halves are cleared, and stay so. */
	timer->comparator &= mask_of(timer);
	timer->period &= mask_of(timer);
	if (!(value & TN_LEVEL))
		hpet->status &= ~(1ull << index);
	update_lines(hpet);
	arm_anew(hpet, index);
}

/* @whole: with this access the value is complete, and Tn_VAL_SET_CNF clears itself. */
static void write_comparator(struct hpet *hpet, unsigned index, uint64_t value, uint64_t written, bool whole)
{
	struct hpet_timer *timer = &hpet->timer[index];
	uint64_t mask = mask_of(timer);

	if (timer->config & TN_PERIODIC)
		timer->period = ((timer->period & ~written) | (value & written)) & mask;
	if (!(timer->config & TN_PERIODIC) || (timer->config & TN_VAL_SET))
		timer->comparator = ((timer->comparator & ~written) | (value & written)) & mask;
	if (whole || (timer->config & TN_32))
		timer->config &= ~(uint64_t)TN_VAL_SET;
	arm_anew(hpet, index);
}

/* @written: the bits of the register that the access writes. */
static void write_register(struct hpet *hpet, unsigned offset, uint64_t value, uint64_t written)
{
	uint64_t merged = (read_register(hpet, offset) & ~written) | (value & written);
	unsigned index = (offset - TIMERS) / TIMER_SIZE;

	switch (offset) {
	case CONFIG: write_config(hpet, merged); return;
	case STATUS:
		hpet->status &= ~(value & written & STATUS_DEFINED);
		update_lines(hpet);
		return;
	case COUNTER:
		hpet->counter = merged;
		hpet->since = clock_now(hpet->clock);
		arm_all(hpet);
		return;
	default: break;
	}
	if (offset < TIMERS || index >= HPET_TIMERS)
		return; /* reserved, or read-only */
	if ((offset - TIMERS) % TIMER_SIZE == TIMER_CONFIG)
		write_timer_config(hpet, index, merged);
	else if ((offset - TIMERS) % TIMER_SIZE == TIMER_COMPARATOR)
		write_comparator(hpet, index, value, written, written >> 63);
}

static uint64_t bytes_mask(unsigned size) { return ~0ull >> (64 - 8 * size); }

static uint64_t hpet_read(void *device, uint64_t offset, unsigned size)
{
	unsigned in = offset % 8, first = size < 8 - in ? size : 8 - in;
	uint64_t value = read_register(device, (unsigned)(offset - in)) >> (8 * in);

	if (first == size)
		return value;
	return (value & bytes_mask(first)) | hpet_read(device, offset + first, size - first) << (8 * first);
}

static void hpet_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	unsigned in = offset % 8, first = size < 8 - in ? size : 8 - in;

	write_register(device, (unsigned)(offset - in), value << (8 * in), bytes_mask(first) << (8 * in));
	if (first < size)
		hpet_write(device, offset + first, size - first, value >> (8 * first));
}

static const struct bus_ops hpet_ops = {.name = "HPET", .width = 8, .read = hpet_read, .write = hpet_write};

int hpet_attach(struct hpet *hpet, struct bus *bus)
{
	return bus_claim_mmio(bus, HPET_BASE, HPET_SIZE, &hpet_ops, hpet);
}

/* ---- life ---- */

bool hpet_init(struct hpet *hpet, struct clock *clock)
{
	hpet->clock = clock;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		hpet->self[i] = (struct hpet_owner){hpet, i};
		if (!clock_add(clock, &hpet->due[i], fired, &hpet->self[i]))
			return false;
	}
	hpet_reset(hpet);
	return true;
}

void hpet_reset(struct hpet *hpet)
{
	set_config(hpet, 0);
	hpet->status = hpet->counter = 0;
	hpet->edges = 0;
	hpet->since = clock_now(hpet->clock);
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		hpet->timer[i] = (struct hpet_timer){.comparator = UINT64_MAX};
	update_lines(hpet);
	arm_all(hpet);
}
