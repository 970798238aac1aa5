/*
 * decimal: the length in front of a netstring or an octet-counted frame.
 *
 * Digits only, no leading zero but in "0" itself.  Too large is said at the
 * digit that makes it so, whatever might follow.  state->matched counts digits.
 */
#include "framing/framing_kinds.h"

bool
decimal_feed(const struct decimal *decimal, const struct framing_config *config,
	     struct framing_state *state, const unsigned char *input, size_t len,
	     size_t *used, struct framing_step *step)
{
	const uint64_t limit = framing_limit(config);

	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)input[i] - '0';

		if (digit > 9) {
			if (state->matched > 0 && input[i] == decimal->end) {
				*used = i + 1;
				return true;
			}
			framing_step_set(step, FRAMING_MORE, i + 1, input, 0);
			framing_fail(state, step, FRAMING_MALFORMED,
				     state->matched == 0 ? decimal->no_digit : decimal->no_end);
			return false;
		}
		if (state->matched > 0 && state->remaining == 0) {
			framing_step_set(step, FRAMING_MORE, i + 1, input, 0);
			framing_fail(state, step, FRAMING_MALFORMED, decimal->zero);
			return false;
		}
		if (state->remaining > limit / 10 || state->remaining * 10 + digit > limit) {
			framing_step_set(step, FRAMING_MORE, i + 1, input, 0);
			framing_fail(state, step, FRAMING_TOO_LARGE, framing_limit_why(config));
			return false;
		}
		state->remaining = state->remaining * 10 + digit;
		state->matched++;
		state->open = true;
	}
	framing_step_set(step, FRAMING_MORE, len, input, 0);
	return false;
}
