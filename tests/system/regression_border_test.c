/*
 * regression_border: bugs found where reload, TLS, PROXY, limits and large reads meet.
 * Each test failed before its repair.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define RAW "sinks = { console = { type = \"console\"; format = \"line\"; }; }; workers = 1;\n"
#define LINES RAW "framing = \"line\";\n"

/* The one that waits at max_connections was admitted by rules that are gone by the time
 * that it gets its place; a denied one got in, and anybody could speak for a proxy. */
static void
park_and_change(const char *rules, const char *event_text)
{
	struct daemon *daemon = daemon_start(LINES "max_connections = 1;");
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int served = client_connect(address), parked;

	client_send_text(served, "served\n");
	client_wait_read(served);
	parked = client_connect(address);
	client_send_text(parked, "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nno\n");
	harness_pause();
	daemon_reload(daemon, LINES "max_connections = 1; %s", rules);
	client_finish(served);
	client_expect(served, "", CLIENT_FIN);
	client_expect(parked, "", CLIENT_RST);
	daemon_wait_log(daemon, "connection-refused", event_text, 1);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	free(address);
	daemon_end(daemon);
}

START_TEST(parked_is_denied)
{
	park_and_change("deny = [ \"127.0.0.0/8\" ];", "access");
}
END_TEST

START_TEST(parked_is_no_proxy)
{
	park_and_change("proxy_protocol = true; proxy_from = [ \"10.0.0.0/8\" ];", "proxy");
}
END_TEST

/* And the place that it did not take is the next one's. */
START_TEST(parked_is_denied_others_go_on)
{
	struct daemon *daemon = daemon_start(LINES "max_connections = 1;");
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int served = client_connect(address), parked, i;

	client_send_text(served, "served\n");
	client_wait_read(served);
	parked = client_try_connect(address, "127.0.0.2", 0);
	ck_assert_int_ne(parked, -1);
	harness_pause();
	daemon_reload(daemon, LINES "max_connections = 1; deny = [ \"127.0.0.2\" ];");
	client_expect(parked, "", CLIENT_RST);
	client_finish(served);
	client_expect(served, "", CLIENT_FIN);
	for (i = 0; i < 3; i++)
		client_deliver(address, "next\n", 5, CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* A reload wrote again what workers read as places become free (ThreadSanitizer saw it). */
START_TEST(places_during_reload)
{
	struct daemon *daemon = daemon_start(LINES "max_connections = 1;");
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int served, parked, i;

	for (i = 0; i < 10; i++) {
		served = client_connect(address);
		client_send_text(served, "a\n");
		client_wait_read(served);
		parked = client_connect(address);
		client_send_text(parked, "b\n");
		client_finish(served);
		client_expect(served, "", CLIENT_FIN);
		client_finish(parked);
		client_expect(parked, "", CLIENT_FIN);
		daemon_reload(daemon, LINES "max_connections = 1; max_in_flight = %d;", i + 1);
	}
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 20);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* A reset that is found by reading, with nothing before it: no tail was settled, at no
 * address (UndefinedBehaviorSanitizer saw it). */
START_TEST(reset_before_accept)
{
	struct daemon *daemon = daemon_start(LINES);
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int fd, i;

	daemon_signal(daemon, SIGSTOP);
	for (i = 0; i < 3; i++) {
		fd = client_connect(address);
		client_send_text(fd, "lost");
		client_reset(fd);
	}
	daemon_signal(daemon, SIGCONT);
	client_deliver(address, "kept\n", 5, CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* What a framing holds back as the beginning of a message's end was missing from what
 * was put aside. */
static void
cut_short(const char *settings, const char *sent, const char *put_aside, bool finish)
{
	struct daemon *daemon = daemon_start(RAW "incomplete = \"console\"; %s", settings);
	int fd = client_connect(daemon_address(daemon, "main"));
	char *output;

	client_send_text(fd, sent);
	client_wait_read(fd);
	if (finish)
		client_finish(fd);
	client_expect(fd, "", CLIENT_RST);
	output = daemon_wait_output(daemon, strlen(put_aside));
	ck_assert_str_eq(output, put_aside);
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	daemon_end(daemon);
}

START_TEST(held_back_is_put_aside)
{
	static const char delimiter[] = "framing = \"delimiter\"; delimiter = \"<EOF>\"; %s";
	char *closed = harness_text(delimiter, "");
	char *late = harness_text(delimiter, "idle_timeout = 0.2;");

	cut_short(closed, "text<EO", "text<EO\n", true);
	cut_short(closed, "<EO", "<EO\n", true);
	cut_short(late, "text<EO", "text<EO\n", false);
	cut_short("framing = \"mllp\";", "\vtext\x1c", "text\x1c\n", true);
	cut_short("framing = \"mllp\"; message_timeout = 0.2;", "\vtext\x1c", "text\x1c\n", false);
	cut_short("framing = \"line\"; idle_timeout = 0.2;", "text\r", "text\r\n", false);
	free(closed);
	free(late);
}
END_TEST

/* Each reload gave the connections after it a rate_limit of their own: three reloads, and
 * a listener took four times what it may. */
START_TEST(rate_limit_over_reloads)
{
	enum { RATE = 400000, LINE = 1000, CLIENTS = 4 };
	struct daemon *daemon = daemon_start(LINES "rate_limit = { listener = %d; };", RATE);
	char *address = harness_text("%s", daemon_address(daemon, "main")), line[LINE];
	size_t before = 0, after = 0;
	double begin = harness_now(), now = begin;
	int fds[CLIENTS], n = 0, i;

	memset(line, 'x', sizeof line);
	line[LINE - 1] = '\n';
	while ((now = harness_now()) < begin + 4) {
		if (n < CLIENTS && now >= begin + 0.3 * n) {
			if (n > 0)
				daemon_reload(daemon, LINES "rate_limit = { listener = %d; }; "
						      "max_in_flight = %d;", RATE, 100 + n);
			fds[n++] = client_connect(address);
		}
		if (before == 0 && now >= begin + 2)
			free(daemon_output(daemon, &before));
		for (i = 0; i < n; i++)
			(void)!send(fds[i], line, sizeof line, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	free(daemon_output(daemon, &after));
	for (i = 0; i < n; i++)
		client_reset(fds[i]);
	ck_assert_uint_gt(after - before, RATE);
	ck_assert_uint_lt(after - before, RATE * 3);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	free(address);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ parked_is_denied, 30 },
		{ parked_is_no_proxy, 30 },
		{ parked_is_denied_others_go_on, 30 },
		{ places_during_reload, 60 },
		{ reset_before_accept, 30 },
		{ held_back_is_put_aside, 60 },
		{ rate_limit_over_reloads, 60 },
	};

	return harness_run("regression_border", tests, sizeof tests / sizeof tests[0], argc, argv);
}
