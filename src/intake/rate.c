/*
 * rate: see rate.h.
 *
 * All is counted in bytes since the bucket's start: earned grows with the time, spent
 * follows it, and at most `burst` lies between them.  So nothing is rounded away.
 * 64 bits are enough for eight years at the highest limit that can be set.
 *
 * Nothing here fails but for memory, which refuses the connection.
 */
#include "intake/rate.h"

#include <stdbool.h>

#include "base/memory.h"

#define SECOND UINT64_C(1000000)
#define BURSTS 4  /* full buckets a second */
#define SHARES 64 /* reserved shares a second, if a read takes so much */

static uint64_t
smaller(uint64_t a, uint64_t b)
{
	return b < a ? b : a;
}

static uint64_t
earned(const struct rate *r, uint64_t now)
{
	uint64_t since = now > r->start ? now - r->start : 0;

	return r->burst + since / SECOND * r->rate + since % SECOND * r->rate / SECOND;
}

/* When so much will have been earned. */
static uint64_t
earned_at(const struct rate *r, uint64_t bytes)
{
	uint64_t more = bytes - r->burst, part = more % r->rate * SECOND;

	return r->start + more / r->rate * SECOND + part / r->rate + (part % r->rate != 0);
}

/* What there is for now, or a share of what will come.  Never less than a share where
 * more is wanted: a read costs as much for a few bytes. */
static struct rate_share
take(struct rate *r, size_t want, uint64_t now)
{
	uint64_t have = earned(r, now), before, from, to;
	uint64_t least = smaller(want, r->rate < SHARES ? 1 : r->rate / SHARES);

	before = atomic_load_explicit(&r->spent, memory_order_relaxed);
	do {
		from = before + r->burst < have ? have - r->burst : before;
		to = from + (have >= from + least ? smaller(want, have - from) : least);
	} while (!atomic_compare_exchange_weak_explicit(&r->spent, &before, to,
							memory_order_relaxed,
							memory_order_relaxed));
	return (struct rate_share){.due = to <= have ? now : earned_at(r, to),
				   .bytes = (size_t)(to - from)};
}

static void
give_back(struct rate *r, size_t bytes)
{
	if (bytes > 0)
		atomic_fetch_sub_explicit(&r->spent, bytes, memory_order_relaxed);
}

/* Whether the share that is held, or taken now, is due. */
static bool
is_due(struct pace *pace, struct rate *r, struct rate_share *share, size_t *want, uint64_t now)
{
	if (r->rate == 0)
		return true;
	if (share->bytes == 0)
		*share = take(r, *want, now);
	pace->due = share->due;
	if (share->bytes < *want)
		*want = share->bytes;
	return share->due <= now;
}

static void
spend(struct rate *r, struct rate_share *share, size_t bytes)
{
	give_back(r, share->bytes > bytes ? share->bytes - bytes : 0);
	share->bytes = 0;
}

void
rate_init(struct rate *r, uint64_t bytes_a_second, uint64_t now)
{
	r->rate = bytes_a_second;
	r->burst = bytes_a_second < BURSTS ? 1 : bytes_a_second / BURSTS;
	r->start = now;
	r->references = 0;
	atomic_init(&r->spent, 0);
}

struct pace *
pace_new(struct rate *common, uint64_t bytes_a_second, uint64_t now)
{
	struct pace *pace = memory_alloc(sizeof(*pace));

	if (pace == NULL)
		return NULL;
	*pace = (struct pace){.common = common};
	rate_init(&pace->own, bytes_a_second, now);
	return pace;
}

void
pace_free(struct pace *pace)
{
	if (pace == NULL)
		return;
	pace_spend(pace, 0);
	memory_free(pace);
}

/* Its own bucket first: what others could have is not held while it has to wait. */
size_t
pace_ask(struct pace *pace, size_t want, uint64_t now)
{
	if (is_due(pace, &pace->own, &pace->own_share, &want, now) &&
	    is_due(pace, pace->common, &pace->common_share, &want, now))
		return want;
	return 0;
}

void
pace_spend(struct pace *pace, size_t bytes)
{
	spend(&pace->own, &pace->own_share, bytes);
	spend(pace->common, &pace->common_share, bytes);
}
