/*
 * rate: rate_limit, for one connection and for all of a listener.
 *
 * What is measured is what has been delivered, against the time that has passed: no
 * more than the limit and its burst, however fast the machine is, and not much less,
 * however slow.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define LINES "framing = \"line\"; sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
#define LINE_LEN 64
#define MOST 16

/* Sends lines of a sender's letter for as long as the sockets take them, until so much
 * time is up; all that was delivered by then is counted by letter. */
static double
pour(struct daemon *daemon, const int *fds, size_t count, double seconds, size_t delivered[MOST])
{
	double began = harness_now(), took;
	struct pollfd polls[MOST];
	char lines[MOST][16384], *output;
	size_t len, at[MOST] = { 0 };

	for (size_t i = 0; i < count; i++) {
		memset(lines[i], 'a' + (int)i, sizeof lines[i]);
		for (size_t k = LINE_LEN - 1; k < sizeof lines[i]; k += LINE_LEN)
			lines[i][k] = '\n';
		polls[i] = (struct pollfd){ .fd = fds[i], .events = POLLOUT };
		delivered[i] = 0;
	}
	while (harness_now() - began < seconds) {
		ck_assert_int_ne(poll(polls, count, 20), -1);
		for (size_t i = 0; i < count; i++) {
			ssize_t n = (polls[i].revents & POLLOUT) == 0
					    ? 0
					    : send(fds[i], lines[i] + at[i],
						   sizeof lines[i] - at[i],
						   MSG_DONTWAIT | MSG_NOSIGNAL);

			ck_assert_int_eq(polls[i].revents & (POLLERR | POLLHUP), 0);
			if (n > 0)
				at[i] = (at[i] + (size_t)n) % sizeof lines[i];
		}
	}
	output = daemon_output(daemon, &len);
	took = harness_now() - began;
	for (size_t k = 0; k < len; k += LINE_LEN)
		delivered[output[k] - 'a'] += LINE_LEN;
	free(output);
	return took;
}

static size_t
sum(const size_t delivered[MOST], size_t count)
{
	size_t all = 0;

	for (size_t i = 0; i < count; i++)
		all += delivered[i];
	return all;
}

/* A burst is a quarter of a second's worth, what is said in cistern.conf(5). */
static void
expect_rate(const char *what, size_t bytes, double took, double rate)
{
	harness_note("%s: %.0f bytes/s of %.0f over %.2f s", what, (double)bytes / took, rate,
		     took);
	ck_assert_double_le((double)bytes, 1.05 * rate * (took + 0.25) + LINE_LEN);
	ck_assert_double_ge((double)bytes, rate * took * (HARNESS_SANITIZED ? 0.3 : 0.6));
}

static void
close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		client_reset(fds[i]);
}

START_TEST(connection)
{
	struct daemon *daemon = daemon_start(LINES "rate_limit = { connection = \"200K\"; };");
	size_t delivered[MOST];
	int fds[2];
	double took;

	for (int i = 0; i < 2; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	took = pour(daemon, fds, 2, 2, delivered);
	expect_rate("one connection", delivered[0], took, 200 * 1024);
	expect_rate("the other", delivered[1], took, 200 * 1024);
	close_all(fds, 2);
	daemon_end(daemon);
}
END_TEST

/* Over several workers, and with one that has more to send than others. */
START_TEST(listener_is_fair)
{
	struct daemon *daemon =
		daemon_start("workers = 3;\n" LINES "rate_limit = { listener = \"400K\"; };");
	size_t delivered[MOST], i, count = 8;
	int fds[MOST];
	double took;

	for (i = 0; i < count; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	took = pour(daemon, fds, count, 3, delivered);
	expect_rate("a listener", sum(delivered, count), took, 400 * 1024);
	for (i = 0; i < count; i++) {
		harness_note("connection %zu: %zu bytes", i, delivered[i]);
		ck_assert_double_ge((double)delivered[i],
				    (double)sum(delivered, count) / (double)count * 0.4);
	}
	close_all(fds, count);
	daemon_end(daemon);
}
END_TEST

/* Who comes while others have the limit in use gets a share, too. */
START_TEST(newcomer_is_served)
{
	struct daemon *daemon = daemon_start(
		LINES "rate_limit = { connection = \"300K\"; listener = \"400K\"; };");
	size_t delivered[MOST], i, count = 4;
	int fds[MOST], late;
	double began;

	for (i = 0; i < count; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	(void)pour(daemon, fds, count, 1, delivered);
	late = client_connect(daemon_address(daemon, "main"));
	began = harness_now();
	client_send_text(late, "late\n");
	client_finish(late);
	client_expect(late, "", CLIENT_FIN);
	harness_note("served after %.3f s", harness_now() - began);
	ck_assert_double_le(harness_now() - began, HARNESS_SANITIZED ? 10 : 2);
	close_all(fds, count);
	daemon_end(daemon);
}
END_TEST

/* The wait is ours: no time of the client's passes in it. */
START_TEST(pauses_are_not_the_clients)
{
	size_t len = 30000, i;
	char *message = malloc(len), *output;
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"
		"rate_limit = { connection = \"10K\"; }; buffer_size = 4096;\n"
		"idle_timeout = 2; message_timeout = 2; min_rate = \"1M\";");
	int fd = client_connect(daemon_address(daemon, "main"));
	double began = harness_now(), took;

	ck_assert_ptr_nonnull(message);
	for (i = 0; i < len; i++)
		message[i] = (char)harness_word(1, i);
	client_send(fd, message, len - 1);
	client_wait_read(fd);
	took = harness_now() - began;
	harness_note("%zu bytes at 10K: %.2f s", len, took);
	ck_assert_double_ge(took, (double)len / 10240 - 0.7); /* its burst, and what libevent holds */
	ck_assert_double_le(took, (double)len / 10240 * (HARNESS_SANITIZED ? 4 : 2));
	/* This is the client's time, and little of it. */
	usleep(300000);
	client_send(fd, message + len - 1, 1);
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
	output = daemon_wait_output(daemon, len);
	ck_assert_mem_eq(output, message, len);
	ck_assert_uint_eq(daemon_count_log(daemon, "message-discarded", NULL), 0);
	free(output);
	free(message);
	daemon_end(daemon);
}
END_TEST

/* Nor is a turn among many others, that comes later than idle_timeout. */
START_TEST(turns_are_not_idleness)
{
	enum { CLIENTS = 40, LEN = 200 };
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"
		"rate_limit = { listener = \"4K\"; }; idle_timeout = \"300ms\";");
	char message[LEN];
	int fds[CLIENTS], i;

	memset(message, 'm', sizeof message);
	for (i = 0; i < CLIENTS; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send(fds[i], message, sizeof message);
		client_finish(fds[i]);
	}
	for (i = 0; i < CLIENTS; i++)
		client_expect(fds[i], "", CLIENT_FIN);
	free(daemon_wait_output(daemon, CLIENTS * LEN));
	ck_assert_uint_eq(daemon_count_log(daemon, "message-discarded", NULL), 0);
	daemon_end(daemon);
}
END_TEST

/* Silence is the client's, limit or not. */
START_TEST(silence_still_counts)
{
	struct daemon *daemon =
		daemon_start(LINES "rate_limit = { connection = \"10K\"; }; idle_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));
	double began = harness_now();

	client_send_text(fd, "half a li");
	client_expect(fd, "", CLIENT_RST);
	ck_assert_double_le(harness_now() - began, HARNESS_SANITIZED ? 10 : 3);
	daemon_end(daemon);
}
END_TEST

/* With a bound on messages under way and a slow sink: both hold, nothing is lost or
 * spun on. */
START_TEST(with_max_in_flight)
{
	static const struct daemon_options options = { .pipe = true };
	enum { COUNT = 2000 };
	struct daemon *daemon = daemon_start_with(
		&options, "framing = \"line\"; max_in_flight = 4; reply = \"receipt\";\n"
			  "sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
			  "rate_limit = { connection = \"100K\"; listener = \"150K\"; };");
	int fd = client_connect(daemon_address(daemon, "main"));
	char *lines = malloc((size_t)COUNT * LINE_LEN + 1), *got = malloc((size_t)COUNT * LINE_LEN);
	double processor;

	ck_assert(lines != NULL && got != NULL);
	for (int i = 0; i < COUNT; i++)
		snprintf(lines + i * LINE_LEN, LINE_LEN + 1, "%*d\n", LINE_LEN - 1, i);
	if (fork() == 0) {
		client_send(fd, lines, (size_t)COUNT * LINE_LEN);
		client_finish(fd);
		_exit(0);
	}
	processor = daemon_processor(daemon);
	daemon_read_pipe(daemon, got, (size_t)COUNT * LINE_LEN);
	ck_assert_mem_eq(got, lines, (size_t)COUNT * LINE_LEN);
	for (int i = 0; i < COUNT; i++)
		client_expect_ok(fd, LINE_LEN - 1);
	client_expect(fd, "", CLIENT_FIN);
	processor = daemon_processor(daemon) - processor;
	harness_note("%.2f s of processor time", processor);
	ck_assert_double_le(processor, HARNESS_SANITIZED ? 10 : 1);
	free(lines);
	free(got);
	daemon_end(daemon);
}
END_TEST

/* What waits is not forgotten at a stop. */
START_TEST(stop_while_waiting)
{
	struct daemon *daemon = daemon_start(LINES "rate_limit = { connection = 1000; };");
	int fd = client_connect(daemon_address(daemon, "main"));
	char lines[2 * 1024], *output;
	double began;

	memset(lines, 'x', sizeof lines);
	lines[sizeof lines - 1] = '\n';
	client_send(fd, lines, sizeof lines);
	began = harness_now();
	daemon_signal(daemon, SIGTERM);
	client_expect(fd, "", CLIENT_FIN);
	harness_note("read to its end after %.2f s", harness_now() - began);
	ck_assert_double_ge(harness_now() - began, 1.5);
	ck_assert_double_le(harness_now() - began, HARNESS_SANITIZED ? 20 : 4);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	output = daemon_output(daemon, NULL);
	ck_assert_uint_eq(strlen(output), sizeof lines);
	free(output);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ connection, 60 },
		{ listener_is_fair, 60 },
		{ newcomer_is_served, 60 },
		{ pauses_are_not_the_clients, 60 },
		{ turns_are_not_idleness, 60 },
		{ silence_still_counts, 30 },
		{ with_max_in_flight, 60 },
		{ stop_while_waiting, 60 },
	};

	return harness_run("rate", tests, sizeof tests / sizeof tests[0], argc, argv);
}
