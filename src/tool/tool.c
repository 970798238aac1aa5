/*
 * tool: see tool.h.
 */
#include "tool/tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/utf8.h"
#include "config/types.h"

const char *tool_name = "cistern";

static void __attribute__((format(printf, 1, 0)))
complain(const char *format, va_list arguments)
{
	char *text = NULL, *shown;

	if (vasprintf(&text, format, arguments) == -1) {
		fprintf(stderr, "%s: out of memory\n", tool_name);
		return;
	}
	shown = tool_show(text);
	fprintf(stderr, "%s: %s\n", tool_name, shown);
	free(shown);
	free(text);
}

void
tool_complain(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	complain(format, arguments);
	va_end(arguments);
}

int
tool_hint(void)
{
	fprintf(stderr, "%s: see %s --help, and cistern(1)\n", tool_name, tool_name);
	return EX_USAGE;
}

int
tool_misused(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	complain(format, arguments);
	va_end(arguments);
	return tool_hint();
}

static void
out_of_memory(void)
{
	fprintf(stderr, "%s: out of memory\n", tool_name);
	exit(EX_OSERR);
}

void *
tool_alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (memory == NULL)
		out_of_memory();
	return memory;
}

void *
tool_grow(void *memory, size_t count, size_t size)
{
	memory = reallocarray(memory, count, size);
	if (memory == NULL)
		out_of_memory();
	return memory;
}

char *
tool_copy(const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		out_of_memory();
	return copy;
}

char *
tool_show_bytes(const char *bytes, size_t len)
{
	struct utf8_show show = {0};
	char *shown = tool_alloc(UTF8_SHOW_MAX(len) + 1);
	size_t n;

	n = utf8_show(&show, shown, (const unsigned char *)bytes, len);
	n += utf8_show_end(&show, shown + n);
	shown[n] = '\0';
	return shown;
}

char *
tool_show(const char *text)
{
	return tool_show_bytes(text, strlen(text));
}

void
tool_age(uint64_t microseconds, char text[TOOL_SHORT])
{
	uint64_t seconds = microseconds / TYPES_SECOND;
	const char *unit = "s";

	if (seconds >= 86400 * 2) {
		seconds /= 86400;
		unit = "d";
	} else if (seconds >= 3600 * 2) {
		seconds /= 3600;
		unit = "h";
	} else if (seconds >= 60 * 2) {
		seconds /= 60;
		unit = "m";
	}
	snprintf(text, TOOL_SHORT, "%llu%s", (unsigned long long)(seconds % 10000000), unit);
}

void
tool_size(double bytes, char text[TOOL_SHORT])
{
	static const char units[] = "KMGTPE";
	int unit = -1;

	while (bytes >= 1023.5 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	if (unit == -1)
		snprintf(text, TOOL_SHORT, "%.0f", bytes);
	else
		snprintf(text, TOOL_SHORT, bytes < 9.95 ? "%.1f%c" : "%.0f%c", bytes, units[unit]);
}

bool
tool_duration(const char *option, const char *text, uint64_t *microseconds)
{
	if (types_duration(text, microseconds))
		return true;
	tool_complain("%s: \"%s\": expected a duration: seconds, or \"250ms\", \"30s\", \"5m\", "
		      "\"1h\", \"1d\"", option, text);
	return false;
}

bool
tool_number(const char *option, const char *text, uint64_t most, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *number <= most)
		return true;
	tool_complain("%s: \"%s\": expected a number from 0 to %llu", option, text,
		      (unsigned long long)most);
	return false;
}

int
tool_printed(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	tool_complain("standard output: %s", strerror(errno));
	return EX_IOERR;
}
