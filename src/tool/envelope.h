/*
 * envelope: what a framing puts around a message on its way out, and whether it can
 * carry the message at all.
 *
 * Pure.  The verdicts are those of the parser that the daemon uses: what passes
 * here is one message there.
 */
#ifndef TOOL_ENVELOPE_H
#define TOOL_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "framing/framing.h"

#define ENVELOPE_HEAD_MAX 24

/* What stands before a message of that size, and how long it is; NULL, or why there
 * can be no such message. */
const char *envelope_head(const struct framing_config *framing, uint64_t size,
			  unsigned char head[ENVELOPE_HEAD_MAX], size_t *len);

/* What stands behind it. */
size_t envelope_tail(const struct framing_config *framing, const unsigned char **tail);

/* Whether only the bytes themselves tell if the framing can carry them. */
bool envelope_is_picky(const struct framing_config *framing);

/* For those: head, the message in pieces, the end.  NULL, or why not. */
struct envelope_check {
	const struct framing_config *framing;
	struct framing_state state;
};

const char *envelope_check_start(struct envelope_check *check,
				 const struct framing_config *framing);
const char *envelope_check_feed(struct envelope_check *check, const unsigned char *bytes,
				size_t len);
const char *envelope_check_end(struct envelope_check *check);

#endif
