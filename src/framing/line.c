/*
 * line: LF ends a message, and one CR directly before it is dropped.
 *
 * Empty lines, with or without that CR, are skipped.  A CR at the end of the
 * input is held back until the next byte says what it was; at the close it was
 * payload, so a lone CR before a close is a message of one byte.
 *
 * state->matched says that a CR is held, state->phase that payload of the line
 * has been handed out before.
 */
#include <string.h>

#include "framing/framing_kinds.h"

/* A CR held by an earlier feed turned out to be payload. */
static void
line_release(struct framing_step *step)
{
	step->head = (const unsigned char *)LINE_CR;
	step->head_len = 1;
}

void
line_feed(struct framing_state *state, const unsigned char *input, size_t len,
	  struct framing_step *step)
{
	const unsigned char *const end = input + len;
	const unsigned char *start = input;

	while (start < end) {
		const unsigned char *lf = memchr(start, '\n', (size_t)(end - start));
		const unsigned char *stop = lf == NULL ? end : lf;
		/* Followed by anything but LF, the CR that is held was payload. */
		bool release = state->matched > 0 && stop > start;
		bool cr = stop > start && stop[-1] == '\r';
		size_t n = (size_t)(stop - start) - cr;

		if (lf == NULL) {
			framing_step_set(step, FRAMING_MORE, len, start, n);
			if (release)
				line_release(step);
			state->matched = cr;
			state->phase = state->phase || release || n > 0;
			state->open = true;
			return;
		}
		if (n > 0 || release || state->phase) {
			framing_step_set(step, FRAMING_MESSAGE, (size_t)(lf + 1 - input), start, n);
			if (release)
				line_release(step);
			framing_reset(state);
			return;
		}
		framing_reset(state);
		start = lf + 1;
	}
	framing_step_set(step, FRAMING_MORE, len, end, 0);
}
