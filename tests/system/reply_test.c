/*
 * reply: what clients are told, in words and by the close, and what becomes of
 * messages that are not whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define LINE "sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
#define JSON "sinks = { console = { type = \"console\"; format = \"json\"; }; };\n"
#define RECEIPT "reply = \"receipt\";\n"

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_output(daemon, NULL);

	ck_assert_str_eq(output, text);
	free(output);
}

/* A connection that is answered so and then reset. */
static void
expect_reject(struct daemon *daemon, const char *bytes, bool closes, const char *receipt)
{
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, bytes);
	if (closes)
		client_finish(fd);
	client_expect(fd, receipt, CLIENT_RST);
}

static void
end_discarded(struct daemon *daemon, unsigned accepted, unsigned discarded)
{
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, accepted);
	ck_assert_uint_eq(daemon->account.discarded, discarded);
	daemon_end(daemon);
}

/* The tutorial's own pair. */
START_TEST(echo)
{
	struct daemon *daemon =
		daemon_start("framing = \"delimiter\"; delimiter = \"<EOF>\"; "
			     "keep_delimiter = true; reply = \"echo\"; max_messages = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "This is a test<EOF>");
	client_expect(fd, "This is a test<EOF>", CLIENT_FIN);
	expect_output(daemon, "Read 19 bytes from socket.\n Data : This is a test<EOF>\n");
	end_discarded(daemon, 1, 0);
}
END_TEST

START_TEST(echo_large)
{
	struct daemon *daemon = daemon_start(LINE "reply = \"echo\";");
	size_t len = (size_t)4 << 20, got;
	char *bytes = malloc(len), *back = malloc(len + 1);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	ck_assert_ptr_nonnull(back);
	for (got = 0; got < len / 8; got++)
		((uint64_t *)(void *)bytes)[got] = harness_word(3, got);
	client_send(fd, bytes, len);
	client_finish(fd);
	ck_assert_int_eq(client_receive(fd, back, len + 1, &got, HARNESS_DEADLINE), CLIENT_FIN);
	ck_assert_uint_eq(got, len);
	ck_assert_int_eq(memcmp(bytes, back, len), 0);
	close(fd);
	free(bytes);
	free(back);
	end_discarded(daemon, 1, 0);
}
END_TEST

START_TEST(too_large)
{
	struct daemon *daemon = daemon_start(LINE RECEIPT "max_message_size = 100; "
							  "framing = \"line\";");
	char text[256];
	int fd = client_connect(daemon_address(daemon, "main"));

	snprintf(text, sizeof text, "%0100d\n%0101d\n", 1, 2);
	client_send_text(fd, text);
	client_expect_ok(fd, 100);
	client_expect(fd, "REJECT too-large\n", CLIENT_RST);
	snprintf(text, sizeof text, "%0100d\n", 1);
	expect_output(daemon, text);
	end_discarded(daemon, 1, 1);
}
END_TEST

/* What a frame announces is enough to know; nothing of it need be sent. */
START_TEST(too_large_announced)
{
	struct daemon *daemon = daemon_start(LINE RECEIPT "framing = \"netstring\";");

	expect_reject(daemon, "16777217:", false, "REJECT too-large\n");
	expect_reject(daemon, "99999999999999999999999999", false, "REJECT too-large\n");
	end_discarded(daemon, 0, 2);
}
END_TEST

/* A receipt reaches a client that goes on sending for a long while. */
START_TEST(too_large_while_sending)
{
	struct daemon *daemon = daemon_start(LINE RECEIPT "max_message_size = 1000;");
	size_t len = (size_t)8 << 20;
	char *bytes = calloc(1, len);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	client_send(fd, bytes, len);
	client_finish(fd);
	client_expect(fd, "REJECT too-large\n", CLIENT_RST);
	free(bytes);
	end_discarded(daemon, 0, 1);
}
END_TEST

START_TEST(malformed)
{
	struct daemon *daemon = daemon_start(LINE RECEIPT "framing = \"netstring\";");
	int fd = client_connect(daemon_address(daemon, "main"));

	expect_reject(daemon, "hello", false, "REJECT malformed\n");
	expect_reject(daemon, "1:xy", false, "REJECT malformed\n");
	client_send_text(fd, "1:x,1:y;");
	client_expect_ok(fd, 1);
	client_expect(fd, "REJECT malformed\n", CLIENT_RST);
	expect_output(daemon, "x\n");
	daemon_wait_log(daemon, NULL, "malformed", 1);
	end_discarded(daemon, 1, 3);
}
END_TEST

START_TEST(incomplete)
{
	struct daemon *daemon = daemon_start(LINE RECEIPT "framing = \"netstring\";");
	int fd = client_connect(daemon_address(daemon, "main"));

	expect_reject(daemon, "5:hel", true, "REJECT incomplete\n");
	expect_reject(daemon, "5", true, "REJECT incomplete\n");
	client_send_text(fd, "1:x,5:hello");
	client_finish(fd);
	client_expect_ok(fd, 1);
	client_expect(fd, "REJECT incomplete\n", CLIENT_RST);
	expect_output(daemon, "x\n");
	end_discarded(daemon, 1, 3);
}
END_TEST

/* Without words the close alone tells the truth. */
START_TEST(close_is_the_receipt)
{
	struct daemon *daemon = daemon_start(LINE "framing = \"delimiter\"; delimiter = \";\";");

	client_deliver(daemon_address(daemon, "main"), "whole;", 6, CLIENT_FIN);
	client_deliver(daemon_address(daemon, "main"), "whole;half", 10, CLIENT_RST);
	client_deliver(daemon_address(daemon, "main"), "half", 4, CLIENT_RST);
	client_deliver(daemon_address(daemon, "main"), "", 0, CLIENT_FIN);
	expect_output(daemon, "whole\nwhole\n");
	daemon_wait_log(daemon, NULL, "incomplete", 1);
	end_discarded(daemon, 2, 2);
}
END_TEST

/* The output's lines hold both of these. */
static void
expect_line(struct daemon *daemon, const char *data, const char *ended)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	char *output, *at, *line;
	bool found = false;

	while (!found) {
		ck_assert_msg(harness_now() < deadline, "%s, ended %s, is not printed", data,
			      ended);
		output = daemon_output(daemon, NULL);
		at = output;
		while ((line = strsep(&at, "\n")) != NULL && !found)
			found = strstr(line, data) != NULL && strstr(line, ended) != NULL;
		free(output);
		harness_pause();
	}
}

/* What is not whole is put aside, marked, and its sender told all the same. */
START_TEST(put_aside)
{
	struct daemon *daemon = daemon_start(
		JSON RECEIPT "framing = \"line\"; incomplete = \"console\"; idle_timeout = 1; "
			     "max_message_size = 20;");
	int fd;

	fd = client_connect(daemon_address(daemon, "main"));
	client_send_text(fd, "cut off");
	client_wait_read(fd);
	client_reset(fd);
	expect_line(daemon, "\"data\":\"cut off\"", "\"ended\":\"reset\"");

	expect_reject(daemon, "too slow", false, "RETRY timeout\n");
	expect_line(daemon, "\"data\":\"too slow\"", "\"ended\":\"timeout\"");

	expect_reject(daemon, "too much of a good thing", false, "REJECT too-large\n");
	expect_line(daemon, "\"data\":\"too much of a good", "\"ended\":\"too-large\"");
	end_discarded(daemon, 0, 3);
}
END_TEST

START_TEST(put_aside_frames)
{
	struct daemon *daemon = daemon_start(
		JSON RECEIPT "framing = \"netstring\"; incomplete = \"console\"; "
			     "shutdown_timeout = 1;");
	int fd;

	expect_reject(daemon, "10:unfinished!", false, "REJECT malformed\n");
	expect_reject(daemon, "12:unfinished", true, "REJECT incomplete\n");
	expect_line(daemon, "\"data\":\"unfinished\"", "\"ended\":\"incomplete\"");
	fd = client_connect(daemon_address(daemon, "main"));
	client_send_text(fd, "5:stop");
	client_wait_read(fd);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	client_expect(fd, "RETRY shutdown\n", CLIENT_RST);
	expect_line(daemon, "\"data\":\"stop\"", "\"ended\":\"shutdown\"");
	ck_assert_uint_eq(daemon->account.discarded, 3);
	daemon_end(daemon);
}
END_TEST

/* Without receipts a sink's refusal ends a connection, also one that would go on; it is all that
 * can tell. */
START_TEST(refused_while_open)
{
	static const char *const replies[] = { "none", "echo" };

	for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
		struct daemon *daemon = daemon_start(
			"workers = 1; framing = \"line\"; reply = \"%s\"; deliver = \"spool\"; idle_timeout = 0;"
			"sinks = { spool = { type = \"spool\"; directory = \"@DIR@/spool\"; "
			"min_free = \"1000000G\"; }; };", replies[i]);
		int fd = client_connect(daemon_address(daemon, "main"));

		client_send_text(fd, "refused\n");
		client_expect(fd, "", CLIENT_RST);
		ck_assert_int_eq(daemon_stop(daemon), 0);
		ck_assert_uint_eq(daemon->account.failed, 1);
		daemon_end(daemon);
	}
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ echo, 30 },
		{ echo_large, 30 },
		{ too_large, 30 },
		{ too_large_announced, 30 },
		{ too_large_while_sending, 30 },
		{ malformed, 30 },
		{ incomplete, 30 },
		{ close_is_the_receipt, 30 },
		{ put_aside, 30 },
		{ put_aside_frames, 30 },
		{ refused_while_open, 30 },
	};

	return harness_run("reply", tests, sizeof tests / sizeof tests[0], argc, argv);
}
