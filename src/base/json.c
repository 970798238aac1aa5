/*
 * json: escapes and base 64, without a branch for what is plain.  Nothing here
 * can fail.
 */
#include "base/json.h"

#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"

/* The short escapes; 0: none. */
static const char shorts[0x60] = {
	['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n',  ['\f'] = 'f',
	['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\',
};

static char *
put_escape(char *to, unsigned char byte)
{
	static const char digits[] = "0123456789abcdef";

	*to++ = '\\';
	if (shorts[byte] != 0) {
		*to++ = shorts[byte];
		return to;
	}
	memcpy(to, "u00", 3);
	to[3] = digits[byte >> 4];
	to[4] = digits[byte & 15];
	return to + 5;
}

size_t
json_escape(char *to, const unsigned char *bytes, size_t len)
{
	char *start = to;
	size_t at = 0;

	for (;;) {
		size_t plain = bytes_json(bytes + at, len - at);

		memcpy(to, bytes + at, plain);
		to += plain;
		at += plain;
		if (at == len)
			return (size_t)(to - start);
		to = put_escape(to, bytes[at++]);
	}
}

size_t
json_text(char *to, const char *text)
{
	struct utf8_show show = { 0 };
	char shown[UTF8_SHOW_MAX(1)];
	char *start = to;
	size_t n;

	for (; *text != '\0'; text++) {
		n = utf8_show(&show, shown, (const unsigned char *)text, 1);
		to += json_escape(to, (const unsigned char *)shown, n);
	}
	n = utf8_show_end(&show, shown);
	to += json_escape(to, (const unsigned char *)shown, n);
	return (size_t)(to - start);
}

static char *
put_triple(char *to, const unsigned char *three)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned bits = (unsigned)three[0] << 16 | (unsigned)three[1] << 8 | three[2];

	to[0] = digits[bits >> 18];
	to[1] = digits[bits >> 12 & 63];
	to[2] = digits[bits >> 6 & 63];
	to[3] = digits[bits & 63];
	return to + 4;
}

size_t
json_base64(struct json_base64 *state, char *to, const unsigned char *bytes, size_t len)
{
	char *start = to;
	size_t at = 0;

	while (state->n_held > 0 && at < len) {
		state->held[state->n_held++] = bytes[at++];
		if (state->n_held == 3) {
			to = put_triple(to, state->held);
			state->n_held = 0;
		}
	}
	for (; len - at >= 3; at += 3)
		to = put_triple(to, bytes + at);
	while (at < len)
		state->held[state->n_held++] = bytes[at++];
	return (size_t)(to - start);
}

size_t
json_base64_end(struct json_base64 *state, char *to)
{
	unsigned n = state->n_held;

	if (n == 0)
		return 0;
	memset(state->held + n, 0, 3 - n);
	put_triple(to, state->held);
	memset(to + n + 1, '=', 3 - n);
	state->n_held = 0;
	return 4;
}
