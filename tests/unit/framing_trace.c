/*
 * framing_trace: feeds streams to framings and writes down what comes out.
 *
 * Whatever is wrong in a step ends the program by abort(), so that fuzzers and
 * Check see it alike.
 */
#include "framing_trace.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_REQUIRE(condition) trace_require((condition), #condition, __LINE__)

/* One stream on its way through a framing. */
struct trace_stream {
	struct trace *trace;
	const struct framing_config *config;
	struct framing_state state;
	struct trace payload; /* of the message in progress; raw bytes */
	size_t consumed;      /* of the stream */
	size_t frame;         /* consumed when the last message ended */
	bool failed;
};

static void
trace_require(bool holds, const char *condition, int line)
{
	if (!holds) {
		fprintf(stderr, "framing_trace.c:%d: %s does not hold\n", line, condition);
		abort();
	}
}

static void
trace_append(struct trace *trace, const void *bytes, size_t len)
{
	if (trace->size - trace->len <= len) {
		trace->size = 2 * (trace->size + len + 32);
		trace->text = realloc(trace->text, trace->size);
		TRACE_REQUIRE(trace->text != NULL);
	}
	if (len > 0)
		memcpy(trace->text + trace->len, bytes, len);
	trace->len += len;
	trace->text[trace->len] = '\0';
}

static size_t
trace_digits(size_t number)
{
	size_t n = 1;

	while (number >= 10) {
		number /= 10;
		n++;
	}
	return n;
}

/* A frame of `frame` bytes was said to hold a message of `size`. */
static void
trace_check_frame(const struct framing_config *config, size_t frame, size_t size)
{
	switch (config->kind) {
	case FRAMING_EOF:
		TRACE_REQUIRE(frame == size);
		break;
	case FRAMING_LINE: /* empty lines may be in front */
		TRACE_REQUIRE(size > 0 && frame >= size + 1);
		break;
	case FRAMING_DELIMITER:
		TRACE_REQUIRE(frame == size + (config->keep_delimiter ? 0 : config->delimiter_len));
		TRACE_REQUIRE(frame >= config->delimiter_len);
		break;
	case FRAMING_LENGTH:
		TRACE_REQUIRE(frame == size + config->length_bytes);
		break;
	case FRAMING_NETSTRING:
		TRACE_REQUIRE(frame == trace_digits(size) + 1 + size + 1);
		break;
	case FRAMING_OCTET_COUNTED:
		TRACE_REQUIRE(frame == trace_digits(size) + 1 + size);
		break;
	case FRAMING_MLLP: /* line ends may be in front */
		TRACE_REQUIRE(frame >= 1 + size + 2);
		break;
	}
	if (config->max_size > 0 && (config->kind == FRAMING_LENGTH ||
				     config->kind == FRAMING_NETSTRING ||
				     config->kind == FRAMING_OCTET_COUNTED))
		TRACE_REQUIRE(size <= config->max_size);
}

/* Whether a frame is open has to follow from what was consumed; where bytes may
 * lie between frames, only the absence of any says something. */
static void
trace_check_open(const struct trace_stream *stream)
{
	bool begun = stream->consumed > stream->frame;

	if (stream->config->kind == FRAMING_LINE || stream->config->kind == FRAMING_MLLP) {
		TRACE_REQUIRE(begun || !stream->state.open);
		TRACE_REQUIRE(stream->payload.len == 0 || stream->state.open);
	} else {
		TRACE_REQUIRE(begun == stream->state.open);
	}
}

static void
trace_take_payload(struct trace_stream *stream, const struct framing_step *step)
{
	TRACE_REQUIRE(step->head_len == 0 || step->head != NULL);
	trace_append(&stream->payload, step->head, step->head_len);
	trace_append(&stream->payload, step->data, step->data_len);
	TRACE_REQUIRE(stream->payload.len <= stream->consumed - stream->frame);
}

static void
trace_write_payload(struct trace_stream *stream)
{
	trace_message(stream->trace, (unsigned char *)stream->payload.text, stream->payload.len);
	stream->payload.len = 0;
}

/* Feeds one piece until the framing wants more or gives up. */
static void
trace_feed(struct trace_stream *stream, const unsigned char *piece, size_t len)
{
	struct framing_step step;
	size_t at = 0;
	char text[64];

	while (at < len) {
		memset(&step, 0xa5, sizeof step); /* all of it is to be set */
		framing_feed(stream->config, &stream->state, piece + at, len - at, &step);
		TRACE_REQUIRE(step.used > 0 && step.used <= len - at);
		TRACE_REQUIRE(step.data_len == 0 ||
			      (step.data >= piece + at && step.data_len <= step.used &&
			       step.data + step.data_len <= piece + at + step.used));
		at += step.used;
		stream->consumed += step.used;
		trace_take_payload(stream, &step);

		switch (step.verdict) {
		case FRAMING_MORE:
			TRACE_REQUIRE(at == len && step.why == NULL);
			trace_check_open(stream);
			break;
		case FRAMING_MESSAGE:
			TRACE_REQUIRE(!stream->state.open && step.why == NULL);
			trace_check_frame(stream->config, stream->consumed - stream->frame,
					  stream->payload.len);
			trace_write_payload(stream);
			stream->frame = stream->consumed;
			break;
		case FRAMING_MALFORMED:
		case FRAMING_TOO_LARGE:
			TRACE_REQUIRE(stream->state.open);
			TRACE_REQUIRE(step.why != NULL && strncmp(step.why, "expected ", 9) == 0);
			snprintf(text, sizeof text, "%s@%zu",
				 step.verdict == FRAMING_MALFORMED ? "malformed" : "too-large",
				 stream->consumed);
			trace_text(stream->trace, text);
			trace_write_payload(stream);
			stream->failed = true;
			return;
		case FRAMING_INCOMPLETE:
		case FRAMING_NOTHING:
		default:
			trace_require(false, "a verdict that framing_feed gives", __LINE__);
		}
	}
}

static void
trace_close(struct trace_stream *stream)
{
	const bool open = stream->state.open;
	struct framing_step step;

	memset(&step, 0xa5, sizeof step);
	framing_finish(stream->config, &stream->state, &step);
	trace_text(stream->trace, open ? "~$" : "$");
	TRACE_REQUIRE(step.used == 0 && step.data_len == 0);
	TRACE_REQUIRE(!stream->state.open);
	TRACE_REQUIRE((step.why != NULL) == (step.verdict == FRAMING_INCOMPLETE));
	trace_take_payload(stream, &step);

	switch (step.verdict) {
	case FRAMING_NOTHING:
		TRACE_REQUIRE(!open && stream->payload.len == 0);
		trace_text(stream->trace, "nothing");
		break;
	case FRAMING_MESSAGE:
		TRACE_REQUIRE(open && stream->payload.len > 0);
		trace_write_payload(stream);
		break;
	case FRAMING_INCOMPLETE:
		TRACE_REQUIRE(open);
		trace_text(stream->trace, "incomplete");
		trace_write_payload(stream);
		break;
	case FRAMING_MORE:
	case FRAMING_MALFORMED:
	case FRAMING_TOO_LARGE:
	default:
		trace_require(false, "a verdict that framing_finish gives", __LINE__);
	}
}

void
trace_text(struct trace *trace, const char *text)
{
	trace_append(trace, text, strlen(text));
}

void
trace_bytes(struct trace *trace, const unsigned char *bytes, size_t len)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		const char escaped[] = { '\\', 'x', hex[bytes[i] >> 4], hex[bytes[i] & 15] };

		if (bytes[i] < ' ' || bytes[i] > '~' || strchr("[]~$\\", bytes[i]) != NULL)
			trace_append(trace, escaped, sizeof escaped);
		else
			trace_append(trace, bytes + i, 1);
	}
}

void
trace_message(struct trace *trace, const unsigned char *bytes, size_t len)
{
	trace_text(trace, "[");
	trace_bytes(trace, bytes, len);
	trace_text(trace, "]");
}

void
trace_clear(struct trace *trace)
{
	free(trace->text);
	*trace = (struct trace){0};
}

size_t
trace_cut_whole(void *arg, size_t left)
{
	(void)arg;
	return left;
}

size_t
trace_cut_bytes(void *arg, size_t left)
{
	(void)arg;
	(void)left;
	return 1;
}

size_t
trace_cut_two(void *arg, size_t left)
{
	size_t *at = arg, first = *at;

	*at = 0;
	return first > 0 && first < left ? first : left;
}

size_t
trace_cut_random(void *arg, size_t left)
{
	uint64_t chance = trace_random(arg);
	size_t most = (chance & 3) == 0 ? left : 8; /* small ones mostly */
	size_t n = 1 + (size_t)((chance >> 8) % most);

	return n < left ? n : left;
}

void
trace_run(struct trace *trace, const struct framing_config *config, const unsigned char *bytes,
	  size_t len, trace_cut *cut, void *arg)
{
	struct trace_stream stream = { .trace = trace, .config = config };
	size_t at = 0;

	while (at < len && !stream.failed) {
		size_t n = cut(arg, len - at);
		unsigned char *piece = malloc(n);

		/* Of its own, so that a byte read outside it is noticed, and one read later too. */
		TRACE_REQUIRE(piece != NULL);
		memcpy(piece, bytes + at, n);
		trace_feed(&stream, piece, n);
		memset(piece, 0x5a, n);
		free(piece);
		at += n;
	}
	if (!stream.failed)
		trace_close(&stream);
	trace_clear(&stream.payload);
}

uint64_t
trace_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}
