/*
 * text: see text.h.  Errors of the stream are its owner's to find.
 */
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "status/text.h"

/* Shows the text, and has each shown byte written by put. */
static void
show(FILE *to, const char *text, void (*put)(FILE *to, char byte))
{
	struct utf8_show state = {0};
	char shown[UTF8_SHOW_MAX(1)];
	size_t n, i;

	for (;; text++) {
		n = *text != '\0' ? utf8_show(&state, shown, (const unsigned char *)text, 1)
				  : utf8_show_end(&state, shown);
		for (i = 0; i < n; i++)
			put(to, shown[i]);
		if (*text == '\0')
			return;
	}
}

static void
put_json(FILE *to, char byte)
{
	char escaped[JSON_ESCAPED_MAX(1)];

	fwrite(escaped, 1, json_escape(escaped, (const unsigned char *)&byte, 1), to);
}

static void
put_html(FILE *to, char byte)
{
	switch (byte) {
	case '&':
		fputs("&amp;", to);
		break;
	case '<':
		fputs("&lt;", to);
		break;
	case '>':
		fputs("&gt;", to);
		break;
	case '"':
		fputs("&quot;", to);
		break;
	case '\'':
		fputs("&#39;", to);
		break;
	default:
		fputc(byte, to);
		break;
	}
}

static void
put_label(FILE *to, char byte)
{
	if (byte == '\\' || byte == '"')
		fputc('\\', to);
	fputc(byte, to);
}

void
text_json(FILE *to, const char *text)
{
	fputc('"', to);
	show(to, text, put_json);
	fputc('"', to);
}

void
text_html(FILE *to, const char *text)
{
	show(to, text, put_html);
}

void
text_label(FILE *to, const char *text)
{
	fputc('"', to);
	show(to, text, put_label);
	fputc('"', to);
}

void
text_bytes(FILE *to, double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned unit = 0;

	while (bytes >= 1000 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	fprintf(to, "%.*f %s", unit == 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2, bytes, units[unit]);
}

void
text_count(FILE *to, uint64_t count)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)count), i;

	for (i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			fputc(',', to);
		fputc(digits[i], to);
	}
}

void
text_age(FILE *to, double seconds)
{
	uint64_t s = (uint64_t)seconds;

	if (s < 10)
		fprintf(to, "%.1f s", seconds);
	else if (s < 60)
		fprintf(to, "%u s", (unsigned)s);
	else if (s < 3600)
		fprintf(to, "%u min %u s", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		fprintf(to, "%u h %u min", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
	else
		fprintf(to, "%llu d %u h", (unsigned long long)(s / 86400), (unsigned)(s / 3600 % 24));
}
