/*
 * json: the insides of JSON strings.  The caller writes the quotes.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stddef.h>

/* Room for what len bytes may become. */
#define JSON_ESCAPED_MAX(len) (6 * (len))
#define JSON_BASE64_MAX(len) (4 * (((len) + 2) / 3 + 1))

/* Copies bytes, escaping quotes, backslashes and controls; all else passes, so the
 * bytes should be UTF-8.  Returns how many were written. */
size_t json_escape(char *to, const unsigned char *bytes, size_t len);

/* A name or another text for people, whatever bytes it holds: what utf8_show hides
 * is shown as \xNN, and all is escaped.  Returns how many were written. */
size_t json_text(char *to, const char *text);

/* Base 64 of RFC 4648, in pieces.  All zero is the start. */
struct json_base64 {
	unsigned char held[3];
	unsigned char n_held;
};

size_t json_base64(struct json_base64 *state, char *to, const unsigned char *bytes, size_t len);
size_t json_base64_end(struct json_base64 *state, char *to); /* pads; up to 4 */

#endif
