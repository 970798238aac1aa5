/*
 * Tests of base/deadline: whatever is set, moved and cleared, each is due once, in its turn.
 */
#include <stdlib.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/deadline.h"
#include "unit.h"

#define MANY 500

static struct deadlines all;
static struct event_base *base;
static struct deadline many[MANY];
static uint64_t last;
static unsigned due, expected;

static void
on_due(struct deadline *deadline)
{
	ck_assert_uint_eq(deadline->slot, 0); /* no longer set */
	ck_assert_uint_le(deadline->when, clock_now());
	ck_assert_uint_ge(deadline->when, last);
	last = deadline->when;
	if (++due == expected)
		event_base_loopbreak(base);
}

static void
setup(void)
{
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	ck_assert_int_eq(deadlines_reserve_timers(base), 0);
	ck_assert_int_eq(deadlines_open(&all, base, on_due), 0);
	ck_assert_int_eq(deadlines_reserve(&all, MANY), 0);
}

static void
teardown(void)
{
	deadlines_close(&all);
	event_base_free(base);
}

/* The heap knows where each entry is, and the first is the earliest. */
static void
check_heap(void)
{
	for (size_t at = 0; at < all.count; at++) {
		ck_assert_uint_eq(all.heap[at]->slot, at + 1);
		if (at > 0)
			ck_assert_uint_le(all.heap[(at - 1) / 2]->when, all.heap[at]->when);
	}
}

START_TEST(any_order)
{
	uint64_t now = clock_now();
	size_t set = 0;

	srand(7);
	for (int step = 0; step < 5000; step++) {
		struct deadline *one = &many[rand() % MANY];

		if (rand() % 4 == 0)
			deadline_clear(&all, one); /* also what is not set */
		else
			deadline_set(&all, one, now + (uint64_t)(rand() % 200000));
		if (step % 100 == 0)
			check_heap();
	}
	for (size_t i = 0; i < MANY; i++)
		set += many[i].slot != 0;
	ck_assert_uint_eq(all.count, set);
	check_heap();
	expected = (unsigned)set;
	ck_assert_uint_gt(expected, MANY / 2);
	ck_assert_int_ge(event_base_dispatch(base), 0);
	ck_assert_uint_eq(due, expected);
	ck_assert_uint_eq(all.count, 0);
}
END_TEST

/* The timer follows the first one, to and fro. */
START_TEST(moves_to_and_fro)
{
	uint64_t now = clock_now(), far = now + UINT64_C(3600000000);

	deadline_set(&all, &many[0], far);
	deadline_set(&all, &many[1], far + 1);
	deadline_set(&all, &many[0], far + 2);
	ck_assert_ptr_eq(all.heap[0], &many[1]);
	deadline_set(&all, &many[0], now + 20000);
	deadline_set(&all, &many[1], now + 40000);
	deadline_set(&all, &many[2], now); /* in the past by then */
	expected = 3;
	ck_assert_int_ge(event_base_dispatch(base), 0);
	ck_assert_uint_eq(due, 3);
	/* One that was armed for and went away costs a look, and hurts nobody. */
	deadline_set(&all, &many[0], clock_now() + 1000);
	deadline_set(&all, &many[1], clock_now() + 20000);
	deadline_clear(&all, &many[0]);
	expected = 4;
	ck_assert_int_ge(event_base_dispatch(base), 0);
	ck_assert_uint_eq(due, 4);
	ck_assert_uint_eq(many[1].slot, 0);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("deadline");
	TCase *tcase = tcase_create("deadline");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, any_order);
	tcase_add_test(tcase, moves_to_and_fro);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
