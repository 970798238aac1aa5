/*
 * Tests of base/json: escapes and base 64.  A real parser reads what they make in
 * format_test.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "unit.h"

static void
expect_escaped(const char *bytes, size_t len, const char *text)
{
	char escaped[1024];
	size_t n;

	ck_assert_uint_le(JSON_ESCAPED_MAX(len), sizeof escaped);
	n = json_escape(escaped, (const unsigned char *)bytes, len);
	ck_assert_uint_eq(n, strlen(text));
	ck_assert_mem_eq(escaped, text, n);
}

START_TEST(escapes)
{
	expect_escaped("", 0, "");
	expect_escaped("plain / text \x7f", 14, "plain / text \x7f");
	expect_escaped("\"\\\b\t\n\f\r", 7, "\\\"\\\\\\b\\t\\n\\f\\r");
	expect_escaped("\0\x01\x0b\x1f\x20", 5, "\\u0000\\u0001\\u000b\\u001f ");
	expect_escaped("gr\xc3\xbc\xf0\x9f\x98\x80", 8, "gr\xc3\xbc\xf0\x9f\x98\x80");
}
END_TEST

/* Each byte in each place among plain ones. */
START_TEST(escapes_in_every_place)
{
	unsigned char bytes[40];
	char escaped[JSON_ESCAPED_MAX(40)], one[6];

	for (unsigned byte = 0; byte < 256; byte++)
		for (size_t len = 1; len <= sizeof bytes; len++) {
			size_t at = byte % len, n, n_one;
			unsigned char c = (unsigned char)byte;

			memset(bytes, 'p', sizeof bytes);
			bytes[at] = c;
			n_one = json_escape(one, &c, 1);
			n = json_escape(escaped, bytes, len);
			if (n != len - 1 + n_one || memcmp(escaped, bytes, at) != 0 ||
			    memcmp(escaped + at, one, n_one) != 0 ||
			    memcmp(escaped + at + n_one, bytes + at + 1, len - at - 1) != 0)
				ck_abort_msg("0x%02x at %zu of %zu", byte, at, len);
		}
}
END_TEST

START_TEST(texts)
{
	char text[128];
	size_t n;

	n = json_text(text, "CN=\"M\xc3\xbcller\"\n\xff\xc2\x9b\xc3");
	text[n] = '\0';
	ck_assert_str_eq(text, "CN=\\\"M\xc3\xbcller\\\"\\\\x0A\\\\xFF\\\\xC2\\\\x9B\\\\xC3");
}
END_TEST

static void
expect_base64(const char *bytes, const char *text)
{
	size_t len = strlen(bytes), n;
	char out[64];

	for (size_t split = 0; split <= len; split++) {
		struct json_base64 state = { 0 };

		n = json_base64(&state, out, (const unsigned char *)bytes, split);
		n += json_base64(&state, out + n, (const unsigned char *)bytes + split, len - split);
		n += json_base64_end(&state, out + n);
		ck_assert_uint_le(n, JSON_BASE64_MAX(len));
		out[n] = '\0';
		ck_assert_str_eq(out, text);
	}
}

START_TEST(base64)
{
	/* The vectors of RFC 4648. */
	expect_base64("", "");
	expect_base64("f", "Zg==");
	expect_base64("fo", "Zm8=");
	expect_base64("foo", "Zm9v");
	expect_base64("foob", "Zm9vYg==");
	expect_base64("fooba", "Zm9vYmE=");
	expect_base64("foobar", "Zm9vYmFy");
	expect_base64("\xfb\xff\xbf\xfe", "+/+//g==");
}
END_TEST

START_TEST(base64_splits)
{
	unsigned char bytes[300];
	char whole[JSON_BASE64_MAX(300)], parts[JSON_BASE64_MAX(300)];
	struct json_base64 state;
	size_t n, m;

	srand(3);
	for (int i = 0; i < 2000; i++) {
		size_t len = (size_t)rand() % sizeof bytes;

		for (size_t at = 0; at < len; at++)
			bytes[at] = (unsigned char)rand();
		memset(&state, 0, sizeof state);
		n = json_base64(&state, whole, bytes, len);
		n += json_base64_end(&state, whole + n);
		if (n != (len + 2) / 3 * 4)
			ck_abort_msg("%zu for %zu", n, len);
		memset(&state, 0, sizeof state);
		m = 0;
		for (size_t at = 0, part; at < len; at += part) {
			part = (size_t)rand() % 7;
			part = part > len - at ? len - at : part;
			m += json_base64(&state, parts + m, bytes + at, part);
		}
		m += json_base64_end(&state, parts + m);
		if (m != n || memcmp(parts, whole, n) != 0)
			ck_abort_msg("round %d", i);
	}
}
END_TEST

static Suite *
json_suite(void)
{
	Suite *s = suite_create("json");
	TCase *tc = tcase_create("json");

	tcase_add_test(tc, escapes);
	tcase_add_test(tc, escapes_in_every_place);
	tcase_add_test(tc, texts);
	tcase_add_test(tc, base64);
	tcase_add_test(tc, base64_splits);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(json_suite());
}
