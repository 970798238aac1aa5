/*
 * history: see history.h.
 */
#include "intake/counters.h"
#include "status/history.h"

void
history_add(struct history *h, const struct counters *total, uint64_t memory, uint64_t now)
{
	uint64_t received = counter_get(&total->received), bytes = counter_get(&total->bytes);
	uint64_t lost = counter_get(&total->refused) + counter_get(&total->failed);
	double seconds = (double)(now - h->looked) / 1e6;
	int e;

	for (e = ENDED_RESET; e < ENDED_COUNT; e++)
		lost += counter_get(&total->discarded[e]);
	if (h->looked != 0 && seconds > 0) {
		h->samples[h->next] = (struct history_sample){
			.messages = (double)(received - h->received) / seconds,
			.bytes = (double)(bytes - h->bytes) / seconds,
			.lost = (double)(lost - h->lost) / seconds,
			.connections = counter_get(&total->connections_active),
			.memory = memory};
		h->next = (h->next + 1) % HISTORY_SAMPLES;
		if (h->count < HISTORY_SAMPLES)
			h->count++;
	}
	h->looked = now;
	h->received = received;
	h->bytes = bytes;
	h->lost = lost;
}

const struct history_sample *
history_sample(const struct history *h, size_t i)
{
	return &h->samples[(h->next + HISTORY_SAMPLES - h->count + i) % HISTORY_SAMPLES];
}
