/*
 * framing_property_test: what a framing says must not depend on how the bytes
 * were split, and must be what a simpler decoder says that sees them all at once.
 *
 * Streams are random.  A failure names the seed; FRAMING_TEST_SEED sets it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "framing/framing.h"
#include "framing_trace.h"
#include "unit.h"

#define STREAM_MAX 4096
#define ROUNDS 40

struct stream {
	unsigned char bytes[STREAM_MAX];
	size_t len;
};

static uint64_t chance_seed, chance_state;

static void
chance_start(void)
{
	const char *seed = getenv("FRAMING_TEST_SEED");

	chance_seed = seed == NULL ? 0x6369737465726e : strtoull(seed, NULL, 0);
	chance_state = chance_seed;
}

static size_t
chance(size_t below)
{
	return (size_t)(trace_random(&chance_state) % below);
}

static void
stream_add(struct stream *stream, const void *bytes, size_t len)
{
	ck_assert_uint_le(len, STREAM_MAX - stream->len);
	memcpy(stream->bytes + stream->len, bytes, len);
	stream->len += len;
}

/* Bytes that mean something to one framing or another. */
static void
stream_add_random(struct stream *stream, size_t len)
{
	static const unsigned char alphabet[] = "\r\n\r\n\x0b\x1c\x1c\r0123459:, ,ab<>EOF"
						"\0\0\1\2\3\xff";

	while (len-- > 0)
		stream_add(stream, &alphabet[chance(sizeof alphabet)], 1);
}

static struct framing_config
config_make(enum framing_kind kind, const char *delimiter, size_t delimiter_len)
{
	struct framing_config config = { .kind = kind };

	if (kind == FRAMING_DELIMITER) {
		config.delimiter = malloc(delimiter_len);
		ck_assert_ptr_nonnull(config.delimiter);
		memcpy(config.delimiter, delimiter, delimiter_len);
		config.delimiter_len = delimiter_len;
	}
	ck_assert_int_eq(framing_prepare(&config), 0);
	return config;
}

/* The settings that the rounds go through. */
static struct framing_config
config_random(enum framing_kind kind)
{
	static const char *const delimiters[] = { "\n",  "\r\n",     "<EOF>", "aab",
						  "abab", "\r\n\r\n", "aaaa",  "\x1c\r" };
	const char *delimiter = delimiters[chance(sizeof delimiters / sizeof delimiters[0])];
	struct framing_config config = config_make(kind, delimiter, strlen(delimiter));

	config.keep_delimiter = chance(2);
	config.length_bytes = 1U << chance(4);
	config.length_little = chance(2);
	config.length_includes_header = chance(2);
	config.max_size = chance(3) == 0 ? 1 + chance(20) : 0;
	return config;
}

/* All ways to split a stream have to agree with expected, or with one another if
 * that is NULL. */
static void
splits_check(const struct framing_config *config, const struct stream *stream,
	     const char *expected)
{
	struct trace whole = {0}, split = {0};
	uint64_t pieces = chance_state;

	trace_run(&whole, config, stream->bytes, stream->len, trace_cut_whole, NULL);
	if (expected != NULL)
		ck_assert_msg(strcmp(whole.text, expected) == 0, "seed %llu: %s instead of %s",
			      (unsigned long long)chance_seed, whole.text, expected);

	for (size_t i = 0; i < stream->len + 10; i++) {
		size_t at = i;

		split.len = 0;
		if (i == 0)
			trace_run(&split, config, stream->bytes, stream->len, trace_cut_bytes,
				  NULL);
		else if (i < stream->len)
			trace_run(&split, config, stream->bytes, stream->len, trace_cut_two, &at);
		else
			trace_run(&split, config, stream->bytes, stream->len, trace_cut_random,
				  &pieces);
		ck_assert_msg(strcmp(split.text, whole.text) == 0,
			      "seed %llu, %s, split %zu of %zu: %s instead of %s",
			      (unsigned long long)chance_seed, framing_name(config->kind), i,
			      stream->len, split.text, whole.text);
	}
	trace_clear(&whole);
	trace_clear(&split);
}

/* Whether a message can be sent so that this is its whole content. */
static bool
message_is_legal(const struct framing_config *config, const unsigned char *bytes, size_t len)
{
	unsigned char frame[STREAM_MAX];

	switch (config->kind) {
	case FRAMING_EOF:
		return len > 0;
	case FRAMING_LINE:
		return len > 0 && memchr(bytes, '\n', len) == NULL;
	case FRAMING_DELIMITER:
		memcpy(frame, bytes, len);
		memcpy(frame + len, config->delimiter, config->delimiter_len);
		return memmem(frame, len + config->delimiter_len, config->delimiter,
			      config->delimiter_len) == frame + len;
	case FRAMING_MLLP:
		memcpy(frame, bytes, len);
		memcpy(frame + len, "\x1c\r", 2);
		return memmem(frame, len + 2, "\x1c\r", 2) == frame + len;
	case FRAMING_LENGTH:
	case FRAMING_NETSTRING:
	case FRAMING_OCTET_COUNTED:
	default:
		return config->max_size == 0 || len <= config->max_size;
	}
}

static void
stream_add_length(struct stream *stream, const struct framing_config *config, size_t len)
{
	uint64_t number = len + (config->length_includes_header ? config->length_bytes : 0);

	for (unsigned i = 0; i < config->length_bytes; i++) {
		unsigned shift = config->length_little ? i : config->length_bytes - 1 - i;
		unsigned char byte = (unsigned char)(number >> (8 * shift));

		stream_add(stream, &byte, 1);
	}
}

static void
stream_add_frame(struct stream *stream, const struct framing_config *config,
		 const unsigned char *bytes, size_t len)
{
	char digits[32];

	switch (config->kind) {
	case FRAMING_EOF:
		stream_add(stream, bytes, len);
		break;
	case FRAMING_LINE:
		while (chance(4) == 0)
			stream_add(stream, "\r\n", 2);
		while (chance(4) == 0)
			stream_add(stream, "\n", 1);
		stream_add(stream, bytes, len);
		if (bytes[len - 1] == '\r' || chance(2))
			stream_add(stream, "\r", 1);
		stream_add(stream, "\n", 1);
		break;
	case FRAMING_DELIMITER:
		stream_add(stream, bytes, len);
		stream_add(stream, config->delimiter, config->delimiter_len);
		break;
	case FRAMING_LENGTH:
		stream_add_length(stream, config, len);
		stream_add(stream, bytes, len);
		break;
	case FRAMING_NETSTRING:
		stream_add(stream, digits, (size_t)snprintf(digits, sizeof digits, "%zu:", len));
		stream_add(stream, bytes, len);
		stream_add(stream, ",", 1);
		break;
	case FRAMING_OCTET_COUNTED:
		stream_add(stream, digits, (size_t)snprintf(digits, sizeof digits, "%zu ", len));
		stream_add(stream, bytes, len);
		break;
	case FRAMING_MLLP:
		while (chance(4) == 0)
			stream_add(stream, chance(2) ? "\r" : "\n", 1);
		stream_add(stream, "\x0b", 1);
		stream_add(stream, bytes, len);
		stream_add(stream, "\x1c\r", 2);
		break;
	}
}

/* Appends a random message to a stream and to what is expected of it. */
static void
message_add(struct stream *stream, struct trace *expected, const struct framing_config *config)
{
	struct stream message;

	do {
		message.len = 0;
		stream_add_random(&message, chance(4) == 0 ? 0 : chance(24));
	} while (!message_is_legal(config, message.bytes, message.len));

	stream_add_frame(stream, config, message.bytes, message.len);
	if (config->kind == FRAMING_DELIMITER && config->keep_delimiter)
		stream_add(&message, config->delimiter, config->delimiter_len);
	trace_message(expected, message.bytes, message.len);
}

/* Messages come out as they went in. */
START_TEST(messages)
{
	chance_start();
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct framing_config config = config_random((enum framing_kind)_i);
		struct stream stream = {0};
		struct trace expected = {0};

		if (_i == FRAMING_EOF) {
			trace_text(&expected, "~$");
			message_add(&stream, &expected, &config);
		} else {
			for (size_t n = chance(8); n > 0; n--)
				message_add(&stream, &expected, &config);
			trace_text(&expected, "$nothing");
		}
		splits_check(&config, &stream, expected.text);
		trace_clear(&expected);
		framing_clear(&config);
	}
}
END_TEST

/* Cut short, damaged, or nothing but noise: whatever is said of it, it is said of
 * every way to split it. */
START_TEST(garbage)
{
	chance_start();
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct framing_config config = config_random((enum framing_kind)_i);
		struct stream stream = {0};
		struct trace ignored = {0};

		for (size_t n = chance(6); n > 0; n--)
			message_add(&stream, &ignored, &config);
		switch (chance(3)) {
		case 0:
			stream.len -= chance(stream.len + 1);
			break;
		case 1:
			if (stream.len > 0)
				stream.bytes[chance(stream.len)] ^= (unsigned char)(1 << chance(8));
			break;
		default:
			stream_add_random(&stream, chance(150));
			break;
		}
		splits_check(&config, &stream, NULL);
		trace_clear(&ignored);
		framing_clear(&config);
	}
}
END_TEST

/* Lines, found the simple way. */
static void
lines_expected(struct trace *expected, const struct stream *stream)
{
	const unsigned char *at = stream->bytes, *end = at + stream->len, *lf;

	while ((lf = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		size_t len = (size_t)(lf - at);

		if (len > 0 && at[len - 1] == '\r')
			len--;
		if (len > 0)
			trace_message(expected, at, len);
		at = lf + 1;
	}
	trace_text(expected, at < end ? "~$" : "$nothing");
	if (at < end)
		trace_message(expected, at, (size_t)(end - at));
}

START_TEST(lines)
{
	static const char alphabet[] = { '\r', '\n', 'a', '\0' };
	const struct framing_config config = { .kind = FRAMING_LINE };

	chance_start();
	for (unsigned round = 0; round < 4 * ROUNDS; round++) {
		struct stream stream = {0};
		struct trace expected = {0};

		for (size_t n = chance(80); n > 0; n--)
			stream_add(&stream, &alphabet[chance(sizeof alphabet)], 1);
		lines_expected(&expected, &stream);
		splits_check(&config, &stream, expected.text);
		trace_clear(&expected);
	}
}
END_TEST

/* Delimited messages, found by memmem. */
static void
delimited_expected(struct trace *expected, const struct framing_config *config,
		   const struct stream *stream)
{
	const unsigned char *at = stream->bytes, *end = at + stream->len, *found;
	size_t kept = config->keep_delimiter ? config->delimiter_len : 0;

	while ((found = memmem(at, (size_t)(end - at), config->delimiter,
			       config->delimiter_len)) != NULL) {
		trace_message(expected, at, (size_t)(found - at) + kept);
		at = found + config->delimiter_len;
	}
	trace_text(expected, at < end ? "~$incomplete" : "$nothing");
	if (at < end)
		trace_message(expected, at, (size_t)(end - at));
}

/* Delimiters that begin as they go on, in streams made of little else. */
START_TEST(repetitive_delimiters)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *alphabet;
	} delimiters[] = {
		{ "a", 1, "ab" },          { "aa", 2, "ab" },
		{ "aaaa", 4, "aaab" },     { "aab", 3, "aab" },
		{ "abab", 4, "ab" },       { "aabaaac", 7, "aabc" },
		{ "abacabad", 8, "aabcabad" }, { "\r\n\r\n", 4, "\r\n\r\nx" },
		{ "\0\0\1", 3, "\0\0\1x" }, { "abcabcabd", 9, "abcabcabd" },
	};

	chance_start();
	for (unsigned round = 0; round < 4 * ROUNDS; round++) {
		const char *delimiter = delimiters[_i].bytes;
		struct framing_config config = config_make(FRAMING_DELIMITER, delimiter,
							   delimiters[_i].len);
		size_t alphabet = delimiter[0] == '\0' ? 4 : strlen(delimiters[_i].alphabet);
		struct stream stream = {0};
		struct trace expected = {0};

		config.keep_delimiter = round % 2;
		for (size_t n = chance(100); n > 0; n--) {
			/* Prefixes of the delimiter as well, else the long ones are never met. */
			if (chance(4) == 0)
				stream_add(&stream, delimiter, 1 + chance(config.delimiter_len));
			else
				stream_add(&stream, &delimiters[_i].alphabet[chance(alphabet)], 1);
		}
		delimited_expected(&expected, &config, &stream);
		splits_check(&config, &stream, expected.text);
		trace_clear(&expected);
		framing_clear(&config);
	}
}
END_TEST

/* 4 MiB in pieces of one byte: anything that looks back over what it has seen
 * would not end within the time that the test has. */
#define TRICKLE ((size_t)4 << 20)

static void
trickle(const struct framing_config *config, const char *start, unsigned char byte,
	enum framing_verdict end, size_t payload)
{
	struct framing_state state = {0};
	struct framing_step step;
	size_t total = 0;

	for (const char *at = start; *at != '\0'; at++) {
		framing_feed(config, &state, (const unsigned char *)at, 1, &step);
		ck_assert_int_eq(step.verdict, FRAMING_MORE);
		total += step.head_len + step.data_len;
	}
	for (size_t i = 0; i < TRICKLE; i++) {
		framing_feed(config, &state, &byte, 1, &step);
		if (step.verdict != FRAMING_MORE || step.used != 1)
			ck_abort_msg("verdict %d at byte %zu", (int)step.verdict, i);
		total += step.head_len + step.data_len;
	}
	framing_finish(config, &state, &step);
	ck_assert_int_eq(step.verdict, end);
	ck_assert_uint_eq(total + step.head_len, payload);
}

START_TEST(trickles)
{
	static char teeth[1001]; /* a thousand times the same, but for the last */
	struct framing_config config = { .kind = FRAMING_EOF };

	trickle(&config, "", 'a', FRAMING_MESSAGE, TRICKLE);
	config.kind = FRAMING_LINE;
	trickle(&config, "", 'a', FRAMING_MESSAGE, TRICKLE);
	trickle(&config, "", '\r', FRAMING_MESSAGE, TRICKLE);
	trickle(&config, "", '\n', FRAMING_NOTHING, 0);
	config.kind = FRAMING_NETSTRING;
	trickle(&config, "9999999:", 'a', FRAMING_INCOMPLETE, TRICKLE);
	config.kind = FRAMING_OCTET_COUNTED;
	trickle(&config, "9999999 ", 'a', FRAMING_INCOMPLETE, TRICKLE);
	config.kind = FRAMING_LENGTH;
	config.length_bytes = 4;
	trickle(&config, "\x7f\xff\xff\xff", 'a', FRAMING_INCOMPLETE, TRICKLE);
	config.kind = FRAMING_MLLP;
	trickle(&config, "\x0b", '\x1c', FRAMING_INCOMPLETE, TRICKLE);
	trickle(&config, "", '\n', FRAMING_NOTHING, 0);

	memset(teeth, 'a', sizeof teeth);
	teeth[sizeof teeth - 1] = 'b';
	config = config_make(FRAMING_DELIMITER, teeth, sizeof teeth);
	trickle(&config, "", 'a', FRAMING_INCOMPLETE, TRICKLE);
	trickle(&config, "aaaab", 'c', FRAMING_INCOMPLETE, TRICKLE + 5);
	config.keep_delimiter = true;
	trickle(&config, "", 'a', FRAMING_INCOMPLETE, TRICKLE);
	framing_clear(&config);
}
END_TEST

static Suite *
framing_property_suite(void)
{
	Suite *s = suite_create("framing_property");
	TCase *tc = tcase_create("splits");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, messages, FRAMING_EOF, FRAMING_MLLP + 1);
	tcase_add_loop_test(tc, garbage, FRAMING_EOF, FRAMING_MLLP + 1);
	tcase_add_test(tc, lines);
	tcase_add_loop_test(tc, repetitive_delimiters, 0, 10);
	tcase_add_test(tc, trickles);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(framing_property_suite());
}
