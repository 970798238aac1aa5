/*
 * deadline: clients that are slow, silent or never finish.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define JSON "sinks = { console = { type = \"console\"; format = \"json\"; }; };\n"

/* How late a deadline may be noticed. */
#define LATE (HARNESS_SANITIZED ? 5.0 : 1.5)

static void
expect_within(double began, double least, const char *what)
{
	double took = harness_now() - began;

	harness_note("%s: %.2f s", what, took);
	ck_assert_double_ge(took, least - 0.05);
	ck_assert_double_le(took, least + LATE);
}

/* Sends a byte whenever the pause (milliseconds) is over, until the peer ends the
 * connection; how it does. */
static enum client_end
drip(int fd, int pause)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	double deadline = harness_now() + HARNESS_DEADLINE;
	char rest[16];
	size_t len;

	while (poll(&poll_fd, 1, pause) == 0) {
		ck_assert_msg(harness_now() < deadline, "the connection is still open");
		if (client_pour(fd, "d", 1) == CLIENT_RST)
			return CLIENT_RST;
	}
	return client_receive(fd, rest, sizeof rest, &len, HARNESS_DEADLINE);
}

START_TEST(idle_timeout)
{
	struct daemon *daemon = daemon_start(JSON "idle_timeout = 1;");
	double began = harness_now();
	int idle = client_connect(daemon_address(daemon, "main"));
	int within = client_connect(daemon_address(daemon, "main"));

	client_send_text(within, "and then silence");
	client_expect(idle, "", CLIENT_FIN);
	expect_within(began, 1, "idle, nothing begun");
	client_expect(within, "", CLIENT_RST);
	expect_within(began, 1, "idle within a message");
	daemon_wait_log(daemon, NULL, "timeout", 1);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	ck_assert_uint_eq(daemon->account.received, 0);
	daemon_end(daemon);
}
END_TEST

/* Bytes that keep coming, however slowly, put it off. */
START_TEST(idle_timeout_put_off)
{
	struct daemon *daemon = daemon_start(JSON "idle_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main")), i;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	for (i = 0; i < 8; i++) {
		client_send(fd, "p", 1);
		ck_assert_int_eq(poll(&poll_fd, 1, 250), 0);
	}
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
}
END_TEST

/* A client whose message is still with the sinks is not idle. */
START_TEST(idle_timeout_in_flight)
{
	const struct daemon_options options = { .pipe = true };
	struct daemon *daemon = daemon_start_with(
		&options, "sinks = { console = { type = \"console\"; format = \"raw\"; }; };"
			  "idle_timeout = 1;");
	size_t len = (size_t)1 << 20;
	char *bytes = calloc(1, len);
	int fd = client_connect(daemon_address(daemon, "main"));
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	ck_assert_ptr_nonnull(bytes);
	client_send(fd, bytes, len);
	client_finish(fd);
	ck_assert_int_eq(poll(&poll_fd, 1, 2500), 0);
	daemon_read_pipe(daemon, bytes, len);
	client_expect(fd, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* Nor is one that takes its replies, however slowly. */
START_TEST(idle_timeout_slow_reader)
{
	enum { LARGE = 16000000, PIECE = 16384 };
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"raw\"; }; };"
		"idle_timeout = 2; reply = \"echo\";");
	int fd = client_try_connect(daemon_address(daemon, "main"), NULL, 65536);
	char *bytes = calloc(1, LARGE), piece[PIECE];
	double began = harness_now();
	size_t len, total = 0;
	enum client_end end;

	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_ne(fd, -1);
	client_send(fd, bytes, LARGE);
	client_finish(fd);
	do {
		end = client_receive(fd, piece, PIECE, &len, HARNESS_DEADLINE);
		total += len;
		/* As much as is left takes it past idle_timeout. */
		if (harness_now() < began + 5)
			harness_pause();
	} while (end == CLIENT_OPEN && len > 0);
	ck_assert_int_eq(end, CLIENT_FIN);
	ck_assert_uint_eq(total, LARGE);
	harness_note("%.1f s", harness_now() - began);
	close(fd);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* Bytes that keep coming do not put this one off; each message has its own. */
START_TEST(message_timeout)
{
	struct daemon *daemon = daemon_start(
		JSON "message_timeout = 1; framing = \"line\"; reply = \"receipt\";");
	int fd = client_connect(daemon_address(daemon, "main"));
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	double began;
	char line[64];
	int i;

	for (i = 0; i < 6; i++) {
		client_send_text(fd, "l");
		ck_assert_int_eq(poll(&poll_fd, 1, 300), 0);
		client_send_text(fd, "\n");
		client_expect_ok(fd, 1);
	}
	began = harness_now();
	while (poll(&poll_fd, 1, 100) == 0)
		client_send(fd, "d", 1);
	expect_within(began, 1, "message_timeout");
	client_receive_line(fd, line, sizeof line);
	ck_assert_str_eq(line, "RETRY timeout\n");
	client_expect(fd, "", CLIENT_RST);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 6);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	daemon_end(daemon);
}
END_TEST

START_TEST(message_timeout_without_receipts)
{
	struct daemon *daemon = daemon_start(JSON "message_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));
	double began = harness_now();

	ck_assert_int_eq(drip(fd, 50), CLIENT_RST);
	expect_within(began, 1, "message_timeout, eof");
	close(fd);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	daemon_end(daemon);
}
END_TEST

/* Judged after ten seconds, on the average since the message's first byte. */
START_TEST(min_rate)
{
	struct daemon *daemon = daemon_start(JSON "min_rate = 1000; framing = \"line\";");
	int slow = client_connect(daemon_address(daemon, "main"));
	int fast = client_connect(daemon_address(daemon, "main"));
	int idle = client_connect(daemon_address(daemon, "main"));
	char *bytes = calloc(1, 100000);
	double began = harness_now();

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'f', 99999);
	client_send(fast, bytes, 99999);
	free(bytes);
	ck_assert_int_eq(drip(slow, 100), CLIENT_RST);
	expect_within(began, 10, "min_rate");
	close(slow);
	/* One between messages is not slow, nor one that has sent much. */
	client_send_text(fast, "\n");
	client_finish(fast);
	client_expect(fast, "", CLIENT_FIN);
	client_send_text(idle, "well\n");
	client_finish(idle);
	client_expect(idle, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 2);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	daemon_end(daemon);
}
END_TEST

/* Senders that never close their side end a message by silence. */
START_TEST(quiet_timeout)
{
	struct daemon *daemon = daemon_start(JSON "quiet_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));
	int closing = client_connect(daemon_address(daemon, "main"));
	double began;
	char *output;

	client_send_text(closing, "closed");
	client_finish(closing);
	client_expect(closing, "", CLIENT_FIN);
	output = daemon_output(daemon, NULL);
	ck_assert_ptr_nonnull(strstr(output, "\"ended\":\"fin\""));
	free(output);
	began = harness_now();
	client_send_text(fd, "qu");
	client_send_text(fd, "iet");
	client_expect(fd, "", CLIENT_FIN);
	expect_within(began, 1, "quiet_timeout");
	output = daemon_output(daemon, NULL);
	ck_assert_ptr_nonnull(strstr(output, "\"ended\":\"quiet\""));
	ck_assert_ptr_nonnull(strstr(output, "\"data\":\"quiet\""));
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 2);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ idle_timeout, 30 },
		{ idle_timeout_put_off, 30 },
		{ idle_timeout_in_flight, 30 },
		{ idle_timeout_slow_reader, 60 },
		{ message_timeout, 30 },
		{ message_timeout_without_receipts, 30 },
		{ min_rate, 60 },
		{ quiet_timeout, 30 },
	};

	return harness_run("deadline", tests, sizeof tests / sizeof tests[0], argc, argv);
}
