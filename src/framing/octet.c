/*
 * octet: octet counting, "5 hello", as in RFC 6587 section 3.4.1.
 *
 * Leading zeros are malformed as the RFC has it, but "0 " is taken as a frame of
 * no bytes: in cistern zero-length frames are messages.  Nothing is skipped
 * between frames.  state->phase is 1 from the space on.
 */
#include "framing/framing_kinds.h"

static const struct decimal octet_length = {
	.end = ' ',
	.no_digit = "expected a digit at the start of an octet-counted frame",
	.no_end = "expected a digit or a space in an octet-counted frame's length",
	.zero = "expected a space after the 0 of an octet-counted frame's length",
};

void
octet_feed(const struct framing_config *config, struct framing_state *state,
	   const unsigned char *input, size_t len, struct framing_step *step)
{
	size_t at = 0, n;

	if (state->phase == 0) {
		if (!decimal_feed(&octet_length, config, state, input, len, &at, step))
			return;
		state->phase = 1;
	}

	n = framing_take(state, len - at);
	if (state->remaining > 0) {
		framing_step_set(step, FRAMING_MORE, len, input + at, n);
	} else {
		framing_step_set(step, FRAMING_MESSAGE, at + n, input + at, n);
		framing_reset(state);
	}
}
