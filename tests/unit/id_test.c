/*
 * Tests of message/id: order, uniqueness, text and back.
 */
#include <stdlib.h>
#include <string.h>

#include "message/id.h"
#include "unit.h"

#define NOW UINT64_C(1700000000123456)

static struct id_generator generator;

static void
setup(void)
{
	ck_assert_int_eq(id_generator_init(&generator), 0);
}

static uint64_t
milliseconds(const struct id *id)
{
	return id->high >> 16;
}

/* Each id is greater as text than the one before. */
static void
expect_greater(char last[ID_TEXT_LEN + 1], const struct id *id)
{
	char text[ID_TEXT_LEN + 1];

	id_text(id, text);
	if (strlen(text) != ID_TEXT_LEN || strcmp(last, text) >= 0)
		ck_abort_msg("%s after %s", text, last);
	memcpy(last, text, sizeof text);
}

START_TEST(known_vector)
{
	struct id id;
	char text[ID_TEXT_LEN + 1];

	/* The example of the specification. */
	ck_assert_int_eq(id_parse("01ARZ3NDEKTSV4RRFFQ69G5FAV", &id), 0);
	ck_assert_uint_eq(milliseconds(&id), 1469922850259);
	id_text(&id, text);
	ck_assert_str_eq(text, "01ARZ3NDEKTSV4RRFFQ69G5FAV");

	id = (struct id){ .high = UINT64_C(0x0123456789abcdef), .low = UINT64_C(0xfedcba9876543210) };
	id_text(&id, text);
	ck_assert_str_eq(text, "014D2PF2DBSQQZXQ5TK1V58CGG");
	id = (struct id){ 0, 0 };
	id_text(&id, text);
	ck_assert_str_eq(text, "00000000000000000000000000");
	id = (struct id){ UINT64_MAX, UINT64_MAX };
	id_text(&id, text);
	ck_assert_str_eq(text, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
}
END_TEST

START_TEST(there_and_back)
{
	for (uint64_t i = 0; i < 100000; i++) {
		struct id id = id_next(&generator, NOW + i * 77), back;
		char text[ID_TEXT_LEN + 2];

		id_text(&id, text);
		memcpy(text + ID_TEXT_LEN, ".", 2); /* as in the name of a file */
		if (id_parse(text, &back) != 0 || back.high != id.high || back.low != id.low)
			ck_abort_msg("%s", text);
	}
}
END_TEST

START_TEST(takes_the_time_given)
{
	struct id id = id_next(&generator, NOW);

	ck_assert_uint_eq(milliseconds(&id), NOW / 1000);
	id = id_next(&generator, NOW + 1000);
	ck_assert_uint_eq(milliseconds(&id), NOW / 1000 + 1);
}
END_TEST

START_TEST(ordered_when_the_clock_steps_back)
{
	char last[ID_TEXT_LEN + 1] = "";
	struct id id;
	uint64_t time = NOW;

	for (int i = 0; i < 100000; i++) {
		time = i % 1000 == 999 ? time - 5000000 : time + (uint64_t)(i % 7) * 300;
		id = id_next(&generator, time);
		expect_greater(last, &id);
	}
}
END_TEST

START_TEST(ordered_before_the_clock_is_set)
{
	char last[ID_TEXT_LEN + 1] = "";
	struct id id;

	for (int i = 0; i < 1000; i++) {
		id = id_next(&generator, 0);
		expect_greater(last, &id);
	}
	id = id_next(&generator, UINT64_MAX);
	expect_greater(last, &id);
}
END_TEST

START_TEST(successor_within_a_millisecond)
{
	struct id first = id_next(&generator, NOW), second = id_next(&generator, NOW);

	ck_assert(second.low == first.low + 1);
	ck_assert(second.high == first.high + (second.low == 0));
}
END_TEST

START_TEST(carries)
{
	struct id id;

	generator.last = (struct id){ (NOW / 1000) << 16 | 0x1234, UINT64_MAX };
	id = id_next(&generator, NOW);
	ck_assert(id.high == ((NOW / 1000) << 16 | 0x1235) && id.low == 0);

	/* Past the last of a millisecond. */
	generator.last = (struct id){ (NOW / 1000) << 16 | 0xffff, UINT64_MAX };
	id = id_next(&generator, NOW);
	ck_assert(id.high == (NOW / 1000 + 1) << 16 && id.low == 0);
	/* The borrowed millisecond is not drawn anew when it comes. */
	id = id_next(&generator, NOW + 1000);
	ck_assert(id.high == (NOW / 1000 + 1) << 16 && id.low == 1);
}
END_TEST

static int
compare(const void *a, const void *b)
{
	const struct id *x = a, *y = b;

	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return (x->low > y->low) - (x->low < y->low);
}

/* Four workers, at the same moments. */
START_TEST(a_million_are_unique)
{
	enum { N = 1000000, WORKERS = 4 };
	struct id_generator workers[WORKERS];
	struct id *ids = calloc(N, sizeof *ids);

	ck_assert_ptr_nonnull(ids);
	for (int w = 0; w < WORKERS; w++)
		ck_assert_int_eq(id_generator_init(&workers[w]), 0);
	for (int i = 0; i < N; i++)
		ids[i] = id_next(&workers[i % WORKERS], NOW + (uint64_t)(i / 40));
	qsort(ids, N, sizeof *ids, compare);
	for (int i = 1; i < N; i++)
		if (compare(&ids[i - 1], &ids[i]) >= 0)
			ck_abort_msg("one of them twice");
	free(ids);
}
END_TEST

START_TEST(chance_differs)
{
	struct id_generator other;
	struct id a, b, c;

	ck_assert_int_eq(id_generator_init(&other), 0);
	a = id_next(&generator, NOW);
	b = id_next(&other, NOW);
	c = id_next(&generator, NOW + 1000);
	ck_assert(a.low != b.low);
	ck_assert(a.low != c.low && a.low + 1 != c.low);
	ck_assert((a.high & 0xffff) != (b.high & 0xffff) || (a.high & 0xffff) != (c.high & 0xffff));
}
END_TEST

START_TEST(refuses)
{
	static const char *const texts[] = {
		"",
		"0",
		"01ARZ3NDEKTSV4RRFFQ69G5FA",
		"80000000000000000000000000",
		"8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"01ARZ3NDEKTSV4RRFFQ69G5FAU",
		"01ARZ3NDEKTSV4RRFFQ69G5FAI",
		"01ARZ3NDEKTSV4RRFFQ69G5FAL",
		"01ARZ3NDEKTSV4RRFFQ69G5FAO",
		"01arz3ndektsv4rrffq69g5fav",
		"01ARZ3NDEK-SV4RRFFQ69G5FAV",
		"01ARZ3NDEKTSV4RRFF\xffQ69G5FA",
		" 01ARZ3NDEKTSV4RRFFQ69G5FAV",
	};
	struct id id;

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		ck_assert_msg(id_parse(texts[i], &id) == -1, "\"%s\" was taken", texts[i]);
}
END_TEST

static Suite *
id_suite(void)
{
	Suite *s = suite_create("id");
	TCase *tc = tcase_create("id");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, known_vector);
	tcase_add_test(tc, there_and_back);
	tcase_add_test(tc, takes_the_time_given);
	tcase_add_test(tc, ordered_when_the_clock_steps_back);
	tcase_add_test(tc, ordered_before_the_clock_is_set);
	tcase_add_test(tc, successor_within_a_millisecond);
	tcase_add_test(tc, carries);
	tcase_add_test(tc, a_million_are_unique);
	tcase_add_test(tc, chance_differs);
	tcase_add_test(tc, refuses);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(id_suite());
}
