/*
 * acl: a growing array of blocks as they come, sorted and merged by acl_finish into
 * two arrays of ranges, one a family, as small as they can be for the cache's sake.
 *
 * Text that is no block adds nothing.  Out of memory is told, and changes nothing.
 */
#include "base/acl.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_FIRST 16
#define WHY_LEN (INET6_ADDRSTRLEN + 80)
#define WHAT "an address or a block (192.0.2.0/24, 2001:db8::/32), not a host's name"

/* 128 bits; an IPv4 address is in the lowest 32, like a mapped one without its ffff. */
struct number {
	uint64_t high, low;
};

struct block {
	bool ipv6;
	struct number first, last;
};

struct range4 {
	uint32_t first, last;
};

struct range6 {
	struct number first, last;
};

struct acl {
	struct block *blocks; /* until it is finished */
	size_t n_blocks, room;
	struct range4 *ipv4; /* sorted, disjoint; then */
	struct range6 *ipv6;
	size_t n_ipv4, n_ipv6;
	char why[WHY_LEN];
};

static int
number_compare(struct number a, struct number b)
{
	if (a.high != b.high)
		return a.high < b.high ? -1 : 1;
	return (a.low > b.low) - (a.low < b.low);
}

static uint64_t
load(const unsigned char bytes[8])
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | bytes[i];
	return value;
}

static void
store(unsigned char bytes[8], uint64_t value)
{
	for (int i = 8; i-- > 0; value >>= 8)
		bytes[i] = (unsigned char)value;
}

static struct number
number_of_ipv6(const struct in6_addr *in6)
{
	return (struct number){ load(in6->s6_addr), load(in6->s6_addr + 8) };
}

/* The bits of a block of 2^(128-prefix) addresses in which these differ. */
static struct number
host_bits(unsigned prefix)
{
	if (prefix >= 64)
		return (struct number){ 0, prefix == 128 ? 0 : UINT64_MAX >> (prefix - 64) };
	return (struct number){ UINT64_MAX >> prefix, UINT64_MAX };
}

/* What follows the slash; -1: no number from 0 to most. */
static int
parse_prefix(const char *text, int most)
{
	int value = 0;

	if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
		return -1;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = 10 * value + (*text - '0');
		if (value > most)
			return -1;
	}
	return value;
}

/* Reads an address.  Returns how many bits a prefix of it may have, 0: none. */
static int
parse_address(const char *text, size_t len, struct block *block)
{
	char copy[INET6_ADDRSTRLEN];
	struct in6_addr in6;
	struct in_addr in;

	if (len >= sizeof copy)
		return 0;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET, copy, &in) == 1) {
		block->ipv6 = false;
		block->first = (struct number){ 0, ntohl(in.s_addr) };
		return 32;
	}
	if (inet_pton(AF_INET6, copy, &in6) != 1)
		return 0;
	block->first = number_of_ipv6(&in6);
	block->ipv6 = !IN6_IS_ADDR_V4MAPPED(&in6);
	if (!block->ipv6)
		block->first = (struct number){ 0, block->first.low & UINT32_MAX };
	return 128;
}

/* The block that has the prefix and holds the address, as text. */
static const char *
meant(struct acl *acl, const struct block *block, unsigned prefix, const char *because)
{
	struct number host = host_bits(prefix + (block->ipv6 ? 0 : 96));
	struct number first = { block->first.high & ~host.high, block->first.low & ~host.low };
	char text[INET6_ADDRSTRLEN];
	struct in6_addr in6;
	struct in_addr in = { htonl((uint32_t)first.low) };

	store(in6.s6_addr, first.high);
	store(in6.s6_addr + 8, first.low);
	/* Cannot fail: the family is known and there is room for the longest. */
	if (inet_ntop(block->ipv6 ? AF_INET6 : AF_INET,
		      block->ipv6 ? (const void *)&in6 : (const void *)&in, text,
		      sizeof text) == NULL)
		text[0] = '\0';
	snprintf(acl->why, sizeof acl->why, "%s/%u%s", text, prefix, because);
	return acl->why;
}

/* Returns NULL, or what was expected. */
static const char *
parse_block(struct acl *acl, const char *text, struct block *block)
{
	static const char beyond[] = ": no bits may be set beyond the prefix";
	size_t len = strcspn(text, "/");
	int most = parse_address(text, len, block), prefix = most;
	bool mapped = most == 128 && !block->ipv6;
	struct number host;

	if (most == 0)
		return WHAT;
	if (text[len] == '/')
		prefix = parse_prefix(text + len + 1, most);
	if (prefix == -1)
		return most == 32 ? "a prefix from /0 to /32 after an IPv4 address" :
				    "a prefix from /0 to /128 after an IPv6 address";
	if (mapped && prefix <= 32)
		return meant(acl, block, (unsigned)prefix, ": IPv4 is written without ::ffff:");
	if (mapped && prefix < 96)
		return "a prefix from /96 to /128 after a mapped address";
	if (mapped)
		prefix -= 96;
	host = host_bits((unsigned)prefix + (block->ipv6 ? 0 : 96));
	if ((block->first.high & host.high) != 0 || (block->first.low & host.low) != 0)
		return meant(acl, block, (unsigned)prefix, beyond);
	block->last.high = block->first.high | host.high;
	block->last.low = block->first.low | host.low;
	return NULL;
}

static int
block_compare(const void *one, const void *other)
{
	const struct block *a = one, *b = other;

	if (a->ipv6 != b->ipv6)
		return a->ipv6 ? 1 : -1;
	return number_compare(a->first, b->first);
}

/* Whether b, which does not begin before a, overlaps or continues it. */
static bool
touches(const struct block *a, const struct block *b)
{
	struct number after = { a->last.high + (a->last.low == UINT64_MAX), a->last.low + 1 };

	if (a->ipv6 != b->ipv6)
		return false;
	return number_compare(b->first, a->last) <= 0 || number_compare(b->first, after) == 0;
}

/* Leaves disjoint ranges, in order, IPv4 first; returns how many. */
static size_t
merge(struct block *blocks, size_t n)
{
	size_t kept = 0;

	if (n == 0)
		return 0;
	qsort(blocks, n, sizeof *blocks, block_compare);
	for (size_t i = 1; i < n; i++) {
		if (!touches(&blocks[kept], &blocks[i]))
			blocks[++kept] = blocks[i];
		else if (number_compare(blocks[kept].last, blocks[i].last) < 0)
			blocks[kept].last = blocks[i].last;
	}
	return kept + 1;
}

/* Both: the first range that does not end before the address is the only one that
 * can hold it. */

static bool
match_ipv4(const struct acl *acl, uint32_t address)
{
	const struct range4 *at = acl->ipv4, *end = at + acl->n_ipv4;

	for (size_t n = acl->n_ipv4; n > 0; n /= 2) {
		if (at[n / 2].last < address) {
			at += n / 2 + 1;
			n--;
		}
	}
	return at < end && at->first <= address;
}

static bool
match_ipv6(const struct acl *acl, struct number address)
{
	const struct range6 *at = acl->ipv6, *end = at + acl->n_ipv6;

	for (size_t n = acl->n_ipv6; n > 0; n /= 2) {
		if (number_compare(at[n / 2].last, address) < 0) {
			at += n / 2 + 1;
			n--;
		}
	}
	return at < end && number_compare(at->first, address) <= 0;
}

struct acl *
acl_new(void)
{
	return calloc(1, sizeof(struct acl));
}

void
acl_free(struct acl *acl)
{
	if (acl == NULL)
		return;
	free(acl->blocks);
	free(acl->ipv4);
	free(acl->ipv6);
	free(acl);
}

int
acl_add(struct acl *acl, const char *text, const char **why)
{
	struct block block = { 0 }, *more;
	size_t room;

	*why = parse_block(acl, text, &block);
	if (*why != NULL)
		return -1;
	if (acl->n_blocks == acl->room) {
		room = acl->room == 0 ? BLOCKS_FIRST : 2 * acl->room;
		more = reallocarray(acl->blocks, room, sizeof *more);
		if (more == NULL)
			return -1;
		acl->blocks = more;
		acl->room = room;
	}
	acl->blocks[acl->n_blocks++] = block;
	return 0;
}

int
acl_finish(struct acl *acl)
{
	size_t n4 = 0, n6;

	acl->n_blocks = merge(acl->blocks, acl->n_blocks);
	while (n4 < acl->n_blocks && !acl->blocks[n4].ipv6)
		n4++;
	n6 = acl->n_blocks - n4;
	/* Room for one more: a pointer to no memory could be NULL. */
	acl->ipv4 = calloc(n4 + 1, sizeof *acl->ipv4);
	acl->ipv6 = calloc(n6 + 1, sizeof *acl->ipv6);
	if (acl->ipv4 == NULL || acl->ipv6 == NULL) {
		free(acl->ipv4);
		free(acl->ipv6);
		acl->ipv4 = NULL;
		acl->ipv6 = NULL;
		return -1;
	}
	for (size_t i = 0; i < n4; i++)
		acl->ipv4[i] = (struct range4){ (uint32_t)acl->blocks[i].first.low,
						(uint32_t)acl->blocks[i].last.low };
	for (size_t i = 0; i < n6; i++)
		acl->ipv6[i] =
		    (struct range6){ acl->blocks[n4 + i].first, acl->blocks[n4 + i].last };
	acl->n_ipv4 = n4;
	acl->n_ipv6 = n6;
	free(acl->blocks);
	acl->blocks = NULL;
	acl->n_blocks = 0;
	acl->room = 0;
	return 0;
}

bool
acl_match(const struct acl *acl, const struct net_address *peer)
{
	struct number address;

	if (peer->family == AF_INET)
		return match_ipv4(acl, ntohl(peer->in.sin_addr.s_addr));
	if (peer->family != AF_INET6)
		return false;
	address = number_of_ipv6(&peer->in6.sin6_addr);
	if (IN6_IS_ADDR_V4MAPPED(&peer->in6.sin6_addr))
		return match_ipv4(acl, (uint32_t)(address.low & UINT32_MAX));
	return match_ipv6(acl, address);
}
