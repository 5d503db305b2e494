#include "cli/line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool make_room(struct line *line, size_t more)
{
	size_t room = line->room ? line->room : 4096;
	char *moved;

	if (line->room - line->size >= more)
		return true;
	while (room - line->size < more)
		room *= 2;
	moved = realloc(line->at, room);
	if (!moved) {
		line->error = line->error ? line->error : -ENOMEM;
		return false;
	}
	line->at = moved;
	line->room = room;
	return true;
}

void line_add(struct line *line, struct span text)
{
	if (text.size == 0 || !make_room(line, text.size))
		return;
	memcpy(line->at + line->size, text.at, text.size);
	line->size += text.size;
}

void line_format(struct line *line, const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	line_text(line, text);
}

void line_number(struct line *line, uint64_t number)
{
	char digits[20];
	size_t used = sizeof(digits);

	do
		digits[--used] = (char)('0' + number % 10);
	while (number /= 10);
	line_add(line, (struct span){digits + used, sizeof(digits) - used});
}

void line_json(struct line *line, struct span text)
{
	static const char hex[] = "0123456789abcdef";
	char *to;

	/* Six bytes is the longest that one can become. */
	if (!make_room(line, text.size * 6 + 2))
		return;
	to = line->at + line->size;
	*to++ = '"';
	for (size_t i = 0; i < text.size; i++) {
		unsigned char c = (unsigned char)text.at[i];

		if (c == '"' || c == '\\') {
			*to++ = '\\';
			*to++ = (char)c;
		} else if (c < 0x20 || c > 0x7e) {
			memcpy(to, "\\u00", 4);
			to[4] = hex[c >> 4];
			to[5] = hex[c & 15];
			to += 6;
		} else {
			*to++ = (char)c;
		}
	}
	*to++ = '"';
	line->size = (size_t)(to - line->at);
}

void line_plain(struct line *line, struct span text)
{
	if (!make_room(line, text.size))
		return;
	for (size_t i = 0; i < text.size; i++)
		line->at[line->size++] = text.at[i] >= 0x20 && text.at[i] <= 0x7e ? text.at[i] : '?';
}

int line_write(struct line *line, int fd)
{
	size_t done = 0;

	line_text(line, "\n");
	while (!line->error && done < line->size) {
		ssize_t wrote = write(fd, line->at + done, line->size - done);

		if (wrote >= 0)
			done += (size_t)wrote;
		else if (errno != EINTR)
			line->error = -errno;
	}
	line->size = 0;
	return line->error;
}

void line_free(struct line *line)
{
	free(line->at);
	*line = (struct line){0};
}
