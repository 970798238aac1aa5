/*
 * json_fuzz: whatever bytes a message or a name has, what is written of them between quotes
 * is a string of JSON, and says the same bytes to whoever reads it.
 *
 * An input is 1 byte, where the rest is split, and the bytes.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

const char *const fuzz_corpus[] = { "json", NULL };

static unsigned
fuzz_hex(char c)
{
	fuzz_require((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'));
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);
}

/* Reads a JSON string's inside as RFC 8259 has it; returns the bytes' number. */
static size_t
fuzz_unescape(const char *text, size_t len, unsigned char *bytes)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	size_t n = 0, i;

	for (i = 0; i < len; i++) {
		const char *known;

		fuzz_require((unsigned char)text[i] >= 0x20 && text[i] != '"');
		if (text[i] != '\\') {
			bytes[n++] = (unsigned char)text[i];
			continue;
		}
		fuzz_require(++i < len);
		if (text[i] == 'u') {
			fuzz_require(len - i > 4);
			fuzz_require(text[i + 1] == '0' && text[i + 2] == '0'); /* controls only */
			bytes[n] = (unsigned char)(16 * fuzz_hex(text[i + 3]));
			bytes[n] = (unsigned char)(bytes[n] + fuzz_hex(text[i + 4]));
			fuzz_require(bytes[n++] < 0x80);
			i += 4;
			continue;
		}
		known = strchr(from, text[i]);
		fuzz_require(known != NULL && *known != '\0');
		bytes[n++] = (unsigned char)to[known - from];
	}
	return n;
}

static int
fuzz_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = strchr(digits, c);

	fuzz_require(c != '\0' && at != NULL);
	return (int)(at - digits);
}

static size_t
fuzz_decode(const char *text, size_t len, unsigned char *bytes)
{
	size_t n = 0, i;

	fuzz_require(len % 4 == 0);
	for (i = 0; i < len; i += 4) {
		unsigned pad = i + 4 == len ? (unsigned)(text[i + 2] == '=') + (text[i + 3] == '=') : 0;
		unsigned long value = (unsigned long)fuzz_digit(text[i]) << 18 |
				      (unsigned long)fuzz_digit(text[i + 1]) << 12;

		if (pad < 2)
			value |= (unsigned long)fuzz_digit(text[i + 2]) << 6;
		if (pad < 1)
			value |= (unsigned long)fuzz_digit(text[i + 3]);
		bytes[n++] = (unsigned char)(value >> 16);
		if (pad < 2)
			bytes[n++] = (unsigned char)(value >> 8);
		if (pad < 1)
			bytes[n++] = (unsigned char)value;
	}
	return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t split = size > 0 ? data[0] % size : 0, len = size > 0 ? size - 1 : 0, n;
	const unsigned char *bytes = data + (size > 0);
	unsigned char *back = malloc(6 * len + 8);
	char *text = malloc(JSON_ESCAPED_MAX(UTF8_SHOW_MAX(len)) + JSON_BASE64_MAX(len) + 8);
	struct json_base64 state = { { 0 }, 0 };
	struct utf8 utf8 = { 0 };
	char *name = malloc(len + 1);

	fuzz_require(back != NULL && text != NULL && name != NULL);
	n = json_escape(text, bytes, len);
	fuzz_require(n <= JSON_ESCAPED_MAX(len));
	n = fuzz_unescape(text, n, back);
	fuzz_require(n == len && (len == 0 || memcmp(back, bytes, len) == 0));

	n = json_base64(&state, text, bytes, split);
	n += json_base64(&state, text + n, bytes + split, len - split);
	n += json_base64_end(&state, text + n);
	n = fuzz_decode(text, n, back);
	fuzz_require(n == len && (len == 0 || memcmp(back, bytes, len) == 0));

	memcpy(name, bytes, len);
	name[len] = '\0';
	n = json_text(text, name);
	n = fuzz_unescape(text, n, back);
	fuzz_require(utf8_feed(&utf8, back, n) && utf8_is_whole(&utf8));
	free(back);
	free(text);
	free(name);
	return 0;
}
