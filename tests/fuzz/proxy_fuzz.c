/*
 * proxy_fuzz: what is said of a stream's first bytes stays true of all of it, and what
 * a header names can be said in a header again.
 *
 * An input is the stream.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "intake/proxy.h"

#define FUZZ_PREFIXES 160 /* looked at one by one; of longer ones some */

const char *const fuzz_corpus[] = { "proxy", NULL };

/* Parses a copy of exactly its size, so that a byte too many is noticed. */
static enum proxy_verdict
fuzz_parse(const uint8_t *data, size_t size, struct proxy_result *result)
{
	unsigned char *copy = malloc(size > 0 ? size : 1);
	enum proxy_verdict verdict;

	if (copy == NULL)
		abort();
	if (size > 0)
		memcpy(copy, data, size);
	memset(result, 0xaa, sizeof *result);
	verdict = proxy_parse(copy, size, result);
	free(copy);
	return verdict;
}

static bool
fuzz_is_nobody(const struct net_address *address)
{
	static const struct net_address nobody;

	return memcmp(address, &nobody, sizeof nobody) == 0;
}

static void
fuzz_check(enum proxy_verdict verdict, const struct proxy_result *result, const uint8_t *data,
	   size_t size)
{
	fuzz_require((verdict == PROXY_MALFORMED) == (result->why != NULL));
	fuzz_require(fuzz_is_nobody(&result->source) ==
		     (verdict != PROXY_DONE || result->local));
	fuzz_require(fuzz_is_nobody(&result->destination) ==
		     (verdict != PROXY_DONE || result->local));
	fuzz_require(verdict != PROXY_MORE || size < PROXY_MOST);
	if (verdict != PROXY_DONE) {
		fuzz_require(result->used == 0 && !result->local);
	} else if (data[0] == 'P') {
		fuzz_require(result->used <= size && result->used <= 107);
		fuzz_require(memcmp(data + result->used - 2, "\r\n", 2) == 0);
		fuzz_require(memchr(data, '\n', result->used - 1) == NULL);
	} else {
		fuzz_require(result->used <= size && result->used <= PROXY_MOST);
		fuzz_require(result->used == 16U + data[14] * 256U + data[15]);
	}
}

/* Writes an address as version 2 does for IPv6. */
static void
fuzz_put(const struct net_address *address, unsigned char *ip, unsigned char *port)
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (address->family == AF_INET) {
		memcpy(ip, mapped, sizeof mapped);
		memcpy(ip + sizeof mapped, &address->in.sin_addr, 4);
		memcpy(port, &address->in.sin_port, 2);
	} else {
		memcpy(ip, &address->in6.sin6_addr, 16);
		memcpy(port, &address->in6.sin6_port, 2);
	}
}

/* Says what was understood in other words, which have to be understood the same. */
static void
fuzz_say_again(const struct proxy_result *result)
{
	unsigned char header[16 + 36] = "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24";
	struct proxy_result again;

	fuzz_put(&result->source, header + 16, header + 48);
	fuzz_put(&result->destination, header + 32, header + 50);
	fuzz_require(fuzz_parse(header, sizeof header, &again) == PROXY_DONE);
	fuzz_require(again.used == sizeof header && !again.local);
	fuzz_require(memcmp(&again.source, &result->source, sizeof again.source) == 0);
	fuzz_require(memcmp(&again.destination, &result->destination,
			    sizeof again.destination) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_result whole, part;
	enum proxy_verdict last = fuzz_parse(data, size, &whole), verdict;

	fuzz_check(last, &whole, data, size);
	for (size_t n = 0; n < size; n += n < FUZZ_PREFIXES ? 1 : 97) {
		verdict = fuzz_parse(data, n, &part);
		fuzz_check(verdict, &part, data, n);
		fuzz_require(verdict == PROXY_MORE ||
			     (verdict == last && memcmp(&part, &whole, sizeof part) == 0));
		fuzz_require(verdict != PROXY_MORE || last != PROXY_DONE || n < whole.used);
	}
	if (last == PROXY_DONE && !whole.local && whole.source.family != AF_UNIX)
		fuzz_say_again(&whole);
	return 0;
}
