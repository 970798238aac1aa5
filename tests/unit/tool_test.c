/*
 * Tests of what cistern(1) parses: targets, receipts, envelopes, HTTP, names of spool
 * files, selections, statuses; and a link to one of two addresses.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "tool/envelope.h"
#include "tool/fetch.h"
#include "tool/link.h"
#include "tool/receipt.h"
#include "tool/selection.h"
#include "tool/status.h"
#include "tool/target.h"
#include "tool/tool.h"
#include "tool/top_view.h"
#include "unit.h"

#define ID "01ARZ3NDEKTSV4RRFFQ69G5FAV"

START_TEST(targets)
{
	struct target target;

	ck_assert_ptr_null(target_parse("example.org:11000", NULL, &target));
	ck_assert_str_eq(target.host, "example.org");
	ck_assert_str_eq(target.port, "11000");
	ck_assert(!target.local);
	ck_assert_ptr_null(target_parse("[2001:db8::1]:5140", NULL, &target));
	ck_assert_str_eq(target.host, "2001:db8::1");
	ck_assert_str_eq(target.port, "5140");
	ck_assert_ptr_null(target_parse("[::1]", "80", &target));
	ck_assert_str_eq(target.port, "80");
	ck_assert_ptr_null(target_parse("host", "80", &target));
	ck_assert_ptr_null(target_parse("unix:/run/cistern/s", NULL, &target));
	ck_assert(target.local);
	ck_assert_str_eq(target.path, "/run/cistern/s");
}
END_TEST

START_TEST(no_targets)
{
	static const char *const wrong[] = {
		"",	      "host",	      "host:",	      ":1",	 "host:0",   "host:65536",
		"host:-1",    "host:1x",      "host:http",    "::1:80",	 "[::1",     "[::1]80",
		"[::1]:",     "unix:",	      "unix:relative", "a b:1",	 "a/b:1",    "http://a:1",
		"a\r\nb:1",   "user@host:1",  "host:000011",
	};
	char text[400] = "unix:/";
	struct target target;

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ck_assert_msg(target_parse(wrong[i], NULL, &target) != NULL, "%s", wrong[i]);
	memset(text + 6, 'x', TARGET_PATH_MAX);
	ck_assert_ptr_nonnull(target_parse(text, NULL, &target));
	memset(text, 'x', 300);
	ck_assert_ptr_nonnull(target_parse(text, "80", &target));
}
END_TEST

START_TEST(urls)
{
	struct target target;
	const char *path;
	char text[400] = "";

	ck_assert_ptr_null(target_parse_url("http://h:1/a?b", "80", "/d", &target, &path));
	ck_assert_str_eq(target.host, "h");
	ck_assert_str_eq(path, "/a?b");
	ck_assert_ptr_null(target_parse_url("http://[::1]/", "80", "/d", &target, &path));
	ck_assert_str_eq(target.port, "80");
	ck_assert_str_eq(path, "/d");
	ck_assert_ptr_null(target_parse_url("h", "80", "/d", &target, &path));
	ck_assert_str_eq(path, "/d");
	ck_assert_ptr_nonnull(target_parse_url("https://h:1/", "80", "/d", &target, &path));
	ck_assert_ptr_nonnull(target_parse_url("http://h:1/a b", "80", "/d", &target, &path));
	ck_assert_ptr_nonnull(target_parse_url("http://h:1/a\r\nX: y", "80", "/d", &target, &path));
	ck_assert_ptr_nonnull(target_parse_url("http://unix:/x", "80", "/d", &target, &path));
	memset(text, 'x', sizeof text - 1);
	memcpy(text, "http://", 7);
	ck_assert_ptr_nonnull(target_parse_url(text, "80", "/d", &target, &path));
}
END_TEST

static bool
parses(const char *line, struct receipt *receipt)
{
	return receipt_parse(line, strlen(line), receipt);
}

START_TEST(receipts)
{
	struct receipt receipt;

	ck_assert(parses("OK " ID " 123", &receipt));
	ck_assert_int_eq(receipt.kind, RECEIPT_OK);
	ck_assert_str_eq(receipt.id, ID);
	ck_assert_uint_eq(receipt.size, 123);
	ck_assert(parses("OK " ID " 0", &receipt));
	ck_assert(parses("RETRY storage", &receipt));
	ck_assert_int_eq(receipt.kind, RECEIPT_RETRY);
	ck_assert_str_eq(receipt.reason, "storage");
	ck_assert(!receipt_ends(&receipt));
	ck_assert(parses("REJECT too-large", &receipt));
	ck_assert(receipt_ends(&receipt));
	ck_assert(parses("REJECT refused", &receipt));
	ck_assert(!receipt_ends(&receipt));
}
END_TEST

START_TEST(no_receipts)
{
	static const char *const wrong[] = {
		"", "OK", "OK ", "OK " ID, "OK " ID " ", "OK " ID " 1x", "OK " ID " 01",
		"OK " ID " -1", "OK " ID " 99999999999999999999", "OK " ID "  1", "OK " ID " 1\r",
		"OK 01ARZ3NDEKTSV4RRFFQ69G5FAU 1", "OK 01ARZ3NDEKTSV4RRFFQ69G5FA 1", "RETRY", "RETRY ",
		"RETRY \033[2J", "REJECT Too large", "ok " ID " 1", "250 OK",
	};
	struct receipt receipt;

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ck_assert_msg(!parses(wrong[i], &receipt), "%s", wrong[i]);
	ck_assert(!receipt_parse("OK " ID " 1\0002", strlen("OK " ID " 1") + 2, &receipt));
}
END_TEST

/* What goes around a message is one message for the parser of the daemon. */
static void
expect_carried(struct framing_config *framing, const char *payload, size_t size)
{
	unsigned char bytes[4096];
	struct framing_state state = {0};
	struct framing_step step;
	const unsigned char *tail;
	size_t len, tail_len = envelope_tail(framing, &tail);

	ck_assert_int_eq(framing_prepare(framing), 0);
	ck_assert_ptr_null(envelope_head(framing, size, bytes, &len));
	memcpy(bytes + len, payload, size);
	memcpy(bytes + len + size, tail, tail_len);
	len += size + tail_len;
	framing_feed(framing, &state, bytes, len, &step);
	if (framing->kind == FRAMING_EOF)
		framing_finish(framing, &state, &step);
	else
		ck_assert_uint_eq(step.used, len);
	ck_assert_int_eq(step.verdict, FRAMING_MESSAGE);
	free(framing->fallback);
	framing->fallback = NULL;
}

START_TEST(envelopes)
{
	static unsigned char end[] = "<EOF>";
	struct framing_config framing = {.length_bytes = 4, .delimiter = end, .delimiter_len = 5};

	for (int kind = FRAMING_EOF; kind <= FRAMING_MLLP; kind++) {
		framing.kind = (enum framing_kind)kind;
		expect_carried(&framing, "hello", 5);
		if (kind != FRAMING_EOF && kind != FRAMING_LINE)
			expect_carried(&framing, "", 0);
	}
	framing.kind = FRAMING_LENGTH;
	for (unsigned bytes = 1; bytes <= 8; bytes *= 2)
		for (int way = 0; way < 4; way++) {
			framing.length_bytes = bytes;
			framing.length_little = (way & 1) != 0;
			framing.length_includes_header = (way & 2) != 0;
			expect_carried(&framing, "some bytes", 10);
		}
}
END_TEST

START_TEST(lengths_have_bounds)
{
	struct framing_config framing = {.kind = FRAMING_LENGTH, .length_bytes = 1};
	unsigned char head[ENVELOPE_HEAD_MAX];
	size_t len;

	ck_assert_ptr_null(envelope_head(&framing, 255, head, &len));
	ck_assert_uint_eq(head[0], 255);
	ck_assert_ptr_nonnull(envelope_head(&framing, 256, head, &len));
	framing.length_includes_header = true;
	ck_assert_ptr_null(envelope_head(&framing, 254, head, &len));
	ck_assert_ptr_nonnull(envelope_head(&framing, 255, head, &len));
	framing.length_bytes = 4;
	ck_assert_ptr_null(envelope_head(&framing, UINT32_MAX - 4, head, &len));
	ck_assert_ptr_nonnull(envelope_head(&framing, UINT32_MAX - 3, head, &len));
	framing.length_bytes = 8;
	ck_assert_ptr_null(envelope_head(&framing, UINT64_C(1) << 40, head, &len));
	framing.kind = FRAMING_EOF;
	ck_assert_ptr_nonnull(envelope_head(&framing, 0, head, &len));
}
END_TEST

/* Whether the payload can be carried, and that it does not matter how it is split. */
static bool
is_carried(struct framing_config *framing, const char *payload)
{
	size_t len = strlen(payload);
	bool first = false;

	ck_assert_int_eq(framing_prepare(framing), 0);
	for (size_t split = 0; split <= len; split++) {
		const unsigned char *bytes = (const unsigned char *)payload;
		struct envelope_check check;
		bool good = envelope_check_start(&check, framing) == NULL &&
			    envelope_check_feed(&check, bytes, split) == NULL &&
			    envelope_check_feed(&check, bytes + split, len - split) == NULL &&
			    envelope_check_end(&check) == NULL;

		if (split == 0)
			first = good;
		ck_assert_int_eq(good, first);
	}
	free(framing->fallback);
	framing->fallback = NULL;
	return first;
}

START_TEST(picky_framings)
{
	static unsigned char end[] = "<EOF>", twice[] = "aa", cross[] = "aab";
	struct framing_config framing = {.kind = FRAMING_DELIMITER, .delimiter = end,
					 .delimiter_len = 5};

	ck_assert(is_carried(&framing, "hello"));
	ck_assert(is_carried(&framing, ""));
	ck_assert(is_carried(&framing, "<EOF"));
	ck_assert(is_carried(&framing, "<<EO<E"));
	ck_assert(!is_carried(&framing, "a<EOF>"));
	ck_assert(!is_carried(&framing, "<EOF>b"));
	framing.delimiter = twice;
	framing.delimiter_len = 2;
	ck_assert(is_carried(&framing, "ab"));
	ck_assert(!is_carried(&framing, "ba")); /* baaa: the first aa is not the last */
	framing.delimiter = cross;
	framing.delimiter_len = 3;
	ck_assert(is_carried(&framing, "xa"));
	framing = (struct framing_config){.kind = FRAMING_MLLP};
	ck_assert(is_carried(&framing, "MSH|\r\n"));
	ck_assert(!is_carried(&framing, "a\x1c\rb"));
}
END_TEST

/* A response in one piece, and not before its last byte is there. */
static enum fetch_verdict
fetched(const char *text, bool closed, struct fetch_response *response, char body[256])
{
	char bytes[1024];
	size_t len = strlen(text), cut;
	enum fetch_verdict verdict;

	for (cut = 0; cut < len; cut++) {
		memcpy(bytes, text, cut);
		verdict = fetch_parse(bytes, cut, false, response);
		if (verdict != FETCH_MORE) {
			ck_assert_int_eq(verdict, FETCH_BAD);
			return verdict;
		}
	}
	memcpy(bytes, text, len);
	verdict = fetch_parse(bytes, len, closed, response);
	if (verdict == FETCH_WHOLE) {
		ck_assert_uint_le(response->head + response->length, len);
		memcpy(body, bytes + response->head, response->length);
		body[response->length] = '\0';
	}
	return verdict;
}

START_TEST(http)
{
	struct fetch_response response;
	char body[256];

	ck_assert_int_eq(fetched("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false,
				 &response, body), FETCH_WHOLE);
	ck_assert_str_eq(body, "hello");
	ck_assert_int_eq(response.status, 200);
	ck_assert_int_eq(fetched("HTTP/1.0 503 No\r\nX: y\r\n\r\nhello", true, &response, body),
			 FETCH_WHOLE);
	ck_assert_int_eq(response.status, 503);
	ck_assert_str_eq(body, "hello");
	ck_assert_int_eq(fetched("HTTP/1.1 200 OK\r\ntransfer-encoding:  chunked\r\n\r\n"
				 "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", false, &response, body),
			 FETCH_WHOLE);
	ck_assert_str_eq(body, "abc0123456789");
}
END_TEST

START_TEST(no_http)
{
	static const char *const wrong[] = {
		"SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", /* more than 64 MiB */
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab\r\n",
	};
	struct fetch_response response;
	char body[256], *long_head = calloc(1, FETCH_HEAD_MAX + 2);

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ck_assert_msg(fetched(wrong[i], true, &response, body) == FETCH_BAD, "%s", wrong[i]);
	ck_assert_int_eq(fetched("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", true, &response,
				 body), FETCH_BAD);
	ck_assert_int_eq(fetched("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", true,
				 &response, body), FETCH_BAD);
	ck_assert_int_eq(fetched("HTTP/1.1 200", true, &response, body), FETCH_BAD);
	memset(long_head, 'x', FETCH_HEAD_MAX + 1);
	ck_assert_int_eq(fetch_parse(long_head, FETCH_HEAD_MAX + 1, false, &response), FETCH_BAD);
	free(long_head);
}
END_TEST

START_TEST(names_of_spool_files)
{
	static const char *const wrong[] = {"", ID, ID ".main", ID ".main.", ID "..unix", "x.main.unix",
					    "01arz3ndektsv4rrffq69g5fav.main.unix", ID "x.main.unix"};
	char id[ID_TEXT_LEN + 1], *listener, *peer;
	uint64_t time;

	ck_assert(spools_parse(ID ".main.192.0.2.1-5140", id, &time, &listener, &peer));
	ck_assert_str_eq(id, ID);
	ck_assert_uint_eq(time / 1000, 1469922850259);
	ck_assert_str_eq(listener, "main");
	ck_assert_str_eq(peer, "192.0.2.1:5140");
	free(listener);
	free(peer);
	ck_assert(spools_parse(ID ".a.2001:db8::1-5140", id, &time, &listener, &peer));
	ck_assert_str_eq(peer, "[2001:db8::1]:5140");
	free(listener);
	free(peer);
	ck_assert(spools_parse(ID ".a.unix-4711", id, &time, &listener, &peer));
	ck_assert_str_eq(peer, "unix:4711");
	free(listener);
	free(peer);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ck_assert_msg(!spools_parse(wrong[i], id, &time, &listener, &peer), "%s", wrong[i]);
}
END_TEST

#ifdef HAVE_JANSSON
#define DOCUMENT \
	"{\"pid\": 7, \"started\": \"s\", \"uptime\": %s, \"ready\": true, \"listeners\": [{\"name\":" \
	"\"a\\u001b[2J\", \"connections\": {\"active\": 1, \"refused\": {\"x\": 2, \"y\": 3}}," \
	"\"bytes\": %s, \"messages\": {\"received\": %s}}]," \
	"\"connections\": [{\"id\": 9007199254740992, \"peer\": \"p\\u0000q\", \"bytes\": %s}," \
	"{\"id\": 2, \"age\": 0.5, \"bytes\": 100}, \"nonsense\"]}"

static struct status *
status_of(const char *uptime, const char *bytes)
{
	char text[2048], why[200] = "";
	struct status *status;

	snprintf(text, sizeof text, DOCUMENT, uptime, bytes, bytes, bytes);
	status = status_parse(text, strlen(text), why, sizeof why);
	ck_assert_msg(status != NULL, "%s", why);
	return status;
}
#endif

#define ABSURD \
	"{\"uptime\":5,\"workers\":1e300,\"memory\":{\"messages\":-1e300,\"limit\":1e300}," \
	"\"connections_left_out\":3,\"listeners\":[{\"connections\":{\"active\":12345,\"refused\":{\"a\":1.5e308," \
	"\"b\":1.5e308}},\"messages\":{\"received\":-5}},7],\"sinks\":[null]," \
	"\"connections\":[{\"id\":1e300,\"age\":-1e300,\"bytes\":1e19},{\"age\":1e19}]}"

START_TEST(statuses)
{
#ifdef HAVE_JANSSON
	struct status *before = status_of("10", "1000"), *after = status_of("12", "5000");
	char why[200], *text = NULL;
	size_t size;
	FILE *shown;

	status_rate(before, NULL);
	ck_assert(!before->rated);
	status_sort(before, STATUS_BYTES, true);
	status_rate(after, before);
	ck_assert(after->rated);
	ck_assert_str_eq(after->listeners[0].name, "a\\x1B[2J");
	ck_assert_str_eq(after->connections[2].peer, "p\\x00q");
	ck_assert_double_eq(after->listeners[0].refused, 5);
	ck_assert_double_eq(after->listeners[0].byte_rate, 2000);
	ck_assert_double_eq(after->connections[2].byte_rate, 2000);
	ck_assert_double_eq(after->connections[1].id, 2);
	status_sort(after, STATUS_RATE, false);
	ck_assert_double_eq(after->connections[0].byte_rate, 2000);
	status_free(before);
	/* Started anew: nothing to compare with. */
	before = status_of("100", "1");
	status_rate(after, before);
	status_free(before);
	status_free(after);
	/* Nonsense stays within what can be shown, and within JSON. */
	after = status_parse(ABSURD, strlen(ABSURD), why, sizeof why);
	before = status_parse(ABSURD, strlen(ABSURD), why, sizeof why);
	ck_assert_ptr_nonnull(after);
	ck_assert_ptr_nonnull(before);
	before->uptime = 0;
	after->uptime = 1e-300;
	status_rate(after, before);
	ck_assert(!after->rated);
	after->uptime = 1;
	status_rate(after, before);
	ck_assert(after->rated);
	shown = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(shown);
	top_view_json(shown, after);
	ck_assert_int_eq(fclose(shown), 0);
	ck_assert_msg(strstr(text, "inf") == NULL && strstr(text, "nan") == NULL, "%s", text);
	ck_assert_ptr_nonnull(strstr(text, "\"refused\":0,"));
	free(text);
	shown = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(shown);
	top_view_head(shown, after, false);
	top_view_connections(shown, after, STATUS_ID, 0, 10, false);
	ck_assert_int_eq(fclose(shown), 0);
	ck_assert_uint_lt(size, 2000);
	ck_assert_ptr_nonnull(strstr(text, "connections 12k"));
	ck_assert_ptr_nonnull(strstr(text, "and 3 more connections"));
	free(text);
	status_free(before);
	status_free(after);
	ck_assert_ptr_null(status_parse("{", 1, why, sizeof why));
	ck_assert_ptr_null(status_parse("[]", 2, why, sizeof why));
	ck_assert_ptr_null(status_parse("{}", 2, why, sizeof why));
#endif
}
END_TEST

START_TEST(figures)
{
	char text[TOOL_SHORT];

	tool_age(UINT64_C(119999999), text);
	ck_assert_str_eq(text, "119s");
	tool_age(UINT64_C(3600) * 1000000, text);
	ck_assert_str_eq(text, "60m");
	tool_age(UINT64_MAX, text);
	tool_size(1023, text);
	ck_assert_str_eq(text, "1023");
	tool_size(1024, text);
	ck_assert_str_eq(text, "1.0K");
	tool_size(1e30, text);
	ck_assert_uint_lt(strlen(text), TOOL_SHORT);
}
END_TEST

/* This file's, and two addresses: nobody listens on the first. */
static struct sockaddr_in both[2];

int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
	static struct addrinfo infos[2];

	(void)host, (void)port, (void)hints;
	for (int i = 0; i < 2; i++)
		infos[i] = (struct addrinfo){ .ai_family = AF_INET, .ai_socktype = SOCK_STREAM,
					      .ai_addr = (struct sockaddr *)&both[i],
					      .ai_addrlen = sizeof both[i],
					      .ai_next = i == 0 ? &infos[1] : NULL };
	*found = infos;
	return 0;
}

void
freeaddrinfo(struct addrinfo *found)
{
	(void)found;
}

/* What the second address has said for good is not for now because the first refused. */
START_TEST(two_addresses)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), nobody = socket(AF_INET, SOCK_STREAM, 0);
	const struct link_tls none = { .on = false }, wrong = { .on = true, .ca = "/nonexistent" };
	const struct target target = { .host = "two", .port = "1" };
	socklen_t len = sizeof both[0];
	struct link link;

	both[0] = both[1] = (struct sockaddr_in){ .sin_family = AF_INET,
						  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ck_assert_int_eq(bind(nobody, (struct sockaddr *)&both[0], len), 0);
	ck_assert_int_eq(getsockname(nobody, (struct sockaddr *)&both[0], &len), 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&both[1], len), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&both[1], &len), 0);
	ck_assert_int_eq(link_open(&link, &target, &none, 1000000), EX_UNAVAILABLE);
	ck_assert(link.temporary);
	ck_assert_int_eq(listen(listener, 5), 0);
	ck_assert_int_eq(link_open(&link, &target, &none, 1000000), 0);
	ck_assert(!link.temporary);
	link_close(&link);
	ck_assert_int_ne(link_open(&link, &target, &wrong, 1000000), 0);
#ifdef HAVE_OPENSSL
	ck_assert(!link.temporary);
#endif
	close(listener);
	close(nobody);
}
END_TEST

static Suite *
tool_suite(void)
{
	Suite *s = suite_create("tool");
	TCase *tc = tcase_create("tool");

	tcase_add_test(tc, targets);
	tcase_add_test(tc, no_targets);
	tcase_add_test(tc, urls);
	tcase_add_test(tc, receipts);
	tcase_add_test(tc, no_receipts);
	tcase_add_test(tc, envelopes);
	tcase_add_test(tc, lengths_have_bounds);
	tcase_add_test(tc, picky_framings);
	tcase_add_test(tc, http);
	tcase_add_test(tc, no_http);
	tcase_add_test(tc, names_of_spool_files);
	tcase_add_test(tc, statuses);
	tcase_add_test(tc, figures);
	tcase_add_test(tc, two_addresses);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(tool_suite());
}
