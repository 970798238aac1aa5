/*
 * utf8: strict UTF-8, in whatever pieces it comes: no surrogates, nothing
 * overlong, nothing past U+10FFFF; and a way to show bytes to people that
 * cannot do anything to their terminal.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* What is remembered between two pieces.  All zero is the start. */
struct utf8 {
	unsigned char missing; /* bytes of a character still to come */
	unsigned char lowest;  /* the next one's bounds */
	unsigned char highest;
};

/* False: not UTF-8, whatever follows. */
bool utf8_feed(struct utf8 *state, const unsigned char *bytes, size_t len);

/* Whether the bytes may end here. */
static inline bool
utf8_is_whole(const struct utf8 *state)
{
	return state->missing == 0;
}

/* Bytes as a terminal may see them.  All zero is the start. */
struct utf8_show {
	bool lines; /* tabs and newlines pass */
	struct utf8 state;
	unsigned char held[4]; /* of a character that is not complete */
	unsigned char n_held;
};

/* Room for what len bytes may become, with those that were held back. */
#define UTF8_SHOW_MAX(len) (4 * ((len) + 3))

/* Copies bytes, with \xNN for each byte of what could drive a terminal or deceive
 * the eye: controls (also U+0080 to U+009F), line separators and bidirectional
 * controls, and whatever is not UTF-8.  Returns how many were written to `to`. */
size_t utf8_show(struct utf8_show *show, char *to, const unsigned char *bytes, size_t len);

/* The same for what was held back, at the end. */
size_t utf8_show_end(struct utf8_show *show, char *to);

/* The same for a text, into so many bytes with its NUL: what has no room is left out, from
 * the first character on that has none.  Returns the length. */
size_t utf8_show_text(char *to, size_t size, const char *text);

#endif
