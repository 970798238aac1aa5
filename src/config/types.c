/*
 * types: see types.h.
 */
#include "config/types.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

struct unit {
	const char *name;
	uint64_t value;
};

/* From large to small, which is the order in which printing tries them. */
static const struct unit sizes[] = {
	{ "T", UINT64_C(1) << 40 },
	{ "G", 1 << 30 },
	{ "M", 1 << 20 },
	{ "K", 1 << 10 },
};

static const struct unit durations[] = {
	{ "d", 86400 * TYPES_SECOND },
	{ "h", 3600 * TYPES_SECOND },
	{ "m", 60 * TYPES_SECOND },
	{ "s", TYPES_SECOND },
	{ "ms", 1000 },
	{ "us", 1 },
};

/* Digits; false when there are none or too many. */
static bool
digits(const char **text, uint64_t *value)
{
	const char *at = *text;

	*value = 0;
	for (; *at >= '0' && *at <= '9'; at++) {
		if (__builtin_mul_overflow(*value, UINT64_C(10), value) ||
		    __builtin_add_overflow(*value, (uint64_t)(*at - '0'), value))
			return false;
	}
	if (at == *text)
		return false;
	*text = at;
	return true;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
types_size(const char *text, uint64_t *value)
{
	if (!digits(&text, value))
		return false;
	if (*text == '\0')
		return true;
	for (size_t i = 0; i < LENGTH(sizes); i++) {
		if (toupper((unsigned char)text[0]) == sizes[i].name[0] && text[1] == '\0')
			return !__builtin_mul_overflow(*value, sizes[i].value, value);
	}
	return false;
}

bool
types_duration(const char *text, uint64_t *value)
{
	const char *unit_name;
	uint64_t unit = 0, fraction = 0, scale = 1;
	bool some;

	if (!digits(&text, value))
		return false;
	some = *value != 0;
	if (*text == '.') {
		for (text++; *text >= '0' && *text <= '9'; text++) {
			some = some || *text != '0';
			/* Eight digits of a day still fit into 64 bits of microseconds. */
			if (scale < 100000000) {
				fraction = 10 * fraction + (uint64_t)(*text - '0');
				scale *= 10;
			}
		}
		if (text[-1] == '.')
			return false;
	}
	unit_name = *text == '\0' ? "s" : text;
	for (size_t i = 0; i < LENGTH(durations); i++) {
		if (strcmp(unit_name, durations[i].name) == 0)
			unit = durations[i].value;
	}
	if (unit == 0 || __builtin_mul_overflow(*value, unit, value))
		return false;
	fraction = (fraction * unit + scale / 2) / scale;
	return !__builtin_add_overflow(*value, fraction, value) && (*value != 0) == some;
}

bool
types_seconds(double seconds, uint64_t *value)
{
	double microseconds = seconds * (double)TYPES_SECOND;

	if (!isfinite(microseconds) || microseconds < 0 || microseconds > 9e18)
		return false;
	*value = (uint64_t)(microseconds + 0.5);
	return (*value != 0) == (seconds != 0);
}

bool
types_mode(const char *text, unsigned *mode)
{
	size_t len = strlen(text);

	*mode = 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '7' || *mode > 077)
			return false;
		*mode = 8 * *mode + (unsigned)(text[i] - '0');
	}
	return len > 0;
}

/* One escape sequence, at what follows its backslash. */
static bool
escape(const char **at, unsigned char *byte)
{
	static const char letters[] = "abfnrtv\\\"'";
	static const char bytes[] = "\a\b\f\n\r\t\v\\\"'";
	const char *text = *at, *letter;
	unsigned value = 0;
	int i;

	if (*text >= '0' && *text <= '7') {
		for (i = 0; i < 3 && *text >= '0' && *text <= '7'; i++)
			value = 8 * value + (unsigned)(*text++ - '0');
	} else if (*text == 'x') {
		if (hex_digit(text[1]) == -1 || hex_digit(text[2]) == -1)
			return false;
		value = (unsigned)(16 * hex_digit(text[1]) + hex_digit(text[2]));
		text += 3;
	} else if (*text != '\0' && (letter = strchr(letters, *text)) != NULL) {
		value = (unsigned char)bytes[letter - letters];
		text++;
	} else {
		return false;
	}
	*byte = (unsigned char)value;
	*at = text;
	return value <= 0xff;
}

const char *
types_delimiter(const char *text, unsigned char *bytes, size_t *len)
{
	*len = 0;
	while (*text != '\0') {
		if (*text != '\\') {
			bytes[(*len)++] = (unsigned char)*text++;
			continue;
		}
		text++;
		if (!escape(&text, &bytes[(*len)++]))
			return "has a backslash that begins none of \\\\a \\\\b \\\\f \\\\n \\\\r "
			       "\\\\t "
			       "\\\\v \\\\xNN \\\\NNN; a backslash itself is written \\\\\\\\";
	}
	return *len == 0 ? "is empty; expected at least one byte" : NULL;
}

static void
address_add(struct types_address *addresses, size_t *count, sa_family_t family)
{
	addresses[*count] = (struct types_address){ .family = family };
	if (family == AF_INET6)
		addresses[*count].in6 = in6addr_any;
	++*count;
}

/* With or without brackets, with or without a scope. */
static const char *
address_ipv6(const char *text, struct types_address *address)
{
	static const char expected[] = "\"*\", \"localhost\", an IPv4 or IPv6 address or "
				       "\"unix:/path\", not a host's name";
	size_t len = strlen(text), scope_len;
	char copy[INET6_ADDRSTRLEN];
	const char *scope;

	if (text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	scope = memchr(text, '%', len);
	if (scope != NULL) {
		scope_len = len - (size_t)(scope + 1 - text);
		if (scope_len == 0 || scope_len >= sizeof address->scope)
			return "the name or number of an interface after the %";
		memcpy(address->scope, scope + 1, scope_len);
		len = (size_t)(scope - text);
	}
	if (len >= sizeof copy)
		return expected;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (inet_pton(AF_INET6, copy, &address->in6) != 1)
		return expected;
	if (IN6_IS_ADDR_V4MAPPED(&address->in6))
		return "an IPv4 address written as such, without ::ffff:";
	return NULL;
}

const char *
types_address(const char *text, struct types_address addresses[2], size_t *count)
{
	*count = 0;
	if (strcmp(text, "*") == 0) {
		address_add(addresses, count, AF_INET);
		address_add(addresses, count, AF_INET6);
		return NULL;
	}
	if (strcmp(text, "localhost") == 0) {
		address_add(addresses, count, AF_INET);
		addresses[0].in.s_addr = htonl(INADDR_LOOPBACK);
		address_add(addresses, count, AF_INET6);
		addresses[1].in6 = in6addr_loopback;
		return NULL;
	}
	if (strncmp(text, "unix:", 5) == 0) {
		if (text[5] != '/' || text[6] == '\0')
			return "\"unix:\" and an absolute path: the daemon changes its directory";
		if (strlen(text + 5) > TYPES_UNIX_MAX)
			return "a path of at most 107 bytes, the most that a local socket's may "
			       "have";
		address_add(addresses, count, AF_UNIX);
		addresses[0].path = text + 5;
		return NULL;
	}
	address_add(addresses, count, AF_INET);
	if (inet_pton(AF_INET, text, &addresses[0].in) == 1)
		return NULL;
	*count = 0;
	address_add(addresses, count, AF_INET6);
	return address_ipv6(text, &addresses[0]);
}

/* The next part of a path that says something; its length, 0 at the end. */
static size_t
next_part(const char **path)
{
	size_t len;

	do {
		*path += strspn(*path, "/");
		len = strcspn(*path, "/");
		*path += len;
	} while (len == 1 && (*path)[-1] == '.');
	return len;
}

bool
types_same_path(const char *one, const char *other)
{
	size_t len;

	do {
		len = next_part(&one);
		if (next_part(&other) != len || memcmp(one - len, other - len, len) != 0)
			return false;
	} while (len > 0);
	return true;
}

bool
types_addresses_collide(const struct types_address *a, const struct types_address *b)
{
	if (a->family != b->family)
		return false;
	if (a->family == AF_UNIX)
		return types_same_path(a->path, b->path);
	if (a->family == AF_INET)
		return a->in.s_addr == b->in.s_addr || a->in.s_addr == INADDR_ANY ||
		       b->in.s_addr == INADDR_ANY;
	if (IN6_IS_ADDR_UNSPECIFIED(&a->in6) || IN6_IS_ADDR_UNSPECIFIED(&b->in6))
		return true;
	return IN6_ARE_ADDR_EQUAL(&a->in6, &b->in6) && strcmp(a->scope, b->scope) == 0;
}

/* The escapes that libconfig knows; other bytes pass as they are. */
void
types_print_string(FILE *to, const char *text)
{
	putc('"', to);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(to, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(to, "\\x%02x", (unsigned)(unsigned char)*text);
		else
			putc(*text, to);
	}
	putc('"', to);
}

void
types_print_integer(FILE *to, uint64_t value)
{
	fprintf(to, "%" PRIu64 "%s", value, value > INT32_MAX ? "L" : "");
}

void
types_print_size(FILE *to, uint64_t value)
{
	for (size_t i = 0; i < LENGTH(sizes); i++) {
		if (value != 0 && value % sizes[i].value == 0) {
			fprintf(to, "\"%" PRIu64 "%s\"", value / sizes[i].value, sizes[i].name);
			return;
		}
	}
	types_print_integer(to, value);
}

void
types_print_duration(FILE *to, uint64_t value)
{
	if (value == 0) {
		putc('0', to);
		return;
	}
	for (size_t i = 0; i < LENGTH(durations); i++) {
		if (value % durations[i].value == 0) {
			fprintf(to, "\"%" PRIu64 "%s\"", value / durations[i].value,
				durations[i].name);
			return;
		}
	}
}

void
types_print_mode(FILE *to, unsigned mode)
{
	fprintf(to, "\"%04o\"", mode);
}

/* Two languages in one: libconfig's string holds C's escapes. */
void
types_print_delimiter(FILE *to, const unsigned char *bytes, size_t len)
{
	putc('"', to);
	for (size_t i = 0; i < len; i++) {
		if (bytes[i] == '\\')
			fputs("\\\\\\\\", to);
		else if (bytes[i] == '"')
			fputs("\\\"", to);
		else if (bytes[i] < 0x20 || bytes[i] >= 0x7f)
			fprintf(to, "\\\\x%02x", (unsigned)bytes[i]);
		else
			putc(bytes[i], to);
	}
	putc('"', to);
}
