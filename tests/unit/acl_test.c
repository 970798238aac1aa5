/*
 * Tests of base/acl: what is a block, and that looking it up says the same as
 * comparing bits with each block in turn.
 *
 * Blocks and addresses are random.  A failure names the seed; ACL_TEST_SEED sets it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/acl.h"
#include "unit.h"

#define ROUNDS 300
#define BLOCKS_MOST 60
#define MANY 100000

/* An address as it is compared here: a family and its bytes. */
struct plain {
	int family;
	unsigned bits; /* 32 or 128 */
	unsigned prefix;
	unsigned char bytes[16];
};

static uint64_t chance_seed, chance_state;

static void
chance_start(void)
{
	const char *seed = getenv("ACL_TEST_SEED");

	chance_seed = seed == NULL ? 0x6369737465726e : strtoull(seed, NULL, 0);
	chance_state = chance_seed;
}

/* splitmix64 */
static unsigned
chance(unsigned below)
{
	uint64_t z = chance_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (unsigned)((z ^ z >> 31) % below);
}

static struct net_address
address_of(const char *text)
{
	struct net_address address;

	memset(&address, 0, sizeof address);
	if (inet_pton(AF_INET, text, &address.in.sin_addr) == 1) {
		address.in.sin_family = AF_INET;
		address.in.sin_port = htons(1234);
		return address;
	}
	ck_assert_int_eq(inet_pton(AF_INET6, text, &address.in6.sin6_addr), 1);
	address.in6.sin6_family = AF_INET6;
	address.in6.sin6_port = htons(1234);
	return address;
}

static struct acl *
acl_of(const char *const *blocks)
{
	struct acl *acl = acl_new();
	const char *why;

	ck_assert_ptr_nonnull(acl);
	for (; *blocks != NULL; blocks++)
		ck_assert_msg(acl_add(acl, *blocks, &why) == 0, "%s: %s", *blocks, why);
	ck_assert_int_eq(acl_finish(acl), 0);
	return acl;
}

static void
expect(const struct acl *acl, const char *text, bool expected)
{
	struct net_address peer = address_of(text);

	ck_assert_msg(acl_match(acl, &peer) == expected, "%s: expected %s", text,
		      expected ? "a match" : "none");
}

START_TEST(ends_of_blocks)
{
	static const char *const list[] = { "192.0.2.0/24",         "198.51.100.7",
					    "2001:db8::/32",        "2001:db9::1",
					    "::ffff:10.1.0.0/112",  "::ffff:10.2.0.1",
					    "203.0.113.128/25",     "fe80::/10",
					    "2001:dba::80/121",     "2001:dbb:0:0:8000::/65",
					    "255.255.255.255",      "0.0.0.0/32",
					    "ffff::ffff/128",       NULL };
	struct acl *acl = acl_of(list);

	expect(acl, "192.0.2.0", true);
	expect(acl, "192.0.2.255", true);
	expect(acl, "192.0.1.255", false);
	expect(acl, "192.0.3.0", false);
	expect(acl, "198.51.100.7", true);
	expect(acl, "198.51.100.6", false);
	expect(acl, "198.51.100.8", false);
	expect(acl, "2001:db8::", true);
	expect(acl, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true);
	expect(acl, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false);
	expect(acl, "2001:db9::", false);
	expect(acl, "2001:db9::1", true);
	expect(acl, "2001:db9::2", false);
	expect(acl, "10.1.0.0", true);
	expect(acl, "10.1.255.255", true);
	expect(acl, "10.2.0.0", false);
	expect(acl, "10.2.0.1", true);
	expect(acl, "203.0.113.127", false);
	expect(acl, "203.0.113.128", true);
	expect(acl, "febf::1", true);
	expect(acl, "fec0::1", false);
	expect(acl, "2001:dba::7f", false);
	expect(acl, "2001:dba::ff", true);
	expect(acl, "2001:dba::100", false);
	expect(acl, "2001:dbb::7fff:ffff:ffff:ffff", false);
	expect(acl, "2001:dbb::8000:0:0:0", true);
	expect(acl, "2001:dbb:0:1::", false);
	expect(acl, "255.255.255.255", true);
	expect(acl, "255.255.255.254", false);
	expect(acl, "0.0.0.0", true);
	expect(acl, "0.0.0.1", false);
	expect(acl, "ffff::ffff", true);
	expect(acl, "::", false);
	acl_free(acl);
}
END_TEST

START_TEST(mapped_peers_are_ipv4)
{
	static const char *const ipv4[] = { "0.0.0.0/0", NULL };
	static const char *const ipv6[] = { "::/0", NULL };
	static const char *const mapped[] = { "::ffff:0:0/96", NULL };
	struct acl *acl = acl_of(ipv4);

	expect(acl, "0.0.0.0", true);
	expect(acl, "255.255.255.255", true);
	expect(acl, "::ffff:192.0.2.1", true);
	expect(acl, "::192.0.2.1", false);
	expect(acl, "::1", false);
	acl_free(acl);

	acl = acl_of(ipv6);
	expect(acl, "::", true);
	expect(acl, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true);
	expect(acl, "::ffff:192.0.2.1", false);
	expect(acl, "192.0.2.1", false);
	acl_free(acl);

	acl = acl_of(mapped);
	expect(acl, "192.0.2.1", true);
	expect(acl, "::ffff:192.0.2.1", true);
	expect(acl, "::fffe:ffff:ffff", false);
	expect(acl, "::1:0:0:0", false);
	acl_free(acl);
}
END_TEST

START_TEST(nobody_is_in_an_empty_list)
{
	static const char *const none[] = { NULL };
	struct acl *acl = acl_of(none);

	expect(acl, "0.0.0.0", false);
	expect(acl, "192.0.2.1", false);
	expect(acl, "::", false);
	acl_free(acl);
	acl_free(NULL);
}
END_TEST

START_TEST(local_peers_are_in_no_list)
{
	static const char *const all[] = { "0.0.0.0/0", "::/0", NULL };
	struct acl *acl = acl_of(all);
	struct net_address peer;

	memset(&peer, 0, sizeof peer);
	peer.family = AF_UNIX;
	ck_assert(!acl_match(acl, &peer));
	peer.unix_peer.pid = 4711;
	ck_assert(!acl_match(acl, &peer));
	peer.family = AF_UNSPEC;
	ck_assert(!acl_match(acl, &peer));
	acl_free(acl);
}
END_TEST

static const struct {
	const char *text, *expected;
} wrong[] = {
	{ "192.0.2.1/24", "192.0.2.0/24: no bits may be set beyond the prefix" },
	{ "1.2.3.4/0", "0.0.0.0/0: no bits may be set beyond the prefix" },
	{ "192.0.2.255/31", "192.0.2.254/31: no bits may be set beyond the prefix" },
	{ "2001:db8::1/32", "2001:db8::/32: no bits may be set beyond the prefix" },
	{ "2001:db8::ffff/127", "2001:db8::fffe/127: no bits may be set beyond the prefix" },
	{ "2001:db8:0:1:8000::/64", "2001:db8:0:1::/64: no bits may be set beyond the prefix" },
	{ "::1/0", "::/0: no bits may be set beyond the prefix" },
	{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/127",
	  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127: no bits may be set beyond the prefix" },
	{ "::ffff:192.0.2.1/120", "192.0.2.0/24: no bits may be set beyond the prefix" },
	{ "::ffff:192.0.2.0/24", "192.0.2.0/24: IPv4 is written without ::ffff:" },
	{ "::ffff:192.0.2.1/24", "192.0.2.0/24: IPv4 is written without ::ffff:" },
	{ "::ffff:192.0.2.0/95", "a prefix from /96 to /128 after a mapped address" },
	{ "192.0.2.0/33", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/024", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/-1", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/+8", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/24 ", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/24/8", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/4294967320", "a prefix from /0 to /32 after an IPv4 address" },
	{ "192.0.2.0/255.255.255.0", "a prefix from /0 to /32 after an IPv4 address" },
	{ "2001:db8::/129", "a prefix from /0 to /128 after an IPv6 address" },
	{ "2001:db8::/", "a prefix from /0 to /128 after an IPv6 address" },
	{ "::ffff:192.0.2.0/129", "a prefix from /0 to /128 after an IPv6 address" },
};

START_TEST(errors_say_what_was_meant)
{
	struct acl *acl = acl_new();
	const char *why = NULL;

	ck_assert_ptr_nonnull(acl);
	ck_assert_int_eq(acl_add(acl, wrong[_i].text, &why), -1);
	ck_assert_str_eq(why, wrong[_i].expected);
	ck_assert_int_eq(acl_finish(acl), 0);
	expect(acl, "192.0.2.0", false);
	expect(acl, "2001:db8::", false);
	acl_free(acl);
}
END_TEST

START_TEST(names_are_no_blocks)
{
	static const char *const texts[] = {
		"",          "localhost",      "example.org", "example.org/24", "*",
		"/24",       "192.0.2",        "192.0.2.256", "192.0.2.01",     "192.0.2.1.",
		" 192.0.2.1", "192.0.2.1 ",    "192.0.2.0-9", "0x7f.0.0.1",     "2130706433",
		"2001:db8",  "[2001:db8::1]",  "fe80::1%lo",  "fe80::%1/64",    ":::",
		"1:2:3:4:5:6:7:8:9",           "2001:db8::1::2",                "unix:/run/socket",
		"2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001/64",
	};
	struct acl *acl = acl_new();
	const char *why;

	ck_assert_ptr_nonnull(acl);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		why = NULL;
		ck_assert_msg(acl_add(acl, texts[i], &why) == -1, "\"%s\" is a block", texts[i]);
		ck_assert_ptr_nonnull(why);
		ck_assert_ptr_nonnull(strstr(why, "not a host's name"));
	}
	acl_free(acl);
}
END_TEST

/* Few values, so that blocks meet: overlap, contain and follow one another. */
static struct plain
random_block(void)
{
	static const unsigned char values[] = { 0, 0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0xff };
	struct plain block = { .family = chance(2) == 0 ? AF_INET : AF_INET6 };

	block.bits = block.family == AF_INET ? 32 : 128;
	block.prefix = chance(4) == 0 ? chance(block.bits + 1) : block.bits - chance(12);
	for (unsigned i = 0; i < block.bits / 8; i++) {
		if (i == 0 || i + 2 >= block.bits / 8)
			block.bytes[i] = values[chance(sizeof values)];
	}
	for (unsigned bit = block.prefix; bit < block.bits; bit++)
		block.bytes[bit / 8] &= (unsigned char)~(0x80U >> bit % 8);
	return block;
}

static void
add_plain(struct acl *acl, const struct plain *block)
{
	char address[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 16];
	bool mapped = block->family == AF_INET && chance(4) == 0;
	bool bare = block->prefix == block->bits && chance(2) == 0;
	const char *why = NULL;

	ck_assert_ptr_nonnull(inet_ntop(block->family, block->bytes, address, sizeof address));
	snprintf(text, sizeof text, bare ? "%s%s" : "%s%s/%u", mapped ? "::ffff:" : "", address,
		 block->prefix + (mapped ? 96 : 0));
	ck_assert_msg(acl_add(acl, text, &why) == 0, "%s: %s", text, why);
}

static bool
is_mapped(const struct plain *address)
{
	static const unsigned char prefix[12] = { [10] = 0xff, [11] = 0xff };

	return address->family == AF_INET6 && memcmp(address->bytes, prefix, 12) == 0;
}

static bool
is_in(const struct plain *block, const struct plain *address)
{
	const unsigned char *bytes = address->bytes + (is_mapped(address) ? 12 : 0);
	int family = is_mapped(address) ? AF_INET : address->family;

	if (block->family != family)
		return false;
	for (unsigned bit = 0; bit < block->prefix; bit++) {
		if (((bytes[bit / 8] ^ block->bytes[bit / 8]) & 0x80 >> bit % 8) != 0)
			return false;
	}
	return true;
}

static void
compare(const struct acl *acl, const struct plain *blocks, size_t n, const struct plain *address)
{
	struct net_address peer;
	char text[INET6_ADDRSTRLEN] = "";
	bool expected = false;

	for (size_t i = 0; i < n && !expected; i++)
		expected = is_in(&blocks[i], address);
	memset(&peer, 0, sizeof peer);
	peer.family = (sa_family_t)address->family;
	if (address->family == AF_INET)
		memcpy(&peer.in.sin_addr, address->bytes, 4);
	else
		memcpy(&peer.in6.sin6_addr, address->bytes, 16);
	inet_ntop(address->family, address->bytes, text, sizeof text);
	ck_assert_msg(acl_match(acl, &peer) == expected, "seed %#llx, %s: expected %s",
		      (unsigned long long)chance_seed, text, expected ? "a match" : "none");
}

/* The address before or after; goes round at the ends. */
static void
step(struct plain *address, bool up)
{
	for (unsigned i = address->bits / 8; i-- > 0;) {
		address->bytes[i] = (unsigned char)(address->bytes[i] + (up ? 1 : -1));
		if (address->bytes[i] != (up ? 0 : 0xff))
			break;
	}
}

/* Looks up both ends of a block and their neighbours. */
static void
compare_edges(const struct acl *acl, const struct plain *blocks, size_t n,
	      const struct plain *block)
{
	struct plain address = *block, mapped = { .family = AF_INET6, .bits = 128 };

	compare(acl, blocks, n, &address);
	step(&address, false);
	compare(acl, blocks, n, &address);
	address = *block;
	for (unsigned bit = block->prefix; bit < block->bits; bit++)
		address.bytes[bit / 8] |= (unsigned char)(0x80U >> bit % 8);
	compare(acl, blocks, n, &address);
	if (address.family == AF_INET) {
		mapped.bytes[10] = mapped.bytes[11] = 0xff;
		memcpy(mapped.bytes + 12, address.bytes, 4);
		compare(acl, blocks, n, &mapped);
	}
	step(&address, true);
	compare(acl, blocks, n, &address);
}

START_TEST(property_like_comparing_with_each)
{
	struct plain blocks_made[BLOCKS_MOST], address;
	struct acl *acl;
	size_t n;

	chance_start();
	for (int round = 0; round < ROUNDS; round++) {
		acl = acl_new();
		ck_assert_ptr_nonnull(acl);
		n = chance(BLOCKS_MOST + 1);
		for (size_t i = 0; i < n; i++) {
			blocks_made[i] = random_block();
			add_plain(acl, &blocks_made[i]);
		}
		ck_assert_int_eq(acl_finish(acl), 0);
		for (size_t i = 0; i < n; i++)
			compare_edges(acl, blocks_made, n, &blocks_made[i]);
		for (int i = 0; i < 50; i++) {
			address = random_block();
			compare(acl, blocks_made, n, &address);
		}
		acl_free(acl);
	}
}
END_TEST

/* Every other address of a range, so nothing can be merged.  So many look-ups are done
 * within the test's time only if each does not look at all blocks. */
START_TEST(many_blocks)
{
	struct acl *acl = acl_new();
	struct net_address peer = address_of("10.0.0.0");
	const char *why;
	char text[32];
	unsigned wrong_ones = 0;

	ck_assert_ptr_nonnull(acl);
	for (unsigned i = 0; i < MANY; i++) {
		unsigned host = i * 7919 % MANY * 2; /* in no order */

		snprintf(text, sizeof text, "10.%u.%u.%u", host >> 16, host >> 8 & 255,
			 host & 255);
		ck_assert_int_eq(acl_add(acl, text, &why), 0);
	}
	ck_assert_int_eq(acl_finish(acl), 0);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned host = 0; host < 2 * MANY; host++) {
			peer.in.sin_addr.s_addr = htonl(0x0a000000U + host);
			wrong_ones += acl_match(acl, &peer) != (host % 2 == 0);
		}
	}
	ck_assert_uint_eq(wrong_ones, 0);
	acl_free(acl);
}
END_TEST

static Suite *
acl_suite(void)
{
	Suite *suite = suite_create("acl");
	TCase *tcase = tcase_create("acl");

	tcase_add_test(tcase, ends_of_blocks);
	tcase_add_test(tcase, mapped_peers_are_ipv4);
	tcase_add_test(tcase, nobody_is_in_an_empty_list);
	tcase_add_test(tcase, local_peers_are_in_no_list);
	tcase_add_loop_test(tcase, errors_say_what_was_meant, 0, sizeof wrong / sizeof *wrong);
	tcase_add_test(tcase, names_are_no_blocks);
	tcase_add_test(tcase, property_like_comparing_with_each);
	tcase_add_test(tcase, many_blocks);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	return unit_run(acl_suite());
}
