/*
 * Tests of intake/rate: no more than the limit over any time, all of it when there is
 * always somebody who wants it, and one turn after another.  Time is made up here.
 */
#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"
#include "intake/rate.h"
#include "unit.h"

#define SECOND UINT64_C(1000000)
#define START UINT64_C(1234567890)

static void
set_up(void)
{
	memory_init(UINT64_C(1) << 30);
}

static struct pace *
make(struct rate *common, uint64_t own)
{
	struct pace *pace = pace_new(common, own, START);

	ck_assert_ptr_nonnull(pace);
	return pace;
}

static const struct {
	uint64_t own, common;
	size_t want;
} limits[] = {
	{ 1000, 0, 65536 },      { 0, 1000, 65536 },       { 1 << 20, 0, 65536 },
	{ 0, 1 << 20, 256 },     { 5000, 3000, 100 },      { 3000, 5000, 1 << 24 },
	{ 1, 0, 65536 },         { 7, 0, 65536 },          { 100 << 20, 0, 65536 },
	{ 0, UINT64_C(64) << 30, 1 << 24 },
};

/* One that reads whatever it may, as late as the loop makes it, gets its rate. */
START_TEST(one_reader)
{
	struct rate common;
	uint64_t least = limits[_i].own != 0 ? limits[_i].own : limits[_i].common, now = START;
	uint64_t read = 0, begun = START, at_begin = 0, asked = 0;
	struct pace *pace;

	if (limits[_i].common != 0 && limits[_i].common < least)
		least = limits[_i].common;
	rate_init(&common, limits[_i].common, START);
	pace = make(&common, limits[_i].own);
	srand(1);
	while (now < START + 30 * SECOND) {
		size_t n = pace_ask(pace, limits[_i].want, now);

		asked++;
		if (n == 0) {
			ck_assert_uint_gt(pace->due, now);
			now = pace->due + (uint64_t)rand() % 2000;
			continue;
		}
		ck_assert_uint_le(n, limits[_i].want);
		pace_spend(pace, n);
		read += n;
		now += (uint64_t)rand() % 3;
		if (now - begun >= 10 * SECOND) {
			double share = (double)(read - at_begin) / (double)(now - begun) * 1e6 /
				       (double)least;

			/* What is waiting for the first read is a burst of 2.5 %. */
			ck_assert_msg(share <= 1.03 || least < 100, "%f", share);
			ck_assert_msg(share >= 0.97 || limits[_i].want < least / 1000, "%f", share);
			begun = now;
			at_begin = read;
		}
	}
	ck_assert_uint_le(read, least / 4 + 1 + (now - START) / SECOND * least + least);
	/* It is not asked over and over: shares are as large as makes sense. */
	if (limits[_i].want > least / 64)
		ck_assert_uint_le(asked, 30 * 64 * 3 + 16);
	pace_free(pace);
}
END_TEST

#define READERS 50

/* All want more than there is; each gets the same, whoever came first. */
START_TEST(many_readers_take_turns)
{
	struct rate common;
	struct pace *paces[READERS];
	uint64_t wake[READERS], read[READERS] = { 0 }, now = START, all = 0, before = 0;
	int i, next;

	rate_init(&common, 1 << 20, START);
	for (i = 0; i < READERS; i++) {
		paces[i] = make(&common, 0);
		wake[i] = START;
	}
	while (now < START + 20 * SECOND) {
		for (next = 0, i = 1; i < READERS; i++)
			if (wake[i] < wake[next])
				next = i;
		now = wake[next] > now ? wake[next] : now;
		/* It asks until it has to wait, as a connection does. */
		for (;;) {
			size_t n = pace_ask(paces[next], 65536, now);

			if (n == 0)
				break;
			pace_spend(paces[next], n);
			if (now >= START + SECOND)
				read[next] += n;
			all += n;
		}
		wake[next] = paces[next]->due;
		if (now >= START + 10 * SECOND && before == 0)
			before = all;
	}
	ck_assert_uint_le(all - before, (10 << 20) * 103 / 100);
	ck_assert_uint_ge(all - before, (10 << 20) * 97 / 100);
	for (i = 0; i < READERS; i++) {
		ck_assert_msg(read[i] >= (19 << 20) / READERS * 9 / 10, "%d: %ju", i,
			      (uintmax_t)read[i]);
		ck_assert_msg(read[i] <= (19 << 20) / READERS * 11 / 10, "%d: %ju", i,
			      (uintmax_t)read[i]);
		pace_free(paces[i]);
	}
}
END_TEST

/* What is not read, or held by one that goes away, is there for the others. */
START_TEST(what_is_not_read_is_given_back)
{
	struct rate common;
	struct pace *one, *other;
	uint64_t now = START;
	int i;

	rate_init(&common, 4000, START);
	one = make(&common, 0);
	other = make(&common, 0);
	for (i = 0; i < 1000; i++) {
		ck_assert_uint_eq(pace_ask(one, 1000, now), 1000);
		pace_spend(one, 0);
	}
	ck_assert_uint_eq(pace_ask(one, 1000, now), 1000);
	pace_spend(one, 1000);
	ck_assert_uint_eq(pace_ask(one, 1000, now), 0); /* holds a share */
	ck_assert_uint_eq(pace_ask(other, 1000, now), 0);
	ck_assert_uint_gt(other->due, one->due);
	pace_free(one);
	ck_assert_uint_eq(pace_ask(other, 1000, other->due - 1), 0);
	ck_assert_uint_gt(pace_ask(other, 1000, other->due), 0);
	pace_spend(other, 0);
	now += SECOND;
	ck_assert_uint_eq(pace_ask(other, 5000, now), 1000);
	pace_free(other);
	ck_assert_uint_eq(atomic_load(&common.spent) <= common.burst + 4000, true);
}
END_TEST

START_TEST(no_limit)
{
	struct rate common;
	struct pace *pace;

	rate_init(&common, 0, START);
	pace = make(&common, 0);
	for (int i = 0; i < 1000; i++) {
		ck_assert_uint_eq(pace_ask(pace, 65536, START), 65536);
		pace_spend(pace, 65536);
	}
	pace_free(pace);
}
END_TEST

static struct rate shared;
#define THREADS 4
#define ROUNDS 100000

static void *
take_and_give(void *arg)
{
	struct pace *pace = make(&shared, 0);
	uint64_t now = START, *sum = arg;

	for (int i = 0; i < ROUNDS; i++) {
		size_t n = pace_ask(pace, 1000, now);

		if (n == 0) {
			now = pace->due;
			continue;
		}
		pace_spend(pace, n / 2);
		*sum += n / 2;
	}
	pace_free(pace);
	return NULL;
}

/* Several threads at once: nothing is lost or spent twice. */
START_TEST(threads)
{
	pthread_t ids[THREADS];
	uint64_t sums[THREADS] = { 0 }, all = 0;
	int i;

	rate_init(&shared, UINT64_C(1) << 40, START); /* so that it is never refilled to the brim */
	shared.burst = UINT64_C(1) << 40;
	for (i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, take_and_give, &sums[i]), 0);
	for (i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
		all += sums[i];
	}
	ck_assert_uint_eq(atomic_load(&shared.spent), all);
	ck_assert_uint_eq(all, (uint64_t)THREADS * ROUNDS * 500);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("rate");
	TCase *tc = tcase_create("rate");

	tcase_add_unchecked_fixture(tc, set_up, NULL);
	tcase_add_loop_test(tc, one_reader, 0, (int)(sizeof limits / sizeof limits[0]));
	tcase_add_test(tc, many_readers_take_turns);
	tcase_add_test(tc, what_is_not_read_is_given_back);
	tcase_add_test(tc, no_limit);
	tcase_add_test(tc, threads);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
