/*
 * load: many clients with much to say, and very many that say next to nothing.
 * Memory stays bounded, and others are served as before.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define MIB ((size_t)1 << 20)
#define SENDERS (HARNESS_SANITIZED ? 20 : 100)
#define SENT ((HARNESS_SANITIZED ? 2 : 8) * MIB)
#define PIECE ((size_t)32768)
#define STALLED (HARNESS_SANITIZED ? 500 : 10000)
#define PATIENCE 6 /* seconds that the stalled ones are given */

/* The bytes of a sender's message from `at` on; the first word is its number. */
static void
fill(uint64_t *words, size_t sender, size_t at, size_t len)
{
	size_t i;

	for (i = 0; i < len / 8; i++)
		words[i] = at + i == 0 ? sender : harness_word(sender, at / 8 + i);
}

/* One of the connections sends its next piece, as far as there is room; whether
 * it has more to send. */
static bool
send_some(int fd, size_t sender, size_t *sent)
{
	static uint64_t words[PIECE / 8];
	size_t at = *sent / PIECE * PIECE;
	ssize_t n;

	fill(words, sender, at, PIECE);
	n = send(fd, (char *)words + (*sent - at), PIECE - (*sent - at),
		 MSG_DONTWAIT | MSG_NOSIGNAL);
	ck_assert_msg(n > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	if (n > 0)
		*sent += (size_t)n;
	if (*sent == SENT)
		client_finish(fd);
	return *sent < SENT;
}

/* What the daemon prints, looked at piece by piece: messages follow one another
 * whole, each once. */
struct reader {
	uint64_t piece[PIECE / 8];
	size_t used; /* of piece */
	size_t at;   /* within the message */
	size_t sender;
	size_t messages;
	bool seen[SENDERS];
};

static void
read_some(struct daemon *daemon, struct reader *reader)
{
	static uint64_t expected[PIECE / 8];
	ssize_t n = read(daemon->pipe, (char *)reader->piece + reader->used,
			 PIECE - reader->used);

	ck_assert_msg(n > 0 || (n == -1 && errno == EAGAIN), "the output ends");
	if (n > 0)
		reader->used += (size_t)n;
	if (reader->used < PIECE)
		return;
	if (reader->at == 0) {
		reader->sender = reader->piece[0];
		ck_assert_uint_lt(reader->sender, SENDERS);
		ck_assert(!reader->seen[reader->sender]);
		reader->seen[reader->sender] = true;
	}
	fill(expected, reader->sender, reader->at, PIECE);
	ck_assert_msg(memcmp(expected, reader->piece, PIECE) == 0,
		      "the message of client %zu differs after %zu bytes", reader->sender,
		      reader->at);
	reader->used = 0;
	reader->at = (reader->at + PIECE) % SENT;
	reader->messages += reader->at == 0;
}

/* All messages grow at the same time, far beyond memory_limit together. */
START_TEST(large_messages_in_little_memory)
{
	const struct daemon_options options = { .pipe = true };
	struct daemon *daemon = daemon_start_with(
		&options, "sinks = { console = { type = \"console\"; format = \"raw\"; }; };"
			  "memory_limit = \"32M\"; idle_timeout = 0;");
	struct reader *reader = calloc(1, sizeof *reader);
	struct pollfd polled[SENDERS + 1];
	size_t sent[SENDERS] = { 0 }, before = daemon_memory(daemon), growth, i;
	double began = harness_now(), deadline = began + (HARNESS_SANITIZED ? 200 : 75);
	int fds[SENDERS];

	ck_assert_ptr_nonnull(reader);
	for (i = 0; i < SENDERS; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		polled[i] = (struct pollfd){ .fd = fds[i], .events = POLLOUT };
	}
	polled[SENDERS] = (struct pollfd){ .fd = daemon->pipe, .events = POLLIN };
	while (reader->messages < SENDERS) {
		ck_assert_msg(harness_now() < deadline, "%zu messages of %d came",
			      reader->messages, SENDERS);
		ck_assert_int_ge(poll(polled, SENDERS + 1, 1000), 0);
		for (i = 0; i < SENDERS; i++) {
			if (polled[i].revents != 0 && !send_some(fds[i], i, &sent[i]))
				polled[i].fd = -1;
		}
		if (polled[SENDERS].revents != 0)
			read_some(daemon, reader);
	}
	for (i = 0; i < SENDERS; i++)
		client_expect(fds[i], "", CLIENT_FIN);
	growth = daemon_memory_peak(daemon) - before;
	harness_note("%d clients, %zu MiB each, in %.1f s; resident memory grew by %.1f MiB at most",
		     SENDERS, SENT / MIB, harness_now() - began, (double)growth / 1024);
	if (HARNESS_SANITIZED)
		harness_note("the bound on memory is not looked at under sanitizers");
	else
		ck_assert_uint_lt(growth, 64 * 1024);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, SENDERS);
	daemon_end(daemon);
	free(reader);
}
END_TEST

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* A client on a connection of its own, each message sent when the last one is
 * answered: the median and the slowest but one in a hundred, in microseconds. */
static void
measure_latency(struct daemon *daemon, const char *when, double *median)
{
	double times[500];
	size_t i, n = sizeof times / sizeof times[0];
	int fd = client_connect(daemon_address(daemon, "other"));

	for (i = 0; i < n; i++) {
		times[i] = harness_now();
		client_send_text(fd, "there\n");
		client_expect_ok(fd, 5);
		times[i] = harness_now() - times[i];
	}
	close(fd);
	qsort(times, n, sizeof times[0], compare);
	*median = times[n / 2] * 1e6;
	harness_note("latency %s: median %.0f us, 99 %% below %.0f us", when, *median,
		     times[n * 99 / 100] * 1e6);
}

/* As many stalled clients as descriptors allow, here and in the daemon. */
static size_t
stalled_clients(void)
{
	struct rlimit limit;
	size_t n = STALLED;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < n + 200) {
		n = limit.rlim_cur - 200;
		harness_note("only %zu clients: the limit of open files is %lu", n,
			     (unsigned long)limit.rlim_cur);
	}
	return n;
}

/* Waits until all have been reset, each within its time; the longest of them. */
static double
wait_all_reset(struct pollfd *polled, const double *began, size_t n)
{
	double deadline = harness_now() + PATIENCE + HARNESS_DEADLINE, took, longest = 0;
	size_t i, open = n;
	char byte;

	while (open > 0) {
		ck_assert_msg(harness_now() < deadline, "%zu connections are still open", open);
		ck_assert_int_ge(poll(polled, n, 1000), 0);
		for (i = 0; i < n; i++) {
			if (polled[i].fd == -1 || polled[i].revents == 0)
				continue;
			ck_assert_int_eq(recv(polled[i].fd, &byte, 1, MSG_DONTWAIT), -1);
			ck_assert_int_eq(errno, ECONNRESET);
			took = harness_now() - began[i];
			ck_assert_double_ge(took, PATIENCE - 0.1);
			longest = took > longest ? took : longest;
			close(polled[i].fd);
			polled[i].fd = -1;
			open--;
		}
	}
	return longest;
}

START_TEST(stalled_connections)
{
	size_t n = stalled_clients(), i, before, memory, descriptors, asked;
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"line\"; }; };"
		"listeners = { main = { port = 0; message_timeout = %d; backlog = 4096; };"
		" other = { port = 0; framing = \"line\"; reply = \"receipt\"; }; };",
		PATIENCE);
	struct pollfd *polled = calloc(n, sizeof *polled);
	double *began = calloc(n, sizeof *began), quiet, crowded, longest;
	char *address = harness_text("%s", daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(polled);
	ck_assert_ptr_nonnull(began);
	descriptors = daemon_descriptors(daemon);
	measure_latency(daemon, "alone", &quiet);
	daemon_wait_descriptors(daemon, descriptors);
	before = daemon_memory(daemon);
	asked = daemon_count_log(daemon, NULL, NULL);
	for (i = 0; i < n; i++) {
		polled[i] = (struct pollfd){ .fd = client_connect(address), .events = POLLIN };
		began[i] = harness_now();
		client_send(polled[i].fd, "s", 1);
	}
	while (daemon_descriptors(daemon) < descriptors + n) {
		ck_assert_msg(harness_now() < began[0] + PATIENCE, "not all were accepted");
		harness_pause();
	}
	harness_note("%zu connections in %.2f s", n, harness_now() - began[0]);
	measure_latency(daemon, "among them", &crowded);
	memory = daemon_memory_peak(daemon) - before;
	harness_note("resident memory grew by %.1f MiB: %zu bytes a connection",
		     (double)memory / 1024, memory * 1024 / n);
	longest = wait_all_reset(polled, began, n);
	harness_note("all were reset within %.2f s (deadline %d s), %zu log lines", longest,
		     PATIENCE, daemon_count_log(daemon, NULL, NULL) - asked);
	if (!HARNESS_SANITIZED) {
		ck_assert_uint_lt(memory * 1024 / n, 8192);
		ck_assert_double_lt(crowded, 5 * quiet + 1000);
		ck_assert_double_lt(longest, PATIENCE + 2);
	}
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.discarded, n);
	ck_assert_uint_eq(daemon->account.accepted, 1000);
	daemon_end(daemon);
	free(address);
	free(polled);
	free(began);
}
END_TEST

/* 50,000 where descriptors allow that; the limit is raised where we may. */
static size_t
idle_clients(void)
{
	struct rlimit limit = { .rlim_cur = 51000, .rlim_max = 51000 };
	const size_t wanted = HARNESS_SANITIZED ? 1000 : 50000;

	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur >= wanted + 1000)
		return wanted;
	harness_note("only %zu descriptors are allowed here", (size_t)limit.rlim_cur);
	return (size_t)limit.rlim_cur - 1000;
}

/* What a connection costs that says nothing, and that so many harm nobody. */
START_TEST(idle_connections)
{
	size_t n = idle_clients(), i, before, memory, descriptors;
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"line\"; }; };"
		"address = \"0.0.0.0\"; port = 0; idle_timeout = 0; backlog = 4096;");
	const char *port = strrchr(daemon_address(daemon, "main"), ':');
	int *clients = calloc(n, sizeof *clients);
	double began = harness_now();
	char address[32];

	ck_assert_ptr_nonnull(clients);
	ck_assert_ptr_nonnull(port);
	snprintf(address, sizeof address, "127.0.0.1%s", port);
	client_deliver(address, "before", 6, CLIENT_FIN);
	descriptors = daemon_descriptors(daemon);
	before = daemon_memory(daemon);
	for (i = 0; i < n; i++) {
		/* An address of ours has ports for some 28,000 connections to one of theirs. */
		snprintf(address, sizeof address, "127.0.0.%zu%s", 1 + i / 10000, port);
		clients[i] = client_connect(address);
	}
	while (daemon_descriptors(daemon) < descriptors + n) {
		ck_assert_msg(harness_now() < began + HARNESS_DEADLINE * 3, "not all were accepted");
		harness_pause();
	}
	memory = daemon_memory(daemon) - before;
	harness_note("%zu idle connections in %.2f s, %zu bytes of resident memory each", n,
		     harness_now() - began, memory * 1024 / n);
	client_deliver(address, "among", 5, CLIENT_FIN);
	if (!HARNESS_SANITIZED)
		ck_assert_uint_lt(memory * 1024 / n, 1400);
	for (i = 0; i < n; i++)
		close(clients[i]);
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 2);
	daemon_end(daemon);
	free(clients);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ large_messages_in_little_memory, 90 },
		{ stalled_connections, 90 },
		{ idle_connections, 90 },
	};

	return harness_run("load", tests, sizeof tests / sizeof tests[0], argc, argv);
}
