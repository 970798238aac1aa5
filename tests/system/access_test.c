/*
 * access: who is let in by address, before a byte is read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"
#include "program.h"

#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

/* Connects from an address, sends a byte and expects this end. */
static void
expect_from(struct daemon *daemon, const char *listener, const char *source, enum client_end end)
{
	int fd = client_try_connect(daemon_address(daemon, listener), source, 0);
	char rest[16];
	size_t len;

	ck_assert_msg(fd != -1 || (errno == ECONNRESET && end == CLIENT_RST), "from %s: %s",
		      source, strerror(errno));
	if (fd == -1)
		return;
	if (client_pour(fd, "x", 1) == CLIENT_RST) {
		ck_assert_msg(end == CLIENT_RST, "%s is refused", source);
		close(fd);
		return;
	}
	/* The reset may be here already. */
	(void)shutdown(fd, SHUT_WR);
	ck_assert_msg(client_receive(fd, rest, sizeof rest, &len, HARNESS_DEADLINE) == end, "%s",
		      source);
	close(fd);
}

static void
expect_bytes(struct daemon *daemon, size_t count)
{
	free(daemon_wait_output(daemon, count));
}

START_TEST(deny_wins)
{
	struct daemon *daemon = daemon_start(RAW "allow = [ \"127.0.0.0/8\", \"127.0.0.2\" ];\n"
						 "deny = [ \"127.0.0.2\", \"127.0.0.4/30\" ];");

	expect_from(daemon, "main", "127.0.0.1", CLIENT_FIN);
	expect_from(daemon, "main", "127.0.0.3", CLIENT_FIN);
	expect_from(daemon, "main", "127.0.0.8", CLIENT_FIN);
	expect_from(daemon, "main", "127.0.0.2", CLIENT_RST);
	expect_from(daemon, "main", "127.0.0.4", CLIENT_RST);
	expect_from(daemon, "main", "127.0.0.7", CLIENT_RST);
	daemon_wait_log(daemon, "connection-refused", "access: reset", 3);
	ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", "127.0.0.7:"), 1);
	expect_bytes(daemon, 3);
	daemon_end(daemon);
}
END_TEST

START_TEST(allow_keeps_others_out)
{
	struct daemon *daemon =
		daemon_start(RAW "allow = \"127.0.0.16/28\";\n"
				 "listeners = { few = { address = \"127.0.0.1\"; port = 0; };\n"
				 "all = { address = \"127.0.0.1\"; port = 0;\n"
				 "allow = [ \"0.0.0.0/0\", \"::/0\" ]; }; };");

	expect_from(daemon, "few", "127.0.0.16", CLIENT_FIN);
	expect_from(daemon, "few", "127.0.0.15", CLIENT_RST);
	expect_from(daemon, "few", "127.0.0.32", CLIENT_RST);
	expect_from(daemon, "all", "127.0.0.32", CLIENT_FIN);
	expect_bytes(daemon, 2);
	daemon_end(daemon);
}
END_TEST

START_TEST(ipv6)
{
	int fd = client_try_connect("[::1]:1", NULL, 0);
	struct daemon *daemon;

	if (fd == -1 && errno != ECONNREFUSED) {
		harness_skip("no IPv6 on this host");
		return;
	}
	daemon = daemon_start(RAW "listeners = {\n"
			      "open = { address = \"::1\"; port = 0; allow = \"::/64\"; };\n"
			      "shut = { address = \"::1\"; port = 0; deny = \"::1\"; };\n"
			      "four = { address = \"::1\"; port = 0; allow = \"0.0.0.0/0\"; }; };");
	expect_from(daemon, "open", NULL, CLIENT_FIN);
	expect_from(daemon, "shut", NULL, CLIENT_RST);
	expect_from(daemon, "four", NULL, CLIENT_RST);
	expect_bytes(daemon, 1);
	daemon_end(daemon);
}
END_TEST

/* Files' permissions say who may come that way. */
START_TEST(local_peers_pass)
{
	struct daemon *daemon = daemon_start(RAW "address = [ \"127.0.0.1\", \"unix:@DIR@/s\" ];\n"
						 "deny = [ \"0.0.0.0/0\", \"::/0\" ];\n"
						 "allow = \"192.0.2.1\";");

	expect_from(daemon, "main", NULL, CLIENT_RST);
	client_deliver(daemon_address_at(daemon, "main", 1), "x", 1, CLIENT_FIN);
	expect_bytes(daemon, 1);
	daemon_end(daemon);
}
END_TEST

/* Who is refused takes no place, waits for none, and cannot flood the log. */
START_TEST(refused_cost_nothing)
{
	struct daemon *daemon = daemon_start(RAW "workers = 1; deny = \"127.0.0.2\";\n"
						 "max_connections = 1;");
	int held = client_connect(daemon_address(daemon, "main")), i;

	client_send_text(held, "x");
	client_wait_read(held);
	for (i = 0; i < 100; i++)
		expect_from(daemon, "main", "127.0.0.2", CLIENT_RST);
	ck_assert_uint_le(daemon_count_log(daemon, "connection-refused", NULL), 5);
	client_finish(held);
	client_expect(held, "", CLIENT_FIN);
	expect_from(daemon, "main", "127.0.0.1", CLIENT_FIN);
	expect_bytes(daemon, 2);
	daemon_end(daemon);
}
END_TEST

/* So many blocks, none beside another, from 128.0.0.0 on; odd ones are left out. */
#define BLOCKS 100000

static void
write_blocks(const char *path, const char *last)
{
	FILE *to = fopen(path, "we");

	ck_assert_ptr_nonnull(to);
	for (uint32_t i = 0; i < BLOCKS - 1; i++) {
		struct in_addr in = { htonl(UINT32_C(0x80000000) + i * 2 * 4096) };

		fprintf(to, "\"%s/20\",\n", inet_ntoa(in));
	}
	fprintf(to, "\"%s\"\n", last);
	ck_assert_int_eq(fclose(to), 0);
}

START_TEST(many_blocks)
{
	char *directory = harness_directory();
	char *blocks = harness_text("%s/blocks", directory);
	char *file = harness_text("%s/cistern.conf", directory);
	char *text = harness_text("deny = [\n@include \"blocks\"\n];\n"), *at;
	struct program_result result;
	struct daemon *daemon;
	double began;

	harness_write_file(file, text);
	write_blocks(blocks, "127.0.0.2");
	began = harness_now();
	result = program_run("-t", "-c", file, NULL);
	harness_note("-t with %d blocks: %.3f s", BLOCKS, harness_now() - began);
	ck_assert_double_lt(harness_now() - began, HARNESS_SANITIZED ? 90 : 5);
	ck_assert_msg(result.code == 0, "%s", result.errors);
	program_result_free(&result);

	daemon = daemon_start(RAW "deny = [\n@include \"%s\"\n];\n", blocks);
	expect_from(daemon, "main", "127.0.0.1", CLIENT_FIN);
	expect_from(daemon, "main", "127.0.0.2", CLIENT_RST);
	expect_bytes(daemon, 1);
	daemon_end(daemon);

	/* One that is wrong is named by its own file and line. */
	write_blocks(blocks, "127.0.0.2/24");
	result = program_run("-t", "-c", file, NULL);
	ck_assert_int_eq(result.code, 78);
	at = harness_text("%s:%d: \"deny\" has the string \"127.0.0.2/24\"; expected 127.0.0.0/24",
			  blocks, BLOCKS);
	ck_assert_msg(strstr(result.errors, at) != NULL || strstr(result.output, at) != NULL,
		      "%s%s", result.output, result.errors);
	program_result_free(&result);
	free(at);
	free(text);
	free(file);
	free(blocks);
	free(directory);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ deny_wins, 30 },
		{ allow_keeps_others_out, 30 },
		{ ipv6, 30 },
		{ local_peers_pass, 30 },
		{ refused_cost_nothing, 30 },
		{ many_blocks, 60 },
	};

	return harness_run("access", tests, sizeof tests / sizeof tests[0], argc, argv);
}
