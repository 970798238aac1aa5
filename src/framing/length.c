/*
 * length: a binary length of 1, 2, 4 or 8 bytes, then so many bytes of payload
 * (or, where the length counts itself, so many less).
 *
 * A length that counts itself and is smaller than itself is malformed.
 * state->matched counts the header's bytes; state->phase is 1 in the payload.
 */
#include "framing/framing_kinds.h"

void
length_feed(const struct framing_config *config, struct framing_state *state,
	    const unsigned char *input, size_t len, struct framing_step *step)
{
	size_t at = 0, n;

	if (state->phase == 0) {
		while (at < len && state->matched < config->length_bytes) {
			uint64_t byte = input[at++];

			if (config->length_little)
				state->remaining |= byte << (8 * state->matched);
			else
				state->remaining = state->remaining << 8 | byte;
			state->matched++;
		}
		state->open = true;
		framing_step_set(step, FRAMING_MORE, at, input + at, 0);
		if (state->matched < config->length_bytes)
			return;
		if (config->length_includes_header) {
			if (state->remaining < config->length_bytes) {
				framing_fail(state, step, FRAMING_MALFORMED,
					     "expected a length that counts its own bytes");
				return;
			}
			state->remaining -= config->length_bytes;
		}
		if (state->remaining > framing_limit(config)) {
			framing_fail(state, step, FRAMING_TOO_LARGE, framing_limit_why(config));
			return;
		}
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
