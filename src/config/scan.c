/*
 * scan: see scan.h.
 */
#include "config/scan.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

void *
scan_grow(struct reader *reader, void *items, size_t count, size_t size)
{
	void *grown = realloc(items, (count + 1) * size);

	if (grown == NULL) {
		reader->report->no_memory = true;
		reader->broken = true;
	}
	return grown;
}

static void
add_wide(struct reader *reader)
{
	struct source *source = reader->source;
	unsigned *wide = scan_grow(reader, source->wide, source->n_wide, sizeof *wide);

	if (wide == NULL)
		return;
	source->wide = wide;
	wide[source->n_wide++] = reader->line;
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
	scan_fail(reader, &start,
		  "syntax error: the comment that begins here has no end; expected */");
}

static void
scan_string(struct reader *reader, struct frame *frame)
{
	const struct frame start = *frame;
	unsigned start_line = reader->line;
	const char *at;

	if (!value_is_next(reader) && reader->last != TOKEN_STRING) {
		scan_fail(reader, frame,
			  "syntax error: a string where none can be; expected NAME = VALUE;");
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
			scan_fail(reader, frame,
				  "a string cannot hold a NUL; "
				  "in a delimiter write it as \"\\\\x00\", with two backslashes");
		if (*at == '\\' && (at[1] == '\\' || at[1] == '"'))
			frame->at++;
		else if (*at == '\n')
			newline(reader, frame);
	}
	reader->line = start_line;
	scan_fail(reader, &start,
		  "syntax error: the string that begins here has no end; expected \"");
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
	if (value_is_next(reader) && strcasecmp(name, "true") != 0 &&
	    strcasecmp(name, "false") != 0) {
		report_quote(quoted, name);
		scan_fail(reader, frame, "syntax error: %s is no value; strings stand in quotes",
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
check_integer(struct reader *reader, struct frame *frame, const char *number, const char *end,
	      int base)
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
			   "with a unit, such as \"5G\"",
			   shown, number, shown, number);
	else
		report_add(reader->report, reader->line, frame->path, frame->line,
			   "%.*s%s does not fit into 64 bits; expected no more than "
			   "9223372036854775807L",
			   shown, number, shown < end - number ? "..." : "");
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
	scan_fail(reader, frame, "syntax error: expected @include \"FILE\"");
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
		scan_fail(reader, frame,
			  "syntax error: expected @include \"FILE\" on a line of its own");
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
		source_read_file(reader, whole, frame);
		free(whole);
	}
	free(path);
	/* What follows on the line gets one of its own. */
	if (putc('\n', reader->out) == EOF)
		reader->report->no_memory = true;
	reader->line++;
	source_add_segment(reader, frame);
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
	if (reader->n_open == SOURCE_NESTING_MAX) {
		scan_fail(reader, frame,
			  "syntax error: groups and lists are nested more than %d deep",
			  SOURCE_NESTING_MAX);
	} else {
		reader->open[reader->n_open] = c;
		reader->open_line[reader->n_open++] = reader->line;
	}
}

void
scan_file(struct reader *reader, struct frame *frame)
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
				     strspn(frame->bytes + line_start, " \t") ==
					     frame->at - line_start);
			line_start = frame->at;
		} else if (isalpha((unsigned char)*at) || *at == '*') {
			scan_name(reader, frame);
		} else if (isdigit((unsigned char)*at) || strchr("+-.", *at) != NULL) {
			scan_number(reader, frame);
		} else if (strchr("{}[]()", *at) != NULL) {
			scan_bracket(reader, frame);
		} else {
			reader->last = *at == '=' || *at == ':' ? TOKEN_EQUALS
				       : *at == ','             ? TOKEN_COMMA
								: TOKEN_OTHER;
			frame->at++;
		}
	}
	if (!reader->broken)
		pass_on(reader, frame);
}
