/*
 * receive: what clients do on a connection, well or badly, and that only whole
 * messages come out, byte for byte (framing eof).
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

#define CLIENTS (HARNESS_SANITIZED ? 100 : 200)
#define MIB ((size_t)1 << 20)

#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"
#define LINE "sinks = { console = { type = \"console\"; format = \"line\"; }; };\n"
#define JSON "sinks = { console = { type = \"console\"; format = \"json\"; }; };\n"

/* The payload of client i: its number and letters, of a length of its own. */
static char *
payload(size_t i, size_t *len)
{
	size_t at, letters = harness_word(i, 0) % 40000;
	char *text = malloc(letters + 32);

	ck_assert_ptr_nonnull(text);
	*len = (size_t)sprintf(text, "%zu ", i);
	for (at = 0; at < letters; at++)
		text[(*len)++] = (char)('a' + harness_word(i, at + 1) % 26);
	text[*len] = '\0';
	return text;
}

/* The client's lines of the default format, exactly as the tutorial has them. */
START_TEST(tutorial)
{
	struct daemon *daemon = daemon_start("%s", "");
	static const char expected[] = "Read 19 bytes from socket.\n Data : This is a test<EOF>\n";
	char *output;

	client_deliver(daemon_address(daemon, "main"), "This is a test<EOF>", 19, CLIENT_FIN);
	output = daemon_wait_output(daemon, sizeof expected - 1);
	ck_assert_str_eq(output, expected);
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}
END_TEST

/* All connected at once, sending by turns; each message comes out whole and once. */
START_TEST(many_clients)
{
	struct daemon *daemon = daemon_start(LINE);
	char *payloads[CLIENTS], *output, *at, *line;
	size_t lens[CLIENTS], sent[CLIENTS] = { 0 }, i, piece, open = CLIENTS, total = 0;
	bool seen[CLIENTS] = { false };
	int fds[CLIENTS];

	for (i = 0; i < CLIENTS; i++) {
		payloads[i] = payload(i, &lens[i]);
		total += lens[i] + 1;
		fds[i] = client_connect(daemon_address(daemon, "main"));
	}
	while (open > 0) {
		for (i = 0; i < CLIENTS; i++) {
			if (sent[i] > lens[i])
				continue;
			piece = 1 + harness_word(i, sent[i]) % 3000;
			if (piece > lens[i] - sent[i])
				piece = lens[i] - sent[i];
			client_send(fds[i], payloads[i] + sent[i], piece);
			sent[i] += piece;
			if (sent[i] == lens[i]) {
				client_finish(fds[i]);
				sent[i]++;
				open--;
			}
		}
	}
	for (i = 0; i < CLIENTS; i++)
		client_expect(fds[i], "", CLIENT_FIN);
	/* The close was the receipt: nothing is left to wait for. */
	output = daemon_output(daemon, &i);
	ck_assert_uint_eq(i, total);
	at = output;
	while ((line = strsep(&at, "\n")) != NULL && at != NULL) {
		i = strtoul(line, NULL, 10);
		ck_assert_uint_lt(i, CLIENTS);
		ck_assert_str_eq(line, payloads[i]);
		ck_assert(!seen[i]);
		seen[i] = true;
	}
	for (i = 0; i < CLIENTS; i++) {
		ck_assert(seen[i]);
		free(payloads[i]);
	}
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, CLIENTS);
	daemon_end(daemon);
	harness_note("%d clients at once, %zu bytes", CLIENTS, total);
}
END_TEST

START_TEST(byte_at_a_time)
{
	struct daemon *daemon = daemon_start(RAW);
	static const char text[] = "one byte after the other, and each in a packet of its own";
	int fd = client_connect(daemon_address(daemon, "main"));
	char *output;
	size_t i;

	for (i = 0; i + 1 < sizeof text; i++) {
		client_send(fd, &text[i], 1);
		client_wait_read(fd);
	}
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
	output = daemon_wait_output(daemon, sizeof text - 1);
	ck_assert_str_eq(output, text);
	free(output);
	daemon_end(daemon);
}
END_TEST

START_TEST(every_byte_value)
{
	struct daemon *daemon = daemon_start(RAW);
	unsigned char bytes[1024];
	char *output;
	size_t i;

	for (i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)(i < 256 ? i : harness_word(1, i));
	client_deliver(daemon_address(daemon, "main"), bytes, sizeof bytes, CLIENT_FIN);
	output = daemon_wait_output(daemon, sizeof bytes);
	ck_assert_mem_eq(output, bytes, sizeof bytes);
	free(output);
	daemon_end(daemon);
}
END_TEST

/* The value of a name in a json line, up to its closing quote. */
static char *
json_value(const char *line, const char *name)
{
	char *key = harness_text("\"%s\":\"", name);
	const char *at = strstr(line, key);
	char *value;

	ck_assert_msg(at != NULL, "no %s in %.300s", name, line);
	at += strlen(key);
	value = harness_text("%.*s", (int)strcspn(at, "\""), at);
	free(key);
	return value;
}

static size_t
base64_decode(const char *text, unsigned char *bytes)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned long word = 0;
	size_t n = 0, bits = 0;

	for (; *text != '\0' && *text != '='; text++) {
		ck_assert_ptr_nonnull(strchr(digits, *text));
		word = word << 6 | (unsigned long)(strchr(digits, *text) - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			bytes[n++] = (unsigned char)(word >> bits);
		}
	}
	return n;
}

/* Text stays readable in json, anything else is base64; both come back the same. */
START_TEST(every_byte_value_json)
{
	struct daemon *daemon = daemon_start(JSON);
	unsigned char bytes[256], decoded[512];
	char *output, *value, *line;
	size_t i;

	for (i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)i;
	client_deliver(daemon_address(daemon, "main"), bytes, sizeof bytes, CLIENT_FIN);
	client_deliver(daemon_address(daemon, "main"), "caf\xc3\xa9\x01\n", 7, CLIENT_FIN);
	output = daemon_output(daemon, NULL);
	line = strchr(output, '\n');
	ck_assert_ptr_nonnull(line);
	*line++ = '\0';
	value = json_value(output, "data_base64");
	ck_assert_uint_eq(base64_decode(value, decoded), sizeof bytes);
	ck_assert_mem_eq(decoded, bytes, sizeof bytes);
	free(value);
	ck_assert_ptr_nonnull(strstr(output, "\"size\":256"));
	value = json_value(output, "id");
	ck_assert_uint_eq(strlen(value), 26);
	free(value);
	value = json_value(line, "data");
	ck_assert_str_eq(value, "caf\xc3\xa9\\u0001\\n");
	free(value);
	value = json_value(line, "ended");
	ck_assert_str_eq(value, "fin");
	free(value);
	value = json_value(line, "listener");
	ck_assert_str_eq(value, "main");
	free(value);
	value = json_value(line, "local");
	ck_assert_str_eq(value, daemon_address(daemon, "main"));
	free(value);
	free(output);
	daemon_end(daemon);
}
END_TEST

/* The limit itself is taken, to the byte. */
START_TEST(largest_message)
{
	struct daemon *daemon = daemon_start(RAW);
	size_t len = 16 * MIB, i, have;
	uint64_t *bytes = malloc(len);
	char *output;

	ck_assert_ptr_nonnull(bytes);
	for (i = 0; i < len / 8; i++)
		bytes[i] = harness_word(2, i);
	client_deliver(daemon_address(daemon, "main"), bytes, len, CLIENT_FIN);
	output = daemon_output(daemon, &have);
	ck_assert_uint_eq(have, len);
	ck_assert_int_eq(memcmp(output, bytes, len), 0);
	free(output);
	free(bytes);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
}
END_TEST

START_TEST(too_large_message)
{
	struct daemon *daemon = daemon_start(RAW);
	static const size_t sizes[] = { 16 * MIB + 1, 64 * MIB };
	char *bytes = calloc(64, MIB), rest[64];
	size_t i, len;
	enum client_end end;
	int fd;

	ck_assert_ptr_nonnull(bytes);
	for (i = 0; i < 2; i++) {
		fd = client_connect(daemon_address(daemon, "main"));
		end = client_pour(fd, bytes, sizes[i]);
		if (end == CLIENT_OPEN) {
			end = client_receive(fd, rest, sizeof rest, &len, HARNESS_DEADLINE);
			ck_assert_uint_eq(len, 0);
		}
		ck_assert_int_eq(end, CLIENT_RST);
		close(fd);
	}
	free(bytes);
	client_deliver(daemon_address(daemon, "main"), "small", 5, CLIENT_FIN);
	bytes = daemon_output(daemon, &len);
	ck_assert_str_eq(bytes, "small");
	free(bytes);
	daemon_wait_log(daemon, NULL, "too-large", 1);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	ck_assert_uint_eq(daemon->account.discarded, 2);
	daemon_end(daemon);
}
END_TEST

/* A client that has closed its side only gets the answer, however late it reads. */
START_TEST(half_open)
{
	struct daemon *daemon = daemon_start(RAW "reply = \"receipt\";");
	int fds[2], i;

	for (i = 0; i < 2; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	client_send_text(fds[0], "half");
	client_finish(fds[0]);
	client_send_text(fds[1], "whole");
	free(daemon_wait_output(daemon, 4));
	client_expect_ok(fds[0], 4);
	client_expect(fds[0], "", CLIENT_FIN);
	/* The other one is still open, and its message not yet one. */
	client_finish(fds[1]);
	client_expect_ok(fds[1], 5);
	client_expect(fds[1], "", CLIENT_FIN);
	daemon_end(daemon);
}
END_TEST

/* Before, within and after the data, and after the orderly close. */
START_TEST(resets)
{
	struct daemon *daemon = daemon_start(RAW);
	size_t before = daemon_descriptors(daemon), len;
	char *bytes = malloc(MIB), *output;
	int fd;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'x', MIB);
	client_reset(client_connect(daemon_address(daemon, "main")));
	fd = client_connect(daemon_address(daemon, "main"));
	client_send(fd, bytes, 1000);
	client_wait_read(fd);
	client_reset(fd);
	fd = client_connect(daemon_address(daemon, "main"));
	client_send(fd, bytes, MIB); /* some of it still under way */
	client_reset(fd);
	fd = client_connect(daemon_address(daemon, "main"));
	client_send(fd, bytes, 1);
	client_reset(fd);
	/* This one is whole when its FIN is seen before its reset, else nothing. */
	fd = client_connect(daemon_address(daemon, "main"));
	client_send(fd, bytes, 1000);
	client_finish(fd);
	client_reset(fd);
	client_deliver(daemon_address(daemon, "main"), "after", 5, CLIENT_FIN);
	daemon_wait_descriptors(daemon, before);
	free(bytes);

	ck_assert_int_eq(daemon_stop(daemon), 0);
	output = daemon_output(daemon, &len);
	ck_assert_ptr_nonnull(strstr(output, "after"));
	ck_assert_uint_eq(len, daemon->account.accepted == 1 ? 5 : 1005);
	free(output);
	ck_assert_uint_le(daemon->account.accepted, 2);
	ck_assert_uint_ge(daemon->account.discarded, 1); /* the one that was read, surely */
	ck_assert_uint_le(daemon->account.discarded, 5 - daemon->account.accepted);
	ck_assert_uint_ge(daemon_count_log(daemon, "message-discarded", "reset"), 1);
	daemon_end(daemon);
}
END_TEST

/* Bytes, then a reset, both before the first read: the reset is reported first, and
 * what came before it is still put aside. */
START_TEST(reset_before_accept)
{
	struct daemon *daemon = daemon_start(RAW "incomplete = \"console\";");
	char *output;
	int fd;

	daemon_signal(daemon, SIGSTOP);
	fd = client_connect(daemon_address(daemon, "main"));
	client_send_text(fd, "half");
	client_reset(fd);
	daemon_signal(daemon, SIGCONT);
	output = daemon_wait_output(daemon, strlen("half"));
	ck_assert_str_eq(output, "half");
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	ck_assert_uint_eq(daemon_count_log(daemon, "message-discarded", "reset"), 1);
	daemon_end(daemon);
}
END_TEST

/* A message past half of the buffer, and one that fills it, in one go. */
START_TEST(around_the_buffer)
{
	const size_t sizes[] = {127, 128, 129, 254, 255, 256, 257, 511, 512, 513};
	struct daemon *daemon = daemon_start(RAW "buffer_size = 256;");
	unsigned char bytes[1024];
	char *output;
	size_t i, total = 0;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 7 + i / 256);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int fd;

		daemon_signal(daemon, SIGSTOP);
		fd = client_connect(daemon_address(daemon, "main"));
		client_send(fd, bytes, sizes[i]);
		client_finish(fd);
		daemon_signal(daemon, SIGCONT);
		client_expect(fd, "", CLIENT_FIN);
		output = daemon_wait_output(daemon, total + sizes[i]);
		ck_assert_mem_eq(output + total, bytes, sizes[i]);
		free(output);
		total += sizes[i];
	}
	daemon_end(daemon);
}
END_TEST

START_TEST(empty_connections)
{
	struct daemon *daemon = daemon_start(RAW "reply = \"receipt\";");
	size_t before = daemon_descriptors(daemon), len;
	char *output;
	int i;

	for (i = 0; i < 10; i++) {
		client_deliver(daemon_address(daemon, "main"), "", 0, CLIENT_FIN);
		close(client_connect(daemon_address(daemon, "main")));
	}
	daemon_wait_descriptors(daemon, before);
	output = daemon_output(daemon, &len);
	ck_assert_uint_eq(len, 0);
	free(output);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.received, 0);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}
END_TEST

/* Reads as large as can be set are a chunk each. */
START_TEST(largest_buffer)
{
	struct daemon *daemon = daemon_start(RAW "buffer_size = \"16M\"; max_message_size = \"64M\";");
	size_t size = 40 * MIB, len, at;
	char *bytes = malloc(size), *output;

	ck_assert_ptr_nonnull(bytes);
	for (at = 0; at < size; at++)
		bytes[at] = (char)(at * 31 >> 8);
	client_deliver(daemon_address(daemon, "main"), bytes, size, CLIENT_FIN);
	output = daemon_output(daemon, &len);
	ck_assert_uint_eq(len, size);
	ck_assert_int_eq(memcmp(output, bytes, size), 0);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(output);
	free(bytes);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ tutorial, 30 },	       { many_clients, 60 },
		{ byte_at_a_time, 30 },	       { every_byte_value, 30 },
		{ every_byte_value_json, 30 }, { largest_message, 60 },
		{ too_large_message, 60 },     { half_open, 30 },
		{ resets, 60 },		       { reset_before_accept, 30 },
		{ around_the_buffer, 30 },     { empty_connections, 30 },
		{ largest_buffer, 60 },
	};

	return harness_run("receive", tests, sizeof tests / sizeof tests[0], argc, argv);
}
