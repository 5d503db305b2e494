#include "migrate/move.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/describe.h"

/* Pages written since memory was zeros, or since the snapshot: those that a restore must put back. */
struct page_set {
	uint64_t *bits; /* a bit a page of RAM, by its place in it */
	uint64_t *page; /* guest-physical addresses */
	size_t count, room;
};

/* One of the two machines, and the stream that leads to it. */
struct side {
	struct machine *machine;
	struct parts parts;
	struct stream_writer to;
	struct stream_reader from;
	uint64_t pages; /* that have come in this move */
	bool ended;
};

struct moving {
	struct mover mover; /* first: what others see */
	struct move_config config;
	struct side side[3]; /* the third is the reference */
	bool referred;       /* the reference has the guest as well */
	unsigned here;       /* the side that has the guest */
	unsigned home;       /* the side that the snapshot was taken of */
	struct page_set touched;
	/*
	 * Groups of parts (enum parts_group): in which the two machines may differ; which were sent since the
	 * snapshot was taken or restored. What has not changed since the guest came is not sent.
	 */
	unsigned apart, sent;
	uint64_t fired;         /* of the clock of the machine that has the guest, when it came */
	uint64_t random, until; /* instructions until the next move */
	unsigned quiet;         /* moves since signals, time and input were looked at */
	struct machine_end end;
	char why[STREAM_WHY];
	/* The pipe: what the writer gives is read at once. */
	const uint8_t *given;
	size_t left;
};

static struct moving *moving_of(struct mover *mover) { return (struct moving *)mover; }

/* ---- sets of pages ---- */

static size_t page_index(const struct machine *machine, uint64_t address)
{
	uint64_t low = memory_low(machine->config.memory);

	return (size_t)((address >= MEMORY_HIGH_BASE ? address - MEMORY_HIGH_BASE + low : address) /
			PAGE_SIZE);
}

static bool set_init(struct page_set *set, uint64_t memory)
{
	set->bits = calloc((size_t)(memory / PAGE_SIZE + 63) / 64, sizeof(*set->bits));
	return set->bits != NULL;
}

static void set_free(struct page_set *set)
{
	free(set->bits);
	free(set->page);
}

static int set_add(struct page_set *set, const struct machine *machine, uint64_t address)
{
	size_t index = page_index(machine, address);
	uint64_t bit = 1ull << (index % 64);

	if (set->bits[index / 64] & bit)
		return 0;
	if (set->count == set->room) {
		size_t room = set->room ? 2 * set->room : 256;
		uint64_t *page = realloc(set->page, room * sizeof(*page));

		if (!page)
			return -ENOMEM;
		set->page = page;
		set->room = room;
	}
	set->bits[index / 64] |= bit;
	set->page[set->count++] = address;
	return 0;
}

static void set_clear(struct page_set *set, const struct machine *machine)
{
	for (size_t i = 0; i < set->count; i++)
		set->bits[page_index(machine, set->page[i]) / 64] = 0;
	set->count = 0;
}

/* ---- the receiving side ---- */

static int take_pages(struct moving *moving, struct side *side, struct stream_cursor *payload)
{
	const struct engine_ops *ops = side->machine->engine->ops;
	static const uint8_t zeros[PAGE_SIZE];
	struct stream_page page;
	uint32_t count;

	if (!stream_pages_count(payload, &count))
		return -EPROTO;
	for (; count; count--) {
		if (!stream_pages_next(payload, &page) || page.kind == STREAM_PAGE_ZSTD ||
		    !ops->memory_replace(side->machine->engine, page.address,
					 page.content ? page.content : zeros))
			return -EPROTO;
		side->pages++;
		if (set_add(&moving->touched, side->machine, page.address))
			return -ENOMEM;
	}
	return stream_taken(payload) ? 0 : -EPROTO;
}

static int take_end(struct moving *moving, struct side *side, struct stream_cursor *payload)
{
	struct stream_totals totals;

	if (!stream_take_totals(payload, &totals) || side->parts.missing || totals.pages != side->pages ||
	    totals.owed) {
		snprintf(moving->why, sizeof(moving->why), "not all of the state has come");
		return -EPROTO;
	}
	side->ended = true;
	return 0;
}

static int take_section(struct moving *moving, struct side *side, struct stream_section *section)
{
	int error = -EPROTO;

	switch (section->type) {
	case STREAM_PAGES: error = take_pages(moving, side, &section->payload); break;
	case STREAM_PART: error = parts_take(&side->parts, &section->payload); break;
	case STREAM_STATE_END: return take_end(moving, side, &section->payload);
	default: break;
	}
	if (error)
		snprintf(moving->why, sizeof(moving->why), "%s",
			 side->parts.why[0] ? side->parts.why : "a section that is none of a move");
	return error;
}

static int pipe_read(void *owner, void *to, size_t size)
{
	struct moving *moving = owner;

	if (size > moving->left)
		return moving->left ? -EPIPE : 1;
	memcpy(to, moving->given, size);
	moving->given += size;
	moving->left -= size;
	return 0;
}

/* Everything that is written is a header or a whole section, and is read before the writer goes on. */
static int pipe_write(struct moving *moving, struct side *to, const void *bytes, size_t size)
{
	const struct stream_input input = {moving, pipe_read};
	struct stream_section section;
	int error;

	moving->given = bytes;
	moving->left = size;
	if (!to->from.room)
		return stream_reader_init(&to->from, &input, NULL, 0, STREAM_FORWARD);
	error = stream_read(&to->from, &section);
	if (error) {
		snprintf(moving->why, sizeof(moving->why), "%s", to->from.why);
		return error < 0 ? error : -EPIPE;
	}
	return take_section(moving, to, &section);
}

static int pipe_to_first(void *owner, const void *bytes, size_t size)
{
	struct moving *moving = owner;

	return pipe_write(moving, &moving->side[0], bytes, size);
}

static int pipe_to_second(void *owner, const void *bytes, size_t size)
{
	struct moving *moving = owner;

	return pipe_write(moving, &moving->side[1], bytes, size);
}

static int pipe_to_reference(void *owner, const void *bytes, size_t size)
{
	struct moving *moving = owner;

	return pipe_write(moving, &moving->side[2], bytes, size);
}

/* ---- the sending side ---- */

static int send_pages(struct machine *machine, struct stream_writer *writer, const uint64_t *pages,
		      size_t count)
{
	for (size_t i = 0; i < count;) {
		stream_pages_begin(writer);
		for (; i < count && !stream_pages_full(writer); i++)
			stream_pages_add(writer, pages[i], machine_ram(machine, pages[i], PAGE_SIZE));
		if (stream_pages_end(writer))
			return writer->error;
	}
	return 0;
}

/* What may have changed since the guest came, where the other machine was the same then. */
static unsigned changed_groups(const struct moving *moving, const struct machine *machine)
{
	unsigned groups = PARTS_ALWAYS;

	if (machine->bus.changed || machine->clock.fired != moving->fired)
		groups |= PARTS_DEVICES;
	if (machine->engine->ops->chips_changed(machine->engine))
		groups |= PARTS_CHIPS;
	return groups;
}

static void guest_is_here(struct moving *moving, struct machine *machine)
{
	machine->bus.changed = false;
	moving->fired = machine->clock.fired;
}

/* The end of the state, at which the destination loads it. */
static int settle(struct moving *moving, struct side *destination, uint32_t parts, uint64_t pages)
{
	const struct stream_totals totals = {.parts = parts, .pages = pages};
	int error;

	stream_put_totals(&destination->to, &totals);
	error = destination->to.error;
	if (!error && !destination->ended)
		error = -EPROTO;
	if (!error)
		error = parts_load(&destination->parts);
	if (error && !moving->why[0])
		snprintf(moving->why, sizeof(moving->why), "%s", destination->parts.why);
	return error;
}

static int send_all(struct moving *moving, struct side *source, struct side *destination, const uint64_t *pages,
		    size_t count, unsigned groups)
{
	struct stream_writer *writer = &destination->to;
	int parts, error;

	parts_begin(&destination->parts, groups);
	destination->pages = 0;
	destination->ended = false;
	moving->why[0] = 0;
	error = send_pages(source->machine, writer, pages, count);
	parts = error ? error : parts_write(&source->parts, writer, groups);
	if (parts >= 0)
		return settle(moving, destination, (uint32_t)parts, count);
	if (!moving->why[0])
		snprintf(moving->why, sizeof(moving->why), "%s", source->parts.why);
	return parts;
}

static int open_stream(struct moving *moving, unsigned side)
{
	const struct stream_sink sinks[] = {
		{moving, pipe_to_first}, {moving, pipe_to_second}, {moving, pipe_to_reference}};
	struct stream_session session;
	int error = stream_session_new(&session);

	return error ? error : stream_writer_init(&moving->side[side].to, &sinks[side], &session, 0, STREAM_FORWARD);
}

/*
 * Sends @pages and the parts of @groups, and has them loaded. A stream that broke off in the middle is made anew, as there
 * are other cases behind this one.
 */
static int transfer(struct moving *moving, struct side *source, struct side *destination,
		    const uint64_t *pages, size_t count, unsigned groups)
{
	int error = send_all(moving, source, destination, pages, count, groups);
	char why[STREAM_WHY];

	if (!error)
		return 0;
	memcpy(why, moving->why, sizeof(why));
	stream_writer_free(&destination->to);
	stream_reader_free(&destination->from);
	memset(&destination->to, 0, sizeof(destination->to));
	memset(&destination->from, 0, sizeof(destination->from));
	open_stream(moving, (unsigned)(destination - moving->side));
	memcpy(moving->why, why, sizeof(why));
	return error;
}

/* What the harness has set in a machine that is not the guest's. */
static void carry_harness(const struct machine *from, struct machine *to)
{
	to->control.case_index = from->control.case_index;
	to->end = from->end;
}

static int say(const struct moving *moving, int error, char *why, size_t size)
{
	if (error)
		snprintf(why, size, "the machine could not be moved: %s",
			 moving->why[0] ? moving->why : strerror(-error));
	return error;
}

int mover_move(struct mover *mover, char *why, size_t size)
{
	struct moving *moving = moving_of(mover);
	struct side *source = &moving->side[moving->here], *destination = &moving->side[!moving->here];
	struct engine *engine = source->machine->engine;
	unsigned groups =
		moving->apart | changed_groups(moving, source->machine) | parts_broken(&source->parts);
	uint64_t bytes = destination->to.bytes;
	const uint64_t *pages;
	size_t count;
	int error;

	engine->ops->dirty_pages(engine, &pages, &count);
	error = transfer(moving, source, destination, pages, count, groups);
	if (error)
		return say(moving, error, why, size);
	engine->ops->dirty_reset(engine);
	carry_harness(source->machine, destination->machine);
	moving->sent |= groups;
	moving->apart = 0;
	guest_is_here(moving, destination->machine);
	moving->here = !moving->here;
	mover->machine = destination->machine;
	mover->moves++;
	mover->bytes += destination->to.bytes - bytes;
	if (moving->config.moved)
		moving->config.moved(moving->config.owner, mover->machine);
	return 0;
}

void mover_take_reached(struct mover *mover, void (*take)(void *owner, const char *name), void *owner)
{
	struct moving *moving = moving_of(mover);

	for (unsigned i = 0; i < 2; i++)
		parts_take_reached(&moving->side[i].parts, take, owner);
}

/* ---- the run that is never moved ---- */

/* Gives the guest, whose memory is zeros but for @pages, to the reference as well. */
static int refer(struct moving *moving, const uint64_t *pages, size_t count, char *why, size_t size)
{
	struct side *reference = &moving->side[2];
	int error;

	if (!reference->machine)
		return 0;
	error = transfer(moving, &moving->side[moving->here], reference, pages, count, PARTS_ALL);
	reference->machine->engine->ops->dirty_reset(reference->machine->engine);
	moving->referred = !error;
	return say(moving, error, why, size);
}

static bool page_differs(struct moving *moving, uint64_t address, char *text, size_t size)
{
	const uint8_t *here = machine_ram(moving->mover.machine, address, PAGE_SIZE);
	const uint8_t *there = machine_ram(moving->side[2].machine, address, PAGE_SIZE);

	for (unsigned i = 0; i < PAGE_SIZE; i++) {
		if (here[i] == there[i])
			continue;
		snprintf(text, size, "RAM at 0x%" PRIx64, address + i);
		return true;
	}
	return false;
}

/* Both machines' logs, and what was moved since they were the same. */
static bool memory_differs(struct moving *moving, char *text, size_t size)
{
	struct machine *machines[] = {moving->mover.machine, moving->side[2].machine};
	const uint64_t *pages;
	size_t count;

	for (size_t i = 0; i < moving->touched.count; i++)
		if (page_differs(moving, moving->touched.page[i], text, size))
			return true;
	for (unsigned m = 0; m < 2; m++) {
		machines[m]->engine->ops->dirty_pages(machines[m]->engine, &pages, &count);
		for (size_t i = 0; i < count; i++)
			if (page_differs(moving, pages[i], text, size))
				return true;
	}
	return false;
}

/* What the guest did in @retired instructions, until @end, once more without moves. */
static const struct machine_end *run_reference(struct moving *moving, const struct machine_end *end,
					       const struct machine_limits *limits, uint64_t retired)
{
	struct side *reference = &moving->side[2];
	struct machine *machine = reference->machine;
	const struct machine_end *other;
	char text[STREAM_WHY / 2] = "";
	struct engine *engine;
	uint64_t began;

	if (!moving->referred || end->event == MACHINE_SIGNAL || end->event == MACHINE_TIMEOUT)
		return end;
	engine = machine->engine;
	began = engine->ops->retired(engine);
	carry_harness(moving->mover.machine, machine);
	other = machine_run(machine, limits);
	if (other->event != end->event || other->value != end->value)
		snprintf(text, sizeof(text), "how it ends");
	else if (engine->ops->retired(engine) - began != retired)
		snprintf(text, sizeof(text), "how many instructions there are");
	else if (!parts_differ(&moving->side[moving->here].parts, &reference->parts, text, sizeof(text)) &&
		 !memory_differs(moving, text, sizeof(text)))
		return end;
	moving->end = (struct machine_end){.event = MACHINE_FAILED};
	snprintf(moving->end.why, sizeof(moving->end.why),
		 "the guest differs from the one that was never moved: %s", text);
	return &moving->end;
}

/* ---- running ---- */

/* SplitMix64. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t draw(struct moving *moving)
{
	return moving->config.random ? 1 + random_next(&moving->random) % moving->config.every
				     : moving->config.every;
}

/* Moves come too often for machine_run() to look at what comes from outside; some milliseconds apart, this
 * does. */
#define QUIET_MOVES 1024u

static bool interrupted(struct moving *moving, const struct machine_limits *limits)
{
	const struct machine_config *config = &moving->mover.machine->config;

	if (++moving->quiet < QUIET_MOVES)
		return false;
	moving->quiet = 0;
	if (config->idle)
		config->idle(config->owner);
	if (config->signal && *config->signal)
		moving->end = (struct machine_end){.event = MACHINE_SIGNAL};
	else if (limits->deadline != UINT64_MAX && machine_now() >= limits->deadline)
		moving->end = (struct machine_end){.event = MACHINE_TIMEOUT};
	else
		return false;
	return true;
}

/* An engine that does not count instructions has the guest until it comes back, by itself or by its pace. */
static const struct machine_end *run_moving(struct mover *mover, const struct machine_limits *limits)
{
	struct moving *moving = moving_of(mover);
	uint64_t left = limits->insns, printed = 0;

	for (;;) {
		struct machine *machine = mover->machine;
		const struct engine_ops *ops = machine->engine->ops;
		bool counts = ops->counts, last = counts && left <= moving->until;
		struct machine_limits part = {.insns = last     ? left
						       : counts ? moving->until
								: UINT64_MAX,
					      .deadline = counts ? limits->deadline : 0,
					      .output = limits->output};
		uint64_t began = ops->retired(machine->engine), spent;
		const struct machine_end *end;

		if (part.output != UINT64_MAX)
			part.output -= printed;
		if (!counts && moving->config.paced)
			ops->pace(machine->engine, moving->until);
		end = machine_run(machine, &part);
		spent = ops->retired(machine->engine) - began;
		printed += machine->printed;
		mover->retired += spent;
		left -= left == UINT64_MAX ? 0 : spent < left ? spent : left;
		moving->until -= spent < moving->until ? spent : moving->until;
		if (end->event != (counts ? MACHINE_BUDGET : MACHINE_TIMEOUT) || last)
			return end;
		moving->until = draw(moving);
		moving->end = (struct machine_end){.event = MACHINE_FAILED};
		moving->quiet += counts ? 0 : QUIET_MOVES; /* it has taken some milliseconds */
		if (mover_move(mover, moving->end.why, sizeof(moving->end.why)) ||
		    interrupted(moving, limits))
			return &moving->end;
	}
}

const struct machine_end *mover_run(struct mover *mover, const struct machine_limits *limits)
{
	struct moving *moving = moving_of(mover);
	uint64_t began = mover->retired;
	const struct machine_end *end = run_moving(mover, limits);

	return run_reference(moving, end, limits, mover->retired - began);
}

/* ---- snapshots ---- */

int mover_snapshot(struct mover *mover, struct snapshot *snapshot)
{
	struct moving *moving = moving_of(mover);
	struct machine *other;
	int error = mover_move(mover, mover->why, sizeof(mover->why));

	if (error)
		return error;
	moving->home = moving->here;
	snprintf(mover->why, sizeof(mover->why), "no memory for the snapshot");
	/* Both hold the same memory now, and all of it that is not zeros was moved once. */
	error = snapshot_take_pages(snapshot, mover->machine, moving->touched.page, moving->touched.count);
	if (!error)
		error = refer(moving, moving->touched.page, moving->touched.count, mover->why, sizeof(mover->why));
	set_clear(&moving->touched, mover->machine);
	moving->sent = 0;
	other = moving->side[!moving->here].machine;
	other->engine->ops->dirty_reset(other->engine);
	return error;
}

static void put_back(struct machine *machine, const struct page_set *set, const struct snapshot *snapshot)
{
	const struct engine_ops *ops = machine->engine->ops;

	for (size_t i = 0; i < set->count; i++)
		ops->memory_replace(machine->engine, set->page[i],
				    snapshot->image + page_index(machine, set->page[i]) * PAGE_SIZE);
}

/*
 * Another engine has other parts, so that a snapshot can be put back where it was taken alone: the guest is
 * there again. What it has written here since it came, it has not there.
 */
static void go_home(struct moving *moving, const struct snapshot *snapshot)
{
	struct machine *away = moving->mover.machine, *home = moving->side[moving->home].machine;

	if (away->engine->ops == home->engine->ops)
		return;
	away->engine->ops->dirty_restore(away->engine, snapshot->image, snapshot->size);
	moving->sent = moving->apart = PARTS_ALL;
	carry_harness(away, home);
	moving->here = moving->home;
	moving->mover.machine = home;
	if (moving->config.moved)
		moving->config.moved(moving->config.owner, home);
}

int mover_restore(struct mover *mover, struct snapshot *snapshot)
{
	struct moving *moving = moving_of(mover);
	struct machine *machine;
	unsigned changed;
	int error;

	go_home(moving, snapshot);
	machine = mover->machine;
	/* What only this one has written is not in the other yet, and dirty_restore() sees to it here. */
	put_back(moving->side[!moving->here].machine, &moving->touched, snapshot);
	put_back(machine, &moving->touched, snapshot);
	set_clear(&moving->touched, machine);
	/* What has not changed since the last time is the same in both, and in the snapshot. */
	changed = moving->sent | changed_groups(moving, machine);
	moving->apart |= changed;
	moving->sent = 0;
	snapshot->moved = (changed & ~(unsigned)PARTS_ALWAYS) != 0;
	error = snapshot_restore(snapshot, machine);
	if (error)
		snprintf(mover->why, sizeof(mover->why), "the snapshot could not be restored: %s",
			 machine->engine->ops->failure(machine->engine) ?: "");
	guest_is_here(moving, machine);
	if (!error && moving->referred) {
		snapshot->moved = true;
		error = snapshot_restore(snapshot, moving->side[2].machine);
	}
	return error;
}

/* ---- life ---- */

/* The guest as it is before it runs. */
static int refer_first(struct moving *moving, char *why, size_t size)
{
	struct engine *engine = moving->mover.machine->engine;
	const uint64_t *pages;
	size_t count;

	engine->ops->dirty_pages(engine, &pages, &count);
	return refer(moving, pages, count, why, size);
}

static int compare(struct machine *first, struct machine *other, char *why, size_t size)
{
	struct description *there = malloc(sizeof(*there));
	int error = there ? describe_machine(there, first) : -ENOMEM;

	if (!error)
		error = describe_accept(there, other, why, size);
	free(there);
	return error;
}

/* The ROM, and what fw_cfg offers: as they do not change, once. */
static int copy_blobs(struct machine *first, struct machine *other)
{
	int error = first->rom ? machine_add_rom(other, first->rom, first->rom_size) : 0;
	const struct fw_cfg_item *item = first->platform.fw_cfg.item;
	struct platform_boot boot = {.kernel = item[FW_CFG_KERNEL_DATA].data,
				     .kernel_size = item[FW_CFG_KERNEL_DATA].size,
				     .initrd = item[FW_CFG_INITRD_DATA].data,
				     .initrd_size = item[FW_CFG_INITRD_DATA].size,
				     .append = (const char *)item[FW_CFG_CMDLINE_DATA].data};

	if (!error && first->platform.boot)
		error = platform_describe_boot(&other->platform, &boot);
	return error;
}

/* Another machine for the guest of the first. */
static int join(struct moving *moving, unsigned side, char *why, size_t size)
{
	struct machine *first = moving->side[0].machine, *other = moving->side[side].machine;
	int error = other ? compare(first, other, why, size) : 0;

	return !other || error ? error : copy_blobs(first, other);
}

static int open_streams(struct moving *moving)
{
	int error = 0;

	for (unsigned i = 0; i < 3 && moving->side[i].machine && !error; i++) {
		error = parts_init(&moving->side[i].parts, moving->side[i].machine);
		if (!error)
			error = open_stream(moving, i);
	}
	return error;
}

int mover_new(struct mover **mover, struct machine *first, struct machine *second,
	      const struct move_config *config, char *why, size_t size)
{
	struct moving *moving = calloc(1, sizeof(*moving));
	int error = -ENOMEM;

	why[0] = 0;
	if (moving) {
		moving->config = *config;
		moving->side[0].machine = moving->mover.machine = first;
		moving->side[1].machine = second;
		moving->side[2].machine = config->reference;
		moving->random = config->seed;
		moving->apart = PARTS_ALL;
		moving->until = draw(moving);
		error = join(moving, 1, why, size);
	}
	if (!error && config->reference && first->engine->ops != second->engine->ops) {
		snprintf(why, size, "compare: between two engines time is not the same");
		error = -EINVAL;
	}
	if (!error)
		error = join(moving, 2, why, size);
	if (!error && !set_init(&moving->touched, first->config.memory))
		error = -ENOMEM;
	if (!error)
		error = open_streams(moving);
	if (!error)
		error = refer_first(moving, why, size);
	if (error) {
		if (!why[0])
			snprintf(why, size, "%s", strerror(-error));
		mover_free(moving ? &moving->mover : NULL);
		return error;
	}
	*mover = &moving->mover;
	return 0;
}

void mover_free(struct mover *mover)
{
	struct moving *moving = mover ? moving_of(mover) : NULL;

	if (!moving)
		return;
	for (unsigned i = 0; i < 3; i++) {
		parts_free(&moving->side[i].parts);
		stream_writer_free(&moving->side[i].to);
		stream_reader_free(&moving->side[i].from);
	}
	set_free(&moving->touched);
	free(moving);
}
