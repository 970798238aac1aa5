/*
 * Tests of intake/limits: places in all and for each address, over many of them.
 */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>

#include "intake/limits.h"
#include "unit.h"

#define ADDRESSES 2000

static struct limits limits;

static void
set_up(void)
{
	limits_init(&limits);
	ck_assert_int_eq(limits_reserve(&limits), 0);
}

static void
tear_down(void)
{
	limits_clear(&limits);
}

static struct net_address
address(const char *text)
{
	struct net_address a;

	ck_assert_int_eq(net_address_parse(text, &a), 0);
	return a;
}

static struct net_address
number(unsigned i)
{
	char text[64];

	if (i % 2 == 0)
		snprintf(text, sizeof(text), "10.1.%u.%u:1", i / 256, i % 256);
	else
		snprintf(text, sizeof(text), "[2001:db8:0:%x::1]:1", i);
	return address(text);
}

/* More than the table begins with: it grows, and knows them all. */
START_TEST(many_addresses)
{
	struct net_address a;
	unsigned i, round;

	limits_set(&limits, 0, 2);
	for (round = 0; round < 2; round++)
		for (i = 0; i < ADDRESSES; i++) {
			a = number(i);
			ck_assert(limits_take_address(&limits, &a));
		}
	ck_assert_uint_eq(limits.n_entries, ADDRESSES);
	ck_assert_uint_gt(limits.n_buckets, 64);
	for (i = 0; i < ADDRESSES; i++) {
		a = number(i);
		ck_assert(!limits_take_address(&limits, &a));
		limits_give_address(&limits, &a);
		ck_assert(limits_take_address(&limits, &a));
	}
	for (i = 0; i < ADDRESSES; i++) {
		a = number(i);
		limits_give_address(&limits, &a);
		limits_give_address(&limits, &a);
	}
	ck_assert_uint_eq(limits.n_entries, 0);
}
END_TEST

/* What is left is freed with it. */
START_TEST(left_over)
{
	struct net_address a = address("192.0.2.1:1");

	limits_set(&limits, 0, 1);
	ck_assert(limits_take_address(&limits, &a));
	ck_assert_uint_eq(limits.n_entries, 1);
}
END_TEST

/* One host is one address of IPv4, or one /64 of IPv6, whatever the port. */
START_TEST(what_an_address_is)
{
	struct net_address a = address("192.0.2.1:1"), b = address("192.0.2.1:2");
	struct net_address c = address("192.0.2.2:1"), d = address("[2001:db8::1]:1");
	struct net_address e = address("[2001:db8::ffff:ffff:ffff:ffff]:1");
	struct net_address f = address("[2001:db8:0:1::1]:1");

	limits_set(&limits, 0, 1);
	ck_assert(limits_take_address(&limits, &a));
	ck_assert(!limits_take_address(&limits, &b));
	ck_assert(limits_take_address(&limits, &c));
	ck_assert(limits_take_address(&limits, &d));
	ck_assert(!limits_take_address(&limits, &e));
	ck_assert(limits_take_address(&limits, &f));
}
END_TEST

/* Local peers have none. */
START_TEST(local_peers)
{
	struct net_address a = address("unix:1");
	unsigned i;

	limits_set(&limits, 0, 1);
	for (i = 0; i < 3; i++)
		ck_assert(limits_take_address(&limits, &a));
	ck_assert_uint_eq(limits.n_entries, 0);
	limits_give_address(&limits, &a);
}
END_TEST

/* A reload may bring a limit that is exceeded already, or take it away. */
START_TEST(limit_that_comes_later)
{
	unsigned i;

	for (i = 0; i < 3; i++)
		ck_assert(limits_take(&limits));
	limits_set(&limits, 2, 0);
	ck_assert(!limits_take(&limits));
	limits_give(&limits);
	ck_assert(!limits_take(&limits));
	limits_give(&limits);
	ck_assert(limits_take(&limits));
	ck_assert(!limits_take(&limits));
	limits_set(&limits, 0, 0);
	ck_assert(limits_take(&limits));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("limits");
	TCase *tc = tcase_create("limits");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, many_addresses);
	tcase_add_test(tc, left_over);
	tcase_add_test(tc, what_an_address_is);
	tcase_add_test(tc, local_peers);
	tcase_add_test(tc, limit_that_comes_later);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
