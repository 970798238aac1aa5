/*
 * source: see source.h.
 *
 * The scanner knows as many words of libconfig's language as it takes to tell
 * code from comments and strings, numbers from names, and where a string may
 * stand.  It is careful there because libconfig forgets (and leaks) a string
 * that comes where none may, and has no words for the likeliest mistakes.
 */
#include "config/source.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum token { TOKEN_START, TOKEN_VALUE, TOKEN_STRING, TOKEN_EQUALS, TOKEN_COMMA, TOKEN_OPEN, TOKEN_OTHER };

/* A file that is being read, and the one that includes it. */
struct frame {
	const struct frame *up;
	const char *path;
	dev_t device;
	ino_t inode;
	char *bytes; /* with a NUL after them */
	size_t len;
	size_t at;   /* scanned so far */
	size_t sent; /* passed on so far */
	size_t file;
	int line;
};

struct reader {
	struct source *source;
	struct report *report;
	FILE *out;
	unsigned line; /* of the whole */
	size_t size;   /* read so far */
	unsigned n_includes;
	enum token last;
	char open[SOURCE_NESTING_MAX]; /* brackets */
	size_t n_open;
	bool broken;
};

static void read_file(struct reader *reader, const char *path, const struct frame *up);

static void *
grow(struct reader *reader, void *items, size_t count, size_t size)
{
	void *grown = realloc(items, (count + 1) * size);

	if (grown == NULL) {
		reader->report->no_memory = true;
		reader->broken = true;
	}
	return grown;
}

/* An error after which there is no point in going on. */
#define fail(reader, frame, ...) \
	do { \
		(reader)->broken = true; \
		report_add((reader)->report, (reader)->line, (frame)->path, (frame)->line, __VA_ARGS__); \
	} while (0)

static void
add_segment(struct reader *reader, const struct frame *frame)
{
	struct source *source = reader->source;
	struct source_segment *segments =
		grow(reader, source->segments, source->n_segments, sizeof *segments);

	if (segments == NULL)
		return;
	source->segments = segments;
	segments[source->n_segments++] =
		(struct source_segment){ reader->line, frame->file, frame->line };
}

static void
add_wide(struct reader *reader)
{
	struct source *source = reader->source;
	unsigned *wide = grow(reader, source->wide, source->n_wide, sizeof *wide);

	if (wide == NULL)
		return;
	source->wide = wide;
	wide[source->n_wide++] = reader->line;
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
	items = grow(reader, files->items, files->count, sizeof *items);
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

/* Passes on what was scanned. */
static void
pass_on(struct reader *reader, struct frame *frame)
{
	size_t len = frame->at - frame->sent;

	if (len > 0 && fwrite(frame->bytes + frame->sent, 1, len, reader->out) != len)
		reader->report->no_memory = true;
	frame->sent = frame->at;
}

static void
newline(struct reader *reader, struct frame *frame)
{
	reader->line++;
	frame->line++;
}

static bool
in_list(const struct reader *reader)
{
	return reader->n_open > 0 && reader->open[reader->n_open - 1] != '{';
}

/* Whether a value may stand here. */
static bool
value_is_next(const struct reader *reader)
{
	return reader->last == TOKEN_EQUALS ||
	       (in_list(reader) && (reader->last == TOKEN_COMMA || reader->last == TOKEN_OPEN));
}

static void
scan_comment(struct reader *reader, struct frame *frame)
{
	const struct frame start = *frame;
	unsigned start_line = reader->line;

	for (frame->at += 2; frame->at < frame->len; frame->at++) {
		if (frame->bytes[frame->at] == '*' && frame->bytes[frame->at + 1] == '/') {
			frame->at += 2;
			return;
		}
		if (frame->bytes[frame->at] == '\n')
			newline(reader, frame);
	}
	reader->line = start_line;
	fail(reader, &start, "syntax error: the comment that begins here has no end; expected */");
}

static void
scan_string(struct reader *reader, struct frame *frame)
{
	const struct frame start = *frame;
	unsigned start_line = reader->line;
	const char *at;

	if (!value_is_next(reader) && reader->last != TOKEN_STRING) {
		fail(reader, frame, "syntax error: a string where none can be; expected NAME = VALUE;");
		return;
	}
	for (frame->at++; frame->at < frame->len; frame->at++) {
		at = frame->bytes + frame->at;
		if (*at == '"') {
			frame->at++;
			reader->last = TOKEN_STRING;
			return;
		}
		if (*at == '\\' && (at[1] == 'x' || at[1] == 'X') && at[2] == '0' && at[3] == '0')
			fail(reader, frame, "a string cannot hold a NUL; "
			     "in a delimiter write it as \"\\\\x00\", with two backslashes");
		if (*at == '\\' && (at[1] == '\\' || at[1] == '"'))
			frame->at++;
		else if (*at == '\n')
			newline(reader, frame);
	}
	reader->line = start_line;
	fail(reader, &start, "syntax error: the string that begins here has no end; expected \"");
}

static void
scan_name(struct reader *reader, struct frame *frame)
{
	char *name = frame->bytes + frame->at, *end = name, after;
	char quoted[REPORT_QUOTE_LEN];

	while (isalnum((unsigned char)*end) || *end == '-' || *end == '_' || *end == '*')
		end++;
	frame->at += (size_t)(end - name);
	after = *end;
	*end = '\0';
	if (value_is_next(reader) && strcasecmp(name, "true") != 0 && strcasecmp(name, "false") != 0) {
		report_quote(quoted, name);
		fail(reader, frame, "syntax error: %s is no value; strings stand in quotes",
		     quoted);
	}
	*end = after;
	reader->last = TOKEN_OTHER;
}

static const char *
skip_digits(const char *at)
{
	while (isdigit((unsigned char)*at))
		at++;
	return at;
}

/* An exponent, if there is one. */
static const char *
skip_exponent(const char *at)
{
	const char *digits = at + 1;

	if (*at != 'e' && *at != 'E')
		return at;
	if (*digits == '-' || *digits == '+')
		digits++;
	return isdigit((unsigned char)*digits) ? skip_digits(digits) : at;
}

/* An integer without an L is cut to 32 bits by libconfig.  It is reported here
 * and given its L, so that nothing is said about the value that it is cut to. */
static void
check_integer(struct reader *reader, struct frame *frame, const char *number, const char *end, int base)
{
	bool is_long = *end == 'L', fits;
	int shown = end - number > 40 ? 40 : (int)(end - number);
	long long value;

	errno = 0;
	value = strtoll(number, NULL, base);
	fits = errno != ERANGE;
	if (fits && (is_long || (value >= INT_MIN && value <= INT_MAX)))
		return;
	if (fits)
		report_add(reader->report, reader->line, frame->path, frame->line,
			   "%.*s does not fit into 32 bits; write it as %.*sL, or as a string "
			   "with a unit, such as \"5G\"", shown, number, shown, number);
	else
		report_add(reader->report, reader->line, frame->path, frame->line,
			   "%.*s%s does not fit into 64 bits; expected no more than "
			   "9223372036854775807L", shown, number, shown < end - number ? "..." : "");
	add_wide(reader);
	if (!is_long) {
		pass_on(reader, frame);
		if (putc('L', reader->out) == EOF)
			reader->report->no_memory = true;
	}
}

static void
scan_number(struct reader *reader, struct frame *frame)
{
	const char *number = frame->bytes + frame->at, *at = number, *digits;

	reader->last = TOKEN_VALUE;
	if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X') && isxdigit((unsigned char)at[2])) {
		for (at += 2; isxdigit((unsigned char)*at);)
			at++;
		frame->at += (size_t)(at - number);
		check_integer(reader, frame, number, at, 16);
	} else {
		if (*at == '-' || *at == '+')
			at++;
		digits = at;
		at = skip_digits(at);
		if (*at == '.') {
			at = skip_exponent(skip_digits(at + 1));
			frame->at += (size_t)(at - number);
			return;
		}
		if (at == digits || skip_exponent(at) != at) {
			at = at == digits ? number + 1 : skip_exponent(at);
			frame->at += (size_t)(at - number);
			return;
		}
		frame->at += (size_t)(at - number);
		check_integer(reader, frame, number, at, 10);
	}
	for (int i = 0; i < 2 && frame->bytes[frame->at] == 'L'; i++)
		frame->at++;
}

/* The path of @include "PATH", from its first quote on; to be freed.  NULL: the
 * error is reported. */
static char *
scan_path(struct reader *reader, struct frame *frame)
{
	char *path = malloc(frame->len - frame->at), *to = path;

	if (path == NULL) {
		reader->report->no_memory = true;
		reader->broken = true;
		return NULL;
	}
	for (frame->at++; frame->at < frame->len; frame->at++) {
		const char *at = frame->bytes + frame->at;

		if (*at == '"' || *at == '\n')
			break;
		if (*at == '\\' && (at[1] == '\\' || at[1] == '"'))
			*to++ = frame->bytes[++frame->at];
		else
			*to++ = *at;
	}
	*to = '\0';
	if (frame->at < frame->len && frame->bytes[frame->at] == '"' && *path != '\0') {
		frame->at++;
		return path;
	}
	free(path);
	fail(reader, frame, "syntax error: expected @include \"FILE\"");
	return NULL;
}

static void
scan_include(struct reader *reader, struct frame *frame, bool line_begins)
{
	const char *at = frame->bytes + frame->at, *word = "@include", *slash;
	size_t len = strlen(word), directory_len;
	char *path, *whole;

	if (!line_begins || strncmp(at, word, len) != 0 || (at[len] != ' ' && at[len] != '\t') ||
	    at[len + strspn(at + len, " \t")] != '"') {
		fail(reader, frame, "syntax error: expected @include \"FILE\" on a line of its own");
		return;
	}
	pass_on(reader, frame);
	frame->at += len + strspn(at + len, " \t");
	path = scan_path(reader, frame);
	if (path == NULL)
		return;
	frame->sent = frame->at;

	slash = strrchr(frame->path, '/');
	directory_len = path[0] == '/' || slash == NULL ? 0 : (size_t)(slash + 1 - frame->path);
	if (asprintf(&whole, "%.*s%s", (int)directory_len, frame->path, path) == -1) {
		reader->report->no_memory = true;
		reader->broken = true;
	} else {
		read_file(reader, whole, frame);
		free(whole);
	}
	free(path);
	/* What follows on the line gets one of its own. */
	if (putc('\n', reader->out) == EOF)
		reader->report->no_memory = true;
	reader->line++;
	add_segment(reader, frame);
}

/* Brackets are counted, not matched: that is libconfig's business. */
static void
scan_bracket(struct reader *reader, struct frame *frame)
{
	char c = frame->bytes[frame->at++];

	if (strchr("{[(", c) == NULL) {
		reader->n_open -= reader->n_open > 0;
		reader->last = TOKEN_VALUE;
		return;
	}
	reader->last = TOKEN_OPEN;
	if (reader->n_open == SOURCE_NESTING_MAX)
		fail(reader, frame, "syntax error: groups and lists are nested more than %d deep",
		     SOURCE_NESTING_MAX);
	else
		reader->open[reader->n_open++] = c;
}

static void
scan(struct reader *reader, struct frame *frame)
{
	size_t line_start = 0;

	while (frame->at < frame->len && !reader->broken) {
		const char *at = frame->bytes + frame->at;

		if (*at == '\n') {
			newline(reader, frame);
			line_start = ++frame->at;
		} else if (isspace((unsigned char)*at)) {
			frame->at++;
		} else if (*at == '#' || (*at == '/' && at[1] == '/')) {
			frame->at += strcspn(at, "\n");
		} else if (*at == '/' && at[1] == '*') {
			scan_comment(reader, frame);
		} else if (*at == '"') {
			scan_string(reader, frame);
		} else if (*at == '@') {
			scan_include(reader, frame,
				     strspn(frame->bytes + line_start, " \t") == frame->at - line_start);
			line_start = frame->at;
		} else if (isalpha((unsigned char)*at) || *at == '*') {
			scan_name(reader, frame);
		} else if (isdigit((unsigned char)*at) || strchr("+-.", *at) != NULL) {
			scan_number(reader, frame);
		} else if (strchr("{}[]()", *at) != NULL) {
			scan_bracket(reader, frame);
		} else {
			reader->last = *at == '=' || *at == ':' ? TOKEN_EQUALS :
				       *at == ','		? TOKEN_COMMA :
								  TOKEN_OTHER;
			frame->at++;
		}
	}
	if (!reader->broken)
		pass_on(reader, frame);
}

/* Reads all of a descriptor.  0, or an errno. */
static int
slurp(struct reader *reader, struct frame *frame, int fd)
{
	size_t room = 0;

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
		if (n == -1)
			return errno;
		frame->len += (size_t)n;
		frame->bytes[frame->len] = '\0';
		if (n == 0)
			return 0;
		if (reader->size + frame->len > SOURCE_SIZE_MAX)
			return EFBIG;
	}
}

/* Opens and reads the frame's file.  0, or an errno. */
static int
load(struct reader *reader, struct frame *frame)
{
	int fd = open(frame->path, O_RDONLY | O_CLOEXEC | O_NOCTTY), error = 0;
	struct stat st;

	if (fd == -1)
		return errno;
	if (fstat(fd, &st) == -1) {
		error = errno;
	} else {
		frame->device = st.st_dev;
		frame->inode = st.st_ino;
		error = S_ISDIR(st.st_mode) ? EISDIR : slurp(reader, frame, fd);
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
		return "; expected a file as in cistern.conf(5)";
	case EACCES:
	case EPERM:
		return "; the user that starts cisternd must be able to read it";
	case EISDIR:
		return "; expected a file";
	case EFBIG:
		return "; expected less than 4 MiB";
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
		fail(reader, frame->up, "cannot include %s: %s%s", quoted, strerror(error),
		     advice(error));
	} else {
		reader->broken = true;
		reader->report->exit_code = error == EACCES || error == EPERM ? EX_NOPERM : EX_NOINPUT;
		report_add(reader->report, 0, frame->path, 0, "cannot be read: %s%s", strerror(error),
			   advice(error));
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
			fail(reader, frame->up, "%s includes itself", quoted);
			return false;
		}
	}
	if (depth > SOURCE_DEPTH_MAX) {
		fail(reader, frame->up, "includes are nested more than %d deep", SOURCE_DEPTH_MAX);
		return false;
	}
	if (depth > 0 && ++reader->n_includes > SOURCE_INCLUDES_MAX) {
		fail(reader, frame->up, "more than %d files are included", SOURCE_INCLUDES_MAX);
		return false;
	}
	return true;
}

static void
read_file(struct reader *reader, const char *path, const struct frame *up)
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
		add_segment(reader, &frame);
		nul = memchr(frame.bytes, '\0', frame.len);
		if (nul != NULL) {
			for (c = frame.bytes; c < nul; c++)
				frame.line += *c == '\n';
			fail(reader, &frame, "the file holds a NUL byte; expected text");
		} else {
			if (strncmp(frame.bytes, "\xef\xbb\xbf", 3) == 0)
				frame.at = frame.sent = 3;
			scan(reader, &frame);
		}
	}
	free(frame.bytes);
}

bool
source_read(struct source *source, const char *file, struct report *report)
{
	struct reader reader = { .source = source, .report = report, .line = 1 };
	size_t size;

	*source = (struct source){0};
	reader.out = open_memstream(&source->text, &size);
	if (reader.out == NULL) {
		report->no_memory = true;
		return false;
	}
	read_file(&reader, file, NULL);
	if (fclose(reader.out) == EOF)
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
	*source = (struct source){0};
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

bool
source_is_wide(const struct source *source, unsigned line)
{
	for (size_t i = 0; i < source->n_wide; i++) {
		if (source->wide[i] == line)
			return true;
	}
	return false;
}
