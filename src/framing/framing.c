/*
 * framing: names, preparation, and the way to the framing that a configuration
 * asks for.
 *
 * A switch, not a table of functions: the compiler sees through it.  Nothing
 * fails here but framing_prepare, and that only without memory.
 */
#include "framing/framing.h"

#include <stdlib.h>
#include <string.h>

#include "framing/framing_kinds.h"

static const char *const framing_names[] = {
	[FRAMING_EOF] = "eof",
	[FRAMING_LINE] = "line",
	[FRAMING_DELIMITER] = "delimiter",
	[FRAMING_LENGTH] = "length",
	[FRAMING_NETSTRING] = "netstring",
	[FRAMING_OCTET_COUNTED] = "octet-counted",
	[FRAMING_MLLP] = "mllp",
};

#define FRAMING_COUNT (sizeof framing_names / sizeof framing_names[0])

/* Bytes held back at the close are of the frame after all, cut short or not. */
static void
framing_finish_held(struct framing_step *step, const unsigned char *held, size_t held_len)
{
	if (held_len > 0) {
		step->head = held;
		step->head_len = held_len;
	}
}

static void
framing_finish_cut(struct framing_step *step, const char *why)
{
	step->verdict = FRAMING_INCOMPLETE;
	step->why = why;
}

int
framing_prepare(struct framing_config *config)
{
	return config->kind == FRAMING_DELIMITER ? delimiter_prepare(config) : 0;
}

void
framing_clear(struct framing_config *config)
{
	free(config->delimiter);
	config->delimiter = NULL;
	config->delimiter_len = 0;
	free(config->fallback);
	config->fallback = NULL;
}

void
framing_feed(const struct framing_config *config, struct framing_state *state,
	     const unsigned char *input, size_t len, struct framing_step *step)
{
	switch (config->kind) {
	case FRAMING_EOF:
		eof_feed(state, input, len, step);
		break;
	case FRAMING_LINE:
		line_feed(state, input, len, step);
		break;
	case FRAMING_DELIMITER:
		delimiter_feed(config, state, input, len, step);
		break;
	case FRAMING_LENGTH:
		length_feed(config, state, input, len, step);
		break;
	case FRAMING_NETSTRING:
		netstring_feed(config, state, input, len, step);
		break;
	case FRAMING_OCTET_COUNTED:
		octet_feed(config, state, input, len, step);
		break;
	case FRAMING_MLLP:
		mllp_feed(state, input, len, step);
		break;
	}
}

void
framing_finish(const struct framing_config *config, struct framing_state *state,
	       struct framing_step *step)
{
	framing_step_set(step, FRAMING_NOTHING, 0, NULL, 0);
	if (!state->open)
		return;

	switch (config->kind) {
	case FRAMING_EOF:
		step->verdict = FRAMING_MESSAGE;
		break;
	case FRAMING_LINE:
		/* No LF will come any more, so a CR is not part of a line's end. */
		framing_finish_held(step, (const unsigned char *)LINE_CR, state->matched);
		step->verdict = FRAMING_MESSAGE;
		break;
	case FRAMING_DELIMITER:
		if (!config->keep_delimiter)
			framing_finish_held(step, config->delimiter, state->matched);
		framing_finish_cut(step, "expected the delimiter before the close");
		break;
	case FRAMING_LENGTH:
		framing_finish_cut(step, "expected the rest of a frame before the close");
		break;
	case FRAMING_NETSTRING:
		framing_finish_cut(step, "expected the rest of a netstring before the close");
		break;
	case FRAMING_OCTET_COUNTED:
		framing_finish_cut(step, "expected the rest of the octets before the close");
		break;
	case FRAMING_MLLP:
		framing_finish_held(step, (const unsigned char *)MLLP_FS, state->matched);
		framing_finish_cut(step, "expected FS CR, an MLLP block's end, before the close");
		break;
	}
	framing_reset(state);
}

const char *
framing_name(enum framing_kind kind)
{
	return framing_names[kind];
}

int
framing_from_name(const char *name)
{
	for (size_t i = 0; i < FRAMING_COUNT; i++) {
		if (strcmp(framing_names[i], name) == 0)
			return (int)i;
	}
	return -1;
}
