/*
 * limits: a counter, and a table of addresses under a lock that is taken only
 * where max_connections_per_address is set.  An address is an IPv4 address or
 * the /64 network of an IPv6 address, which is what one host is given.  Out of
 * memory: the connection is refused, as if the limit were reached.
 */
#include <stdlib.h>
#include <string.h>

#include "intake/limits.h"

struct limits_entry {
	struct limits_entry *next;
	uint64_t key[2];
	uint64_t count;
};

static bool
key_of(const struct net_address *peer, uint64_t key[2])
{
	key[0] = (uint64_t)peer->family;
	key[1] = 0;
	if (peer->family == AF_INET)
		memcpy(&key[1], &peer->in.sin_addr, sizeof(peer->in.sin_addr));
	else if (peer->family == AF_INET6)
		memcpy(&key[1], &peer->in6.sin6_addr, 8);
	else
		return false;
	return true;
}

static struct limits_entry **
find(struct limits *limits, const uint64_t key[2])
{
	/* Fibonacci hashing; who chooses colliding addresses must own them. */
	uint64_t hash = (key[0] ^ key[1]) * UINT64_C(0x9E3779B97F4A7C15);
	struct limits_entry **at = &limits->table[(hash >> 32) & (limits->n_buckets - 1)];

	while (*at != NULL && ((*at)->key[0] != key[0] || (*at)->key[1] != key[1]))
		at = &(*at)->next;
	return at;
}

/* Twice the buckets; with no memory for them the chains just grow. */
static void
grow(struct limits *limits)
{
	struct limits_entry **old = limits->table, *entry, *next;
	size_t n = limits->n_buckets, i;
	struct limits_entry **table = calloc(2 * n, sizeof(struct limits_entry *));

	if (table == NULL)
		return;
	limits->table = table;
	limits->n_buckets = 2 * n;
	for (i = 0; i < n; i++) {
		for (entry = old[i]; entry != NULL; entry = next) {
			struct limits_entry **at = find(limits, entry->key);

			next = entry->next;
			entry->next = NULL;
			*at = entry;
		}
	}
	free(old);
}

void
limits_init(struct limits *limits)
{
	*limits = (struct limits){0};
	pthread_mutex_init(&limits->lock, NULL); /* cannot fail with no attributes */
}

int
limits_reserve(struct limits *limits)
{
	int result = 0;

	pthread_mutex_lock(&limits->lock);
	if (limits->table == NULL) {
		limits->table = calloc(64, sizeof(struct limits_entry *));
		if (limits->table != NULL)
			limits->n_buckets = 64;
		else
			result = -1;
	}
	pthread_mutex_unlock(&limits->lock);
	return result;
}

void
limits_set(struct limits *limits, uint64_t most, uint64_t most_per_address)
{
	atomic_store(&limits->most, most);
	atomic_store(&limits->most_per_address, most_per_address);
}

void
limits_clear(struct limits *limits)
{
	struct limits_entry *entry;
	size_t i;

	for (i = 0; i < limits->n_buckets; i++) {
		while ((entry = limits->table[i]) != NULL) {
			limits->table[i] = entry->next;
			free(entry);
		}
	}
	free(limits->table);
	pthread_mutex_destroy(&limits->lock);
	limits->table = NULL;
	limits->n_buckets = limits->n_entries = 0;
}

bool
limits_take(struct limits *limits)
{
	uint64_t most = atomic_load_explicit(&limits->most, memory_order_relaxed), now;

	/* Counted in any case: a reload may bring a limit. */
	if (most == 0) {
		limits_take_anyway(limits);
		return true;
	}
	now = atomic_load(&limits->active);
	do
		if (now >= most)
			return false;
	while (!atomic_compare_exchange_weak(&limits->active, &now, now + 1));
	return true;
}

void
limits_take_anyway(struct limits *limits)
{
	atomic_fetch_add(&limits->active, 1);
}

void
limits_give(struct limits *limits)
{
	atomic_fetch_sub(&limits->active, 1);
}

bool
limits_take_address(struct limits *limits, const struct net_address *peer)
{
	struct limits_entry **at, *entry;
	uint64_t key[2], most = atomic_load(&limits->most_per_address);
	bool taken = false;

	if (!key_of(peer, key))
		return true;
	pthread_mutex_lock(&limits->lock);
	at = find(limits, key);
	entry = *at;
	if (entry == NULL && (entry = malloc(sizeof(*entry))) != NULL) {
		*entry = (struct limits_entry){.key = {key[0], key[1]}};
		*at = entry;
		if (++limits->n_entries > 2 * limits->n_buckets)
			grow(limits);
	}
	if (entry != NULL && (most == 0 || entry->count < most)) {
		entry->count++;
		taken = true;
	}
	pthread_mutex_unlock(&limits->lock);
	return taken;
}

void
limits_give_address(struct limits *limits, const struct net_address *peer)
{
	struct limits_entry **at, *entry;
	uint64_t key[2];

	if (!key_of(peer, key))
		return;
	pthread_mutex_lock(&limits->lock);
	at = find(limits, key);
	entry = *at;
	if (entry != NULL && --entry->count == 0) {
		*at = entry->next;
		free(entry);
		limits->n_entries--;
	}
	pthread_mutex_unlock(&limits->lock);
}
