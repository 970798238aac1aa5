/*
 * delimiter: a configured sequence of bytes ends a message.  What lies between
 * two of them is a message too, even if it is nothing.
 *
 * Knuth-Morris-Pratt: state->matched is how much of the delimiter the bytes so
 * far end with, so a search goes on where it stopped and the work is linear
 * however the input was split.  Those bytes are held back while they may still
 * be the delimiter.  If they were not, they come as head, out of the delimiter
 * itself, which they equal.  With keep_delimiter nothing is held back, for all
 * of it is payload anyway.
 */
#include <stdlib.h>
#include <string.h>

#include "framing/framing_kinds.h"

int
delimiter_prepare(struct framing_config *config)
{
	const unsigned char *delimiter = config->delimiter;
	uint32_t *fallback;
	uint32_t matched = 0;

	if (config->delimiter_len > UINT32_MAX)
		return -1; /* its table would not fit in memory either */
	fallback = calloc(config->delimiter_len, sizeof *fallback);
	if (fallback == NULL)
		return -1;
	for (size_t i = 1; i < config->delimiter_len; i++) {
		while (matched > 0 && delimiter[i] != delimiter[matched])
			matched = fallback[matched - 1];
		if (delimiter[i] == delimiter[matched])
			matched++;
		fallback[i] = matched;
	}
	free(config->fallback);
	config->fallback = fallback;
	return 0;
}

/* Searches on from where the last feed stopped.  Returns how many bytes it took
 * to find the delimiter, or len if it is not (yet) there; *matched tells which. */
static size_t
delimiter_search(const struct framing_config *config, const unsigned char *input, size_t len,
		 uint32_t *matched)
{
	const unsigned char *delimiter = config->delimiter;
	const uint32_t *fallback = config->fallback;
	uint32_t m = *matched;
	size_t at = 0;

	while (at < len && m < config->delimiter_len) {
		while (m > 0 && input[at] != delimiter[m])
			m = fallback[m - 1];
		if (m == 0) {
			const unsigned char *first = memchr(input + at, delimiter[0], len - at);

			at = first == NULL ? len : (size_t)(first - input) + 1;
			m = first != NULL;
		} else {
			m++;
			at++;
		}
	}
	*matched = m;
	return at;
}

void
delimiter_feed(const struct framing_config *config, struct framing_state *state,
	       const unsigned char *input, size_t len, struct framing_step *step)
{
	uint32_t matched = state->matched;
	size_t used = delimiter_search(config, input, len, &matched);
	bool found = matched == config->delimiter_len;
	size_t held = config->keep_delimiter ? 0 : state->matched; /* by earlier feeds */
	size_t hold = config->keep_delimiter ? 0 : matched;        /* from now on */
	/* What was held and what came now, but for the (possible) delimiter at its end. */
	size_t payload = held + used - hold;
	size_t head_len = payload < held ? payload : held;

	framing_step_set(step, found ? FRAMING_MESSAGE : FRAMING_MORE, used, input,
			 payload - head_len);
	if (head_len > 0) {
		step->head = config->delimiter;
		step->head_len = head_len;
	}
	if (found) {
		framing_reset(state);
	} else {
		state->matched = matched;
		state->open = true;
	}
}
