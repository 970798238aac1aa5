/*
 * pressure: a console that nobody reads, clients that read nothing, and how much
 * is read in one go.  Memory stays bounded, and nobody else waits.
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

#define CLIENTS 64
#define MIB ((size_t)1 << 20)
#define HALF (MIB / 2) /* stays in memory: no file is open for it */

#define LINE "sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

static const struct daemon_options piped = { .pipe = true };

/* Resident memory since `before` (KiB) has grown by less than so many MiB. */
static void
expect_growth(struct daemon *daemon, size_t before, size_t most)
{
	size_t peak = daemon_memory_peak(daemon);
	size_t growth = peak > before ? peak - before : 0;

	harness_note("resident memory grew by %.1f MiB (%s: below %zu)", (double)growth / 1024,
		     HARNESS_SANITIZED ? "plain builds" : "bound", most);
	if (!HARNESS_SANITIZED)
		ck_assert_uint_lt(growth, most * 1024);
}

/* Everybody's bytes are taken all the same, in bounded memory, and all is there
 * once somebody reads. */
START_TEST(blocked_console)
{
	struct daemon *daemon =
		daemon_start_with(&piped, LINE "memory_limit = \"8M\"; idle_timeout = 0;");
	char *bytes = malloc(MIB + 1), *line = malloc(MIB + 2);
	bool seen[CLIENTS] = { false };
	size_t before = daemon_memory(daemon), i;
	int fds[CLIENTS];

	ck_assert_ptr_nonnull(bytes);
	ck_assert_ptr_nonnull(line);
	for (i = 0; i < CLIENTS; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		memset(bytes, (int)(' ' + i), MIB);
		client_send(fds[i], bytes, MIB);
		client_finish(fds[i]);
	}
	for (i = 0; i < CLIENTS; i++)
		client_wait_read(fds[i]);
	for (i = 0; i < CLIENTS; i++) {
		daemon_read_pipe(daemon, line, MIB + 1);
		ck_assert_int_eq(line[MIB], '\n');
		ck_assert(line[0] >= ' ' && line[0] < ' ' + CLIENTS && !seen[line[0] - ' ']);
		memset(bytes, line[0], MIB);
		ck_assert_int_eq(memcmp(bytes, line, MIB), 0);
		seen[line[0] - ' '] = true;
	}
	for (i = 0; i < CLIENTS; i++)
		client_expect(fds[i], "", CLIENT_FIN);
	expect_growth(daemon, before, 8 + 24);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, CLIENTS);
	daemon_end(daemon);
	free(bytes);
	free(line);
}
END_TEST

/* A message that was complete is delivered though its sender has gone meanwhile. */
START_TEST(client_gone_while_printed)
{
	struct daemon *daemon = daemon_start_with(&piped, RAW);
	size_t descriptors = daemon_descriptors(daemon), i;
	char *bytes = malloc(HALF), *printed = malloc(HALF);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	ck_assert_ptr_nonnull(printed);
	memset(bytes, 'g', HALF);
	client_send(fd, bytes, HALF);
	client_finish(fd);
	/* The pipe is full once the daemon cannot write more of it. */
	client_wait_read(fd);
	daemon_read_pipe(daemon, printed, 1);
	client_reset(fd);
	for (i = 0; i < 3; i++) {
		fd = client_connect(daemon_address(daemon, "main"));
		client_send_text(fd, "short");
		client_finish(fd);
		client_wait_read(fd);
		client_reset(fd);
	}
	daemon_read_pipe(daemon, printed + 1, HALF - 1);
	ck_assert_int_eq(memcmp(printed, bytes, HALF), 0);
	daemon_read_pipe(daemon, printed, 15);
	ck_assert_int_eq(memcmp(printed, "shortshortshort", 15), 0);
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 4);
	daemon_end(daemon);
	free(bytes);
	free(printed);
}
END_TEST

/* For half a second the daemon has nothing to do. */
static void
expect_quiet(struct daemon *daemon, const char *while_what)
{
	double processor = daemon_processor(daemon), began = harness_now();

	while (harness_now() < began + 0.5)
		harness_pause();
	processor = daemon_processor(daemon) - processor;
	harness_note("%.2f s of processor time in 0.5 s while %s", processor, while_what);
	ck_assert_double_lt(processor, 0.15);
}

/* Sends these bytes over and over until the kernel takes no more for a second;
 * how many it took.  More than `most` is a failure. */
static size_t
pour_until_stuck(int fd, const char *bytes, size_t len, size_t most)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
	size_t sent = 0;
	ssize_t n;

	for (;;) {
		if (poll(&poll_fd, 1, 1000) == 0)
			return sent;
		n = send(fd, bytes + sent % len, len - sent % len, MSG_DONTWAIT | MSG_NOSIGNAL);
		ck_assert_msg(n > 0 || errno == EAGAIN, "send: %s", strerror(errno));
		if (n > 0)
			sent += (size_t)n;
		ck_assert_msg(sent <= most, "the daemon reads on and on");
	}
}

/* Reads what is printed up to and with this text. */
static void
read_until(struct daemon *daemon, const char *text)
{
	char last[64] = "";
	size_t len = strlen(text);

	while (memcmp(last, text, len) != 0) {
		memmove(last, last + 1, len - 1);
		daemon_read_pipe(daemon, last + len - 1, 1);
	}
}

/* With max_in_flight messages unanswered nothing more is read, and yet a client
 * that goes away is noticed, be it new or known. */
START_TEST(max_in_flight)
{
	struct daemon *daemon = daemon_start_with(
		&piped, LINE "framing = \"line\"; max_in_flight = 4; idle_timeout = 0;");
	size_t descriptors = daemon_descriptors(daemon), before, i, known;
	char *bytes = malloc(65536), line[16];
	int fd;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'm', 65536);
	for (i = 1023; i < 65536; i += 1024)
		bytes[i] = '\n';
	for (known = 0; known < 2; known++) {
		before = daemon_memory(daemon);
		fd = client_connect(daemon_address(daemon, "main"));
		if (known == 1) {
			client_send_text(fd, "known\n");
			read_until(daemon, "known\n");
		}
		i = pour_until_stuck(fd, bytes, 65536, 128 * MIB);
		harness_note("reading stopped with %zu bytes sent", i);
		expect_growth(daemon, before, 8);
		ck_assert_uint_gt(daemon_descriptors(daemon), descriptors);
		expect_quiet(daemon, "reading is paused");
		client_reset(fd);
		expect_quiet(daemon, "a paused client is gone");
		daemon_wait_descriptors(daemon, descriptors);
	}

	/* One that closes in order is served to the end. */
	fd = client_connect(daemon_address(daemon, "main"));
	for (i = 0; i < 100; i++) {
		snprintf(line, sizeof line, "line %03zu\n", i);
		client_send(fd, line, 9);
	}
	client_finish(fd);
	expect_quiet(daemon, "a paused client has closed its side");
	for (i = 0; i < 100; i++) {
		snprintf(line, sizeof line, "line %03zu\n", i);
		read_until(daemon, line);
	}
	client_expect(fd, "", CLIENT_FIN);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* A client that is paused and closes both its sides without having read: the FIN
 * alone cannot be told from a half-close, but the next receipt brings its reset. */
START_TEST(gone_while_paused)
{
	struct daemon *daemon = daemon_start_with(
		&piped, LINE "framing = \"line\"; max_in_flight = 1; reply = \"receipt\";");
	size_t descriptors = daemon_descriptors(daemon), i;
	char *bytes = malloc(HALF);
	int fds[8];

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'g', HALF - 1);
	bytes[HALF - 1] = '\n';
	for (i = 0; i < 8; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send(fds[i], bytes, HALF);
	}
	for (i = 0; i < 8; i++)
		client_wait_read(fds[i]);
	for (i = 0; i < 8; i++) {
		if (i % 2 == 0)
			client_reset(fds[i]);
		else
			close(fds[i]);
	}
	daemon_wait_descriptors(daemon, descriptors + 4); /* the resets */
	for (i = 0; i < 8; i++)
		daemon_read_pipe(daemon, bytes, HALF);
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 8);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* Receipts that nobody reads are bounded, and so is the patience with them. */
START_TEST(receipts_never_read)
{
	struct daemon *daemon =
		daemon_start(LINE "framing = \"line\"; reply = \"receipt\"; idle_timeout = 2;");
	size_t descriptors = daemon_descriptors(daemon), before, sent = 0;
	struct pollfd poll_fd = { .events = POLLOUT };
	double began = harness_now();
	char lines[4096];
	ssize_t n;

	memset(lines, '\n', sizeof lines);
	for (n = 0; n < (ssize_t)sizeof lines; n += 2)
		lines[n] = 'r';
	before = daemon_memory(daemon);
	poll_fd.fd = client_try_connect(daemon_address(daemon, "main"), NULL, 4096);
	ck_assert_int_ne(poll_fd.fd, -1);
	for (;;) {
		ck_assert_msg(poll(&poll_fd, 1, (int)(HARNESS_DEADLINE * 1000)) == 1,
			      "the connection is still open");
		n = send(poll_fd.fd, lines, sizeof lines, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n == -1 && errno != EAGAIN)
			break;
		if (n > 0)
			sent += (size_t)n;
		ck_assert_msg(sent < 64 * MIB, "the daemon reads on and on");
	}
	ck_assert(errno == ECONNRESET || errno == EPIPE);
	harness_note("ended after %.1f s and %zu bytes", harness_now() - began, sent);
	expect_growth(daemon, before, 24);
	close(poll_fd.fd);
	daemon_wait_descriptors(daemon, descriptors);
	daemon_end(daemon);
}
END_TEST

static bool
can_trace(void)
{
	if (system("strace -V >/dev/null 2>&1") != 0)
		harness_skip("strace is not installed");
	else if (system("strace -o /dev/null true >/dev/null 2>&1") != 0)
		harness_skip("tracing is not allowed here");
	else
		return true;
	return false;
}

/* The largest read from a socket in strace's output, and how many there were. */
static long
largest_read(char *trace, size_t *count)
{
	static bool on_socket[1 << 16]; /* of a thread whose call is not finished */
	char *line;
	long largest = 0, result;
	unsigned long thread;
	const char *equals;

	*count = 0;
	while ((line = strsep(&trace, "\n")) != NULL) {
		thread = strtoul(line, &line, 10) % (1 << 16);
		line += strspn(line, " ");
		if (strstr(line, "resumed>") == NULL)
			on_socket[thread] = strstr(line, "<socket:") != NULL;
		if (!on_socket[thread] || strstr(line, "unfinished") != NULL)
			continue;
		for (equals = line; strstr(equals + 1, " = ") != NULL;)
			equals = strstr(equals + 1, " = ");
		result = strtol(equals + 3, NULL, 10);
		if (result > 0)
			(*count)++;
		if (result > largest)
			largest = result;
	}
	return largest;
}

/* buffer_size is what is read in one go. */
START_TEST(buffer_size)
{
	char *directory = harness_directory();
	char *path = harness_text("%s/trace", directory), *bytes = calloc(1, MIB), *trace;
	const char *const wrapper[] = { "strace", "-D", "-f", "-y", "-o", path, "-e",
					"trace=read,readv,recvfrom,recvmsg", NULL };
	const struct daemon_options options = { .wrapper = wrapper };
	double deadline = harness_now() + HARNESS_DEADLINE;
	struct daemon *daemon;
	size_t count, i;
	long largest;

	if (!can_trace())
		return;
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* it cannot be traced */
	daemon = daemon_start_with(&options, RAW "buffer_size = 1024; framing = \"line\";");
	ck_assert_ptr_nonnull(bytes);
	for (i = 99; i < MIB; i += 100)
		bytes[i] = '\n'; /* senders of large messages are read in larger pieces */
	client_deliver(daemon_address(daemon, "main"), bytes, MIB, CLIENT_FIN);
	free(bytes);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, MIB / 100 + 1);
	for (;;) {
		trace = harness_read_file(path, &count);
		if (strstr(trace, "+++ exited with") != NULL)
			break;
		ck_assert_msg(harness_now() < deadline, "strace does not end");
		free(trace);
		harness_pause();
	}
	largest = largest_read(trace, &count);
	harness_note("%zu reads, the largest of %ld bytes", count, largest);
	ck_assert_uint_ge(count, MIB / 1024);
	ck_assert_int_le(largest, 1024);
	free(trace);
	free(path);
	free(directory);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ blocked_console, 60 },     { client_gone_while_printed, 60 },
		{ max_in_flight, 60 },	     { gone_while_paused, 60 },
		{ receipts_never_read, 60 }, { buffer_size, 60 },
	};

	return harness_run("pressure", tests, sizeof tests / sizeof tests[0], argc, argv);
}
