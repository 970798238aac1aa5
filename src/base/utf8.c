/*
 * utf8: a decoder of a few states (Unicode, table 3-7: the first byte says how
 * many follow, and narrows the range of the second).  Nothing here can fail.
 */
#include "base/utf8.h"

#include <string.h>

#include "base/bytes.h"

/* Takes the first byte of a character of several; false: there is none that
 * begins so. */
static bool
begin(struct utf8 *state, unsigned char byte)
{
	state->lowest = 0x80;
	state->highest = 0xbf;
	if (byte < 0xc2) {
		return false; /* a continuation, or overlong */
	} else if (byte < 0xe0) {
		state->missing = 1;
	} else if (byte < 0xf0) {
		state->missing = 2;
		if (byte == 0xe0)
			state->lowest = 0xa0;
		else if (byte == 0xed)
			state->highest = 0x9f; /* what follows are surrogates */
	} else if (byte < 0xf5) {
		state->missing = 3;
		if (byte == 0xf0)
			state->lowest = 0x90;
		else if (byte == 0xf4)
			state->highest = 0x8f;
	} else {
		return false;
	}
	return true;
}

/* Takes one that follows. */
static bool
follow(struct utf8 *state, unsigned char byte)
{
	if (byte < state->lowest || byte > state->highest)
		return false;
	state->missing--;
	state->lowest = 0x80;
	state->highest = 0xbf;
	return true;
}

bool
utf8_feed(struct utf8 *state, const unsigned char *bytes, size_t len)
{
	size_t at = 0;

	while (at < len) {
		if (state->missing > 0) {
			if (!follow(state, bytes[at++]))
				return false;
			continue;
		}
		if (bytes[at] < 0x80)
			at += bytes_ascii(bytes + at, len - at);
		else if (!begin(state, bytes[at++]))
			return false;
	}
	return true;
}

static char *
put_hex(char *to, unsigned char byte)
{
	static const char digits[] = "0123456789ABCDEF";

	*to++ = '\\';
	*to++ = 'x';
	*to++ = digits[byte >> 4];
	*to++ = digits[byte & 15];
	return to;
}

static char *
put_hidden(struct utf8_show *show, char *to)
{
	for (unsigned i = 0; i < show->n_held; i++)
		to = put_hex(to, show->held[i]);
	show->n_held = 0;
	show->state.missing = 0;
	return to;
}

static bool
is_harmless(const unsigned char *held)
{
	switch (held[0]) {
	case 0xc2: /* U+0080 to U+009F: C1 controls */
		return held[1] >= 0xa0;
	case 0xe2: /* U+2028 to U+202E: lines and directions; U+2066 to U+2069: isolates */
		return !(held[1] == 0x80 && held[2] >= 0xa8 && held[2] <= 0xae) &&
		       !(held[1] == 0x81 && held[2] >= 0xa6 && held[2] <= 0xa9);
	default:
		return true;
	}
}

/* A whole character is held; it passes or not. */
static char *
put_held(struct utf8_show *show, char *to)
{
	if (!is_harmless(show->held))
		return put_hidden(show, to);
	memcpy(to, show->held, show->n_held);
	to += show->n_held;
	show->n_held = 0;
	return to;
}

size_t
utf8_show(struct utf8_show *show, char *to, const unsigned char *bytes, size_t len)
{
	char *start = to;
	size_t at = 0;

	while (at < len) {
		unsigned char byte = bytes[at];

		if (show->n_held > 0) {
			if (!follow(&show->state, byte)) {
				/* This byte may begin another one: it is looked at again. */
				to = put_hidden(show, to);
				continue;
			}
			show->held[show->n_held++] = byte;
			if (show->state.missing == 0)
				to = put_held(show, to);
			at++;
		} else if (byte >= 0x20 && byte < 0x7f) {
			size_t plain = bytes_printable(bytes + at, len - at);

			memcpy(to, bytes + at, plain);
			to += plain;
			at += plain;
		} else if (byte >= 0x80 && begin(&show->state, byte)) {
			show->held[show->n_held++] = byte;
			at++;
		} else {
			if (show->lines && (byte == '\t' || byte == '\n'))
				*to++ = (char)byte;
			else
				to = put_hex(to, byte);
			at++;
		}
	}
	return (size_t)(to - start);
}

size_t
utf8_show_end(struct utf8_show *show, char *to)
{
	return (size_t)(put_hidden(show, to) - to);
}

size_t
utf8_show_text(char *to, size_t size, const char *text)
{
	struct utf8_show show = {0};
	char shown[UTF8_SHOW_MAX(1)];
	size_t len = 0, n;
	bool last;

	do {
		last = *text == '\0';
		n = last ? utf8_show_end(&show, shown)
			 : utf8_show(&show, shown, (const unsigned char *)text++, 1);
		if (len + n >= size)
			break;
		memcpy(to + len, shown, n);
		len += n;
	} while (!last);
	to[len] = '\0';
	return len;
}
