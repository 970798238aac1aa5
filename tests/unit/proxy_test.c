/*
 * Tests of intake/proxy: what the specification gives as examples, and what it
 * forbids; that every prefix of a header asks for more, and that a malformed one is
 * known for it early and for good.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "intake/proxy.h"
#include "unit.h"

#define TEXT(literal) (literal), sizeof(literal) - 1
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define LONGEST6 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
#define TEN "aaaaaaaaaa"
#define IPV4 "\xc0\xa8\x00\x01\xc0\xa8\x00\x0b\xdc\x04\x01\xbb"
#define IPV6_1 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
#define IPV6_2 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"
#define MAPPED "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01"
#define IPV6 IPV6_1 IPV6_2 "\xdc\x04\x01\xbb"

struct header {
	const char *bytes;
	size_t len;
	const char *source, *destination; /* NULL: local */
};

static const struct header headers[] = {
	/* the specification's own example, and the longest lines that it names */
	{ TEXT("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), "192.168.0.1:56324",
	  "192.168.0.11:443" },
	{ TEXT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
	  "255.255.255.255:65535", "255.255.255.255:65535" },
	{ TEXT("PROXY TCP6 " LONGEST6 " " LONGEST6 " 65535 65535\r\n"), "[" LONGEST6 "]:65535",
	  "[" LONGEST6 "]:65535" },
	{ TEXT("PROXY UNKNOWN\r\n"), NULL, NULL },
	{ TEXT("PROXY UNKNOWN " LONGEST6 " " LONGEST6 " 65535 65535\r\n"), NULL, NULL },
	{ TEXT("PROXY UNKNOWN what, \0ever\xff\r\n"), NULL, NULL },
	{ TEXT("PROXY UNKNOWN \r\n"), NULL, NULL },
	{ TEXT("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "0.0.0.0:0", "0.0.0.0:0" },
	{ TEXT("PROXY TCP6 2001:DB8::1 :: 1 2\r\n"), "[2001:db8::1]:1", "[::]:2" },
	/* as inet_ntop writes it, which is what proxies send */
	{ TEXT("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"), "192.0.2.1:1",
	  "[2001:db8::2]:2" },

	{ TEXT(SIGNATURE "\x21\x11\0\x0c" IPV4), "192.168.0.1:56324", "192.168.0.11:443" },
	{ TEXT(SIGNATURE "\x21\x21\0\x24" IPV6), "[2001:db8::1]:56324", "[2001:db8::2]:443" },
	{ TEXT(SIGNATURE "\x21\x21\0\x24" MAPPED IPV6_2 "\0\1\xff\xff"), "192.0.2.1:1",
	  "[2001:db8::2]:65535" },
	/* health checks; a family that LOCAL makes meaningless; nobody known */
	{ TEXT(SIGNATURE "\x20\x00\0\0"), NULL, NULL },
	{ TEXT(SIGNATURE "\x20\x11\0\x0c" IPV4), NULL, NULL },
	{ TEXT(SIGNATURE "\x20\x21\0\2ab"), NULL, NULL },
	{ TEXT(SIGNATURE "\x20\xff\0\x08whatever"), NULL, NULL },
	{ TEXT(SIGNATURE "\x21\x00\0\0"), NULL, NULL },
	{ TEXT(SIGNATURE "\x21\x00\0\5\1\2\3\4\5"), NULL, NULL },
	{ TEXT(SIGNATURE "\x21\x10\0\x0c" IPV4), NULL, NULL },
	{ TEXT(SIGNATURE "\x21\x01\0\0"), NULL, NULL },
	/* datagrams: as if it did not say */
	{ TEXT(SIGNATURE "\x21\x12\0\x0c" IPV4), NULL, NULL },
	{ TEXT(SIGNATURE "\x21\x22\0\x24" IPV6), NULL, NULL },
	/* values after the addresses: nothing, a name, TLS's; then checksums */
	{ TEXT(SIGNATURE "\x21\x11\0\x1d" IPV4 "\4\0\0\2\0\x0b"
			 "example.org"),
	  "192.168.0.1:56324", "192.168.0.11:443" },
	{ TEXT(SIGNATURE "\x21\x11\0\x17" IPV4 "\x20\0\x08\1\0\0\0\0\x21\0\0"), "192.168.0.1:56324",
	  "192.168.0.11:443" },
	{ TEXT(SIGNATURE "\x21\x11\0\x13" IPV4 "\3\0\4\x1c\x1a\xe9\xc6"), "192.168.0.1:56324",
	  "192.168.0.11:443" },
	{ TEXT(SIGNATURE "\x21\x21\0\x42" IPV6 "\1\0\2h2\3\0\4\x10\x81\x30\x77\xe0\0\3own\4\0\x09"
			 "\0\0\0\0\0\0\0\0\0"),
	  "[2001:db8::1]:56324", "[2001:db8::2]:443" },
	{ TEXT(SIGNATURE "\x20\0\0\7\3\0\4\xa9\xb8\x7e\x8f"), NULL, NULL },
};
#define N_HEADERS (sizeof headers / sizeof *headers)

/* Parses a copy that ends where its bytes do, so that a byte too many is noticed. */
static enum proxy_verdict
parse(const void *bytes, size_t len, struct proxy_result *result)
{
	unsigned char *copy = malloc(len > 0 ? len : 1);
	enum proxy_verdict verdict;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, bytes, len);
	memset(result, 0xaa, sizeof *result);
	verdict = proxy_parse(copy, len, result);
	free(copy);
	return verdict;
}

static void
expect_address(const struct net_address *address, const char *expected)
{
	char text[NET_TEXT_LEN];

	net_address_text(address, text);
	ck_assert_str_eq(text, expected);
}

static void
expect_header(const struct header *header, const void *bytes, size_t len)
{
	struct proxy_result result;

	ck_assert_int_eq(parse(bytes, len, &result), PROXY_DONE);
	ck_assert_uint_eq(result.used, header->len);
	ck_assert_ptr_null(result.why);
	ck_assert_int_eq(result.local, header->source == NULL);
	expect_address(&result.source, result.local ? "unknown" : header->source);
	expect_address(&result.destination, result.local ? "unknown" : header->destination);
}

START_TEST(good_headers)
{
	expect_header(&headers[_i], headers[_i].bytes, headers[_i].len);
}
END_TEST

START_TEST(what_follows_is_the_clients)
{
	static const char *const after[] = { "G", "\n", "GET / HTTP/1.1\r\n", "PROXY UNKNOWN\r\n" };
	char bytes[256];

	for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
		memcpy(bytes, headers[_i].bytes, headers[_i].len);
		memcpy(bytes + headers[_i].len, after[i], strlen(after[i]));
		expect_header(&headers[_i], bytes, headers[_i].len + strlen(after[i]));
	}
}
END_TEST

START_TEST(prefixes_ask_for_more)
{
	struct proxy_result result;

	for (size_t len = 0; len < headers[_i].len; len++) {
		ck_assert_msg(parse(headers[_i].bytes, len, &result) == PROXY_MORE, "%zu bytes",
			      len);
		ck_assert_uint_eq(result.used, 0);
		ck_assert(!result.local);
		ck_assert_int_eq(result.source.family, AF_UNSPEC);
		ck_assert_int_eq(result.destination.family, AF_UNSPEC);
		ck_assert_ptr_null(result.why);
	}
}
END_TEST

/* What is malformed, and how many of its bytes tell. */
static const struct {
	const char *bytes;
	size_t len, told;
	const char *why;
} bad[] = {
	{ TEXT("GET / HTTP/1.1\r\n"), 1, "expected a header of the PROXY protocol" },
	{ TEXT("\x16\x03\x01"), 1, "expected a header of the PROXY protocol" },
	{ TEXT(" PROXY"), 1, "expected a header of the PROXY protocol" },
	{ TEXT("proxy UNKNOWN\r\n"), 1, "expected a header of the PROXY protocol" },
	{ TEXT("\0"), 1, "expected a header of the PROXY protocol" },
	{ TEXT("\nPROXY"), 1, "expected a header of the PROXY protocol" },
	{ TEXT("POST / HTTP/1.1\r\n"), 2, "expected PROXY and a space" },
	{ TEXT("PROXy UNKNOWN\r\n"), 5, "expected PROXY and a space" },
	{ TEXT("PROXY\tUNKNOWN\r\n"), 6, "expected PROXY and a space" },
	{ TEXT("PROXY\r\n"), 6, "expected PROXY and a space" },
	{ TEXT("PROXY  UNKNOWN\r\n"), 7, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY \r\n"), 7, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY UDP4 "), 8, "expected UNKNOWN, then CR LF or a space" },
	{ TEXT("PROXY unknown\r\n"), 7, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY UNKNOWNX\r\n"), 14, "expected UNKNOWN, then CR LF or a space" },
	{ TEXT("PROXY UNKNOWN\n"), 14, "expected CR before LF" },
	{ TEXT("PROXY UNKNOWN a\n"), 16, "expected CR before LF" },
	{ TEXT("PROXY UNKNOWN\rX"), 15, "expected LF after CR" },
	{ TEXT("PROXY UNKNOWN \r\r\n"), 16, "expected LF after CR" },
	{ TEXT("PROXY TCP5 "), 10, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY TCP 1.2.3.4"), 10, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY tcp4 1.2.3.4"), 7, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY TCP4\r\n"), 11, "expected TCP4, TCP6 or UNKNOWN" },
	{ TEXT("PROXY TCP4  1.2.3.4 "), 12, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.04 "), 20, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3 "), 17, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.256 "), 21, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.4. "), 20, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.4\0 "), 19, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.4\r\n"), 19, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 ::1 ::1 1 2\r\n"), 12, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 0x1.2.3.4 "), 13, "expected an IPv4 address" },
	{ TEXT("PROXY TCP4 1.2.3.4 localhost "), 20, "expected an IPv4 address" },
	{ TEXT("PROXY TCP6 1.2.3.4 "), 19, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 1:2:3:4:5:6:7 "), 25, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 1:2:3:4:5:6:7:8:9 "), 29, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 1::2::3 "), 19, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 12345::1 "), 20, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 fe80::1%2 "), 19, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 [::1] "), 12, "expected an IPv6 address" },
	{ TEXT("PROXY TCP6 00000000000000000000000000000000000000000000000"), 57,
	  "expected an IPv6 address" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n"), 28, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), 29, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n"), 29, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), 32, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 99999999999 2\r\n"), 32,
	  "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), 28, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"), 28, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), 29, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n"), 30, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), 31, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), 31, "expected a port from 0 to 65535" },
	{ TEXT("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n"), 32, "expected LF after CR" },
	/* the 106th byte has to be the CR */
	{ TEXT("PROXY UNKNOWN " TEN TEN TEN TEN TEN TEN TEN TEN TEN "ab\r\n"), 106,
	  "expected CR LF within 107 bytes" },
	{ TEXT("PROXY TCP6 0000:0000:0000:0000:0000:0000:255.255.255.255 "
	       "0000:0000:0000:0000:0000:0000:255.255.255.255 65535 65535\r\n"),
	  106, "expected CR LF within 107 bytes" },

	{ TEXT("\r\n\r\n\0\r\nQUIT\r"), 12, "expected the signature of version 2" },
	{ TEXT("\r\n\r\n\r\n"), 5, "expected the signature of version 2" },
	{ TEXT("\rQUIT"), 2, "expected the signature of version 2" },
	{ TEXT(SIGNATURE "\x11"), 13, "expected version 2 and LOCAL or PROXY" },
	{ TEXT(SIGNATURE "\x31"), 13, "expected version 2 and LOCAL or PROXY" },
	{ TEXT(SIGNATURE "\x22"), 13, "expected version 2 and LOCAL or PROXY" },
	{ TEXT(SIGNATURE "\x2f"), 13, "expected version 2 and LOCAL or PROXY" },
	{ TEXT(SIGNATURE "\x21\x41\0\0"), 14, "expected a known family and transport" },
	{ TEXT(SIGNATURE "\x21\x13\0\x0c" IPV4), 14, "expected a known family and transport" },
	{ TEXT(SIGNATURE "\x21\xff\0\0"), 14, "expected a known family and transport" },
	{ TEXT(SIGNATURE "\x21\x11\x10\0"), 15, "expected a header of at most 4096 bytes" },
	{ TEXT(SIGNATURE "\x21\x11\xff\xff"), 15, "expected a header of at most 4096 bytes" },
	{ TEXT(SIGNATURE "\x20\x00\x0f\xf1"), 16, "expected a header of at most 4096 bytes" },
	{ TEXT(SIGNATURE "\x21\x11\0\x0b" IPV4), 16,
	  "expected addresses as long as their family's" },
	{ TEXT(SIGNATURE "\x21\x11\0\0"), 16, "expected addresses as long as their family's" },
	{ TEXT(SIGNATURE "\x21\x12\0\x0b" IPV4), 16,
	  "expected addresses as long as their family's" },
	{ TEXT(SIGNATURE "\x21\x21\0\x23" IPV6), 16,
	  "expected addresses as long as their family's" },
	{ TEXT(SIGNATURE "\x21\x31\0\xd7"), 16, "expected addresses as long as their family's" },
	{ TEXT(SIGNATURE "\x21\x11\0\x0e" IPV4 "\4\0"), 16,
	  "expected a type and a length after the addresses" },
	{ TEXT(SIGNATURE "\x21\x11\0\x11" IPV4 "\4\0\0\4\0"), 31,
	  "expected a type and a length after the addresses" },
	{ TEXT(SIGNATURE "\x21\x11\0\x10" IPV4 "\4\0\2a"), 31,
	  "expected no value to go beyond the header" },
	{ TEXT(SIGNATURE "\x21\x11\0\x10" IPV4 "\3\xff\xff\xff"), 31,
	  "expected no value to go beyond the header" },
	{ TEXT(SIGNATURE "\x21\x11\0\x12" IPV4 "\3\0\3\0\0\0"), 31,
	  "expected one checksum, of 4 bytes" },
	{ TEXT(SIGNATURE "\x21\x11\0\x1a" IPV4 "\3\0\4\0\0\0\0\3\0\4\0\0\0\0"), 38,
	  "expected one checksum, of 4 bytes" },
	{ TEXT(SIGNATURE "\x21\x11\0\x13" IPV4 "\3\0\4\x1c\x1a\xe9\xc7"), 35,
	  "expected the header's CRC32c as its checksum" },
	{ TEXT(SIGNATURE "\x21\x11\0\x13" IPV4 "\3\0\4\0\0\0\0"), 35,
	  "expected the header's CRC32c as its checksum" },
	{ TEXT(SIGNATURE "\x20\0\0\7\3\0\4\xa9\xb8\x7e\x8e"), 23,
	  "expected the header's CRC32c as its checksum" },
};

START_TEST(malformed_headers)
{
	struct proxy_result result;

	for (size_t len = 0; len <= bad[_i].len; len++) {
		ck_assert_msg(parse(bad[_i].bytes, len, &result) ==
				  (len < bad[_i].told ? PROXY_MORE : PROXY_MALFORMED),
			      "%zu bytes", len);
		if (len < bad[_i].told)
			ck_assert_ptr_null(result.why);
		else
			ck_assert_str_eq(result.why, bad[_i].why);
		ck_assert_uint_eq(result.used, 0);
		ck_assert_int_eq(result.source.family, AF_UNSPEC);
	}
}
END_TEST

START_TEST(local_sockets)
{
	unsigned char bytes[16 + 216] = SIGNATURE "\x21\x31\0\xd8/run/client";
	const struct header header = { NULL, sizeof bytes, "unix", "unix" };
	const struct header datagram = { NULL, sizeof bytes, NULL, NULL };
	struct proxy_result result;

	ck_assert_int_eq(parse(bytes, sizeof bytes - 1, &result), PROXY_MORE);
	expect_header(&header, bytes, sizeof bytes);
	bytes[13] = 0x32;
	expect_header(&datagram, bytes, sizeof bytes);
}
END_TEST

/* As long as a header may be: a value that fills it. */
START_TEST(the_longest_header)
{
	static unsigned char bytes[PROXY_MOST + 1] = SIGNATURE "\x21\x11\x0f\xf0" IPV4 "\4\x0f\xe1";
	const struct header header = { NULL, PROXY_MOST, "192.168.0.1:56324",
				       "192.168.0.11:443" };
	struct proxy_result result;

	ck_assert_int_eq(parse(bytes, PROXY_MOST - 1, &result), PROXY_MORE);
	expect_header(&header, bytes, PROXY_MOST);
	expect_header(&header, bytes, PROXY_MOST + 1);
}
END_TEST

/* Whether a stream gets the verdict of its first bytes, once there is one.  What these
 * tests look at is much, so they assert (which is slow) only what has gone wrong. */
static bool
is_steady(const unsigned char *bytes, size_t len)
{
	struct proxy_result whole, part;
	enum proxy_verdict last = proxy_parse(bytes, len, &whole), verdict;

	if ((last == PROXY_DONE) != (whole.used > 0) || whole.used > len ||
	    (last == PROXY_MALFORMED) != (whole.why != NULL))
		return false;
	for (size_t n = 0; n < len; n++) {
		verdict = proxy_parse(bytes, n, &part);
		if (verdict != PROXY_MORE &&
		    (verdict != last || memcmp(&part, &whole, sizeof part) != 0))
			return false;
	}
	return true;
}

/* Each byte of each header in turn becomes every other. */
START_TEST(corrupted_bytes_are_safe)
{
	size_t len = headers[_i].len;
	unsigned char *bytes = malloc(len); /* no byte too many */
	struct proxy_result result;
	bool sound = true;

	ck_assert_ptr_nonnull(bytes);
	memcpy(bytes, headers[_i].bytes, len);
	for (size_t at = 0; at < len; at++) {
		for (unsigned change = 1; change < 256 && sound; change++) {
			bytes[at] ^= (unsigned char)change;
			sound = is_steady(bytes, len);
			/* Nothing but the length of version 2 moves the end. */
			if (proxy_parse(bytes, len, &result) == PROXY_DONE &&
			    (bytes[0] == 'P' || (at != 14 && at != 15)))
				sound = sound && result.used == len;
			if (!sound)
				ck_abort_msg("byte %zu as %#x", at, bytes[at]);
			bytes[at] ^= (unsigned char)change;
		}
	}
	free(bytes);
}
END_TEST

/* With a checksum, a corrupted header may still name nobody, but no one else.  (One
 * that its length cuts short before the checksum has none.) */
START_TEST(checksums_protect)
{
	const struct header header = { TEXT(SIGNATURE "\x21\x11\0\x13" IPV4
						      "\3\0\4\x1c\x1a\xe9\xc6"),
				       NULL, NULL };
	struct proxy_result result, truth;
	unsigned char bytes[64];

	ck_assert_int_eq(parse(header.bytes, header.len, &truth), PROXY_DONE);
	memcpy(bytes, header.bytes, header.len);
	for (size_t at = 0; at < header.len; at++) {
		for (unsigned change = 1; change < 256; change++) {
			bytes[at] ^= (unsigned char)change;
			if (proxy_parse(bytes, header.len, &result) == PROXY_DONE &&
			    !result.local &&
			    (memcmp(&result.source, &truth.source, sizeof truth.source) != 0 ||
			     memcmp(&result.destination, &truth.destination,
				    sizeof truth.destination) != 0))
				ck_abort_msg("byte %zu as %#x", at, bytes[at]);
			bytes[at] ^= (unsigned char)change;
		}
	}
}
END_TEST

static Suite *
proxy_suite(void)
{
	Suite *suite = suite_create("proxy");
	TCase *tcase = tcase_create("proxy");

	tcase_add_loop_test(tcase, good_headers, 0, N_HEADERS);
	tcase_add_loop_test(tcase, what_follows_is_the_clients, 0, N_HEADERS);
	tcase_add_loop_test(tcase, prefixes_ask_for_more, 0, N_HEADERS);
	tcase_add_loop_test(tcase, malformed_headers, 0, sizeof bad / sizeof *bad);
	tcase_add_test(tcase, local_sockets);
	tcase_add_test(tcase, the_longest_header);
	tcase_add_loop_test(tcase, corrupted_bytes_are_safe, 0, N_HEADERS);
	tcase_add_test(tcase, checksums_protect);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	return unit_run(proxy_suite());
}
