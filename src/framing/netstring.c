/*
 * netstring: "5:hello,", as in https://cr.yp.to/proto/netstrings.txt, to the
 * letter: no leading zeros, and the comma is part of the frame.
 *
 * state->phase is 1 from the colon on; with nothing remaining the comma is due.
 */
#include "framing/framing_kinds.h"

static const struct decimal netstring_length = {
	.end = ':',
	.no_digit = "expected a digit at the start of a netstring",
	.no_end = "expected a digit or ':' in a netstring's length",
	.zero = "expected ':' after the 0 of a netstring's length",
};

void
netstring_feed(const struct framing_config *config, struct framing_state *state,
	       const unsigned char *input, size_t len, struct framing_step *step)
{
	size_t at = 0, n;

	if (state->phase == 0) {
		if (!decimal_feed(&netstring_length, config, state, input, len, &at, step))
			return;
		state->phase = 1;
	}

	n = framing_take(state, len - at);
	if (at + n == len) {
		framing_step_set(step, FRAMING_MORE, len, input + at, n);
	} else {
		framing_step_set(step, FRAMING_MESSAGE, at + n + 1, input + at, n);
		if (input[at + n] == ',')
			framing_reset(state);
		else
			framing_fail(state, step, FRAMING_MALFORMED,
				     "expected ',' at the end of a netstring");
	}
}
