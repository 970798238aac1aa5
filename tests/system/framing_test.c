/*
 * framing: each framing on a real connection, several messages one after the
 * other, however the bytes arrive; receipts in order, and what comes out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define LINE "sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
#define MOST 8

struct piece {
	const char *bytes;
	size_t len;
};

#define PIECE(text) { text, sizeof(text) - 1 }

struct stream {
	const char *settings;
	struct piece input;
	struct piece messages[MOST];
	size_t n_messages;
	bool closes; /* the close is part of it */
};

/* One connection: the input in pieces of this size (0: of random ones). */
static void
run_stream(struct daemon *daemon, const struct stream *stream, size_t size)
{
	int fd = client_connect(daemon_address(daemon, "main"));
	size_t at, piece, i;

	for (at = 0; at < stream->input.len; at += piece) {
		piece = size != 0 ? size : 1 + harness_word(stream->input.len, at) % 7;
		if (piece > stream->input.len - at)
			piece = stream->input.len - at;
		client_send(fd, stream->input.bytes + at, piece);
		if (piece < stream->input.len)
			client_wait_read(fd); /* or it would arrive together with the next */
	}
	if (stream->closes)
		client_finish(fd);
	for (i = 0; i < stream->n_messages; i++)
		client_expect_ok(fd, stream->messages[i].len);
	if (!stream->closes)
		client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
}

static void
check_stream(const struct stream *stream)
{
	struct daemon *daemon =
		daemon_start(LINE "reply = \"receipt\"; %s", stream->settings);
	static const size_t sizes[] = { 65536, 1, 0 };
	const struct piece *message;
	char *output;
	size_t i, way, len, at = 0;

	for (way = 0; way < 3; way++)
		run_stream(daemon, stream, sizes[way]);
	output = daemon_output(daemon, &len);
	for (i = 0; i < 3 * stream->n_messages; i++) {
		message = &stream->messages[i % stream->n_messages];
		ck_assert_uint_le(at + message->len + 1, len);
		ck_assert_mem_eq(output + at, message->bytes, message->len);
		at += message->len;
		ck_assert_int_eq(output[at++], '\n');
	}
	ck_assert_uint_eq(at, len);
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 3 * stream->n_messages);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}

START_TEST(eof)
{
	static const struct stream stream = {
		"framing = \"eof\";", PIECE("all of it\r\n\0"), { PIECE("all of it\r\n\0") }, 1, true
	};

	check_stream(&stream);
}
END_TEST

START_TEST(line)
{
	static const struct stream stream = {
		"framing = \"line\";",
		PIECE("one\ntwo\r\n\n\r\nthr\ree\nunterminated"),
		{ PIECE("one"), PIECE("two"), PIECE("thr\ree"), PIECE("unterminated") },
		4,
		true
	};
	/* Nothing follows this CR, so it ends no line. */
	static const struct stream unterminated = {
		"framing = \"line\";", PIECE("one\ntwo\r"), { PIECE("one"), PIECE("two\r") }, 2, true
	};

	check_stream(&stream);
	check_stream(&unterminated);
}
END_TEST

START_TEST(delimiter)
{
	static const struct stream stream = {
		"framing = \"delimiter\"; delimiter = \"<EOF>\";",
		PIECE("one<EOF>t<EO<EOF>wo<EOF><EOF>last\n<EOF>"),
		{ PIECE("one"), PIECE("t<EO"), PIECE("wo"), PIECE(""), PIECE("last\n") },
		5,
		false
	};

	check_stream(&stream);
}
END_TEST

/* A delimiter that holds a NUL and begins like itself, kept. */
START_TEST(delimiter_kept)
{
	static const struct stream stream = {
		"framing = \"delimiter\"; delimiter = \"aab\\\\0\"; keep_delimiter = true;",
		PIECE("aaab\0xaabaab\0"),
		{ PIECE("aaab\0"), PIECE("xaabaab\0") },
		2,
		false
	};

	check_stream(&stream);
}
END_TEST

START_TEST(length)
{
	static const struct stream four = {
		"framing = \"length\";",
		PIECE("\0\0\0\5hello\0\0\0\0\0\0\0\1x"),
		{ PIECE("hello"), PIECE(""), PIECE("x") },
		3,
		false
	};
	static const struct stream one = { "framing = \"length\"; length_bytes = 1;",
					   PIECE("\5hello\0\1x"),
					   { PIECE("hello"), PIECE(""), PIECE("x") },
					   3,
					   false };
	static const struct stream two = {
		"framing = \"length\"; length_bytes = 2; length_order = \"little\"; "
		"length_includes_header = true;",
		PIECE("\7\0hello\2\0\3\0x"),
		{ PIECE("hello"), PIECE(""), PIECE("x") },
		3,
		false
	};
	static const struct stream eight = {
		"framing = \"length\"; length_bytes = 8;",
		PIECE("\0\0\0\0\0\0\0\5hello\0\0\0\0\0\0\0\1x"),
		{ PIECE("hello"), PIECE("x") },
		2,
		false
	};

	check_stream(&four);
	check_stream(&one);
	check_stream(&two);
	check_stream(&eight);
}
END_TEST

START_TEST(netstring)
{
	static const struct stream stream = {
		"framing = \"netstring\";",
		PIECE("12:hello world!,0:,1:,,"),
		{ PIECE("hello world!"), PIECE(""), PIECE(",") },
		3,
		false
	};

	check_stream(&stream);
}
END_TEST

START_TEST(octet_counted)
{
	static const struct stream stream = {
		"framing = \"octet-counted\";",
		PIECE("5 hello11 <1>1 - a\nbc1 x"),
		{ PIECE("hello"), PIECE("<1>1 - a\nbc"), PIECE("x") },
		3,
		false
	};

	check_stream(&stream);
}
END_TEST

START_TEST(mllp)
{
	static const struct stream stream = {
		"framing = \"mllp\";",
		PIECE("\x0bMSH|^~\\&|A\rPID|1\r\x1c\r\x0b\x1c\r\x0bMSH|^~\\&|B\r\x1c\r"),
		{ PIECE("MSH|^~\\&|A\rPID|1\r"), PIECE(""), PIECE("MSH|^~\\&|B\r") },
		3,
		false
	};

	check_stream(&stream);
}
END_TEST

/* The connection ends after so many; what the client has sent past them was not
 * accepted, so it ends with a reset. */
START_TEST(max_messages)
{
	struct daemon *daemon = daemon_start(
		LINE "framing = \"line\"; reply = \"receipt\"; max_messages = 3;");
	int fd = client_connect(daemon_address(daemon, "main")), i;
	char *output;

	client_send_text(fd, "1\n2\n3\n4\n5\n");
	for (i = 0; i < 3; i++)
		client_expect_ok(fd, 1);
	client_expect(fd, "", CLIENT_RST);
	fd = client_connect(daemon_address(daemon, "main"));
	client_send_text(fd, "1\n2\n3\n");
	for (i = 0; i < 3; i++)
		client_expect_ok(fd, 1);
	client_expect(fd, "", CLIENT_FIN);
	output = daemon_output(daemon, NULL);
	ck_assert_str_eq(output, "1\n2\n3\n1\n2\n3\n");
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 6);
	daemon_end(daemon);
}
END_TEST

/* Very many small messages on one connection, by turns with another one: nobody
 * waits for the other to be through. */
START_TEST(many_messages)
{
	struct daemon *daemon = daemon_start(LINE "framing = \"line\"; workers = 1;");
	size_t n = HARNESS_SANITIZED ? 50000 : 500000, i, len = 0, total;
	char *bytes = malloc(n * 16), *output, *at, *text;
	int fd = client_connect(daemon_address(daemon, "main"));
	double began = harness_now();

	ck_assert_ptr_nonnull(bytes);
	for (i = 0; i < n; i++)
		len += (size_t)sprintf(bytes + len, "%zu\n", i);
	client_send(fd, bytes, len);
	client_finish(fd);
	client_deliver(daemon_address(daemon, "main"), "between\n", 8, CLIENT_FIN);
	client_expect(fd, "", CLIENT_FIN);
	harness_note("%.0f messages/s", (double)n / (harness_now() - began));
	output = daemon_output(daemon, &total);
	ck_assert_uint_eq(total, len + 8);
	at = output;
	for (i = 0; i < n;) {
		text = strsep(&at, "\n");
		ck_assert_ptr_nonnull(text);
		if (strcmp(text, "between") != 0)
			ck_assert_uint_eq(strtoul(text, NULL, 10), i++);
	}
	free(output);
	free(bytes);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, n + 1);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ eof, 30 },	      { line, 60 },	    { delimiter, 30 },
		{ delimiter_kept, 30 }, { length, 60 },	    { netstring, 30 },
		{ octet_counted, 30 },  { mllp, 30 },	    { max_messages, 30 },
		{ many_messages, 60 },
	};

	return harness_run("framing", tests, sizeof tests / sizeof tests[0], argc, argv);
}
