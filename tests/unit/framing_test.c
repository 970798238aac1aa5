/*
 * framing_test: each framing against what is written about it, down to the
 * malformed and the absurd.  Every vector is fed whole, byte by byte and cut at
 * every position.  How traces are written is told in framing_trace.h.
 */
#include <stdlib.h>
#include <string.h>

#include "framing/framing.h"
#include "framing_trace.h"
#include "unit.h"

#define BYTES(literal) (literal), sizeof(literal) - 1

struct vector {
	const char *stream;
	size_t len;
	const char *expected;
};

static void
vectors_check(const struct framing_config *config, const struct vector *vectors, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct vector *v = &vectors[i];
		const unsigned char *stream = (const unsigned char *)v->stream;
		struct trace trace = {0};

		trace_run(&trace, config, stream, v->len, trace_cut_whole, NULL);
		ck_assert_str_eq(trace.text, v->expected);
		trace.len = 0;
		trace_run(&trace, config, stream, v->len, trace_cut_bytes, NULL);
		ck_assert_str_eq(trace.text, v->expected);
		for (size_t at = 1; at < v->len; at++) {
			size_t first = at;

			trace.len = 0;
			trace_run(&trace, config, stream, v->len, trace_cut_two, &first);
			ck_assert_msg(strcmp(trace.text, v->expected) == 0,
				      "vector %zu cut at %zu: %s instead of %s", i, at, trace.text,
				      v->expected);
		}
		trace_clear(&trace);
	}
}

#define VECTORS_CHECK(config, vectors) \
	vectors_check((config), (vectors), sizeof(vectors) / sizeof((vectors)[0]))

static void
delimiter_check(const char *delimiter, size_t len, bool keep, const struct vector *vectors,
		size_t count)
{
	struct framing_config config = {
		.kind = FRAMING_DELIMITER,
		.delimiter = malloc(len),
		.delimiter_len = len,
		.keep_delimiter = keep,
	};

	ck_assert_ptr_nonnull(config.delimiter);
	memcpy(config.delimiter, delimiter, len);
	ck_assert_int_eq(framing_prepare(&config), 0);
	vectors_check(&config, vectors, count);
	framing_clear(&config);
	ck_assert_ptr_null(config.delimiter);
	ck_assert_ptr_null(config.fallback);
}

#define DELIMITER_CHECK(delimiter, keep, vectors) \
	delimiter_check(BYTES(delimiter), (keep), (vectors), sizeof(vectors) / sizeof((vectors)[0]))

START_TEST(names)
{
	static const char *const expected[] = { "eof",       "line",          "delimiter", "length",
						"netstring", "octet-counted", "mllp" };

	for (int i = 0; i < 7; i++) {
		ck_assert_str_eq(framing_name((enum framing_kind)i), expected[i]);
		ck_assert_int_eq(framing_from_name(expected[i]), i);
	}
	ck_assert_int_eq(framing_from_name(""), -1);
	ck_assert_int_eq(framing_from_name("EOF"), -1);
	ck_assert_int_eq(framing_from_name("line "), -1);
	ck_assert_int_eq(framing_from_name("octet"), -1);
}
END_TEST

START_TEST(eof)
{
	static const struct vector vectors[] = {
		{ BYTES(""), "$nothing" },
		{ BYTES("a"), "~$[a]" },
		{ BYTES("\0"), "~$[\\x00]" },
		{ BYTES("two\r\nlines\n\n\0\xff"), "~$[two\\x0d\\x0alines\\x0a\\x0a\\x00\\xff]" },
	};
	static const struct framing_config config = { .kind = FRAMING_EOF };

	VECTORS_CHECK(&config, vectors);
}
END_TEST

START_TEST(line)
{
	static const struct vector vectors[] = {
		{ BYTES(""), "$nothing" },
		{ BYTES("a\nbc\n"), "[a][bc]$nothing" },
		{ BYTES("a\r\nbc\r\n"), "[a][bc]$nothing" },
		{ BYTES("a\nbc"), "[a]~$[bc]" },
		/* empty lines */
		{ BYTES("\n"), "$nothing" },
		{ BYTES("\r\n"), "$nothing" },
		{ BYTES("\n\n\r\n\na\n\r\n\nb\r\n\n"), "[a][b]$nothing" },
		/* only the CR directly before LF is not payload */
		{ BYTES("a\r\r\n"), "[a\\x0d]$nothing" },
		{ BYTES("\r\r\n"), "[\\x0d]$nothing" },
		{ BYTES("\r\r\r\n\n"), "[\\x0d\\x0d]$nothing" },
		{ BYTES("a\rb\n\rc\n"), "[a\\x0db][\\x0dc]$nothing" },
		{ BYTES("a\n\r"), "[a]~$[\\x0d]" },
		{ BYTES("\r"), "~$[\\x0d]" },
		{ BYTES("a\r"), "~$[a\\x0d]" },
		{ BYTES("\ra"), "~$[\\x0da]" },
		/* blanks and NULs are bytes like others */
		{ BYTES(" \n\0\n\0\r\n\xff\n"), "[ ][\\x00][\\x00][\\xff]$nothing" },
	};
	static const struct framing_config config = { .kind = FRAMING_LINE };

	VECTORS_CHECK(&config, vectors);
}
END_TEST

START_TEST(delimiter)
{
	static const struct vector tutorial[] = {
		{ BYTES("This is a test<EOF>"), "[This is a test]$nothing" },
		{ BYTES("a<EOF>b<EOF>"), "[a][b]$nothing" },
		{ BYTES("<EOF><EOF>a<EOF>"), "[][][a]$nothing" },
		{ BYTES("a<<EOF>"), "[a<]$nothing" },
		{ BYTES("<EO<EOF>"), "[<EO]$nothing" },
		{ BYTES("<eof><EOF"), "~$incomplete[<eof><EOF]" },
		{ BYTES("a<EOF>b"), "[a]~$incomplete[b]" },
		{ BYTES("<"), "~$incomplete[<]" },
		{ BYTES(""), "$nothing" },
	};
	static const struct vector tutorial_kept[] = {
		{ BYTES("This is a test<EOF>"), "[This is a test<EOF>]$nothing" },
		{ BYTES("<EOF>a<EO<EOF>"), "[<EOF>][a<EO<EOF>]$nothing" },
		{ BYTES("a<EOF"), "~$incomplete[a<EOF]" },
	};
	static const struct vector nul[] = {
		{ BYTES("a\0b\0\0"), "[a][b][]$nothing" },
		{ BYTES("a\0b"), "[a]~$incomplete[b]" },
	};
	static const struct vector nuls[] = {
		{ BYTES("a\0b\0\0c\0\0\0"), "[a\\x00b][c]~$incomplete[\\x00]" },
	};
	static const struct vector twin[] = {
		{ BYTES("aaab"), "[a]$nothing" },
		{ BYTES("aaaab"), "[aa]$nothing" },
		{ BYTES("aabaabab"), "[][]~$incomplete[ab]" },
		{ BYTES("caacaab"), "[caac]$nothing" },
	};
	static const struct vector headers[] = {
		{ BYTES("a: b\r\n\r\n\r\n\r\n"), "[a: b][]$nothing" },
		{ BYTES("\r\n\r\r\n\r\n\n"), "[\\x0d\\x0a\\x0d]~$incomplete[\\x0a]" },
	};
	/* non-overlapping, from the left */
	static const struct vector same[] = {
		{ BYTES("aaaaaaaaa"), "[][]~$incomplete[a]" },
		{ BYTES("aaabaaaaa"), "[aaab]~$incomplete[a]" },
	};

	DELIMITER_CHECK("<EOF>", false, tutorial);
	DELIMITER_CHECK("<EOF>", true, tutorial_kept);
	DELIMITER_CHECK("\0", false, nul);
	DELIMITER_CHECK("\0\0", false, nuls);
	DELIMITER_CHECK("aab", false, twin);
	DELIMITER_CHECK("\r\n\r\n", false, headers);
	DELIMITER_CHECK("aaaa", false, same);
}
END_TEST

START_TEST(length)
{
	static const struct vector one[] = {
		{ BYTES(""), "$nothing" },
		{ BYTES("\5hello"), "[hello]$nothing" },
		{ BYTES("\0\0\1a\0"), "[][][a][]$nothing" },
		{ BYTES("\5hell"), "~$incomplete[hell]" },
		{ BYTES("\1"), "~$incomplete[]" },
	};
	static const struct vector two_big[] = {
		{ BYTES("\0\5hello\0\0\0\1\0"), "[hello][][\\x00]$nothing" },
		{ BYTES("\0\1a\0"), "[a]~$incomplete[]" },
		{ BYTES("\1\0hello"), "~$incomplete[hello]" },
	};
	static const struct vector two_little[] = {
		{ BYTES("\5\0hello\0\0\1\0\0"), "[hello][][\\x00]$nothing" },
		{ BYTES("\0\1hello"), "~$incomplete[hello]" },
	};
	static const struct vector four_big[] = {
		{ BYTES("\0\0\0\5hello"), "[hello]$nothing" },
		{ BYTES("\xff\xff\xff\xffhello"), "~$incomplete[hello]" },
	};
	static const struct vector eight_little[] = {
		{ BYTES("\2\0\0\0\0\0\0\0hi"), "[hi]$nothing" },
		{ BYTES("\xff\xff\xff\xff\xff\xff\xff\x7fhi"), "~$incomplete[hi]" },
		{ BYTES("\0\0\0\0\0\0\0\x80hi"), "too-large@8[]" },
		{ BYTES("\xff\xff\xff\xff\xff\xff\xff\xffhi"), "too-large@8[]" },
	};
	static const struct vector eight_big[] = {
		{ BYTES("\0\0\0\0\0\0\0\2hi"), "[hi]$nothing" },
		{ BYTES("\x80\0\0\0\0\0\0\0hi"), "too-large@8[]" },
	};
	static const struct vector itself_two[] = {
		{ BYTES("\0\7hello\0\2\0\3a"), "[hello][][a]$nothing" },
		{ BYTES("\0\1hello"), "malformed@2[]" },
		{ BYTES("\0\2\0\0x"), "[]malformed@4[]" },
	};
	static const struct vector itself_eight[] = {
		{ BYTES("\7\0\0\0\0\0\0\0"), "malformed@8[]" },
		{ BYTES("\x0a\0\0\0\0\0\0\0hi"), "[hi]$nothing" },
		/* the largest payload that there is, and one more */
		{ BYTES("\7\0\0\0\0\0\0\x80hi"), "~$incomplete[hi]" },
		{ BYTES("\x08\0\0\0\0\0\0\x80hi"), "too-large@8[]" },
	};
	static const struct vector bounded[] = {
		{ BYTES("\0\5hello\0\6"), "[hello]too-large@9[]" },
	};
	static const struct vector bounded_itself[] = {
		{ BYTES("\0\7hello\0\x08"), "[hello]too-large@9[]" },
	};
	struct framing_config config = { .kind = FRAMING_LENGTH, .length_bytes = 1 };

	VECTORS_CHECK(&config, one);
	config.length_bytes = 2;
	VECTORS_CHECK(&config, two_big);
	config.length_little = true;
	VECTORS_CHECK(&config, two_little);
	config.length_bytes = 8;
	VECTORS_CHECK(&config, eight_little);
	config.length_includes_header = true;
	VECTORS_CHECK(&config, itself_eight);
	config.length_little = false;
	config.length_bytes = 2;
	VECTORS_CHECK(&config, itself_two);
	config.max_size = 5;
	VECTORS_CHECK(&config, bounded_itself);
	config.length_includes_header = false;
	VECTORS_CHECK(&config, bounded);
	config.max_size = 0;
	config.length_bytes = 4;
	VECTORS_CHECK(&config, four_big);
	config.length_bytes = 8;
	VECTORS_CHECK(&config, eight_big);
}
END_TEST

START_TEST(netstring)
{
	static const struct vector vectors[] = {
		{ BYTES(""), "$nothing" },
		/* from netstrings.txt */
		{ BYTES("12:hello world!,"), "[hello world!]$nothing" },
		{ BYTES("0:,"), "[]$nothing" },
		{ BYTES("3:abc,0:,1:,,2:\r\n,1:\0,"), "[abc][][,][\\x0d\\x0a][\\x00]$nothing" },
		/* cut short */
		{ BYTES("1"), "~$incomplete[]" },
		{ BYTES("5:"), "~$incomplete[]" },
		{ BYTES("5:hell"), "~$incomplete[hell]" },
		{ BYTES("5:hello"), "~$incomplete[hello]" },
		{ BYTES("0:"), "~$incomplete[]" },
		/* something else */
		{ BYTES(":,"), "malformed@1[]" },
		{ BYTES(",5:hello,"), "malformed@1[]" },
		{ BYTES("-1:a,"), "malformed@1[]" },
		{ BYTES("+1:a,"), "malformed@1[]" },
		{ BYTES(" 1:a,"), "malformed@1[]" },
		{ BYTES("1 :a,"), "malformed@2[]" },
		{ BYTES("1;a,"), "malformed@2[]" },
		{ BYTES("00:,"), "malformed@2[]" },
		{ BYTES("01:a,"), "malformed@2[]" },
		{ BYTES("0x1:a,"), "malformed@2[]" },
		{ BYTES("1:a,\n1:b,"), "[a]malformed@5[]" },
		{ BYTES("5:hello;"), "malformed@8[hello]" },
		{ BYTES("5:hello!,"), "malformed@8[hello]" },
		{ BYTES("0:a,"), "malformed@3[]" },
		{ BYTES("GET / HTTP/1.0\r\n\r\n"), "malformed@1[]" },
		{ BYTES("1\0:a,"), "malformed@2[]" },
		/* the largest length that there is, one more, and far more */
		{ BYTES("9223372036854775807:a"), "~$incomplete[a]" },
		{ BYTES("9223372036854775808:a"), "too-large@19[]" },
		{ BYTES("18446744073709551617:a,"), "too-large@20[]" },
		{ BYTES("99999999999999999999999:a,"), "too-large@19[]" },
	};
	static const struct vector bounded[] = {
		{ BYTES("5:hello,0:,6:"), "[hello][]too-large@12[]" },
		{ BYTES("10:"), "too-large@2[]" },
		{ BYTES("9223372036854775807:"), "too-large@1[]" },
	};
	static const struct vector thousands[] = {
		{ BYTES("1000:a"), "~$incomplete[a]" },
		{ BYTES("1001:a"), "too-large@4[]" },
		{ BYTES("999x"), "malformed@4[]" },
	};
	struct framing_config config = { .kind = FRAMING_NETSTRING };

	VECTORS_CHECK(&config, vectors);
	config.max_size = 5;
	VECTORS_CHECK(&config, bounded);
	config.max_size = 1000;
	VECTORS_CHECK(&config, thousands);
}
END_TEST

START_TEST(octet_counted)
{
	static const struct vector vectors[] = {
		{ BYTES(""), "$nothing" },
		/* two records of RFC 5424 in one stream, as RFC 6587 counts them */
		{ BYTES("79 <34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
			"\xef\xbb\xbf'su root' f"
			"5 hello"),
		  "[<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
		  "\\xef\\xbb\\xbf'su root' f][hello]$nothing" },
		{ BYTES("5 hello1  2 \r\n1 \0"), "[hello][ ][\\x0d\\x0a][\\x00]$nothing" },
		{ BYTES("0 0 1 a"), "[][][a]$nothing" },
		/* cut short */
		{ BYTES("5"), "~$incomplete[]" },
		{ BYTES("0"), "~$incomplete[]" },
		{ BYTES("5 "), "~$incomplete[]" },
		{ BYTES("5 hell"), "~$incomplete[hell]" },
		/* something else; the second is RFC 6587's other method */
		{ BYTES(" 5 hello"), "malformed@1[]" },
		{ BYTES("<34>Oct 11 22:14:15 mymachine su: failed\n"), "malformed@1[]" },
		{ BYTES("05 hello"), "malformed@2[]" },
		{ BYTES("00 "), "malformed@2[]" },
		{ BYTES("5\thello"), "malformed@2[]" },
		{ BYTES("5hello"), "malformed@2[]" },
		{ BYTES("5 hello\n5 hello"), "[hello]malformed@8[]" },
		{ BYTES("9223372036854775807 a"), "~$incomplete[a]" },
		{ BYTES("9223372036854775808 a"), "too-large@19[]" },
		{ BYTES("99999999999999999999 a"), "too-large@19[]" },
	};
	static const struct vector bounded[] = {
		{ BYTES("5 hello0 6 "), "[hello][]too-large@10[]" },
		{ BYTES("50 "), "too-large@2[]" },
	};
	struct framing_config config = { .kind = FRAMING_OCTET_COUNTED };

	VECTORS_CHECK(&config, vectors);
	config.max_size = 5;
	VECTORS_CHECK(&config, bounded);
}
END_TEST

START_TEST(mllp)
{
	static const struct vector vectors[] = {
		{ BYTES(""), "$nothing" },
		{ BYTES("\x0bMSH|^~\\&|ADT1|MCM|LABADT|MCM|198808181126|SECURITY|ADT^A04\r"
			"EVN|A01|198808181123||\r\x1c\r"),
		  "[MSH|^\\x7e\\x5c&|ADT1|MCM|LABADT|MCM|198808181126|SECURITY|ADT^A04\\x0d"
		  "EVN|A01|198808181123||\\x0d]$nothing" },
		{ BYTES("\x0b\x1c\r\x0b"
			"a\x1c\r"),
		  "[][a]$nothing" },
		/* line ends between blocks */
		{ BYTES("\r\n\x0b"
			"a\x1c\r\n\r\r\n\x0b"
			"b\x1c\r\n"),
		  "[a][b]$nothing" },
		{ BYTES("\r\n"), "$nothing" },
		/* FS, CR, LF, VT and NUL alone are payload */
		{ BYTES("\x0b\x1c"
			"a\r\n\x0b\0\x1c\n\x1c\r"),
		  "[\\x1ca\\x0d\\x0a\\x0b\\x00\\x1c\\x0a]$nothing" },
		{ BYTES("\x0b\x1c\x1c\r"), "[\\x1c]$nothing" },
		{ BYTES("\x0b\x1c\x1c\x1c"
			"a\x1c\x1c\r"),
		  "[\\x1c\\x1c\\x1ca\\x1c]$nothing" },
		/* cut short */
		{ BYTES("\x0b"), "~$incomplete[]" },
		{ BYTES("\x0b"
			"a\r\n"),
		  "~$incomplete[a\\x0d\\x0a]" },
		{ BYTES("\x0b"
			"a\x1c"),
		  "~$incomplete[a\\x1c]" },
		/* something else between blocks */
		{ BYTES("a"), "malformed@1[]" },
		{ BYTES("\x1c\r"), "malformed@1[]" },
		{ BYTES("\x0b"
			"a\x1c\r\nb\x0b"),
		  "[a]malformed@6[]" },
		{ BYTES("\n\0\x0b"), "malformed@2[]" },
	};
	static const struct framing_config config = { .kind = FRAMING_MLLP };

	VECTORS_CHECK(&config, vectors);
}
END_TEST

/* The verdict on a frame comes with its last byte, not with the one after. */
START_TEST(promptness)
{
	static const struct {
		struct framing_config config;
		const char *frame;
		size_t len;
	} frames[] = {
		{ { .kind = FRAMING_LINE }, BYTES("a\n") },
		{ { .kind = FRAMING_LENGTH, .length_bytes = 4 }, BYTES("\0\0\0\1a") },
		{ { .kind = FRAMING_LENGTH, .length_bytes = 4 }, BYTES("\0\0\0\0") },
		{ { .kind = FRAMING_NETSTRING }, BYTES("1:a,") },
		{ { .kind = FRAMING_NETSTRING }, BYTES("0:,") },
		{ { .kind = FRAMING_OCTET_COUNTED }, BYTES("1 a") },
		{ { .kind = FRAMING_OCTET_COUNTED }, BYTES("0 ") },
		{ { .kind = FRAMING_MLLP }, BYTES("\x0b\x1c\r") },
	};

	for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
		struct framing_state state = {0};
		struct framing_step step;

		for (size_t at = 0; at < frames[i].len; at++) {
			framing_feed(&frames[i].config, &state,
				     (const unsigned char *)frames[i].frame + at, 1, &step);
			ck_assert_int_eq(step.verdict, at + 1 < frames[i].len ? FRAMING_MORE :
										FRAMING_MESSAGE);
			ck_assert_int_eq(state.open, at + 1 < frames[i].len);
		}
	}
}
END_TEST

/* What is said when a frame is refused. */
START_TEST(reasons)
{
	struct framing_config config = { .kind = FRAMING_NETSTRING, .max_size = 10 };
	struct framing_state state = {0};
	struct framing_step step;

	framing_feed(&config, &state, (const unsigned char *)"1;", 2, &step);
	ck_assert_str_eq(step.why, "expected a digit or ':' in a netstring's length");
	state = (struct framing_state){0};
	framing_feed(&config, &state, (const unsigned char *)"11", 2, &step);
	ck_assert_str_eq(step.why, "expected a length of at most max_message_size");
	config.max_size = 0;
	state = (struct framing_state){0};
	framing_feed(&config, &state, (const unsigned char *)"9999999999999999999", 19, &step);
	ck_assert_str_eq(step.why, "expected a length of at most 2^63-1");
	config.kind = FRAMING_MLLP;
	state = (struct framing_state){0};
	framing_feed(&config, &state, (const unsigned char *)"\x0b", 1, &step);
	framing_finish(&config, &state, &step);
	ck_assert_str_eq(step.why, "expected FS CR, an MLLP block's end, before the close");
}
END_TEST

static Suite *
framing_suite(void)
{
	Suite *s = suite_create("framing");
	TCase *tc = tcase_create("vectors");

	tcase_add_test(tc, names);
	tcase_add_test(tc, eof);
	tcase_add_test(tc, line);
	tcase_add_test(tc, delimiter);
	tcase_add_test(tc, length);
	tcase_add_test(tc, netstring);
	tcase_add_test(tc, octet_counted);
	tcase_add_test(tc, mllp);
	tcase_add_test(tc, promptness);
	tcase_add_test(tc, reasons);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(framing_suite());
}
