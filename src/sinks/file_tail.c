/*
 * file_tail: the end of a file that is appended to, after a crash and after a
 * failed write.
 *
 * json and line records end in a newline, so what follows the last one was never
 * acknowledged.  Newlines may stand within a text record; there the record's
 * heading is looked for, and in doubt less is cut: an acknowledged record never
 * is.  Records of raw have no end that could be looked for.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "sinks/file.h"

#define BLOCK 4096
#define SEARCH_MAX 268435456 /* as far back as a heading is looked for */
#define PAGE 4096
#define HEADING_MAX 64 /* "Read 18446744073709551615 bytes from socket.\n" */

static const char json_start[] = "{\"id\":\"";

/* All of a piece of the file.  -1: errno. */
static int
piece_read(int fd, char *piece, size_t len, off_t at)
{
	ssize_t n;

	do
		n = fault_pread(fd, piece, len, at);
	while (n == -1 && errno == EINTR);
	if (n == (ssize_t)len)
		return 0;
	errno = n == -1 ? errno : EIO;
	return -1;
}

/* The offset behind the last newline before `end`; 0: there is none.  -1: errno. */
static off_t
line_start(int fd, off_t end)
{
	char block[BLOCK];

	while (end > 0) {
		off_t at = end > BLOCK ? end - BLOCK : 0;
		size_t len = (size_t)(end - at);
		const char *newline;

		if (piece_read(fd, block, len, at) == -1)
			return -1;
		newline = memrchr(block, '\n', len);
		if (newline != NULL)
			return at + (newline - block) + 1;
		end = at;
	}
	return 0;
}

/* How much of a text record's heading a line is: all, a beginning, nothing. */
enum heading { HEADING_WHOLE, HEADING_BEGUN, HEADING_NONE };

static enum heading
is_heading(const char *line, size_t len)
{
	static const char before[] = "Read ", after[] = " bytes from socket.\n";
	size_t at, n;

	n = len < sizeof(before) - 1 ? len : sizeof(before) - 1;
	if (memcmp(line, before, n) != 0)
		return HEADING_NONE;
	for (at = n; at < len && line[at] >= '0' && line[at] <= '9'; at++)
		;
	if (at == len)
		return HEADING_BEGUN;
	if (at == n)
		return HEADING_NONE;
	n = len - at < sizeof(after) - 1 ? len - at : sizeof(after) - 1;
	if (memcmp(line + at, after, n) != 0)
		return HEADING_NONE;
	return at + n == len && n < sizeof(after) - 1 ? HEADING_BEGUN : HEADING_WHOLE;
}

/* The last line of `piece` that is a whole heading, of those that begin behind one of
 * its first `newlines` bytes; with `first` its own beginning is one, too. */
static const char *
heading_last(const char *piece, size_t len, size_t newlines, bool first)
{
	const char *line = memrchr(piece, '\n', newlines);

	while (line != NULL && is_heading(line + 1, len - (size_t)(line + 1 - piece)) != HEADING_WHOLE)
		line = memrchr(piece, '\n', (size_t)(line - piece));
	if (line != NULL)
		return line + 1;
	return first && is_heading(piece, len) == HEADING_WHOLE ? piece : NULL;
}

/* Where the last record before `end` begins.  A message may be nothing but newlines, so
 * that each byte of it begins a line: a block is read once, with as much behind it as a
 * heading is long.  `end`: no heading is found.  -1: errno. */
static off_t
heading_before(int fd, off_t end, off_t len)
{
	char piece[BLOCK + HEADING_MAX];
	off_t at, until;

	for (until = end; until > 0 && end - until < SEARCH_MAX; until = at) {
		size_t size, newlines;
		const char *line;

		at = until > BLOCK ? until - BLOCK : 0;
		newlines = (size_t)(until - at);
		size = len - until < HEADING_MAX ? (size_t)(len - at) : newlines + HEADING_MAX;
		if (piece_read(fd, piece, size, at) == -1)
			return -1;
		line = heading_last(piece, size, newlines, at == 0);
		if (line != NULL)
			return at + (line - piece);
	}
	return end;
}

/* tail: where the unfinished line begins.  If that is itself the beginning of a
 * record (or may be), no more than it is torn; otherwise it belongs to the
 * record whose heading comes last before it. */
static off_t
text_tail(int fd, off_t tail, off_t len, bool *ours)
{
	char line[HEADING_MAX];
	size_t size = len - tail < HEADING_MAX ? (size_t)(len - tail) : HEADING_MAX;
	off_t at;

	if (piece_read(fd, line, size, tail) == -1)
		return -1;
	*ours = is_heading(line, size) == HEADING_BEGUN;
	if (is_heading(line, size) != HEADING_NONE)
		return tail;
	at = heading_before(fd, tail, len);
	if (at != -1 && at != tail)
		*ours = true;
	return at;
}

static off_t
json_tail(int fd, off_t tail, off_t len, bool *ours)
{
	char start[sizeof(json_start) - 1];
	size_t want = (size_t)(len - tail) < sizeof(start) ? (size_t)(len - tail) : sizeof(start);

	if (piece_read(fd, start, want, tail) == -1)
		return -1;
	*ours = memcmp(start, json_start, want) == 0;
	return tail;
}

off_t
file_tail_find(int fd, off_t len, enum format format, bool *ours)
{
	off_t tail;

	*ours = true;
	if (format == FORMAT_RAW || len == 0)
		return len;
	tail = line_start(fd, len);
	if (tail == -1 || tail == len)
		return tail;
	if (format == FORMAT_JSON)
		return json_tail(fd, tail, len, ours);
	if (format == FORMAT_TEXT)
		return text_tail(fd, tail, len, ours);
	return tail;
}

int
file_tail_mend(int fd, off_t len, bool sync)
{
	char path[32], page[PAGE];
	off_t at = len - len % PAGE;
	size_t part = (size_t)(len - at);
	int again, result = -1, error;

	if (fault_ftruncate(fd, len) == -1)
		return -1;
	if (!sync)
		return 0;
	if (part == 0)
		return fault_fdatasync(fd);
	/* Appending descriptors cannot write elsewhere. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = fault_open(path, O_RDWR | O_CLOEXEC, 0);
	if (again == -1)
		return -1;
	if (fault_pread(again, page, part, at) == (ssize_t)part &&
	    fault_pwrite(again, page, part, at) == (ssize_t)part)
		result = fault_fdatasync(again);
	error = errno != 0 ? errno : EIO;
	if (fault_close(again) == -1 && result == 0) {
		error = errno;
		result = -1;
	}
	errno = error;
	return result;
}
