/*
 * nats_answer: only what a server says of this stream is an acknowledgement.
 */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "sinks/nats_answer.h"
#include "unit.h"

static struct nats_answer
read_text(const char *text)
{
	struct nats_answer answer;

	nats_answer_read(&answer, text, strlen(text), "S");
	return answer;
}

START_TEST(test_stored)
{
	ck_assert_int_eq(read_text("{\"stream\":\"S\",\"seq\":1}").verdict, NATS_STORED);
	ck_assert_int_eq(read_text("{\"stream\":\"S\",\"seq\":7,\"duplicate\":true}").verdict, NATS_STORED);
	ck_assert_uint_eq(read_text("{\"stream\":\"S\",\"seq\":7}").sequence, 7);
	ck_assert(!read_text("{\"stream\":\"S\",\"seq\":7}").duplicate);
	ck_assert(read_text("{\"stream\":\"S\",\"seq\":7,\"duplicate\":true}").duplicate);
	ck_assert_int_eq(read_text("{\"domain\":\"d\",\"seq\":7,\"stream\":\"S\"}").outcome,
			 OUTCOME_ACCEPTED);
}
END_TEST

/* None of these may be taken for an acknowledgement. */
START_TEST(test_nothing)
{
	static const char *const texts[] = {
		"", "{", "{}", "[]", "null", "+ACK", "{\"stream\":\"S\"}", "{\"seq\":1}",
		"{\"stream\":\"S\",\"seq\":0}", "{\"stream\":\"S\",\"seq\":\"1\"}",
		"{\"stream\":7,\"seq\":1}", "{\"stream\":\"S\",\"seq\":1", "{\"stream\":\"S\",\"seq\":1}x",
		"{\"stream\":\"S\",\"seq\":-1}", "\xff\xfe",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct nats_answer answer = read_text(texts[i]);

		ck_assert_msg(answer.verdict == NATS_AGAIN, "%s", texts[i]);
		ck_assert_int_eq(answer.outcome, OUTCOME_UNAVAILABLE);
		ck_assert_uint_gt(strlen(answer.why), 0);
	}
	ck_assert_int_eq(read_text("{\"stream\":\"T\",\"seq\":1}").verdict, NATS_NEVER);
	ck_assert_int_eq(read_text("{\"stream\":\"SS\",\"seq\":1}").verdict, NATS_NEVER);
}
END_TEST

START_TEST(test_errors)
{
	static const struct {
		int code;
		enum nats_verdict verdict;
		enum outcome outcome;
	} cases[] = {
		{10054, NATS_NEVER, OUTCOME_TOO_LARGE}, {10077, NATS_NEVER, OUTCOME_STORAGE},
		{10047, NATS_NEVER, OUTCOME_STORAGE},   {10023, NATS_NEVER, OUTCOME_STORAGE},
		{10060, NATS_NEVER, OUTCOME_UNAVAILABLE}, {10008, NATS_AGAIN, OUTCOME_UNAVAILABLE},
		{10009, NATS_AGAIN, OUTCOME_UNAVAILABLE}, {10158, NATS_AGAIN, OUTCOME_UNAVAILABLE}, {1, NATS_NEVER, OUTCOME_UNAVAILABLE},
	};
	char text[200];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nats_answer answer;

		/* With an error, what looks like an acknowledgement is none. */
		snprintf(text, sizeof(text), "{\"error\":{\"code\":400,\"err_code\":%d,\"description\":"
			 "\"why\\n\\u001b\"},\"stream\":\"S\",\"seq\":1}", cases[i].code);
		answer = read_text(text);
		ck_assert_msg(answer.verdict == cases[i].verdict, "%d", cases[i].code);
		ck_assert_int_eq(answer.outcome, cases[i].outcome);
		ck_assert_str_eq(answer.why, "why\\x0A\\x1B");
		ck_assert(answer.too_large == (cases[i].code == 10054));
	}
}
END_TEST

/* What a server says is cut between characters, however it has to be shown. */
START_TEST(test_why_is_whole_text)
{
	char text[600], word[200];

	for (size_t controls = 0; controls < 40; controls++) {
		struct nats_answer answer;
		struct utf8 utf8 = {0};
		size_t n = 0;

		memset(word, 0x7f, controls);
		for (n = controls; n < sizeof(word) - 4; n += 3)
			memcpy(word + n, "\xe2\x82\xac", 3);
		word[n] = '\0';
		snprintf(text, sizeof(text), "{\"stream\":\"%s\",\"seq\":1}", word);
		answer = read_text(text);
		ck_assert_int_eq(answer.verdict, NATS_NEVER);
		ck_assert_uint_gt(strlen(answer.why), sizeof(answer.why) - 8);
		ck_assert(utf8_feed(&utf8, (const unsigned char *)answer.why, strlen(answer.why)));
		ck_assert(utf8_is_whole(&utf8));
	}
}
END_TEST

START_TEST(test_errors_say_something)
{
	ck_assert_str_eq(read_text("{\"error\":{\"err_code\":1}}").why, "an error without a description");
	ck_assert_str_eq(read_text("{\"error\":{\"description\":\"\"}}").why,
			 "an error without a description");
	ck_assert_str_eq(read_text("{\"error\":7}").why, "an error without a description");
}
END_TEST

START_TEST(test_nobody)
{
	struct nats_answer answer;

	nats_answer_nobody(&answer);
	ck_assert_int_eq(answer.verdict, NATS_AGAIN);
	ck_assert_int_eq(answer.outcome, OUTCOME_UNAVAILABLE);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("nats_answer");
	TCase *tcase = tcase_create("nats_answer");

	tcase_add_test(tcase, test_stored);
	tcase_add_test(tcase, test_nothing);
	tcase_add_test(tcase, test_errors);
	tcase_add_test(tcase, test_why_is_whole_text);
	tcase_add_test(tcase, test_errors_say_something);
	tcase_add_test(tcase, test_nobody);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
