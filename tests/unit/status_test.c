/*
 * Tests of status/: what comes from outside, made harmless; who may ask; histograms.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "intake/counters.h"
#include "sinks/account.h"
#include "status/http.h"
#include "status/metrics.h"
#include "status/text.h"
#include "unit.h"

static void
expect(void (*write)(FILE *to, const char *text), const char *text, const char *wanted)
{
	char *bytes = NULL;
	size_t len;
	FILE *to = open_memstream(&bytes, &len);

	ck_assert_ptr_nonnull(to);
	write(to, text);
	ck_assert_int_eq(fclose(to), 0);
	ck_assert_str_eq(bytes, wanted);
	free(bytes);
}

START_TEST(texts)
{
	expect(text_html, "<b a=\"1\" b='2'>&", "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
	expect(text_html, "\x01\n\xff gr\xc3\xbc", "\\x01\\x0A\\xFF gr\xc3\xbc");
	expect(text_label, "a\"b\\c\n", "\"a\\\"b\\\\c\\\\x0A\"");
	expect(text_json, "</script>\"\\\x1b", "\"</script>\\\"\\\\\\\\x1B\"");
	expect(text_html, "", "");
}
END_TEST

START_TEST(hosts)
{
	static char name[] = "status.example.com", *names[] = {name};
	const struct config_status config = {.hosts = {.items = names, .count = 1}};
	static const char *const good[] = {
		"127.0.0.1", "127.0.0.1:11080", "192.0.2.1:80", "[::1]", "[2001:db8::1]:11080",
		"localhost", "LOCALHOST:1", "localhost.", "a.localhost", "Status.Example.com:80",
	};
	static const char *const bad[] = {
		"", ":80", "example.com", "127.0.0.1.example.com", "localhost.example.com", "[::1", "[x]",
		"[::1]x", "notlocalhost", "status.example.com.evil", "127.0.0.1:x", "1", "0x7f.1",
	};
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(http_host_is_ours(good[i], &config), "%s", good[i]);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!http_host_is_ours(bad[i], &config), "%s", bad[i]);
}
END_TEST

START_TEST(negotiation)
{
	ck_assert(metrics_wants_open("application/openmetrics-text"));
	ck_assert(metrics_wants_open("application/openmetrics-text;version=1.0.0;q=0.75,text/plain"));
	ck_assert(metrics_wants_open("text/plain;q=0.5, application/openmetrics-text; version=1.0.0"));
	ck_assert(!metrics_wants_open("application/openmetrics-text;q=0, */*;q=0.1"));
	ck_assert(!metrics_wants_open("text/plain"));
	ck_assert(!metrics_wants_open("*/*"));
	ck_assert(!metrics_wants_open(""));
	ck_assert(!metrics_wants_open(",,;q=,"));
}
END_TEST

/* Each size is in the first bucket whose bound it is not above. */
START_TEST(sizes)
{
	uint64_t size;
	unsigned bit, i;
	int d;

	for (bit = 0; bit < 64; bit++)
		for (d = -1; d <= 1; d++) {
			size = (UINT64_C(1) << bit) + (uint64_t)d;
			for (i = 0; i + 1 < COUNTERS_SIZES && size > COUNTERS_SIZE_BOUND(i); i++)
				;
			ck_assert_uint_eq(counters_size(size), i);
		}
}
END_TEST

START_TEST(times)
{
	struct account *account = account_new("a");

	ck_assert_ptr_nonnull(account);
	account_time(account, 3, 0);
	account_time(account, 1, 500);
	account_time(account, 2, 501);
	account_time(account, 5, UINT64_C(60000001));
	ck_assert_uint_eq(account_get(&account->seconds[0]), 4);
	ck_assert_uint_eq(account_get(&account->seconds[1]), 2);
	ck_assert_uint_eq(account_get(&account->seconds[ACCOUNT_BOUNDS]), 5);
	ck_assert_uint_eq(account_get(&account->microseconds), 500 + 2 * 501 + 5 * UINT64_C(60000001));
	account_free(account);
}
END_TEST

START_TEST(ages)
{
	static const struct {
		double seconds;
		const char *text;
	} known[] = {
		{0, "0.0 s"}, {9.96, "10.0 s"}, {10, "10 s"}, {59.9, "59 s"}, {60, "1 min 0 s"},
		{3599, "59 min 59 s"}, {3600, "1 h 0 min"}, {86399, "23 h 59 min"}, {86400, "1 d 0 h"},
		{1e6, "11 d 13 h"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char *bytes = NULL;
		size_t len;
		FILE *to = open_memstream(&bytes, &len);

		ck_assert_ptr_nonnull(to);
		text_age(to, known[i].seconds);
		ck_assert_int_eq(fclose(to), 0);
		ck_assert_str_eq(bytes, known[i].text);
		free(bytes);
	}
}
END_TEST

static Suite *
status_suite(void)
{
	Suite *s = suite_create("status");
	TCase *tc = tcase_create("status");

	tcase_add_test(tc, texts);
	tcase_add_test(tc, hosts);
	tcase_add_test(tc, negotiation);
	tcase_add_test(tc, sizes);
	tcase_add_test(tc, times);
	tcase_add_test(tc, ages);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(status_suite());
}
