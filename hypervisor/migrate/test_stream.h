/* A stream in memory, for tests. */
#ifndef TRAPLINE_MIGRATE_TEST_STREAM_H
#define TRAPLINE_MIGRATE_TEST_STREAM_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrate/stream.h"
#include "vm/test.h"

struct test_pipe {
	uint8_t *bytes;
	size_t size, room, taken;
	int error; /* what the sink says next, where not 0 */
};

static inline int test_pipe_write(void *owner, const void *bytes, size_t size)
{
	struct test_pipe *pipe = owner;

	if (pipe->error)
		return pipe->error;
	if (pipe->size + size > pipe->room) {
		pipe->room = 2 * (pipe->size + size);
		pipe->bytes = realloc(pipe->bytes, pipe->room);
		assert_non_null(pipe->bytes);
	}
	memcpy(pipe->bytes + pipe->size, bytes, size);
	pipe->size += size;
	return 0;
}

static inline int test_pipe_read(void *owner, void *to, size_t size)
{
	struct test_pipe *pipe = owner;

	if (pipe->taken == pipe->size && size)
		return 1;
	if (size > pipe->size - pipe->taken)
		return -EPIPE;
	memcpy(to, pipe->bytes + pipe->taken, size);
	pipe->taken += size;
	return 0;
}

static inline void test_pipe_free(struct test_pipe *pipe)
{
	free(pipe->bytes);
	*pipe = (struct test_pipe){0};
}

static const struct stream_session test_session = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static inline struct stream_writer test_writer(struct test_pipe *pipe)
{
	const struct stream_sink sink = {pipe, test_pipe_write};
	struct stream_writer writer;

	assert_int_equal(stream_writer_init(&writer, &sink, &test_session, 0, STREAM_FORWARD), 0);
	return writer;
}

static inline struct stream_reader test_reader(struct test_pipe *pipe)
{
	const struct stream_input input = {pipe, test_pipe_read};
	struct stream_reader reader;

	if (stream_reader_init(&reader, &input, &test_session, 0, STREAM_FORWARD))
		fail_msg("%s", reader.why);
	return reader;
}

#endif
