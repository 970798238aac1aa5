/*
 * source: see source.h.
 */
#include "config/source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/scan.h"

#define PATIENCE UINT64_C(10000000) /* microseconds for all of a pipe */

void
source_add_segment(struct reader *reader, const struct frame *frame)
{
	struct source *source = reader->source;
	struct source_segment *segments =
		scan_grow(reader, source->segments, source->n_segments, sizeof *segments);

	if (segments == NULL)
		return;
	source->segments = segments;
	segments[source->n_segments++] =
		(struct source_segment){ reader->line, frame->file, frame->line };
}

/* The file's place among the files; all of them are known by their path. */
static bool
add_file(struct reader *reader, struct frame *frame)
{
	struct config_strings *files = &reader->source->files;
	char **items;

	for (frame->file = 0; frame->file < files->count; frame->file++) {
		if (strcmp(files->items[frame->file], frame->path) == 0)
			return true;
	}
	items = scan_grow(reader, files->items, files->count, sizeof *items);
	if (items == NULL)
		return false;
	files->items = items;
	items[files->count] = strdup(frame->path);
	if (items[files->count] == NULL) {
		reader->report->no_memory = true;
		reader->broken = true;
		return false;
	}
	files->count++;
	return true;
}

/* Whoever writes a pipe has PATIENCE for all of it: the daemon reads its file while it
 * works.  0, or an errno. */
static int
wait_for_bytes(int fd, uint64_t until)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	uint64_t now = clock_now();
	int left = until == 0 ? -1 : now < until ? (int)((until - now) / 1000) + 1 : 0;
	int n = poll(&poller, 1, left);

	if (n == -1)
		return errno == EINTR ? 0 : errno;
	return n == 0 ? ETIMEDOUT : 0;
}

/* Reads all of a descriptor.  0, or an errno. */
static int
slurp(struct reader *reader, struct frame *frame, int fd, mode_t mode)
{
	/* Who types has all the time. */
	uint64_t until = S_ISCHR(mode) ? 0 : clock_now() + PATIENCE;
	size_t room = 0;
	int error;

	for (;;) {
		ssize_t n;

		if (frame->len + 1 >= room) {
			char *bytes;

			room = room == 0 ? 4096 : 2 * room;
			bytes = realloc(frame->bytes, room);
			if (bytes == NULL)
				return ENOMEM;
			frame->bytes = bytes;
		}
		n = read(fd, frame->bytes + frame->len, room - 1 - frame->len);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && errno == EAGAIN) {
			error = wait_for_bytes(fd, until);
			if (error != 0)
				return error;
			continue;
		}
		if (n == -1)
			return errno;
		frame->len += (size_t)n;
		frame->bytes[frame->len] = '\0';
		if (n == 0)
			return S_ISFIFO(mode) && frame->len == 0 ? ENODATA : 0;
		if (reader->size + frame->len > SOURCE_SIZE_MAX)
			return EFBIG;
	}
}

/* Opens and reads the frame's file.  0, or an errno. */
static int
load(struct reader *reader, struct frame *frame)
{
	int fd = open(frame->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), error = 0;
	struct stat st;

	if (fd == -1)
		return errno;
	if (fstat(fd, &st) == -1) {
		error = errno;
	} else {
		frame->device = st.st_dev;
		frame->inode = st.st_ino;
		error = S_ISDIR(st.st_mode) ? EISDIR
					    : slurp(reader, frame, fd, st.st_mode);
	}
	close(fd);
	reader->size += frame->len;
	return error;
}

static const char *
advice(int error)
{
	switch (error) {
	case ENOENT:
		return "; write one (see cistern.conf(5)), or name another one (-c, @include)";
	case EACCES:
	case EPERM:
		return "; whoever starts cisternd must be able to read it, and for a reload `user`, too";
	case EISDIR:
		return "; expected a file";
	case ENODATA:
	case ETIMEDOUT:
		return "; it is a pipe, and nobody writes to it";
	case EFBIG:
		return "; expected less than 16 MiB";
	default:
		return "";
	}
}

static void
fail_load(struct reader *reader, const struct frame *frame, int error)
{
	char quoted[REPORT_QUOTE_LEN];

	if (error == ENOMEM) {
		reader->report->no_memory = true;
		reader->broken = true;
	} else if (frame->up != NULL) {
		report_quote(quoted, frame->path);
		scan_fail(reader, frame->up, "cannot include %s: %s%s", quoted, strerror(error),
			  advice(error));
	} else {
		reader->broken = true;
		reader->report->exit_code =
			error == EACCES || error == EPERM ? EX_NOPERM : EX_CONFIG;
		report_add(reader->report, 0, frame->path, 0, "cannot be read: %s%s",
			   strerror(error), advice(error));
	}
}

/* Whether the file may be included where it is. */
static bool
check_include(struct reader *reader, const struct frame *frame)
{
	const struct frame *up;
	char quoted[REPORT_QUOTE_LEN];
	unsigned depth = 0;

	for (up = frame->up; up != NULL; up = up->up, depth++) {
		if (up->device == frame->device && up->inode == frame->inode) {
			report_quote(quoted, frame->path);
			scan_fail(reader, frame->up, "%s includes itself", quoted);
			return false;
		}
	}
	if (depth > SOURCE_DEPTH_MAX) {
		scan_fail(reader, frame->up, "includes are nested more than %d deep",
			  SOURCE_DEPTH_MAX);
		return false;
	}
	if (depth > 0 && ++reader->n_includes > SOURCE_INCLUDES_MAX) {
		scan_fail(reader, frame->up, "more than %d files are included",
			  SOURCE_INCLUDES_MAX);
		return false;
	}
	return true;
}

void
source_read_file(struct reader *reader, const char *path, const struct frame *up)
{
	struct frame frame = { .up = up, .path = path, .line = 1 };
	const char *nul, *c;
	int error;

	error = load(reader, &frame);
	if (error != 0) {
		fail_load(reader, &frame, error);
	} else if (check_include(reader, &frame) && add_file(reader, &frame)) {
		if (up != NULL) {
			if (putc('\n', reader->out) == EOF)
				reader->report->no_memory = true;
			reader->line++;
		}
		source_add_segment(reader, &frame);
		nul = memchr(frame.bytes, '\0', frame.len);
		if (nul != NULL) {
			for (c = frame.bytes; c < nul; c++)
				frame.line += *c == '\n';
			scan_fail(reader, &frame, "the file holds a NUL byte; expected text");
		} else {
			if (strncmp(frame.bytes, "\xef\xbb\xbf", 3) == 0)
				frame.at = frame.sent = 3;
			scan_file(reader, &frame);
		}
	}
	free(frame.bytes);
}

struct config_place
source_place(const struct source *source, unsigned line)
{
	const struct source_segment *segment = source->segments;
	size_t low = 0, high = source->n_segments;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (source->segments[middle].line <= line)
			low = middle;
		else
			high = middle;
	}
	segment += low;
	if (line < segment->line)
		line = segment->line;
	return (struct config_place){ source->files.items[segment->file],
				      segment->first + (int)(line - segment->line) };
}

/* Said here because libconfig names the end of the file, whatever is missing there. */
static void
check_brackets(struct reader *reader)
{
	struct config_place place;
	unsigned line;

	if (reader->broken || reader->n_open == 0)
		return;
	line = reader->open_line[reader->n_open - 1];
	place = source_place(reader->source, line);
	report_add(reader->report, line, place.file, place.line,
		   "syntax error: the %c that stands here has no end",
		   reader->open[reader->n_open - 1]);
	reader->broken = true;
}

bool
source_read(struct source *source, const char *file, struct report *report)
{
	struct reader reader = { .source = source, .report = report, .line = 1 };
	size_t size;

	*source = (struct source){ 0 };
	reader.out = open_memstream(&source->text, &size);
	if (reader.out == NULL) {
		report->no_memory = true;
		return false;
	}
	source_read_file(&reader, file, NULL);
	check_brackets(&reader);
	/* libconfig takes no comment for one that lacks its newline. */
	if (putc('\n', reader.out) == EOF)
		report->no_memory = true;
	/* Without memory for its last newline, glibc's says nothing and leaves no text. */
	if (fclose(reader.out) == EOF || source->text == NULL)
		report->no_memory = true;
	return !reader.broken && !report->no_memory;
}

void
source_clear(struct source *source)
{
	for (size_t i = 0; i < source->files.count; i++)
		free(source->files.items[i]);
	free(source->files.items);
	free(source->segments);
	free(source->wide);
	free(source->text);
	*source = (struct source){ 0 };
}

unsigned
source_last_line(const struct source *source, unsigned line)
{
	const char *at = source->text;
	unsigned here, last = line;

	for (here = 1; here <= line && at != NULL; here++) {
		char first = at[strspn(at, " \t\r")];

		if (first == '"')
			last = here;
		else if (here == line && first != ']' && first != ')')
			last = line;
		at = strchr(at, '\n');
		at = at == NULL ? NULL : at + 1;
	}
	return last;
}

bool
source_is_wide(const struct source *source, unsigned line)
{
	for (size_t i = 0; i < source->n_wide; i++) {
		if (source->wide[i] == line)
			return true;
	}
	return false;
}
