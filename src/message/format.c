/*
 * format: messages as records.
 *
 * The bytes of raw and line are pointed to where they lie, in runs as long as
 * they follow one another in memory.  json and text are written straight into
 * the output's buffer.  A message that lies in a file is read in pieces of
 * SCRATCH, twice for json: the first time to see whether it is UTF-8.
 */
#include "message/format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"

#define SCRATCH 65536
#define SLICE 8192     /* bytes that are escaped in one go */
#define ENVELOPE 1024  /* enough for a record's names, mostly */
#define NUMBER_MAX 20  /* digits of a uint64_t */
#define RECORD_MAX 192 /* what a record has besides envelope and data */

static const char *const names[] = {
	[FORMAT_TEXT] = "text",
	[FORMAT_JSON] = "json",
	[FORMAT_RAW] = "raw",
	[FORMAT_LINE] = "line",
};

/* Takes a piece of a message.  It stays as long as the batch does, or only until
 * the function returns.  0, or -1 with errno. */
typedef int (*take_piece)(void *arg, const unsigned char *piece, size_t len, bool stays);

/* What the records of a batch have in common. */
struct envelope {
	char *head; /* between the id and the size */
	size_t head_len;
	char *tail; /* between how it ended and the data */
	size_t tail_len;
	char *heap; /* where space is too small */
	char space[ENVELOPE];
};

static int
each_body_piece(const struct message *message, take_piece take, void *arg)
{
	unsigned char *scratch = malloc(SCRATCH);
	struct cursor cursor;
	const unsigned char *piece;
	ptrdiff_t n;
	int result = 0;

	if (scratch == NULL)
		return -1;
	cursor_start(&cursor, message);
	while (result == 0 && (n = cursor_next(&cursor, &piece, scratch, SCRATCH)) != 0)
		result = n == -1 ? -1 : take(arg, piece, (size_t)n, piece != scratch);
	free(scratch);
	return result;
}

static int
each_piece(const struct message *message, take_piece take, void *arg)
{
	if (message->body != NULL)
		return each_body_piece(message, take, arg);
	return message->size > 0 ? take(arg, message->data, (size_t)message->size, true) : 0;
}

static char *
put_bytes(char *to, const void *bytes, size_t len)
{
	memcpy(to, bytes, len);
	return to + len;
}

#define put_literal(to, literal) put_bytes(to, literal, sizeof(literal) - 1)

static char *
put_string(char *to, const char *string)
{
	return put_bytes(to, string, strlen(string));
}

static char *
put_number(char *to, uint64_t value)
{
	char digits[NUMBER_MAX];
	size_t at = sizeof digits;

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	return put_bytes(to, digits + at, sizeof digits - at);
}

/* raw and line */

static int
take_raw(void *arg, const unsigned char *piece, size_t len, bool stays)
{
	return stays ? output_refer(arg, piece, len) : output_put(arg, piece, len);
}

/* A framing that ends messages by newlines leaves them in memory, each behind its
 * message.  Before the data of the next message there is certainly memory of
 * the same chunk to look at. */
static bool
newline_follows(const struct message *message, const struct message *next)
{
	const unsigned char *end = message->data + message->size;

	return next->body == NULL && message->size > 0 && next->size > 0 && end < next->data &&
	       *end == '\n';
}

static int
write_raw(const struct message *messages, unsigned count, bool lines, struct output *output)
{
	const unsigned char *run = NULL;
	size_t len = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct message *message = &messages[i];
		bool newline = lines;

		if (message->body != NULL) {
			if (output_refer(output, run, len) == -1 ||
			    each_body_piece(message, take_raw, output) == -1)
				return -1;
			len = 0;
		} else if (message->size > 0) {
			if (len > 0 && run + len != message->data) {
				if (output_refer(output, run, len) == -1)
					return -1;
				len = 0;
			}
			if (len == 0)
				run = message->data;
			len += (size_t)message->size;
			if (newline && i + 1 < count && newline_follows(message, message + 1)) {
				len++;
				newline = false;
			}
		}
		if (newline) {
			if (output_refer(output, run, len) == -1 || output_put(output, "\n", 1) == -1)
				return -1;
			len = 0;
		}
	}
	return output_refer(output, run, len);
}

/* text */

struct text_job {
	struct output *output;
	struct utf8_show show;
};

static int
take_text(void *arg, const unsigned char *piece, size_t len, bool stays)
{
	struct text_job *job = arg;

	(void)stays;
	for (size_t at = 0; at < len; at += SLICE) {
		size_t n = len - at < SLICE ? len - at : SLICE;
		char *to = output_reserve(job->output, UTF8_SHOW_MAX(n));

		if (to == NULL)
			return -1;
		output_commit(job->output, utf8_show(&job->show, to, piece + at, n));
	}
	return 0;
}

static int
write_text(const struct message *message, struct output *output)
{
	struct text_job job = { .output = output, .show.lines = true };
	char *start, *to;

	start = output_reserve(output, RECORD_MAX);
	if (start == NULL)
		return -1;
	to = put_literal(start, "Read ");
	to = put_number(to, message->size);
	to = put_literal(to, " bytes from socket.\n Data : ");
	output_commit(output, (size_t)(to - start));
	if (each_piece(message, take_text, &job) == -1)
		return -1;
	start = output_reserve(output, RECORD_MAX);
	if (start == NULL)
		return -1;
	to = start + utf8_show_end(&job.show, start);
	*to++ = '\n';
	output_commit(output, (size_t)(to - start));
	return 0;
}

/* json */

static int
make_envelope(struct envelope *envelope, const struct batch *batch)
{
	const struct origin *origin = batch->origin;
	const char *subject = origin->tls_subject;
	char *to;
	size_t room = 2 * NET_TEXT_LEN + RECORD_MAX + JSON_ESCAPED_MAX(strlen(origin->listener)) +
		      (subject != NULL ? JSON_ESCAPED_MAX(strlen(subject)) : 0);

	envelope->heap = NULL;
	envelope->head = envelope->space;
	if (room > sizeof envelope->space) {
		envelope->heap = malloc(room);
		if (envelope->heap == NULL)
			return -1;
		envelope->head = envelope->heap;
	}
	to = put_literal(envelope->head, "\",\"time\":\"");
	clock_rfc3339(batch->time, to);
	to += CLOCK_TEXT_LEN;
	to = put_literal(to, "\",\"listener\":\"");
	to += json_text(to, origin->listener);
	to = put_literal(to, "\",\"peer\":\"");
	to += net_address_text(&origin->peer, to); /* nothing in it to escape */
	to = put_literal(to, "\",\"local\":\"");
	if (origin->local != NULL)
		to += net_address_text(origin->local, to);
	to = put_literal(to, "\",\"size\":");
	envelope->head_len = (size_t)(to - envelope->head);
	envelope->tail = to;
	if (subject != NULL) {
		to = put_literal(to, "\",\"tls_subject\":\"");
		to += json_text(to, subject);
	}
	to = put_literal(to, "\",");
	envelope->tail_len = (size_t)(to - envelope->tail);
	return 0;
}

/* All up to the data; it takes at most RECORD_MAX besides the envelope. */
static char *
put_head(char *to, const struct envelope *envelope, const struct message *message, bool utf8)
{
	to = put_literal(to, "{\"id\":\"");
	id_text(&message->id, to);
	to = put_bytes(to + ID_TEXT_LEN, envelope->head, envelope->head_len);
	to = put_number(to, message->size);
	to = put_literal(to, ",\"ended\":\"");
	to = put_string(to, ended_name(message->ended));
	to = put_bytes(to, envelope->tail, envelope->tail_len);
	return utf8 ? put_literal(to, "\"data\":\"") : put_literal(to, "\"data_base64\":\"");
}

/* A message in one small piece: one look at the output's buffer for all of it. */
static int
write_json_small(const struct envelope *envelope, const struct message *message,
		 struct output *output)
{
	size_t size = (size_t)message->size;
	const unsigned char *data = size > 0 ? message->data : (const unsigned char *)"";
	struct utf8 state = { 0 };
	bool utf8 = utf8_feed(&state, data, size) && utf8_is_whole(&state);
	char *start = output_reserve(output, envelope->head_len + envelope->tail_len + RECORD_MAX +
						 JSON_ESCAPED_MAX(size));
	char *to;

	if (start == NULL)
		return -1;
	to = put_head(start, envelope, message, utf8);
	if (utf8) {
		to += json_escape(to, data, size);
	} else {
		struct json_base64 base64 = { 0 };

		to += json_base64(&base64, to, data, size);
		to += json_base64_end(&base64, to);
	}
	to = put_literal(to, "\"}\n");
	output_commit(output, (size_t)(to - start));
	return 0;
}

struct json_job {
	struct output *output;
	struct utf8 utf8;
	bool is_utf8;
	struct json_base64 base64;
};

static int
take_check(void *arg, const unsigned char *piece, size_t len, bool stays)
{
	struct json_job *job = arg;

	(void)stays;
	job->is_utf8 = job->is_utf8 && utf8_feed(&job->utf8, piece, len);
	return 0;
}

static int
take_json(void *arg, const unsigned char *piece, size_t len, bool stays)
{
	struct json_job *job = arg;

	(void)stays;
	for (size_t at = 0; at < len; at += SLICE) {
		size_t n = len - at < SLICE ? len - at : SLICE;
		char *to = output_reserve(job->output, JSON_ESCAPED_MAX(n) + 8);

		if (to == NULL)
			return -1;
		output_commit(job->output, job->is_utf8 ? json_escape(to, piece + at, n)
							: json_base64(&job->base64, to, piece + at, n));
	}
	return 0;
}

static int
write_json_large(const struct envelope *envelope, const struct message *message,
		 struct output *output)
{
	struct json_job job = { .output = output, .is_utf8 = true };
	size_t head = envelope->head_len + envelope->tail_len + RECORD_MAX;
	char *start, *to;
	int result;

	if (each_piece(message, take_check, &job) == -1)
		return -1;
	job.is_utf8 = job.is_utf8 && utf8_is_whole(&job.utf8);
	start = malloc(head);
	if (start == NULL)
		return -1;
	to = put_head(start, envelope, message, job.is_utf8);
	result = output_put(output, start, (size_t)(to - start));
	free(start);
	if (result == -1 || each_piece(message, take_json, &job) == -1)
		return -1;
	start = output_reserve(output, RECORD_MAX);
	if (start == NULL)
		return -1;
	to = start + json_base64_end(&job.base64, start);
	to = put_literal(to, "\"}\n");
	output_commit(output, (size_t)(to - start));
	return 0;
}

static int
write_json(const struct batch *batch, const struct message *messages, unsigned count,
	   struct output *output)
{
	struct envelope envelope;
	int result = 0;

	if (make_envelope(&envelope, batch) == -1)
		return -1;
	for (unsigned i = 0; i < count && result == 0; i++) {
		const struct message *message = &messages[i];

		if (message->body == NULL && message->size <= SLICE && envelope.heap == NULL)
			result = write_json_small(&envelope, message, output);
		else
			result = write_json_large(&envelope, message, output);
	}
	free(envelope.heap);
	return result;
}

const char *
format_name(enum format format)
{
	return names[format];
}

int
format_batch(enum format format, const struct batch *batch, struct output *output)
{
	const struct message *messages = batch->messages;

	switch (format) {
	case FORMAT_TEXT:
		for (unsigned i = 0; i < batch->count; i++)
			if (write_text(&messages[i], output) == -1)
				return -1;
		return 0;
	case FORMAT_JSON:
		return write_json(batch, messages, batch->count, output);
	case FORMAT_RAW:
	case FORMAT_LINE:
		return write_raw(messages, batch->count, format == FORMAT_LINE, output);
	}
	errno = EINVAL;
	return -1;
}
