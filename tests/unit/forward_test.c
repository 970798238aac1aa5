/*
 * forward_test: what a forwarder keeps its order and its bounds by: the writers' inlet,
 * heaps and the table.  What it does with files and targets is tests/system/forward.py's.
 */
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "sinks/forward_work.h"
#include "unit.h"

static struct forward *f;

static void
open_inlet(void)
{
	f = calloc(1, sizeof(*f));
	ck_assert_ptr_nonnull(f);
	f->base = event_base_new();
	ck_assert_ptr_nonnull(f->base);
	ck_assert_int_eq(inbox_open(&f->inbox, f->base), 0);
	ck_assert_int_eq(forward_table_open(&f->known), 0);
	forward_inlet_init(&f->inlet);
	f->fresh_last = &f->fresh;
	f->inlet.poked = true; /* nobody listens */
	forward_inlet_reset(f);
}

static void
close_inlet(void)
{
	forward_inlet_reset(f);
	forward_inlet_clear(&f->inlet);
	forward_table_close(&f->known);
	inbox_close(&f->inbox);
	event_base_free(f->base);
	free(f);
}

static struct forward_entry *
entry_of(uint64_t number, struct forward_entry *next)
{
	struct id id = {.high = 1, .low = number};
	struct forward_entry *entry = forward_entry_new(&id, "name");

	ck_assert_ptr_nonnull(entry);
	entry->next = next;
	return entry;
}

/* The ids that have arrived, in order. */
static void
check_fresh(unsigned count, const uint64_t *numbers)
{
	const struct forward_entry *entry;
	unsigned i = 0;

	forward_inlet_drain(f);
	for (entry = f->fresh; entry != NULL; entry = entry->next) {
		ck_assert_uint_lt(i, count);
		ck_assert_uint_eq(entry->id.low, numbers[i++]);
		ck_assert(forward_table_has(&f->known, &entry->id, "name"));
	}
	ck_assert_uint_eq(i, count);
}

START_TEST(turns_are_the_order)
{
	open_inlet();
	/* The second turn is told of, and ends, before anybody has heard of the first. */
	forward_turn_begins(f, 1, 2);
	forward_commit_ends(f, 1, entry_of(3, entry_of(4, NULL)));
	check_fresh(0, NULL);
	forward_turn_ends(f, 1);
	forward_turn_begins(f, 0, 1);
	forward_turn_begins(f, 1, 3);
	forward_commit_ends(f, 1, entry_of(5, NULL));
	check_fresh(0, NULL);
	forward_commit_ends(f, 0, entry_of(1, NULL)); /* a part of the first turn */
	check_fresh(1, (const uint64_t[]){1});
	forward_commit_ends(f, 0, entry_of(2, NULL));
	forward_turn_ends(f, 0);
	check_fresh(5, (const uint64_t[]){1, 2, 3, 4, 5});
	ck_assert_uint_eq(f->waiting, 5);
	/* The third is still open. */
	forward_turn_begins(f, 0, 4);
	forward_commit_ends(f, 0, entry_of(7, NULL));
	forward_turn_ends(f, 0);
	forward_commit_ends(f, 1, entry_of(6, NULL));
	check_fresh(6, (const uint64_t[]){1, 2, 3, 4, 5, 6});
	forward_turn_ends(f, 1);
	check_fresh(7, (const uint64_t[]){1, 2, 3, 4, 5, 6, 7});
	forward_turn_begins(f, 1, 5);
	forward_commit_ends(f, 1, entry_of(8, NULL));
	check_fresh(8, (const uint64_t[]){1, 2, 3, 4, 5, 6, 7, 8});
	ck_assert(!f->more);
	close_inlet();
}
END_TEST

START_TEST(a_look_leaves_to_writers_what_is_theirs)
{
	const struct id ids[] = {{.high = 1, .low = 7}, {.high = 1, .low = 9}};
	struct id other = {.high = 1, .low = 8}, waits = {.high = 1, .low = 20};

	open_inlet();
	forward_turn_begins(f, 0, 1);
	forward_turn_begins(f, 1, 2);
	forward_commit_begins(f, 0, ids, 2);
	forward_commit_ends(f, 1, entry_of(20, NULL)); /* behind the first one's turn */
	forward_inlet_lock(f);
	ck_assert(!forward_inlet_concerns(f, &ids[0]));
	ck_assert(!forward_inlet_concerns(f, &ids[1]));
	ck_assert(!forward_inlet_concerns(f, &waits));
	ck_assert(forward_inlet_concerns(f, &other));
	forward_inlet_unlock(f);
	forward_commit_ends(f, 0, NULL); /* it failed */
	forward_inlet_lock(f);
	ck_assert(forward_inlet_concerns(f, &ids[0]));
	forward_inlet_unlock(f);
	close_inlet();
}
END_TEST

START_TEST(what_there_is_no_room_for_is_on_disk)
{
	struct id first = {.high = 1, .low = FORWARD_FRESH}, before = {.high = 1, .low = 5};
	unsigned i;

	open_inlet();
	forward_turn_begins(f, 0, 1);
	for (i = 0; i < FORWARD_FRESH + 100; i++)
		forward_commit_ends(f, 0, entry_of(i, NULL));
	forward_turn_ends(f, 0);
	forward_inlet_drain(f);
	ck_assert_uint_eq(f->known.count, FORWARD_FRESH);
	ck_assert_uint_eq(f->waiting, FORWARD_FRESH + 100);
	ck_assert(f->more);
	/* A look that went on meanwhile may have missed one before these. */
	forward_inlet_lock(f);
	ck_assert(!forward_inlet_concerns(f, &first));
	ck_assert(forward_inlet_concerns(f, &before));
	forward_inlet_unlock(f);
	/* One that begins now finds all. */
	forward_inlet_reset(f);
	ck_assert_uint_eq(f->known.count, 0);
	ck_assert_uint_eq(f->inlet.count, 0);
	forward_inlet_lock(f);
	ck_assert(forward_inlet_concerns(f, &first));
	forward_inlet_unlock(f);
	forward_inlet_shut(f);
	forward_commit_ends(f, 0, entry_of(1, NULL));
	forward_inlet_drain(f);
	ck_assert_ptr_null(f->fresh);
	close_inlet();
}
END_TEST

START_TEST(what_is_on_disk_holds_back_what_came_later)
{
	struct id later = {.high = 1, .low = 10};
	unsigned i;

	open_inlet();
	forward_turn_begins(f, 0, 1);
	forward_turn_begins(f, 1, 2);
	/* The second turn takes all the room; what the first brings then is on disk only. */
	for (i = 0; i < FORWARD_FRESH; i++)
		forward_commit_ends(f, 1, entry_of(10 + i, NULL));
	forward_commit_ends(f, 0, entry_of(1, NULL));
	forward_turn_ends(f, 0);
	forward_turn_ends(f, 1);
	check_fresh(0, NULL);
	ck_assert(f->more);
	ck_assert_uint_eq(f->waiting, FORWARD_FRESH + 1);
	ck_assert_uint_eq(f->inlet.count, 0);
	/* A look finds both, in their order. */
	forward_inlet_reset(f);
	forward_inlet_lock(f);
	ck_assert(forward_inlet_concerns(f, &later));
	forward_inlet_unlock(f);
	/* What came in the same turn before is in memory, and stays. */
	f->more = false;
	forward_turn_begins(f, 0, 3);
	forward_turn_begins(f, 1, 4);
	forward_commit_ends(f, 0, entry_of(1, NULL));
	for (i = 0; i < FORWARD_FRESH; i++)
		forward_commit_ends(f, 1, entry_of(10 + i, NULL));
	forward_commit_ends(f, 0, entry_of(2, NULL));
	forward_turn_ends(f, 0);
	forward_turn_ends(f, 1);
	check_fresh(1, (const uint64_t[]){1});
	ck_assert(f->more);
	close_inlet();
}
END_TEST

static bool
concerns(uint64_t number)
{
	struct id id = {.high = 1, .low = number};
	bool result;

	forward_inlet_lock(f);
	result = forward_inlet_concerns(f, &id);
	forward_inlet_unlock(f);
	return result;
}

/* The second turn is on disk before the first: whatever brought it there, a look must leave it
 * until the first has ended, and what comes meanwhile must be found behind it. */
START_TEST(a_look_leaves_what_is_ahead_of_an_open_turn)
{
	open_inlet();
	forward_turn_begins(f, 0, 1);
	forward_turn_begins(f, 1, 2);
	if (_i == 0) {
		forward_commit_ends(f, 1, entry_of(10, NULL)); /* in memory, until the look */
	} else if (_i == 1) {
		forward_inlet_shut(f);
		forward_commit_ends(f, 1, entry_of(10, NULL));
	} else {
		const struct id id = {.high = 1, .low = 10};

		forward_inlet_missed(f, &id);
	}
	forward_turn_ends(f, 1);
	forward_inlet_reset(f);
	f->more = false;
	ck_assert(concerns(9));
	ck_assert(!f->held);
	ck_assert(!concerns(10));
	ck_assert(!concerns(11));
	ck_assert(f->held);
	ck_assert(f->more);
	/* The third turn is behind it, and the first one is on disk as well. */
	forward_turn_begins(f, 1, 3);
	forward_commit_ends(f, 1, entry_of(20, NULL));
	forward_turn_ends(f, 1);
	forward_commit_ends(f, 0, entry_of(5, NULL));
	check_fresh(0, NULL);
	ck_assert(f->held);
	f->inlet.poked = false;
	forward_turn_ends(f, 0);
	ck_assert(f->inlet.poked);
	check_fresh(0, NULL);
	ck_assert(!f->held);
	forward_inlet_reset(f);
	ck_assert(concerns(5));
	ck_assert(concerns(10));
	ck_assert(concerns(20));
	/* The turn may end while the look is on its way, which has missed it. */
	forward_turn_begins(f, 0, 4);
	forward_turn_begins(f, 1, 5);
	forward_commit_ends(f, 1, entry_of(40, NULL));
	forward_turn_ends(f, 1);
	forward_inlet_reset(f);
	forward_commit_ends(f, 0, entry_of(30, NULL));
	forward_turn_ends(f, 0);
	ck_assert(!concerns(40));
	ck_assert(!f->held);
	ck_assert(f->more);
	close_inlet();
}
END_TEST

START_TEST(heaps_sort)
{
	struct forward_heap heap;
	struct forward_entry *entry;
	uint64_t i, last = 0, seed = 1;

	ck_assert_int_eq(forward_heap_open(&heap, 5000, forward_by_id), 0);
	for (i = 0; i < 5000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		forward_heap_put(&heap, entry_of(seed >> 40, NULL));
	}
	for (i = 0; i < 4000; i++) {
		entry = forward_heap_take(&heap);
		ck_assert_uint_ge(entry->id.low, last);
		last = entry->id.low;
		forward_entry_free(entry);
	}
	forward_heap_close(&heap); /* with what is left */
}
END_TEST

static Suite *
forward_suite(void)
{
	Suite *suite = suite_create("forward");
	TCase *tcase = tcase_create("forward");

	tcase_add_test(tcase, turns_are_the_order);
	tcase_add_test(tcase, a_look_leaves_to_writers_what_is_theirs);
	tcase_add_test(tcase, what_there_is_no_room_for_is_on_disk);
	tcase_add_test(tcase, what_is_on_disk_holds_back_what_came_later);
	tcase_add_loop_test(tcase, a_look_leaves_what_is_ahead_of_an_open_turn, 0, 3);
	tcase_add_test(tcase, heaps_sort);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	return unit_run(forward_suite());
}
