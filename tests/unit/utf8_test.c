/*
 * Tests of base/utf8: every character and every way to be none, in every split.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "unit.h"

static bool
is_utf8(const void *bytes, size_t len)
{
	struct utf8 state = { 0 };

	return utf8_feed(&state, bytes, len) && utf8_is_whole(&state);
}

static bool
is_utf8_by_bytes(const unsigned char *bytes, size_t len)
{
	struct utf8 state = { 0 };

	for (size_t i = 0; i < len; i++)
		if (!utf8_feed(&state, bytes + i, 1))
			return false;
	return utf8_is_whole(&state);
}

START_TEST(every_code)
{
	unsigned char bytes[4];

	for (uint32_t code = 0; code < 0x200000; code++) {
		size_t len = unit_utf8(code, bytes);
		bool good = code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);

		if (is_utf8(bytes, len) != good || (len > 1 && is_utf8(bytes, len - 1)))
			ck_abort_msg("U+%04X", code);
	}
}
END_TEST

/* All strings of up to three bytes: as many are right as there are characters to
 * make them of. */
START_TEST(every_three_bytes)
{
	unsigned char bytes[3];
	unsigned long good[4] = { 0 };

	for (uint32_t i = 0; i < 0x1000000; i++) {
		bytes[0] = (unsigned char)(i >> 16);
		bytes[1] = (unsigned char)(i >> 8);
		bytes[2] = (unsigned char)i;
		good[3] += is_utf8(bytes, 3);
		if (bytes[2] == 0)
			good[2] += is_utf8(bytes, 2);
	}
	ck_assert_uint_eq(good[2], 128 * 128 + 1920);
	ck_assert_uint_eq(good[3], 128 * 128 * 128 + 2 * 128 * 1920 + (0xffff - 0x7ff - 2048));
}
END_TEST

START_TEST(overlong)
{
	ck_assert(!is_utf8("\xc0\x80", 2));
	ck_assert(!is_utf8("\xc1\xbf", 2));
	ck_assert(!is_utf8("\xe0\x9f\xbf", 3));
	ck_assert(!is_utf8("\xf0\x8f\xbf\xbf", 4));
	ck_assert(!is_utf8("\xf4\x90\x80\x80", 4));
	ck_assert(!is_utf8("\xf8\x88\x80\x80\x80", 5));
	ck_assert(is_utf8("\xe0\xa0\x80", 3));
	ck_assert(is_utf8("\xf4\x8f\xbf\xbf", 4));
	ck_assert(is_utf8("", 0));
}
END_TEST

START_TEST(one_bad_byte_anywhere)
{
	unsigned char bytes[100];

	for (size_t len = 1; len < sizeof bytes; len++) {
		memset(bytes, 'a', sizeof bytes);
		ck_assert(is_utf8(bytes, len));
		for (size_t at = 0; at < len; at++) {
			bytes[at] = 0x80;
			if (is_utf8(bytes, len))
				ck_abort_msg("byte %zu of %zu", at, len);
			bytes[at] = 'a';
		}
	}
}
END_TEST

START_TEST(splits_do_not_matter)
{
	static const unsigned char starts[] = { 0xc2, 0xdf, 0xe0, 0xe2, 0xed, 0xf0, 0xf4, 0xff, 'a' };
	unsigned char bytes[8];
	int good = 0;

	srand(1);
	for (int i = 0; i < 100000; i++) {
		size_t len = (size_t)rand() % sizeof bytes;

		for (size_t at = 0; at < len; at++)
			bytes[at] = rand() % 3 ? (unsigned char)(0x80 | (rand() & 0x3f))
					       : starts[(size_t)rand() % sizeof starts];
		if (is_utf8(bytes, len) != is_utf8_by_bytes(bytes, len))
			ck_abort_msg("round %d", i);
		good += is_utf8(bytes, len);
	}
	ck_assert_int_gt(good, 1000);
}
END_TEST

/* Runs of each kind end where they should, whatever the alignment. */
START_TEST(runs)
{
	static const unsigned char edges[] = { 0,   1,    0x1f, 0x20, 0x21, '"', '#',  '[', '\\',
					       ']', 0x5d, 0x7e, 0x7f, 0x80, 0x81, 0xa2, 0xdc, 0xff };
	unsigned char bytes[64];

	for (size_t len = 0; len <= 40; len++)
		for (size_t from = 0; from < 9; from++)
			for (size_t at = 0; at < len; at++)
				for (size_t i = 0; i < sizeof edges; i++) {
					unsigned char byte = edges[i];
					bool json = byte >= 0x20 && byte != '"' && byte != '\\';
					bool printable = byte >= 0x20 && byte < 0x7f;

					memset(bytes, 'a', sizeof bytes);
					bytes[from + at] = byte;
					if (bytes_ascii(bytes + from, len) != (byte < 0x80 ? len : at) ||
					    bytes_printable(bytes + from, len) != (printable ? len : at) ||
					    bytes_json(bytes + from, len) != (json ? len : at))
						ck_abort_msg("0x%02x at %zu of %zu", byte, at, len);
				}
}
END_TEST

static void
expect_shown(const char *bytes, size_t len, bool lines, const char *text)
{
	char shown[256];
	size_t n;

	ck_assert_uint_le(UTF8_SHOW_MAX(len), sizeof shown);
	/* At once, and byte by byte. */
	for (int pass = 0; pass < 2; pass++) {
		struct utf8_show show = { .lines = lines };

		n = 0;
		if (pass == 0)
			n += utf8_show(&show, shown, (const unsigned char *)bytes, len);
		for (size_t i = 0; pass == 1 && i < len; i++)
			n += utf8_show(&show, shown + n, (const unsigned char *)bytes + i, 1);
		n += utf8_show_end(&show, shown + n);
		shown[n] = '\0';
		ck_assert_str_eq(shown, text);
	}
}

#define shown(bytes, text) expect_shown(bytes, sizeof(bytes) - 1, true, text)

START_TEST(what_is_shown)
{
	shown("", "");
	shown("plain, \\x41 \"quoted\" ~", "plain, \\x41 \"quoted\" ~");
	shown("tab\tline\nend", "tab\tline\nend");
	expect_shown("tab\tline\nend", 12, false, "tab\\x09line\\x0Aend");
	shown("\r\x1b[2J\x07\x7f", "\\x0D\\x1B[2J\\x07\\x7F");
	shown("\0nul\0", "\\x00nul\\x00");
	shown("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
	shown("\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", "\\xC2\\x80\\xC2\\x9B\\xC2\\x9F\xc2\xa0");
	shown("\x9b", "\\x9B");
	shown("\xe2\x80\xa7\xe2\x80\xa8\xe2\x80\xae\xe2\x80\xaf",
	      "\xe2\x80\xa7\\xE2\\x80\\xA8\\xE2\\x80\\xAE\xe2\x80\xaf");
	shown("\xe2\x81\xa5\xe2\x81\xa6\xe2\x81\xa9\xe2\x81\xaa",
	      "\xe2\x81\xa5\\xE2\\x81\\xA6\\xE2\\x81\\xA9\xe2\x81\xaa");
}
END_TEST

START_TEST(broken_characters_are_shown)
{
	shown("\xc3", "\\xC3");
	shown("\xe2\x82", "\\xE2\\x82");
	shown("\xf0\x9f\x98", "\\xF0\\x9F\\x98");
	shown("\xc3(", "\\xC3(");
	shown("\xe2\x82\xc3\xbc", "\\xE2\\x82\xc3\xbc");
	shown("\xf0\x9f\x98\xf0\x9f\x98\x80", "\\xF0\\x9F\\x98\xf0\x9f\x98\x80");
	shown("\xed\xa0\x80", "\\xED\\xA0\\x80");
	shown("\xc0\xaf\xff", "\\xC0\\xAF\\xFF");
	shown("\xe2\x82\n\xe2\x82\x1b", "\\xE2\\x82\n\\xE2\\x82\\x1B");
	shown("\xc2\xc2\x9b\xc2", "\\xC2\\xC2\\x9B\\xC2");
}
END_TEST

/* Whatever goes in, what comes out is UTF-8 and has no control in it. */
START_TEST(never_drives_a_terminal)
{
	unsigned char bytes[64];
	char text[UTF8_SHOW_MAX(64)];

	srand(2);
	for (int i = 0; i < 20000; i++) {
		struct utf8_show show = { .lines = false };
		size_t n, len = (size_t)rand() % sizeof bytes;

		for (size_t at = 0; at < len; at++)
			bytes[at] = (unsigned char)(rand() % 2 ? rand() : 0xc2 | (rand() & 0x3f));
		n = utf8_show(&show, text, bytes, len);
		n += utf8_show_end(&show, text + n);
		if (n > sizeof text || !is_utf8(text, n))
			ck_abort_msg("round %d", i);
		for (size_t at = 0; at < n; at++)
			if ((unsigned char)text[at] < 0x20 || text[at] == 0x7f ||
			    ((unsigned char)text[at] == 0xc2 && (unsigned char)text[at + 1] < 0xa0))
				ck_abort_msg("round %d, byte %zu", i, at);
	}
}
END_TEST

static void
check_text(const char *text, size_t size, const char *expected)
{
	char shown[64];

	memset(shown, 'x', sizeof shown);
	ck_assert_uint_eq(utf8_show_text(shown, size, text), strlen(expected));
	ck_assert_str_eq(shown, expected);
	ck_assert_int_eq(shown[size], 'x');
}

/* What has no room is left out, from a whole character on. */
START_TEST(texts_are_cut_between_characters)
{
	check_text("", 1, "");
	check_text("abc", 4, "abc");
	check_text("abc", 3, "ab");
	check_text("a\x1b[0m", 9, "a\\x1B[0m");
	check_text("a\x1b[0m", 5, "a");
	check_text("a\xe2\x82\xac", 5, "a\xe2\x82\xac");
	check_text("a\xe2\x82\xac", 4, "a");
	check_text("a\xe2\x82\xac" "b", 5, "a\xe2\x82\xac");
	check_text("a\xe2\x82", 10, "a\\xE2\\x82");
	check_text("a\xe2\x82", 9, "a");
	check_text("\xe2\x82" "b", 10, "\\xE2\\x82" "b");
}
END_TEST

static Suite *
utf8_suite(void)
{
	Suite *s = suite_create("utf8");
	TCase *tc = tcase_create("utf8");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, every_code);
	tcase_add_test(tc, every_three_bytes);
	tcase_add_test(tc, overlong);
	tcase_add_test(tc, one_bad_byte_anywhere);
	tcase_add_test(tc, splits_do_not_matter);
	tcase_add_test(tc, runs);
	tcase_add_test(tc, what_is_shown);
	tcase_add_test(tc, broken_characters_are_shown);
	tcase_add_test(tc, never_drives_a_terminal);
	tcase_add_test(tc, texts_are_cut_between_characters);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(utf8_suite());
}
