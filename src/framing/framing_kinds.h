/*
 * framing_kinds: what framing.c and the framings share; private to this folder.
 *
 * Each framing is a file with one feed function, called only with len > 0.  It
 * fills every member of the step.  Closing is told to framing.c alone.
 */
#ifndef FRAMING_FRAMING_KINDS_H
#define FRAMING_FRAMING_KINDS_H

#include "framing/framing.h"

#define LINE_CR "\r"
#define MLLP_FS "\x1c"

void eof_feed(struct framing_state *state, const unsigned char *input, size_t len,
	      struct framing_step *step);
void line_feed(struct framing_state *state, const unsigned char *input, size_t len,
	       struct framing_step *step);
void delimiter_feed(const struct framing_config *config, struct framing_state *state,
		    const unsigned char *input, size_t len, struct framing_step *step);
void length_feed(const struct framing_config *config, struct framing_state *state,
		 const unsigned char *input, size_t len, struct framing_step *step);
void netstring_feed(const struct framing_config *config, struct framing_state *state,
		    const unsigned char *input, size_t len, struct framing_step *step);
void octet_feed(const struct framing_config *config, struct framing_state *state,
		const unsigned char *input, size_t len, struct framing_step *step);
void mllp_feed(struct framing_state *state, const unsigned char *input, size_t len,
	       struct framing_step *step);

/* The Knuth-Morris-Pratt table of config's delimiter; 0, or -1 without memory. */
int delimiter_prepare(struct framing_config *config);

/* A length in decimal digits, as netstring and octet-counted begin with. */
struct decimal {
	unsigned char end;   /* the byte after the digits */
	const char *no_digit; /* what to say when there is none, */
	const char *no_end;   /* when they are followed by neither digit nor end, */
	const char *zero;     /* and when a 0 leads more of them */
};

/* Reads digits into state->remaining.  Returns true once the length is complete,
 * with *used bytes of input; else the step says why not. */
bool decimal_feed(const struct decimal *decimal, const struct framing_config *config,
		  struct framing_state *state, const unsigned char *input, size_t len,
		  size_t *used, struct framing_step *step);

static inline void
framing_step_set(struct framing_step *step, enum framing_verdict verdict, size_t used,
		 const unsigned char *data, size_t data_len)
{
	step->verdict = verdict;
	step->used = used;
	step->head = NULL;
	step->head_len = 0;
	step->data = data;
	step->data_len = data_len;
	step->why = NULL;
}

static inline void
framing_reset(struct framing_state *state)
{
	*state = (struct framing_state){0};
}

/* Ends the stream.  The state stays open: what was cut off is no message.  Apart
 * from that it is as new, so a caller that goes on all the same does no harm. */
static inline void
framing_fail(struct framing_state *state, struct framing_step *step, enum framing_verdict verdict,
	     const char *why)
{
	framing_reset(state);
	state->open = true;
	step->verdict = verdict;
	step->why = why;
}

/* The largest payload that a frame may announce. */
static inline uint64_t
framing_limit(const struct framing_config *config)
{
	return config->max_size == 0 || config->max_size > INT64_MAX ? INT64_MAX : config->max_size;
}

static inline const char *
framing_limit_why(const struct framing_config *config)
{
	return config->max_size == 0 ? "expected a length of at most 2^63-1" :
				       "expected a length of at most max_message_size";
}

/* How many of the bytes that have arrived belong to the payload that is announced. */
static inline size_t
framing_take(struct framing_state *state, size_t arrived)
{
	size_t n = state->remaining < arrived ? (size_t)state->remaining : arrived;

	state->remaining -= n;
	return n;
}

#endif
