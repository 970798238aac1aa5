/*
 * proxied: headers of the PROXY protocol: who may send one, what it is worth, and what
 * becomes of those that are none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"
#include "program.h"

#define JSON "sinks = { console = { type = \"console\"; format = \"json\"; }; };\n"
#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"
#define PROXIED "proxy_protocol = true; proxy_from = \"127.0.0.1\";\n"
#define LINE "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"

/* Longer than any header. */
#define HEADER_MOST 8192

/* A header of version 2; returns its length.  from and to: 4, 16 or no bytes. */
static size_t
binary(unsigned char *header, unsigned command, unsigned family, const char *from, const char *to,
       size_t filling)
{
	static const unsigned char signature[] = "\r\n\r\n\0\r\nQUIT\n";
	size_t len = 16;

	memset(header, 0, HEADER_MOST);
	memcpy(header, signature, 12);
	header[12] = (unsigned char)(0x20 | command);
	header[13] = (unsigned char)family;
	if (from != NULL) {
		int af = family >> 4 == 1 ? AF_INET : AF_INET6;
		size_t size = af == AF_INET ? 4 : 16;

		ck_assert_int_eq(inet_pton(af, from, header + len), 1);
		ck_assert_int_eq(inet_pton(af, to, header + len + size), 1);
		len += 2 * size;
		memcpy(header + len, "\x12\x67\x01\xbb", 4); /* 4711, 443 */
		len += 4;
	}
	if (filling > 0) {
		header[len] = 0x04; /* a type for filling up */
		header[len + 1] = (unsigned char)((filling - 3) >> 8);
		header[len + 2] = (unsigned char)(filling - 3);
		len += filling;
	}
	header[14] = (unsigned char)((len - 16) >> 8);
	header[15] = (unsigned char)(len - 16);
	return len;
}

/* Sends what may meet a reset: then the socket is closed, and -1 returned. */
static int
pour(int fd, const void *bytes, size_t len)
{
	if (len == 0 || client_pour(fd, bytes, len) == CLIENT_OPEN)
		return fd;
	close(fd);
	return -1;
}

/* Sends bytes in pieces of a size, then a message, and closes in order. */
static int
send_pieces(struct daemon *daemon, const void *header, size_t len, size_t piece,
	    const char *message)
{
	int fd = client_connect(daemon_address(daemon, "main"));
	const char *at = header;

	while (len > 0) {
		size_t n = len < piece ? len : piece;

		fd = pour(fd, at, n);
		if (fd == -1)
			return fd;
		at += n;
		len -= n;
		if (piece < 16)
			client_wait_read(fd);
	}
	fd = pour(fd, message, strlen(message));
	if (fd != -1)
		(void)shutdown(fd, SHUT_WR); /* the reset may be here already */
	return fd;
}

static void
expect_end(int fd, enum client_end end)
{
	char rest[16];
	size_t len;

	if (fd == -1) {
		ck_assert_int_eq(end, CLIENT_RST);
		return;
	}
	ck_assert_int_eq(client_receive(fd, rest, sizeof rest, &len, HARNESS_DEADLINE), end);
	ck_assert_uint_eq(len, 0);
	close(fd);
}

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_output(daemon, NULL);

	ck_assert_msg(strstr(output, text) != NULL, "%s lacks %s", output, text);
	free(output);
}

/* Both versions, both families, alone and split and coalesced with what follows: the
 * client is in what is recorded, and not a byte of it is lost or added. */
static const struct {
	const char *line; /* NULL: of version 2 */
	unsigned family;
	const char *from, *to;
	size_t filling;
	const char *expected;
} good[] = {
	{ LINE, 0, NULL, NULL, 0, "\"peer\":\"203.0.113.7:4711\",\"local\":\"198.51.100.1:443\"" },
	{ "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", 0, NULL, NULL, 0,
	  "\"peer\":\"[2001:db8::7]:4711\",\"local\":\"[2001:db8::1]:443\"" },
	{ "PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 4711 443\r\n", 0, NULL, NULL, 0,
	  "\"peer\":\"203.0.113.9:4711\"" },
	{ NULL, 0x11, "203.0.113.8", "198.51.100.1", 0,
	  "\"peer\":\"203.0.113.8:4711\",\"local\":\"198.51.100.1:443\"" },
	{ NULL, 0x21, "2001:db8::8", "2001:db8::1", 300,
	  "\"peer\":\"[2001:db8::8]:4711\",\"local\":\"[2001:db8::1]:443\"" },
	{ NULL, 0x21, "::ffff:203.0.113.10", "::ffff:198.51.100.1", 0,
	  "\"peer\":\"203.0.113.10:4711\"" },
	{ NULL, 0x11, "203.0.113.11", "198.51.100.1", 4096 - 28, "\"peer\":\"203.0.113.11:4711\"" },
};

START_TEST(header_names_the_client)
{
	static const size_t pieces[] = { HEADER_MOST, 1, 7, 13 };
	struct daemon *daemon =
		daemon_start(JSON "log = { level = \"debug\"; format = \"json\"; };\n" PROXIED);
	unsigned char header[HEADER_MOST];

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		size_t len = good[i].line != NULL
				     ? strlen(strcpy((char *)header, good[i].line))
				     : binary(header, 1, good[i].family, good[i].from, good[i].to,
					      good[i].filling);

		for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
			/* Byte by byte is slow: one header of each version. */
			if (pieces[k] < 16 && (len > 1000 || (pieces[k] == 1 && i % 3 != 0)))
				continue;
			expect_end(send_pieces(daemon, header, len, pieces[k], "PROXY hello"),
				   CLIENT_FIN);
		}
		expect_output(daemon, good[i].expected);
	}
	expect_output(daemon, "\"size\":11,\"ended\":\"fin\",\"data\":\"PROXY hello\"");
	ck_assert_uint_gt(daemon_count_log(daemon, "connection-open", "203.0.113.7:4711"), 0);
	ck_assert_uint_gt(
		daemon_count_log(daemon, "connection-proxied", "speaks for 203.0.113.7:4711"), 0);
	ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", NULL), 0);
	daemon_end(daemon);
}
END_TEST

/* One segment with the header, and a message in the same; then more of it. */
START_TEST(message_behind_the_header)
{
	struct daemon *daemon = daemon_start(RAW PROXIED);
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, LINE "one ");
	client_wait_read(fd);
	client_send_text(fd, "two");
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
	expect_output(daemon, "one two");
	daemon_end(daemon);
}
END_TEST

/* A header that names nobody leaves the proxy's own address. */
START_TEST(local_command)
{
	struct daemon *daemon = daemon_start(JSON PROXIED);
	unsigned char header[HEADER_MOST];
	size_t len = binary(header, 0, 0, NULL, NULL, 0);

	expect_end(send_pieces(daemon, header, len, HEADER_MOST, "health"), CLIENT_FIN);
	expect_output(daemon, "\"peer\":\"127.0.0.1:");
	expect_end(send_pieces(daemon, "PROXY UNKNOWN\r\n", 15, HEADER_MOST, "?"), CLIENT_FIN);
	/* No message: a proxy that looks whether we are there. */
	expect_end(send_pieces(daemon, header, len, HEADER_MOST, ""), CLIENT_FIN);
	len = binary(header, 1, 0x31, NULL, NULL, 0);
	memset(header + len, 'x', 216);
	header[15] = 216;
	expect_end(send_pieces(daemon, header, len + 216, HEADER_MOST, "local"), CLIENT_FIN);
	expect_output(daemon, "\"peer\":\"unix\"");
	ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", NULL), 0);
	daemon_end(daemon);
}
END_TEST

/* Who may open a local socket may say whose connection it is. */
START_TEST(header_on_a_local_socket)
{
	struct daemon *daemon = daemon_start(JSON PROXIED "address = \"unix:@DIR@/socket\";");

	expect_end(send_pieces(daemon, LINE, sizeof(LINE) - 1, HEADER_MOST, "local"), CLIENT_FIN);
	expect_output(daemon, "\"peer\":\"203.0.113.7:4711\"");
	daemon_end(daemon);
}
END_TEST

static const struct {
	const char *bytes;
	size_t len;
	const char *said;
} bad[] = {
	{ "hello", 5, "expected a header of the PROXY protocol" },
	{ "", 0, "closed before it was whole" },
	{ "PROXY TCP4 203.0.113.7", 22, "closed before it was whole" },
	{ "PROXY TCP4 203.0.113.7 198.51.100.1 4711 65536\r\n", 48, "no PROXY header: " },
	{ "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\n", 45, "no PROXY header: " },
	{ "PROXY TCP4 203.0.113.7 198.51.100.1 4711 443 and more than fits into a line "
	  "of one hundred and seven bytes, whatever it may be\r\n", 128, "no PROXY header: " },
	{ "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", 16, "expected version 2" },
	{ "\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf1", 16, "at most 4096 bytes" },
	{ "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0b", 16, "expected addresses" },
	{ "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" "1234", 20, "closed before it was whole" },
	{ "\x16\x03\x01", 3, "expected a header of the PROXY protocol" },
};

/* A daemon for each: the log is damped. */
START_TEST(no_header)
{
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct daemon *daemon = daemon_start(RAW PROXIED);
		int fd = client_connect(daemon_address(daemon, "main"));
		char *output;

		fd = pour(fd, bad[i].bytes, bad[i].len);
		if (fd != -1)
			(void)shutdown(fd, SHUT_WR);
		expect_end(fd, CLIENT_RST);
		daemon_wait_log(daemon, "connection-refused", bad[i].said, 1);
		ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", "proxy: reset: "),
				  1);
		output = daemon_output(daemon, NULL);
		ck_assert_str_eq(output, "");
		free(output);
		daemon_end(daemon);
	}
}
END_TEST

START_TEST(only_from_proxies)
{
	struct daemon *daemon = daemon_start(JSON PROXIED "allow = \"203.0.113.0/24\";");
	int fd = client_try_connect(daemon_address(daemon, "main"), "127.0.0.2", 0);

	if (fd != -1)
		expect_end(pour(fd, LINE "x", strlen(LINE "x")), CLIENT_RST);
	daemon_wait_log(daemon, "connection-refused", "not in proxy_from", 1);
	/* The proxy itself need not be in allow; whom it names has to. */
	expect_end(send_pieces(daemon, LINE, strlen(LINE), HEADER_MOST, "x"), CLIENT_FIN);
	expect_output(daemon, "\"peer\":\"203.0.113.7:4711\"");
	expect_end(send_pieces(daemon, "PROXY UNKNOWN\r\n", 15, HEADER_MOST, "y"), CLIENT_RST);
	daemon_wait_log(daemon, "connection-refused", "access: reset: ", 1);
	daemon_end(daemon);
}
END_TEST

static const struct {
	const char *from;
	enum client_end end;
} judged[] = {
	{ "TCP4 203.0.113.7 198.51.100.1", CLIENT_FIN },
	{ "TCP4 203.0.113.8 198.51.100.1", CLIENT_RST },
	{ "TCP4 203.0.114.7 198.51.100.1", CLIENT_RST },
	{ "TCP6 ::ffff:203.0.113.7 ::ffff:198.51.100.1", CLIENT_FIN },
	{ "TCP6 ::ffff:203.0.113.8 ::ffff:198.51.100.1", CLIENT_RST },
	{ "TCP6 2001:db8::7 2001:db8::1", CLIENT_FIN },
	{ "TCP6 2001:db8:1::7 2001:db8::1", CLIENT_RST },
	{ "TCP6 2001:db9::7 2001:db8::1", CLIENT_RST },
};

/* allow and deny judge the client; its address, not the proxy's, is in the log. */
START_TEST(access_by_header)
{
	struct daemon *daemon = daemon_start(
		RAW PROXIED "workers = 1; allow = [ \"203.0.113.0/24\", \"2001:db8::/32\" ];\n"
			    "deny = [ \"::ffff:203.0.113.8\", \"2001:db8:1::/48\" ];");

	for (size_t i = 0; i < sizeof judged / sizeof judged[0]; i++) {
		char *header = harness_text("PROXY %s 4711 443\r\n", judged[i].from);

		expect_end(send_pieces(daemon, header, strlen(header), HEADER_MOST, "x"),
			   judged[i].end);
		free(header);
	}
	daemon_wait_log(daemon, "connection-refused", "access: reset: ", 5);
	ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", "203.0.113.8:4711"), 2);
	free(daemon_wait_output(daemon, 3));
	daemon_end(daemon);
}
END_TEST

/* Places are those of the header's address: taken once, given back once. */
START_TEST(places_by_header)
{
	static const char mapped[] = "PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n";
	static const char other[] = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";
	struct daemon *daemon =
		/* One worker: who was read from has its place before another is. */
		daemon_start(RAW PROXIED "workers = 1; max_connections_per_address = 2; "
					 "max_connections = 5;");
	int fds[4], silent;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 2; i++) {
			fds[i] = client_connect(daemon_address(daemon, "main"));
			client_send_text(fds[i], i == 0 ? LINE "x" : mapped);
			client_wait_read(fds[i]);
		}
		/* One that has said nothing yet has no address to be counted with. */
		silent = client_connect(daemon_address(daemon, "main"));
		expect_end(send_pieces(daemon, LINE, strlen(LINE), HEADER_MOST, "y"), CLIENT_RST);
		expect_end(send_pieces(daemon, mapped, strlen(mapped), HEADER_MOST, "y"),
			   CLIENT_RST);
		expect_end(send_pieces(daemon, other, strlen(other), HEADER_MOST, "x"), CLIENT_FIN);
		client_reset(silent);
		for (int i = 0; i < 2; i++) {
			client_finish(fds[i]);
			expect_end(fds[i], CLIENT_FIN);
		}
	}
	/* Of six the log has five at once. */
	daemon_wait_log(daemon, "connection-refused", "max_connections_per_address", 5);
	free(daemon_wait_output(daemon, 6));
	daemon_end(daemon);
}
END_TEST

/* A header, or half of one, and then silence; bytes that trickle in win no time. */
START_TEST(header_in_time)
{
	struct daemon *daemon = daemon_start(RAW PROXIED "idle_timeout = 1; max_connections = 3;");
	int nothing = client_connect(daemon_address(daemon, "main"));
	int half = client_connect(daemon_address(daemon, "main"));
	int trickle = client_connect(daemon_address(daemon, "main"));
	double began = harness_now(), processor = daemon_processor(daemon);
	const char *at = LINE;

	client_send(half, LINE, 20);
	while (*at != '\0' && client_pour(trickle, at++, 1) == CLIENT_OPEN)
		usleep(100000);
	ck_assert_msg(*at != '\0', "the header was taken after %f s", harness_now() - began);
	expect_end(nothing, CLIENT_RST);
	expect_end(half, CLIENT_RST);
	close(trickle);
	ck_assert_double_le(harness_now() - began, HARNESS_SANITIZED ? 10 : 3);
	daemon_wait_log(daemon, "connection-refused", "not whole in time", 3);
	processor = daemon_processor(daemon) - processor;
	ck_assert_double_le(processor, HARNESS_SANITIZED ? 2 : 0.3);
	expect_end(send_pieces(daemon, LINE, strlen(LINE), HEADER_MOST, "x"), CLIENT_FIN);
	daemon_end(daemon);
}
END_TEST

/* At a stop who has no header goes at once; who has one may finish. */
START_TEST(stop_before_the_header)
{
	struct daemon *daemon = daemon_start(RAW PROXIED);
	int silent = client_connect(daemon_address(daemon, "main"));
	int half = client_connect(daemon_address(daemon, "main"));
	int whole = client_connect(daemon_address(daemon, "main"));
	double began;

	client_send(half, LINE, 20);
	client_send_text(whole, LINE "a");
	client_wait_read(half);
	client_wait_read(whole);
	began = harness_now();
	daemon_signal(daemon, SIGTERM);
	expect_end(silent, CLIENT_RST);
	expect_end(half, CLIENT_RST);
	ck_assert_double_le(harness_now() - began, HARNESS_SANITIZED ? 5 : 2);
	client_send_text(whole, "b");
	client_finish(whole);
	expect_end(whole, CLIENT_FIN);
	expect_output(daemon, "ab");
	daemon_end(daemon);
}
END_TEST

/* ----------------------------------------------------------------- HAProxy */

/* A socket that listens on a port of the kernel's choice; *address is where. */
static int
listen_anywhere(char **address)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	ck_assert_int_eq(listen(fd, 128), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	*address = harness_text("127.0.0.1:%d", ntohs(in.sin_port));
	return fd;
}

static pid_t
start_haproxy(const char *directory, int fd, const char *server, const char *option)
{
	char *file = harness_text("%s/haproxy.cfg", directory);
	char *output = harness_text("%s/haproxy.log", directory);
	char *text = harness_text("global\n\tmaxconn 200\n"
				  "defaults\n\tmode tcp\n\ttimeout connect 10s\n"
				  "\ttimeout client 30s\n\ttimeout server 30s\n"
				  "listen cistern\n\tbind fd@%d\n\tserver main %s %s\n",
				  fd, server, option);
	pid_t pid;
	int out;

	harness_write_file(file, text);
	pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		out = program_open(output);
		dup2(out, 1);
		dup2(out, 2);
		execlp("haproxy", "haproxy", "-db", "-f", file, (char *)NULL);
		_exit(127);
	}
	free(file);
	free(output);
	free(text);
	return pid;
}

static void
run_behind_haproxy(const char *option)
{
	enum { CLIENTS = 20 };
	char *directory = harness_directory(), *front, *expected;
	struct daemon *daemon;
	pid_t pid;
	int fd, status, i, client;

	if (system("haproxy -v >/dev/null 2>&1") != 0) {
		harness_skip("haproxy is not installed");
		return;
	}
	daemon = daemon_start(JSON PROXIED "allow = \"127.0.0.0/8\"; deny = \"127.0.0.9\";\n"
					   "reply = \"receipt\";");
	fd = listen_anywhere(&front);
	pid = start_haproxy(directory, fd, daemon_address(daemon, "main"), option);
	for (i = 0; i < CLIENTS; i++) {
		char *source = harness_text("127.0.1.%d", i + 1);
		struct sockaddr_in in;
		socklen_t len = sizeof in;

		client = client_try_connect(front, source, 0);
		ck_assert_int_ne(client, -1);
		ck_assert_int_eq(getsockname(client, (struct sockaddr *)&in, &len), 0);
		client_send_text(client, "through a proxy");
		client_finish(client);
		client_expect_ok(client, 15);
		client_expect(client, "", CLIENT_FIN);
		expected = harness_text("\"peer\":\"%s:%d\",\"local\":\"%s\"", source,
					ntohs(in.sin_port), front);
		expect_output(daemon, expected);
		free(expected);
		free(source);
	}
	/* One that is denied is seen through the proxy, too. */
	client = client_try_connect(front, "127.0.0.9", 0);
	ck_assert_int_ne(client, -1);
	(void)client_pour(client, "x", 1);
	daemon_wait_log(daemon, "connection-refused", "127.0.0.9:", 1);
	close(client);
	ck_assert_uint_eq(daemon_count_log(daemon, "connection-refused", "proxy: "), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	close(fd);
	free(front);
	free(directory);
	daemon_end(daemon);
}

START_TEST(haproxy_send_proxy)
{
	run_behind_haproxy("send-proxy");
}
END_TEST

START_TEST(haproxy_send_proxy_v2)
{
	run_behind_haproxy("send-proxy-v2");
}
END_TEST

/* It looks whether we are there, too, and says on whose behalf: its own. */
START_TEST(haproxy_that_checks)
{
	run_behind_haproxy("send-proxy-v2 check inter 100ms");
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ header_names_the_client, 60 },
		{ message_behind_the_header, 30 },
		{ local_command, 30 },
		{ header_on_a_local_socket, 30 },
		{ no_header, 30 },
		{ only_from_proxies, 30 },
		{ access_by_header, 30 },
		{ places_by_header, 30 },
		{ header_in_time, 30 },
		{ stop_before_the_header, 30 },
		{ haproxy_send_proxy, 30 },
		{ haproxy_send_proxy_v2, 30 },
		{ haproxy_that_checks, 30 },
	};

	return harness_run("proxied", tests, sizeof tests / sizeof tests[0], argc, argv);
}
