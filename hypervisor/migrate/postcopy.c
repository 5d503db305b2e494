#define _GNU_SOURCE
#include "migrate/postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate/pages.h"
#include "x86/paging.h"

struct postcopy {
	struct migration *migration;
	struct machine *machine;
	int uffd, wake;
	pthread_t faults, pages;
	bool has_faults, has_pages;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct bitmap owed, asked; /* asked: somebody waits for it, and the source knows, or will */
	size_t left;
	struct postcopy_link link;
	bool linked, handed_over, stays, failed, ends, complete;
	struct transport_listener *listener;
	struct placing placing; /* the page thread's */
	char why[STREAM_WHY + 200];
};

/* ---- userfaultfd ---- */

static int uffd_open(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -ENOTSUP;
	}
	return fd;
}

bool postcopy_possible(void)
{
	int fd = uffd_open();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static uint8_t *host_of(const struct postcopy *postcopy, size_t number)
{
	return postcopy->machine->ram + number * PAGE_SIZE;
}

/* Nobody can be told of huge pages that are there in part. */
static int take_out(struct postcopy *postcopy)
{
	uint64_t size = postcopy->machine->config.memory;
	struct uffdio_register all = {.range = {(uintptr_t)postcopy->machine->ram, size},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	size_t from = 0, to;

	madvise(postcopy->machine->ram, size, MADV_NOHUGEPAGE);
	while ((from = bitmap_next(&postcopy->owed, from)) < postcopy->owed.bits) {
		to = bitmap_next_clear(&postcopy->owed, from);
		if (madvise(host_of(postcopy, from), (to - from) * PAGE_SIZE, MADV_DONTNEED))
			return -errno;
		from = to;
	}
	return ioctl(postcopy->uffd, UFFDIO_REGISTER, &all) ? -errno : 0;
}

/* Puts a page where none is, and wakes who waits for it. A page that is there already only wakes. */
static int put(struct postcopy *postcopy, size_t number, const void *content)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)host_of(postcopy, number), .src = (uintptr_t)content, .len = PAGE_SIZE};
	struct uffdio_zeropage zero = {.range = {copy.dst, PAGE_SIZE}};
	struct uffdio_range range = {copy.dst, PAGE_SIZE};

	while (content ? ioctl(postcopy->uffd, UFFDIO_COPY, &copy)
		       : ioctl(postcopy->uffd, UFFDIO_ZEROPAGE, &zero)) {
		if (errno == EAGAIN) {
			copy.copy = zero.zeropage = 0;
			continue;
		}
		return errno == EEXIST && ioctl(postcopy->uffd, UFFDIO_WAKE, &range) == 0 ? 0 : -errno;
	}
	return 0;
}

/* ---- the return path ---- */

/* With the lock. An error shows where pages are read. */
static int flush(struct postcopy *postcopy)
{
	return postcopy->link.back.error ? postcopy->link.back.error
					 : transport_flush(postcopy->link.transport);
}

int postcopy_say(struct postcopy *postcopy, enum stream_type type)
{
	int error = -ENOTCONN;

	pthread_mutex_lock(&postcopy->lock);
	if (postcopy->linked) {
		stream_send(&postcopy->link.back, type);
		error = flush(postcopy);
	}
	pthread_mutex_unlock(&postcopy->lock);
	return error;
}

void postcopy_say_failure(struct postcopy *postcopy, const char *reason)
{
	pthread_mutex_lock(&postcopy->lock);
	if (postcopy->linked) {
		stream_send_text(&postcopy->link.back, STREAM_FAILURE, reason);
		flush(postcopy);
	}
	pthread_mutex_unlock(&postcopy->lock);
}

/* With the lock. */
static void ask(struct postcopy *postcopy, size_t number)
{
	bitmap_set(&postcopy->asked, number);
	atomic_fetch_add(&postcopy->migration->counts.requests, 1);
	if (!postcopy->linked)
		return;
	stream_begin(&postcopy->link.back, STREAM_WANTED);
	stream_put_u32(&postcopy->link.back, 1);
	stream_put_u64(&postcopy->link.back, page_address(postcopy->machine, number));
	stream_end(&postcopy->link.back);
	flush(postcopy);
}

/* ---- who touches what is not there ---- */

static void fault(struct postcopy *postcopy, uint64_t address)
{
	size_t number = (size_t)(address - (uintptr_t)postcopy->machine->ram) / PAGE_SIZE;
	bool owed;

	pthread_mutex_lock(&postcopy->lock);
	owed = bitmap_get(&postcopy->owed, number);
	if (owed && !bitmap_get(&postcopy->asked, number))
		ask(postcopy, number);
	pthread_mutex_unlock(&postcopy->lock);
	/* Never touched where the guest was either; or it has just come. */
	if (!owed)
		put(postcopy, number, NULL);
}

static void *fault_thread(void *owner)
{
	struct postcopy *postcopy = owner;

	for (;;) {
		struct pollfd poll_of[2] = {{.fd = postcopy->uffd, .events = POLLIN},
					    {.fd = postcopy->wake, .events = POLLIN}};
		struct uffd_msg message[16];
		ssize_t got;

		if (poll(poll_of, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (poll_of[1].revents)
			return NULL;
		got = read(postcopy->uffd, message, sizeof(message));
		for (ssize_t i = 0; i < got / (ssize_t)sizeof(message[0]); i++)
			if (message[i].event == UFFD_EVENT_PAGEFAULT)
				fault(postcopy, message[i].arg.pagefault.address);
	}
}

/* ---- what comes ---- */

__attribute__((format(printf, 3, 4))) static int fail(struct postcopy *postcopy, int error,
						      const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&postcopy->lock);
	va_start(arguments, format);
	vsnprintf(postcopy->why, sizeof(postcopy->why), format, arguments);
	va_end(arguments);
	pthread_mutex_unlock(&postcopy->lock);
	return error;
}

static int take_page(struct postcopy *postcopy, const struct stream_page *page)
{
	uint8_t room[PAGE_SIZE];
	const void *content = placing_content(&postcopy->placing, page, room);
	size_t number = page_number(postcopy->machine, page->address);
	int error;

	if (number == SIZE_MAX || !content)
		return fail(postcopy, -EPROTO, "%s",
			    content ? "a page where this machine has no RAM" : postcopy->placing.why);
	pthread_mutex_lock(&postcopy->lock);
	error = bitmap_get(&postcopy->owed, number)
			? 0
			: 1; /* it has come before: over the old connection, say */
	pthread_mutex_unlock(&postcopy->lock);
	if (error)
		return 0;
	error = put(postcopy, number, page->kind == STREAM_PAGE_ZERO ? NULL : content);
	if (error)
		return fail(postcopy, error, "a page cannot be put in its place: %s", strerror(-error));
	pthread_mutex_lock(&postcopy->lock);
	bitmap_clear(&postcopy->owed, number);
	postcopy->left--;
	pthread_mutex_unlock(&postcopy->lock);
	return 0;
}

static int take_pages(struct postcopy *postcopy, struct stream_cursor *payload)
{
	struct stream_page page;
	uint32_t count;
	int error = 0;

	if (!stream_pages_count(payload, &count))
		return fail(postcopy, -EPROTO, "a section of pages that is none");
	for (uint32_t i = 0; i < count && !error; i++)
		error = stream_pages_next(payload, &page)
				? take_page(postcopy, &page)
				: fail(postcopy, -EPROTO, "a section of pages that is none");
	return error;
}

static int take_hand_over(struct postcopy *postcopy, struct stream_cursor *payload)
{
	uint8_t stays = stream_take_u8(payload);

	if (!stream_taken(payload) || stays > 1 || postcopy->handed_over)
		return fail(postcopy, -EPROTO, "a hand-over that is none");
	pthread_mutex_lock(&postcopy->lock);
	postcopy->handed_over = true;
	postcopy->stays = stays;
	pthread_mutex_unlock(&postcopy->lock);
	migration_set_status(postcopy->migration, MIGRATION_POSTCOPY_ACTIVE);
	pthread_mutex_lock(&postcopy->lock);
	pthread_cond_broadcast(&postcopy->changed);
	pthread_mutex_unlock(&postcopy->lock);
	return 0;
}

static int take_section(struct postcopy *postcopy)
{
	struct stream_section section;
	char reason[STREAM_WHY];
	int error = stream_read(&postcopy->link.reader, &section);

	if (error == 1 || error == -ECONNRESET)
		return fail(postcopy, -EPIPE, "the source has closed the connection");
	if (error == -ECANCELED)
		return fail(postcopy, error, "somebody has paused it");
	if (error)
		return fail(postcopy, error, "%s",
			    postcopy->link.reader.why[0] ? postcopy->link.reader.why : strerror(-error));
	switch (section.type) {
	case STREAM_ALIVE: return 0;
	case STREAM_PAGES: return take_pages(postcopy, &section.payload);
	case STREAM_HAND_OVER: return take_hand_over(postcopy, &section.payload);
	case STREAM_CANCEL:
		stream_take_reason(&section.payload, reason, sizeof(reason));
		return fail(postcopy, -ECANCELED, "the source has cancelled: %s", reason);
	default: return fail(postcopy, -EPROTO, "a section of type %u comes where it may not", section.type);
	}
}

/* ---- a connection that breaks, and another ---- */

static void drop_link(struct postcopy *postcopy)
{
	pthread_mutex_lock(&postcopy->lock);
	postcopy->linked = false;
	transport_free(postcopy->link.transport);
	stream_reader_free(&postcopy->link.reader);
	stream_writer_free(&postcopy->link.back);
	postcopy->link.transport = NULL;
	pthread_mutex_unlock(&postcopy->lock);
}

/* With the lock: what has come, then what is waited for. */
static void send_held(struct postcopy *postcopy, struct stream_writer *back)
{
	size_t words = bitmap_words(&postcopy->owed), most = STREAM_PAYLOAD_MAX / 16;
	size_t low = memory_low(postcopy->machine->config.memory) / PAGE_SIZE / 64;

	for (size_t word = 0; word < words;) {
		size_t end = word < low && low < words ? low : words;
		size_t part = end - word < most ? end - word : most;

		stream_begin(back, STREAM_HELD);
		stream_put_u64(back, page_address(postcopy->machine, word * 64));
		for (size_t i = 0; i < part; i++)
			stream_put_u64(back, ~postcopy->owed.word[word + i]);
		stream_end(back);
		word += part;
	}
	for (size_t at = 0; (at = bitmap_next(&postcopy->asked, at)) < postcopy->asked.bits; at++)
		if (bitmap_get(&postcopy->owed, at))
			ask(postcopy, at);
}

static int link_up(struct postcopy *postcopy, struct transport *transport)
{
	struct stream_session session = postcopy->link.reader.session;
	struct postcopy_link link = {.transport = transport};
	struct stream_input from = {.owner = transport, .read = transport_read};
	struct stream_sink to = {.owner = transport, .write = transport_write};
	int error = stream_reader_accept(&link.reader, &from, &session, STREAM_FORWARD);

	if (!error && (link.reader.channel < POSTCOPY_CHANNEL || !transport->two_way)) {
		snprintf(link.reader.why, sizeof(link.reader.why), "this connection resumes nothing");
		error = -EPROTO;
	}
	if (!error)
		error = stream_writer_init(&link.back, &to, &session, link.reader.channel, STREAM_RETURN);
	if (error) {
		fail(postcopy, error, "%s", link.reader.why[0] ? link.reader.why : strerror(-error));
		stream_reader_free(&link.reader);
		stream_writer_free(&link.back);
		return error;
	}
	pthread_mutex_lock(&postcopy->lock);
	postcopy->link = link;
	postcopy->linked = true;
	send_held(postcopy, &postcopy->link.back);
	error = flush(postcopy);
	pthread_mutex_unlock(&postcopy->lock);
	return error ? fail(postcopy, error, "%s", strerror(-error)) : 0;
}

/* Until somebody names where another connection comes; false: the end. */
static bool await_link(struct postcopy *postcopy)
{
	struct stream_session session = postcopy->link.reader.session;
	struct transport_listener *listener;
	struct transport *transport;
	bool ends;
	int error;

	drop_link(postcopy);
	postcopy->link.reader.session = session;
	migration_set_error(postcopy->migration, MIGRATION_POSTCOPY_PAUSED,
			    "%s; %zu pages of the guest are still at the source: migrate-recover here and "
			    "migrate with resume "
			    "there go on, and the guest is lost where the source is gone",
			    postcopy->why, postcopy->left);
	pthread_mutex_lock(&postcopy->lock);
	while (!postcopy->listener && !postcopy->ends)
		pthread_cond_wait(&postcopy->changed, &postcopy->lock);
	ends = postcopy->ends;
	listener = postcopy->listener;
	pthread_mutex_unlock(&postcopy->lock);
	if (ends)
		return false;
	migration_set_status(postcopy->migration, MIGRATION_POSTCOPY_RECOVER);
	error = transport_accept(listener, &transport, -1);
	if (error)
		fail(postcopy, error, "%s", strerror(-error));
	if (!error && link_up(postcopy, transport)) {
		if (!postcopy->linked)
			transport_free(transport);
		error = -EIO;
	}
	pthread_mutex_lock(&postcopy->lock);
	postcopy->listener = NULL;
	pthread_mutex_unlock(&postcopy->lock);
	transport_listener_free(listener);
	if (!error)
		migration_set_status(postcopy->migration, MIGRATION_POSTCOPY_ACTIVE);
	return true;
}

static void complete(struct postcopy *postcopy)
{
	struct uffdio_range all = {(uintptr_t)postcopy->machine->ram, postcopy->machine->config.memory};

	ioctl(postcopy->uffd, UFFDIO_UNREGISTER, &all);
	postcopy_say(postcopy, STREAM_COMPLETE);
	pthread_mutex_lock(&postcopy->lock);
	postcopy->complete = true;
	pthread_mutex_unlock(&postcopy->lock);
	migration_set_status(postcopy->migration, MIGRATION_COMPLETED);
}

/* Nothing runs before the hand-over; an error until then is everybody's. */
static bool give_up(struct postcopy *postcopy)
{
	bool gives;

	pthread_mutex_lock(&postcopy->lock);
	postcopy->failed = gives = !postcopy->handed_over;
	gives |= postcopy->ends;
	pthread_cond_broadcast(&postcopy->changed);
	pthread_mutex_unlock(&postcopy->lock);
	return gives;
}

static void *page_thread(void *owner)
{
	struct postcopy *postcopy = owner;

	while (!postcopy->handed_over || postcopy->left) {
		int error = postcopy->linked ? take_section(postcopy) : -ENOTCONN;

		if (!error)
			continue;
		if (give_up(postcopy) || !await_link(postcopy))
			return NULL;
	}
	complete(postcopy);
	return NULL;
}

/* ---- life ---- */

int postcopy_start(struct postcopy **made, struct migration *migration, struct machine *machine,
		   struct bitmap *owed, struct postcopy_link *link, char *why, size_t size)
{
	struct postcopy *postcopy = calloc(1, sizeof(*postcopy));
	int error = postcopy ? 0 : -ENOMEM;

	if (!error)
		error = bitmap_init(&postcopy->asked, owed->bits);
	if (!error) {
		postcopy->migration = migration;
		postcopy->machine = postcopy->placing.machine = machine;
		postcopy->owed = *owed;
		postcopy->left = bitmap_count(owed);
		postcopy->link = *link;
		postcopy->linked = true;
		pthread_mutex_init(&postcopy->lock, NULL);
		pthread_cond_init(&postcopy->changed, NULL);
		postcopy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		postcopy->uffd = uffd_open();
		error = postcopy->wake < 0   ? -errno
			: postcopy->uffd < 0 ? postcopy->uffd
					     : take_out(postcopy);
	}
	if (!error) {
		/* The transport keeps pointers to itself alone; reader and writer hold none to where they
		 * are. */
		*link = (struct postcopy_link){0};
		*owed = (struct bitmap){0};
		*made = postcopy;
		error = migration_thread(&postcopy->faults, fault_thread, postcopy);
		postcopy->has_faults = !error;
		if (!error)
			error = migration_thread(&postcopy->pages, page_thread, postcopy);
		postcopy->has_pages = !error;
	} else if (postcopy) {
		if (postcopy->uffd > 0)
			close(postcopy->uffd);
		if (postcopy->wake > 0)
			close(postcopy->wake);
		bitmap_free(&postcopy->asked);
		free(postcopy);
	}
	if (error)
		snprintf(why, size, "post-copy: %s", strerror(-error));
	return error;
}

int postcopy_await(struct postcopy *postcopy, bool *stays, char *why, size_t size)
{
	const volatile sig_atomic_t *signal = postcopy->migration->config.signal;
	int error = 0;

	pthread_mutex_lock(&postcopy->lock);
	while (!postcopy->handed_over && !postcopy->failed && !error) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 200000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&postcopy->changed, &postcopy->lock, &until);
		if (signal && *signal)
			error = -EINTR;
	}
	if (postcopy->failed) {
		snprintf(why, size, "%s", postcopy->why);
		error = -EPIPE;
	}
	*stays = postcopy->stays;
	pthread_mutex_unlock(&postcopy->lock);
	return error;
}

void postcopy_recover(struct postcopy *postcopy, struct transport_listener *listener)
{
	pthread_mutex_lock(&postcopy->lock);
	postcopy->listener = listener;
	pthread_cond_broadcast(&postcopy->changed);
	pthread_mutex_unlock(&postcopy->lock);
}

void postcopy_break(struct postcopy *postcopy)
{
	pthread_mutex_lock(&postcopy->lock);
	if (postcopy->linked)
		transport_cancel(postcopy->link.transport);
	if (postcopy->listener)
		transport_listener_cancel(postcopy->listener);
	pthread_mutex_unlock(&postcopy->lock);
}

void postcopy_free(struct postcopy *postcopy)
{
	const uint64_t one = 1;

	if (!postcopy)
		return;
	pthread_mutex_lock(&postcopy->lock);
	postcopy->ends = true;
	pthread_cond_broadcast(&postcopy->changed);
	pthread_mutex_unlock(&postcopy->lock);
	postcopy_break(postcopy);
	if (write(postcopy->wake, &one, sizeof(one)) < 0)
		return; /* it cannot be: nobody else writes */
	if (postcopy->has_pages)
		pthread_join(postcopy->pages, NULL);
	if (postcopy->has_faults)
		pthread_join(postcopy->faults, NULL);
	if (postcopy->linked)
		drop_link(postcopy);
	close(postcopy->uffd);
	close(postcopy->wake);
	bitmap_free(&postcopy->owed);
	bitmap_free(&postcopy->asked);
	placing_free(&postcopy->placing);
	pthread_cond_destroy(&postcopy->changed);
	pthread_mutex_destroy(&postcopy->lock);
	free(postcopy);
}
