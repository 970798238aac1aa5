/*
 * mllp: HL7's minimal lower layer protocol, VT ... FS CR.
 *
 * Only FS and CR together end a block; either alone is payload, and so is VT.
 * An FS at the end of the input is held back until the next byte says what it
 * was.  Between blocks CR and LF are ignored, for some senders add them;
 * anything else there is malformed.
 *
 * state->phase is 1 inside a block, state->matched says that an FS is held.
 */
#include <string.h>

#include "framing/framing_kinds.h"

#define MLLP_VT 0x0b

/* Finds the start of a block.  Returns the index after VT, or 0 when there is none
 * and the step says why. */
static size_t
mllp_start(struct framing_state *state, const unsigned char *input, size_t len,
	   struct framing_step *step)
{
	for (size_t i = 0; i < len; i++) {
		if (input[i] == MLLP_VT) {
			state->phase = 1;
			state->open = true;
			return i + 1;
		}
		if (input[i] != '\r' && input[i] != '\n') {
			framing_step_set(step, FRAMING_MORE, i + 1, input, 0);
			framing_fail(state, step, FRAMING_MALFORMED,
				     "expected VT at the start of an MLLP block");
			return 0;
		}
	}
	framing_step_set(step, FRAMING_MORE, len, input, 0);
	return 0;
}

/* Finds the FS that ends the block, or that may do so with the next input; end if
 * there is neither. */
static const unsigned char *
mllp_search(const unsigned char *at, const unsigned char *end)
{
	const unsigned char *fs;

	while ((fs = memchr(at, MLLP_FS[0], (size_t)(end - at))) != NULL) {
		if (fs + 1 == end || fs[1] == '\r')
			return fs;
		at = fs + 1;
	}
	return end;
}

void
mllp_feed(struct framing_state *state, const unsigned char *input, size_t len,
	  struct framing_step *step)
{
	const unsigned char *const end = input + len;
	const unsigned char *start = input, *fs;
	bool release = false;

	if (state->phase == 0) {
		size_t skipped = mllp_start(state, input, len, step);

		if (skipped == 0)
			return;
		start += skipped;
	} else if (state->matched > 0) {
		if (input[0] == '\r') {
			framing_step_set(step, FRAMING_MESSAGE, 1, input, 0);
			framing_reset(state);
			return;
		}
		release = true;
	}

	fs = mllp_search(start, end);
	if (end - fs >= 2) {
		framing_step_set(step, FRAMING_MESSAGE, (size_t)(fs + 2 - input), start,
				 (size_t)(fs - start));
		framing_reset(state);
	} else {
		framing_step_set(step, FRAMING_MORE, len, start, (size_t)(fs - start));
		state->matched = fs < end;
	}
	if (release) {
		step->head = (const unsigned char *)MLLP_FS;
		step->head_len = 1;
	}
}
