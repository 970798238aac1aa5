/*
 * eof: everything up to the client's orderly close is one message.  No bytes, no
 * message.
 */
#include "framing/framing_kinds.h"

void
eof_feed(struct framing_state *state, const unsigned char *input, size_t len,
	 struct framing_step *step)
{
	state->open = true;
	framing_step_set(step, FRAMING_MORE, len, input, len);
}
