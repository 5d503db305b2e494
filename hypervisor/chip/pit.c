#include "chip/pit.h"

#include "chip/check.h"

/* Control word (8254, "control word format"). */
#define CONTROL_BCD    0x01
#define CONTROL_KEPT   0x3f /* what status shows of it */
#define COUNTER_OF(w)  ((w) >> 6)
#define READ_BACK      3
#define BACK_NO_COUNT  0x20
#define BACK_NO_STATUS 0x10
#define STATUS_OUTPUT  0x80
#define STATUS_NULL    0x40

#define PORT61_GATE     0x01
#define PORT61_WRITABLE 0x0f
#define PORT61_REFRESH  0x10
#define PORT61_OUTPUT   0x20
#define REFRESH_PULSES  18 /* memory is refreshed, and the bit turned, every 15 us */

#define NEVER UINT64_MAX

enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum mode { TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFTWARE_STROBE, HARDWARE_STROBE };

_Static_assert(sizeof(struct pit_counter) == 48, "saved as it is");

/* ---- time ---- */

static uint64_t pulses_by(uint64_t ns)
{
	return ns / 1000000000 * PIT_HZ + ns % 1000000000 * PIT_HZ / 1000000000;
}

static uint64_t time_of(uint64_t pulse)
{
	return pulse / PIT_HZ * 1000000000 + (pulse % PIT_HZ * 1000000000 + PIT_HZ - 1) / PIT_HZ;
}

/* ---- one counter ---- */

static enum access access_of(const struct pit_counter *c) { return (enum access)(c->control >> 4 & 3); }

/* Modes 6 and 7 are 2 and 3. */
static enum mode mode_of(const struct pit_counter *c)
{
	unsigned mode = c->control >> 1 & 7;

	return (enum mode)(mode > HARDWARE_STROBE ? mode - 4 : mode);
}

static uint32_t modulus(const struct pit_counter *c) { return c->control & CONTROL_BCD ? 10000 : 65536; }

/* A low gate stops it, but where the gate is a trigger (8254, "gate pin operations summary"). */
static bool counts(const struct pit_counter *c)
{
	enum mode mode = mode_of(c);

	return c->running && (c->gate || mode == ONE_SHOT || mode == HARDWARE_STROBE);
}

/* Pulses of a half of mode 3: an odd count has its extra one in the high half. */
static uint32_t half(const struct pit_counter *c) { return (c->in_use + c->output) / 2; }

/* Modes 0, 1, 4 and 5 come to 0 once and then count on around. */
static void count_down(struct pit_counter *c, uint64_t pulses)
{
	bool strobe = mode_of(c) >= SOFTWARE_STROBE;
	uint32_t all = modulus(c);

	if (c->armed && pulses >= c->count) {
		/* A strobe is low for the one pulse at which CE is 0. */
		bool over = !strobe || pulses > c->count;

		c->output = over;
		c->armed = !over;
	}
	c->count = pulses <= c->count ? (uint32_t)(c->count - pulses)
				      : (all - (uint32_t)((pulses - c->count) % all)) % all;
}

/* Mode 2: from CR to 1, which is low, and again. */
static void count_rate(struct pit_counter *c, uint64_t pulses)
{
	if (pulses < c->count) {
		c->count -= (uint32_t)pulses;
	} else {
		c->count = c->reload - (uint32_t)((pulses - c->count) % c->reload);
		c->null_count = 0;
	}
	c->output = c->count != 1;
}

/* Mode 3: each half begins with what CR then is. */
static void count_square(struct pit_counter *c, uint64_t pulses)
{
	if (pulses < c->count) {
		c->count -= (uint32_t)pulses;
		return;
	}
	pulses -= c->count;
	c->in_use = c->reload;
	c->null_count = 0;
	pulses %= c->in_use;
	for (;;) {
		c->output = !c->output;
		c->count = half(c);
		if (pulses < c->count)
			break;
		pulses -= c->count;
	}
	c->count -= (uint32_t)pulses;
}

static void end_strobe(struct pit_counter *c)
{
	c->output = 1;
	c->armed = 0;
}

static void run_to(struct pit_counter *c, uint64_t pulse)
{
	uint64_t pulses = pulse - c->since;

	c->since = pulse;
	if (!pulses)
		return;
	if (!counts(c)) {
		/* A strobe ends though its gate is low. */
		if (mode_of(c) == SOFTWARE_STROBE && c->armed && !c->count)
			end_strobe(c);
		return;
	}
	switch (mode_of(c)) {
	case RATE: count_rate(c, pulses); break;
	case SQUARE: count_square(c, pulses); break;
	default: count_down(c, pulses);
	}
}

/* A pulse takes CR into CE, instead of counting. */
static void load(struct pit_counter *c)
{
	c->since = c->load_at;
	c->load_at = NEVER;
	c->count = c->in_use = c->reload;
	c->null_count = 0;
	c->running = c->armed = 1;
	switch (mode_of(c)) {
	case TERMINAL_COUNT:
	case RATE: break;
	case ONE_SHOT: c->output = 0; break;
	case SQUARE: c->count = half(c); break;
	case SOFTWARE_STROBE:
	case HARDWARE_STROBE: c->output = 1; break;
	}
}

static void advance(struct pit_counter *c, uint64_t pulse)
{
	if (c->load_at <= pulse) {
		run_to(c, c->load_at - 1);
		load(c);
	}
	run_to(c, pulse);
}

/* The pulse at which something may happen to the output next. */
static uint64_t next_change(const struct pit_counter *c)
{
	if (c->load_at != NEVER)
		return c->load_at;
	if (!counts(c))
		return NEVER;
	switch (mode_of(c)) {
	/* A count of 1 is none that these two take: the output stays. */
	case RATE: return c->reload == 1 ? NEVER : c->since + (c->count > 1 ? c->count - 1 : 1);
	case SQUARE: return c->reload == 1 ? NEVER : c->since + c->count;
	case SOFTWARE_STROBE:
	case HARDWARE_STROBE:
		if (c->armed && !c->count)
			return c->since + 1;
		break;
	default: break;
	}
	return c->armed ? c->since + c->count : NEVER;
}

/* CE as it reads; in mode 3 it goes down by twos, from CR or the even number below it. */
static uint16_t element(const struct pit_counter *c)
{
	uint32_t value = c->count;

	if (mode_of(c) == SQUARE && c->running)
		value = 2 * (c->count - (c->in_use & c->output));
	if (!(c->control & CONTROL_BCD))
		return (uint16_t)value;
	value %= 10000;
	return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

/* ---- all of it ---- */

/* More than ever are due at once: a state that came from elsewhere may say anything. */
#define STEPS_MAX 4096u

/* Brings counter 0 to @pulse, step by step, so that no edge of its output is left out. */
static void advance_first(struct pit *pit, uint64_t pulse)
{
	struct pit_counter *c = &pit->counter[0];
	bool last = false;

	for (unsigned steps = 0; !last; steps++) {
		uint64_t next = next_change(c);
		uint8_t was = c->output;

		last = next > pulse || steps == STEPS_MAX;
		advance(c, last ? pulse : next);
		if (c->output != was && pit->output)
			pit->output(pit->owner, c->output);
	}
}

static void arm(struct pit *pit)
{
	uint64_t next = next_change(&pit->counter[0]);

	clock_arm(&pit->timer, next == NEVER ? CLOCK_NEVER : time_of(next));
}

static void fired(void *owner, uint64_t due)
{
	struct pit *pit = owner;
	uint64_t pulse = pulses_by(due);

	advance_first(pit, pulse);
	/* What is still due is in no state that a counter comes to. */
	if (next_change(&pit->counter[0]) > pulse)
		arm(pit);
}

/* Brings all to now, whose pulse it returns. */
static uint64_t now(struct pit *pit)
{
	uint64_t pulse = pulses_by(clock_now(pit->timer.clock));

	advance_first(pit, pulse);
	advance(&pit->counter[1], pulse);
	advance(&pit->counter[2], pulse);
	return pulse;
}

static void set_output(struct pit *pit, struct pit_counter *c, uint8_t level)
{
	if (c->output == level)
		return;
	c->output = level;
	if (c == &pit->counter[0] && pit->output)
		pit->output(pit->owner, level);
}

/* A gate that falls ends the low part of modes 2 and 3; one that rises loads all but modes 0 and 4. */
static void set_gate(struct pit *pit, struct pit_counter *c, uint64_t pulse, bool level)
{
	enum mode mode = mode_of(c);

	if (c->gate == level)
		return;
	c->gate = level;
	if (mode == TERMINAL_COUNT || mode == SOFTWARE_STROBE)
		return;
	if (!level && (mode == RATE || mode == SQUARE)) {
		/* What CE reads must not change with the half that it is of. */
		if (mode == SQUARE && !c->output)
			c->count += c->in_use & 1;
		set_output(pit, c, 1);
	} else if (CHIP_CHECK(PIT_GATE, level && c->written))
		c->load_at = pulse + 1;
}

/* ---- writing ---- */

/*
 * A bus cycle is longer than an input pulse: what an earlier one has written is in CE when the count is looked
 * at, even where processor time has hardly moved between the two.
 */
static void load_before_look(struct pit_counter *c)
{
	if (c->load_at != NEVER) {
		c->load_at = c->since;
		load(c);
	}
}

static void latch_count(struct pit_counter *c)
{
	load_before_look(c);
	if (CHIP_CHECK(PIT_LATCHED, c->latched))
		return;
	c->latched = 1;
	c->latch = element(c);
}

static void latch_status(struct pit_counter *c)
{
	if (c->status_latched)
		return;
	c->status_latched = 1;
	c->status = (uint8_t)((c->output ? STATUS_OUTPUT : 0) | (c->null_count ? STATUS_NULL : 0) |
			      (c->control & CONTROL_KEPT));
}

/* The count stops, and waits for CR (8254, "mode definitions": a control word sets the output). */
static void set_control(struct pit *pit, struct pit_counter *c, uint8_t word)
{
	c->control = word & CONTROL_KEPT;
	c->load_at = NEVER;
	c->null_count = 1;
	c->write_high = c->read_high = c->latched = c->status_latched = 0;
	c->running = c->written = c->armed = 0;
	set_output(pit, c, mode_of(c) != TERMINAL_COUNT);
}

static void write_control(struct pit *pit, uint8_t word)
{
	if (COUNTER_OF(word) == READ_BACK) {
		for (unsigned i = 0; i < 3; i++) {
			if (!(word >> (i + 1) & 1))
				continue;
			if (!(word & BACK_NO_COUNT))
				latch_count(&pit->counter[i]);
			if (!(word & BACK_NO_STATUS))
				latch_status(&pit->counter[i]);
		}
		return;
	}
	if ((word >> 4 & 3) == ACCESS_LATCH)
		latch_count(&pit->counter[COUNTER_OF(word)]);
	else
		set_control(pit, &pit->counter[COUNTER_OF(word)], word);
}

/* 0 is the largest count; in BCD, of the four digits. */
static uint32_t count_of(const struct pit_counter *c, uint16_t value)
{
	uint32_t count = value;

	if (c->control & CONTROL_BCD)
		count = (uint32_t)((value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 +
				   (value & 15)) %
			10000;
	return count ? count : modulus(c);
}

/* A whole count: what each mode does with it, "mode definitions". */
static void write_count(struct pit *pit, struct pit_counter *c, uint64_t pulse, uint16_t value)
{
	bool first = !c->written;

	c->reload = count_of(c, value);
	c->written = c->null_count = 1;
	switch (mode_of(c)) {
	case TERMINAL_COUNT:
		c->armed = 0;
		set_output(pit, c, 0);
		c->load_at = pulse + 1;
		break;
	case SOFTWARE_STROBE: c->load_at = pulse + 1; break;
	case RATE:
	case SQUARE:
		/* A later one waits for the end of the period or half. */
		if (CHIP_CHECK(PIT_RELOAD, first))
			c->load_at = pulse + 1;
		break;
	case ONE_SHOT:
	case HARDWARE_STROBE: break;
	}
}

static void write_counter(struct pit *pit, struct pit_counter *c, uint64_t pulse, uint8_t value)
{
	switch (access_of(c)) {
	case ACCESS_LOW: write_count(pit, c, pulse, value); break;
	case ACCESS_HIGH: write_count(pit, c, pulse, (uint16_t)(value << 8)); break;
	case ACCESS_BOTH:
		c->write_high = !c->write_high;
		if (!c->write_high) {
			write_count(pit, c, pulse, (uint16_t)(c->low | value << 8));
			break;
		}
		c->low = value;
		/* Mode 0 stops at the first byte. */
		if (mode_of(c) == TERMINAL_COUNT) {
			c->running = c->armed = 0;
			c->load_at = NEVER;
			set_output(pit, c, 0);
		}
		break;
	case ACCESS_LATCH: break; /* no control word has come yet */
	}
}

void pit_write(struct pit *pit, uint16_t port, uint8_t value)
{
	uint64_t pulse = now(pit);

	if (port == PIT_PORT61) {
		pit->port61 = value & PORT61_WRITABLE;
		set_gate(pit, &pit->counter[2], pulse, value & PORT61_GATE);
	} else if (port == PIT_CONTROL) {
		write_control(pit, value);
	} else {
		write_counter(pit, &pit->counter[port - PIT_COUNTER0], pulse, value);
	}
	arm(pit);
}

/* ---- reading ---- */

static uint8_t read_counter(struct pit_counter *c)
{
	bool high = access_of(c) == ACCESS_HIGH, last = true;
	uint16_t value;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (!c->latched)
		load_before_look(c);
	value = c->latched ? c->latch : element(c);
	if (access_of(c) == ACCESS_BOTH) {
		high = last = c->read_high;
		c->read_high = !c->read_high;
	}
	if (last)
		c->latched = 0;
	return (uint8_t)(high ? value >> 8 : value);
}

/* Of port 61H, no error of memory or of a card is there (bits 6 and 7). Nobody answers at the control word's.
 */
uint8_t pit_read(struct pit *pit, uint16_t port)
{
	uint64_t pulse = now(pit);
	uint8_t value = 0xff;

	if (port == PIT_PORT61)
		value = (uint8_t)(pit->port61 | (pulse / REFRESH_PULSES & 1 ? PORT61_REFRESH : 0) |
				  (pit->counter[2].output ? PORT61_OUTPUT : 0));
	else if (port != PIT_CONTROL)
		value = read_counter(&pit->counter[port - PIT_COUNTER0]);
	arm(pit);
	return value;
}

/* ---- life ---- */

/* The 8254 knows no reset; nothing counts before a control word. */
void pit_reset(struct pit *pit)
{
	uint64_t pulse = pulses_by(clock_now(pit->timer.clock));

	for (unsigned i = 0; i < 3; i++) {
		struct pit_counter *c = &pit->counter[i];

		set_output(pit, c, 0);
		*c = (struct pit_counter){
			.since = pulse, .load_at = NEVER, .reload = 65536, .gate = i < 2, .null_count = 1};
	}
	pit->port61 = 0;
	arm(pit);
}

bool pit_init(struct pit *pit, struct clock *clock, void (*output)(void *owner, bool level), void *owner)
{
	pit->output = output;
	pit->owner = owner;
	if (!clock_add(clock, &pit->timer, fired, pit))
		return false;
	pit_reset(pit);
	return true;
}

static void loaded(void *device)
{
	struct pit *pit = device;

	arm(pit);
	if (pit->output)
		pit->output(pit->owner, pit->counter[0].output);
}

static const struct state_field fields[] = {STATE(struct pit, counter), STATE(struct pit, port61)};

static const char *wrong(const void *device, const void *values)
{
	const struct pit *pit = values;

	(void)device;
	for (unsigned i = 0; i < 3; i++) {
		const struct pit_counter *c = &pit->counter[i];

		if (c->reload == 0 || c->reload > 65536 || c->in_use > 65536 || c->count > 65536 || c->output > 1)
			return "counter";
	}
	return NULL;
}
STATE_TABLE(pit_state, "pit", 1, fields, loaded, wrong);
