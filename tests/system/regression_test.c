/*
 * regression: bugs that were found once, and must not come back: receipts for what
 * was never accepted, timers that judge before they look, replies cut short.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define RAW "workers = 1; sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

#define LARGE ((size_t)16000000) /* more than the kernel holds of a connection */
#define MEDIUM ((size_t)900000)  /* stays in memory */

static const struct daemon_options piped = { .pipe = true };

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_output(daemon, NULL);

	ck_assert_str_eq(output, text);
	free(output);
}

/* The daemon stands still until `go_on`. */
static void
halt(struct daemon *daemon)
{
	int status;

	daemon_signal(daemon, SIGSTOP);
	ck_assert_int_eq(waitpid(daemon->pid, &status, WUNTRACED), daemon->pid);
	ck_assert(WIFSTOPPED(status));
}

static void
go_on(struct daemon *daemon)
{
	daemon_signal(daemon, SIGCONT);
}

/* Nothing comes from the peer for so many milliseconds. */
static void
expect_silence(int fd, int milliseconds)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(poll(&poll_fd, 1, milliseconds), 0);
}

static char *
bytes_of(size_t len, char byte)
{
	char *bytes = malloc(len);

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, byte, len);
	return bytes;
}

/* A client that takes little at a time. */
static int
connect_narrow(struct daemon *daemon, const char *listener, int receive)
{
	int fd = client_try_connect(daemon_address(daemon, listener), NULL, receive);

	ck_assert_msg(fd != -1, "connect: %s", strerror(errno));
	return fd;
}

static void
wait_readable(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	ck_assert_int_eq(poll(&poll_fd, 1, (int)(HARNESS_DEADLINE * 1000)), 1);
}

/* The peer sends these bytes, then whatever text, and then its FIN. */
static void
expect_back(int fd, const char *bytes, size_t len, const char *text)
{
	char *back = malloc(len);
	size_t got;

	ck_assert_ptr_nonnull(back);
	client_receive(fd, back, len, &got, HARNESS_DEADLINE);
	ck_assert_uint_eq(got, len);
	ck_assert_int_eq(memcmp(back, bytes, len), 0);
	free(back);
	client_expect(fd, text, CLIENT_FIN);
}

/* Past max_messages there is more: that was not accepted, so no FIN may say so. */
static void
leave_over(const char *config, const char *bytes, size_t len, const char *printed)
{
	struct daemon *daemon =
		daemon_start(RAW "framing = \"line\"; max_messages = 1; %s", config);
	int fd;

	halt(daemon); /* all of it waits in the kernel before the first read */
	fd = client_connect(daemon_address(daemon, "main"));
	client_send(fd, bytes, len);
	go_on(daemon);
	client_expect(fd, "", CLIENT_RST);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	expect_output(daemon, printed);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
}

START_TEST(max_messages_leftover_in_segment)
{
	leave_over("", "a\nb\n", 4, "a");
}
END_TEST

START_TEST(max_messages_leftover_in_kernel)
{
	char bytes[257 + 20], printed[256];

	memset(bytes, 'a', 255);
	bytes[255] = '\n'; /* one read of 256 bytes ends here */
	memset(bytes + 256, 'b', sizeof bytes - 256);
	bytes[sizeof bytes - 1] = '\n';
	memset(printed, 'a', 255);
	printed[255] = '\0';
	leave_over("buffer_size = 256;", bytes, sizeof bytes, printed);
}
END_TEST

/* Nothing is left over where all that was sent is the one message. */
START_TEST(max_messages_and_no_more)
{
	struct daemon *daemon = daemon_start(RAW "framing = \"line\"; max_messages = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "a\n");
	client_expect(fd, "", CLIENT_FIN);
	daemon_end(daemon);
}
END_TEST

/* A message that came while reading was paused is not confirmed unread by the FIN
 * of a daemon that stops; there is time enough to take it. */
START_TEST(sigterm_while_paused)
{
	struct daemon *daemon = daemon_start(
		RAW "framing = \"length\"; reply = \"echo\"; max_message_size = \"32M\";");
	int fd = connect_narrow(daemon, "main", 65536);
	uint32_t header = htonl((uint32_t)LARGE);
	char *bytes = bytes_of(LARGE, 'p');

	client_send(fd, &header, sizeof header);
	client_send(fd, bytes, LARGE);
	wait_readable(fd); /* the echo has begun, and more of it waits than may */
	header = htonl(6);
	client_send(fd, &header, sizeof header);
	client_send(fd, "unread", 6);
	client_wait_read(fd); /* by libevent */
	client_send(fd, &header, sizeof header);
	client_send(fd, "kernel", 6);
	daemon_signal(daemon, SIGTERM);
	client_wait_refused(daemon_address(daemon, "main"));
	expect_back(fd, bytes, LARGE, "unreadkernel");
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 3);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* libevent takes the error of the reset; the next read then says 0, as at a FIN. */
START_TEST(reset_is_no_end)
{
	struct daemon *daemon = daemon_start(RAW);
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "half a message");
	client_wait_read(fd);
	client_reset(fd);
	daemon_wait_log(daemon, "message-discarded", "reset", 1);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	expect_output(daemon, "");
	ck_assert_uint_eq(daemon->account.discarded, 1);
	ck_assert_uint_eq(daemon->account.received, 0);
	daemon_end(daemon);
}
END_TEST

/* What arrived while the process stood still was not late. */
START_TEST(quiet_timeout_after_stop)
{
	struct daemon *daemon = daemon_start(RAW "quiet_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "one ");
	client_wait_read(fd);
	halt(daemon);
	client_send_text(fd, "message");
	client_finish(fd);
	expect_silence(fd, 1500);
	go_on(daemon);
	client_expect(fd, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	expect_output(daemon, "one message");
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
}
END_TEST

START_TEST(idle_timeout_after_stop)
{
	struct daemon *daemon = daemon_start(RAW "idle_timeout = 1; framing = \"line\";");
	int between = client_connect(daemon_address(daemon, "main"));
	int within = client_connect(daemon_address(daemon, "main"));

	client_send_text(between, "1\n");
	free(daemon_wait_output(daemon, 1));
	client_send_text(within, "2");
	client_wait_read(within);
	halt(daemon);
	client_send_text(between, "3\n");
	client_finish(between);
	client_send_text(within, "4\n");
	client_finish(within);
	expect_silence(between, 1500);
	go_on(daemon);
	client_expect(between, "", CLIENT_FIN);
	client_expect(within, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 3);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}
END_TEST

/* The time that the sinks took is not held against a client that reads its replies
 * in good time once there are some. */
START_TEST(sink_slower_than_idle_timeout)
{
	struct daemon *daemon = daemon_start_with(
		&piped, RAW "idle_timeout = 3;"
			    "listeners = { echo = { port = 0; reply = \"echo\"; };"
			    "	receipt = { port = 0; reply = \"receipt\"; }; };");
	char *bytes = bytes_of(LARGE, 's'), *printed = bytes_of(LARGE, 0);
	int echo = connect_narrow(daemon, "echo", 65536), receipt;

	client_send(echo, bytes, LARGE);
	client_finish(echo);
	client_wait_read(echo);
	receipt = client_connect(daemon_address(daemon, "receipt"));
	client_send_text(receipt, "x");
	client_finish(receipt);
	expect_silence(echo, 4500);
	expect_silence(receipt, 0);
	daemon_read_pipe(daemon, printed, LARGE);
	ck_assert_int_eq(memcmp(bytes, printed, LARGE), 0);
	daemon_read_pipe(daemon, printed, 1);
	client_expect_ok(receipt, 1);
	client_expect(receipt, "", CLIENT_FIN);
	wait_readable(echo);
	poll(NULL, 0, 1300); /* within idle_timeout, past a look at the paused ones */
	expect_back(echo, bytes, LARGE, "");
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 2);
	daemon_end(daemon);
	free(bytes);
	free(printed);
}
END_TEST

/* 0 is no limit, not one that is always reached. */
START_TEST(idle_timeout_off_slow_reader)
{
	struct daemon *daemon = daemon_start(RAW "idle_timeout = 0; reply = \"echo\";");
	int fd = connect_narrow(daemon, "main", 65536);
	char *bytes = bytes_of(LARGE, 'z');

	client_send(fd, bytes, LARGE);
	client_finish(fd);
	wait_readable(fd);
	poll(NULL, 0, 2500); /* past the second after which a paused one is looked at */
	expect_back(fd, bytes, LARGE, "");
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* Sends messages of this length until the daemon takes no more for a while. */
static void
pour_frames(int fd, const char *frame, size_t len)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
	size_t sent = 0;
	ssize_t n;

	while (poll(&poll_fd, 1, 500) == 1) {
		n = send(fd, frame + sent % len, len - sent % len, MSG_DONTWAIT | MSG_NOSIGNAL);
		ck_assert_msg(n > 0 || errno == EAGAIN, "send: %s", strerror(errno));
		if (n > 0)
			sent += (size_t)n;
		ck_assert_msg(sent < 16 * LARGE, "the daemon reads on and on");
	}
}

/* A stop at once frees buffers that libevent still wants to put away; the sanitizers
 * have their say in daemon_wait. */
START_TEST(shutdown_twice_with_unsent_echoes)
{
	struct daemon *daemon = daemon_start(RAW "framing = \"length\"; reply = \"echo\";");
	char *frame = bytes_of(4 + MEDIUM, 'e');
	uint32_t header = htonl((uint32_t)MEDIUM);
	char rest[65536];
	enum client_end end;
	size_t i, len;
	int fds[3];

	memcpy(frame, &header, sizeof header);
	for (i = 0; i < 3; i++) {
		fds[i] = connect_narrow(daemon, "main", 4096);
		pour_frames(fds[i], frame, 4 + MEDIUM);
	}
	daemon_signal(daemon, SIGTERM);
	daemon_wait_log(daemon, "stopping", NULL, 1);
	daemon->at_once = true;
	daemon_signal(daemon, SIGTERM);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_ge(daemon->account.accepted, 3);
	for (i = 0; i < 3; i++) {
		do
			end = client_receive(fds[i], rest, sizeof rest, &len, HARNESS_DEADLINE);
		while (end == CLIENT_OPEN && len == sizeof rest);
		ck_assert_int_eq(end, CLIENT_RST);
		close(fds[i]);
	}
	daemon_end(daemon);
	free(frame);
}
END_TEST

/* What libevent has not sent it frees later than we do the connection, and here with it the last
 * that is left of its listener.  The sanitizers have their say in daemon_stop. */
START_TEST(reset_with_unsent_echoes_of_removed)
{
	struct daemon *daemon = daemon_start(RAW "listeners = { main = {}; gone = { framing = \"length\"; "
						 "reply = \"echo\"; buffer_size = 4096; }; };");
	char *frame = bytes_of(4 + MEDIUM, 'e');
	uint32_t header = htonl((uint32_t)MEDIUM);
	size_t descriptors = daemon_descriptors(daemon);
	int fd = connect_narrow(daemon, "gone", 4096);

	memcpy(frame, &header, sizeof header);
	pour_frames(fd, frame, 4 + MEDIUM);
	daemon_reload(daemon, RAW "listeners = { main = {}; };");
	client_wait_refused(daemon_address(daemon, "gone"));
	client_reset(fd);
	daemon_wait_descriptors(daemon, descriptors - 1); /* without the listener's */
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(frame);
}
END_TEST

/* A place taken by one that max_connections_per_address then turns away is given
 * back to whoever is parked.  It takes a race to see it lost, so it is tried often:
 * then nothing wakes the parked one any more. */
START_TEST(parked_after_address_limit)
{
	enum { ROUNDS = 400, REFUSED = 6 };
	struct daemon *daemon =
		daemon_start("workers = 2; max_connections = 2; max_connections_per_address = 1;"
			     "sinks = { console = { type = \"console\"; format = \"raw\"; }; };"
			     "idle_timeout = 0;");
	char *address = harness_text("%s", daemon_address(daemon, "main")), *source;
	int holds = client_connect(address), refused[REFUSED], served, i, j;

	client_send_text(holds, "h");
	client_wait_read(holds);
	for (i = 0; i < ROUNDS; i++) {
		source = harness_text("127.0.%d.%d", 1 + i / 200, 1 + i % 200);
		for (j = 0; j < REFUSED / 2; j++)
			refused[j] = client_try_connect(address, NULL, 0);
		served = client_try_connect(address, source, 0);
		ck_assert_int_ne(served, -1);
		for (; j < REFUSED; j++)
			refused[j] = client_try_connect(address, NULL, 0);
		client_send_text(served, "s");
		client_finish(served);
		client_expect(served, "", CLIENT_FIN);
		for (j = 0; j < REFUSED; j++)
			if (refused[j] != -1)
				close(refused[j]);
		free(source);
	}
	client_finish(holds);
	client_expect(holds, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, ROUNDS + 1);
	daemon_end(daemon);
	free(address);
}
END_TEST

/* libevent accepts for as long as somebody connects; who is connected has a turn in between. */
START_TEST(flood_of_connections_has_turns)
{
	enum { CLIENTS = 120, TURN = 64 };
	struct daemon *daemon = daemon_start(RAW "framing = \"line\"; idle_timeout = 0;");
	char *address = harness_text("%s", daemon_address(daemon, "main")), *output;
	int held = client_connect(address), fds[CLIENTS], i;

	client_send_text(held, "first\n");
	free(daemon_wait_output(daemon, strlen("first")));
	halt(daemon);
	for (i = 0; i < CLIENTS; i++) {
		fds[i] = client_connect(address);
		client_send_text(fds[i], "c\n");
	}
	client_send_text(held, "held\n");
	go_on(daemon);
	output = daemon_wait_output(daemon, strlen("first") + CLIENTS + strlen("held"));
	ck_assert_ptr_nonnull(strstr(output, "held"));
	ck_assert_int_le(strstr(output, "held") - output, (int)strlen("first") + TURN);
	for (i = 0; i < CLIENTS; i++)
		close(fds[i]);
	close(held);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(output);
	free(address);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ max_messages_leftover_in_segment, 30 },
		{ max_messages_leftover_in_kernel, 30 },
		{ max_messages_and_no_more, 30 },
		{ sigterm_while_paused, 60 },
		{ reset_is_no_end, 30 },
		{ quiet_timeout_after_stop, 30 },
		{ idle_timeout_after_stop, 30 },
		{ sink_slower_than_idle_timeout, 60 },
		{ idle_timeout_off_slow_reader, 60 },
		{ shutdown_twice_with_unsent_echoes, 60 },
		{ reset_with_unsent_echoes_of_removed, 60 },
		{ parked_after_address_limit, 60 },
		{ flood_of_connections_has_turns, 30 },
	};

	return harness_run("regression", tests, sizeof tests / sizeof tests[0], argc, argv);
}
