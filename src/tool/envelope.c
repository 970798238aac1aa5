/*
 * envelope: see envelope.h.
 */
#include "tool/envelope.h"

#include <stdio.h>

static const char *
length_head(const struct framing_config *framing, uint64_t size, unsigned char *head, size_t *len)
{
	unsigned n = framing->length_bytes;
	uint64_t most = n == 8 ? INT64_MAX : (UINT64_C(1) << (8 * n)) - 1;

	if (size > most - (framing->length_includes_header ? n : 0))
		return "it is larger than its length can say";
	if (framing->length_includes_header)
		size += n;
	for (unsigned i = 0; i < n; i++)
		head[framing->length_little ? i : n - 1 - i] = (unsigned char)(size >> (8 * i));
	*len = n;
	return NULL;
}

const char *
envelope_head(const struct framing_config *framing, uint64_t size,
	      unsigned char head[ENVELOPE_HEAD_MAX], size_t *len)
{
	*len = 0;
	switch (framing->kind) {
	case FRAMING_EOF:
	case FRAMING_LINE:
		return size == 0 ? "it is empty, which is no message with this framing" : NULL;
	case FRAMING_DELIMITER:
		return NULL;
	case FRAMING_LENGTH:
		return length_head(framing, size, head, len);
	case FRAMING_NETSTRING:
	case FRAMING_OCTET_COUNTED:
		*len = (size_t)snprintf((char *)head, ENVELOPE_HEAD_MAX, "%llu%c",
					(unsigned long long)size,
					framing->kind == FRAMING_NETSTRING ? ':' : ' ');
		return NULL;
	case FRAMING_MLLP:
		head[0] = 0x0b;
		*len = 1;
		return NULL;
	}
	return "no such framing";
}

size_t
envelope_tail(const struct framing_config *framing, const unsigned char **tail)
{
	*tail = (const unsigned char *)"";
	switch (framing->kind) {
	case FRAMING_LINE:
		*tail = (const unsigned char *)"\n";
		return 1;
	case FRAMING_DELIMITER:
		*tail = framing->delimiter;
		return framing->delimiter_len;
	case FRAMING_NETSTRING:
		*tail = (const unsigned char *)",";
		return 1;
	case FRAMING_MLLP:
		*tail = (const unsigned char *)"\x1c\r";
		return 2;
	default:
		return 0;
	}
}

bool
envelope_is_picky(const struct framing_config *framing)
{
	return framing->kind == FRAMING_DELIMITER || framing->kind == FRAMING_MLLP;
}

static const char *
why_not(const struct envelope_check *check)
{
	return check->framing->kind == FRAMING_MLLP ?
		       "it holds FS CR, the end of a message, itself" :
		       "it holds the delimiter itself, or its end begins one";
}

const char *
envelope_check_start(struct envelope_check *check, const struct framing_config *framing)
{
	unsigned char head[ENVELOPE_HEAD_MAX];
	size_t len;

	*check = (struct envelope_check){.framing = framing};
	envelope_head(framing, 0, head, &len);
	return len == 0 ? NULL : envelope_check_feed(check, head, len);
}

const char *
envelope_check_feed(struct envelope_check *check, const unsigned char *bytes, size_t len)
{
	struct framing_step step;

	if (len == 0)
		return NULL;
	framing_feed(check->framing, &check->state, bytes, len, &step);
	return step.verdict == FRAMING_MORE ? NULL : why_not(check);
}

const char *
envelope_check_end(struct envelope_check *check)
{
	struct framing_step step;
	const unsigned char *tail;
	size_t len = envelope_tail(check->framing, &tail);

	framing_feed(check->framing, &check->state, tail, len, &step);
	return step.verdict == FRAMING_MESSAGE && step.used == len ? NULL : why_not(check);
}
