/*
 * inbox: whose eventfd is open for how long.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/inbox.h"
#include "unit.h"

static unsigned run;

static void
count_run(struct inbox_item *item)
{
	(void)item;
	run++;
}

static bool
is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1 || errno != EBADF;
}

/* Who has posted the last item wakes an owner that has run it and ended: the number must
 * not be another descriptor's by then, and nothing must stay open after that. */
START_TEST(poster_outlives_owner)
{
	struct event_base *base = event_base_new();
	struct inbox_item items[2] = {{.run = count_run}, {.run = count_run}};
	struct inbox inbox;
	int fd, other;

	ck_assert_int_eq(inbox_open(&inbox, base), 0);
	ck_assert_int_eq(inbox_lend(&inbox), 0);
	fd = inbox.fd;
	inbox_hold();
	inbox_post(&inbox, &items[0]);
	inbox_post(&inbox, &items[1]); /* wakes nobody, and holds nothing any more */
	inbox_run(&inbox);
	ck_assert_uint_eq(run, 2);
	inbox_close(&inbox);
	event_base_free(base);
	ck_assert(is_open(fd));
	other = dup(STDIN_FILENO);
	ck_assert_int_ne(other, fd);
	close(other);
	inbox_release();
	ck_assert(!is_open(fd));
}
END_TEST

START_TEST(owner_outlives_posters)
{
	struct event_base *base = event_base_new();
	struct inbox_item item = {.run = count_run};
	struct inbox inbox;
	int fd;

	ck_assert_int_eq(inbox_open(&inbox, base), 0);
	ck_assert_int_eq(inbox_lend(&inbox), 0);
	fd = inbox.fd;
	inbox_post(&inbox, &item);
	ck_assert_int_eq(event_base_loop(base, EVLOOP_NONBLOCK), 0);
	ck_assert_uint_eq(run, 1);
	ck_assert(is_open(fd));
	inbox_close(&inbox);
	ck_assert(!is_open(fd));
	event_base_free(base);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("inbox");
	TCase *tcase = tcase_create("inbox");

	tcase_add_test(tcase, poster_outlives_owner);
	tcase_add_test(tcase, owner_outlives_posters);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
