#include "migrate/source_parts.h"

#include <errno.h>
#include <string.h>

#include "x86/paging.h"

/* How long the other side's reason is waited for after it has closed. */
#define REASON_MS 1000

int source_read_back(struct source *source, struct stream_section *section)
{
	char reason[STREAM_WHY];
	int error;

	do
		error = stream_read(&source->back, section);
	while (!error && section->type == STREAM_ALIVE);
	if (error == 1)
		return source_fail(source, -EPIPE, "the destination has closed the connection");
	if (error == -EPIPE)
		return source_fail(source, error, "the return path: %s", source->back.why);
	if (error == -EPROTO)
		return source_fail(source, error, "the return path: %s", source->back.why);
	if (error)
		return error;
	if (section->type != STREAM_FAILURE)
		return 0;
	stream_take_reason(&section->payload, reason, sizeof(reason));
	return source_fail(source, -EREMOTEIO, "the destination: %s", reason);
}

int source_open_back(struct source *source)
{
	const struct stream_input from = {.owner = source->transport, .read = transport_read};

	return source->back.room
		       ? 0
		       : stream_reader_init(&source->back, &from, &source->session, 0, STREAM_RETURN);
}

int source_fail_sending(struct source *source, int error)
{
	struct stream_section section;
	int left = 16;

	if ((error == -EPIPE || error == -ECONNRESET) && source->transport->two_way) {
		transport_limit(source->transport, REASON_MS);
		if (source_open_back(source) == 0)
			while (left-- && source_read_back(source, &section) == 0)
				;
	}
	if (error == -ETIMEDOUT)
		return source_fail(source, error, "the destination takes nothing any more");
	if (error == -EPIPE || error == -ECONNRESET)
		return source_fail(source, error, "the destination has closed the connection");
	return source_fail(source, error, "%s: %s", source->uri, strerror(-error));
}

int source_flush(struct source *source)
{
	int error = source->writer.error ? source->writer.error : transport_flush(source->transport);

	return error ? source_fail_sending(source, error) : 0;
}

int source_serve(struct source *source, struct stream_cursor *payload)
{
	uint32_t count = stream_take_u32(payload);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t address = stream_take_u64(payload);
		size_t number = page_number(source->machine, address);

		if (payload->over || address % PAGE_SIZE || number == SIZE_MAX)
			return source_fail(source, -EPROTO, "the destination wants a page that is none");
		atomic_fetch_add(&source->migration->counts.requests, 1);
		if (!bitmap_get(&source->pages.todo, number))
			continue; /* it is under way */
		source->next = number;
		source->totals.pages +=
			pages_write(&source->pages, &source->writer, &source->next, number + 1, 1, NULL);
	}
	if (!stream_taken(payload))
		return source_fail(source, -EPROTO, "the destination wants pages that are none");
	return source_flush(source);
}

int source_await(struct source *source, struct stream_section *section, enum stream_type wanted)
{
	int error;

	/* Loading may touch what is not there yet. */
	while (!(error = source_read_back(source, section)) && section->type == STREAM_WANTED &&
	       source->owed.word) {
		error = source_serve(source, &section->payload);
		if (error)
			return error;
	}

	if (error == -ETIMEDOUT)
		return source_fail(source, error, "the destination does not say %s",
				   stream_type_name(wanted));
	if (error)
		return source_fail(source, error, "%s: %s", source->uri, strerror(-error));
	if (section->type != wanted)
		return source_fail(source, -EPROTO, "the destination says %s in place of %s",
				   stream_type_name(section->type) ? stream_type_name(section->type)
								   : "something",
				   stream_type_name(wanted));
	return 0;
}

int source_look_back(struct source *source)
{
	struct stream_section section;
	int ready;

	if (!source->transport->two_way)
		return 0;
	ready = transport_poll(source->transport, 0);
	if (ready <= 0)
		return ready;
	ready = source_read_back(source, &section);
	return ready ? ready
		     : source_fail(source, -EPROTO, "the destination says %s too early",
				   stream_type_name(section.type));
}
