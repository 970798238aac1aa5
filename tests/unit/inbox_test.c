/*
 * Tests of base/inbox: what is posted arrives, once and in order, whatever the base waits by.
 */
#include <pthread.h>
#include <stdlib.h>

#include <event2/event.h>

#include "base/inbox.h"
#include "unit.h"

#define THREADS 4
#define ITEMS 5000

struct parcel {
	struct inbox_item item;
	unsigned thread, number;
};

static struct inbox inbox;
static struct event_base *base;
static struct parcel parcels[THREADS][ITEMS];
static unsigned arrived, next[THREADS];

static void
on_parcel(struct inbox_item *item)
{
	struct parcel *parcel = (struct parcel *)item;

	ck_assert_uint_eq(parcel->number, next[parcel->thread]);
	next[parcel->thread]++;
	if (++arrived == THREADS * ITEMS)
		event_base_loopbreak(base);
}

static void
open_base(bool epoll)
{
	struct event_config *config = event_config_new();

	ck_assert_ptr_nonnull(config);
	if (!epoll)
		ck_assert_int_eq(event_config_avoid_method(config, "epoll"), 0);
	base = event_base_new_with_config(config);
	ck_assert_ptr_nonnull(base);
	event_config_free(config);
	ck_assert_int_eq(inbox_open(&inbox, base), 0);
	ck_assert(inbox.edge == epoll);
}

static void *
post_all(void *arg)
{
	struct parcel *mine = arg;
	unsigned i;

	for (i = 0; i < ITEMS; i++) {
		mine[i].item.run = on_parcel;
		mine[i].number = i;
		if (i % 50 == 0)
			inbox_hold(); /* twenty of fifty */
		inbox_post(&inbox, &mine[i].item);
		if (i % 50 == 19)
			inbox_release();
	}
	return NULL;
}

/* A waker that is lost would leave the loop waiting: the test's timeout tells. */
static void
check_posts(bool epoll)
{
	pthread_t threads[THREADS];
	unsigned t, i;

	open_base(epoll);
	for (t = 0; t < THREADS; t++) {
		for (i = 0; i < ITEMS; i++)
			parcels[t][i].thread = t;
		ck_assert_int_eq(pthread_create(&threads[t], NULL, post_all, parcels[t]), 0);
	}
	ck_assert_int_eq(event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY), 0);
	ck_assert_uint_eq(arrived, THREADS * ITEMS);
	for (t = 0; t < THREADS; t++)
		ck_assert_int_eq(pthread_join(threads[t], NULL), 0);
	inbox_close(&inbox);
	event_base_free(base);
}

START_TEST(all_arrive_in_order)
{
	check_posts(true);
}
END_TEST

START_TEST(without_epoll_too)
{
	check_posts(false);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("inbox");
	TCase *tcase = tcase_create("inbox");

	tcase_add_test(tcase, all_arrive_in_order);
	tcase_add_test(tcase, without_epoll_too);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
