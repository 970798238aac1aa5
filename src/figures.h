/*
 * figures: what all listeners of all workers have done, in one sum.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdint.h>

struct intake;

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

/* Any thread, while the intakes keep their listeners. */
void figures_sum(struct figures *figures, const struct intake *intakes, unsigned count);

#endif
