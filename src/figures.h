/*
 * figures: what all listeners have done since the start, in one sum.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdint.h>

struct reign;

/* received = accepted + refused + failed + in_flight, as far as workers that go on
 * counting meanwhile let it be so. */
struct figures {
	uint64_t connections; /* open now */
	uint64_t received;
	uint64_t accepted;
	uint64_t refused;
	uint64_t failed;
	uint64_t in_flight;
	uint64_t discarded;
};

/* Main thread. */
void figures_sum(struct figures *figures, const struct reign *reign);

#endif
