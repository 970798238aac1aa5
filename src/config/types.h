/*
 * types: what a setting's text means, and how it is written back.
 *
 * Pure: text in, value or a verdict out, no files and no libconfig.  What the
 * print functions write, the parsers read back to the same value.
 */
#ifndef CONFIG_TYPES_H
#define CONFIG_TYPES_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define TYPES_SECOND UINT64_C(1000000)

/* The longest path of a local socket. */
#define TYPES_UNIX_MAX 107

/* Bytes: "65536", "64K"; K, M, G, T are powers of 1024. */
bool types_size(const char *text, uint64_t *value);

/* Microseconds: "1.5" (seconds), "250ms", "30s", "5m", "1h", "1d". */
bool types_duration(const char *text, uint64_t *value);

/* The same from a number of seconds.  What is not 0 does not become 0. */
bool types_seconds(double seconds, uint64_t *value);

/* Octal digits: "0640". */
bool types_mode(const char *text, unsigned *mode);

/* A delimiter's C escapes.  bytes has room for strlen(text).  Returns NULL, or
 * what is wrong. */
const char *types_delimiter(const char *text, unsigned char *bytes, size_t *len);

/* What bind(2) is to be told, as far as it matters for two of them to collide. */
struct types_address {
	sa_family_t family;
	union {
		struct in_addr in;
		struct in6_addr in6;
	};
	char scope[IF_NAMESIZE]; /* of an IPv6 address */
	const char *path;        /* AF_UNIX; points into the text */
};

/* An address stands for one or two of them ("*", "localhost").  Returns NULL, or
 * what was expected. */
const char *types_address(const char *text, struct types_address addresses[2], size_t *count);

/* Whether both can be bound on one port. */
bool types_addresses_collide(const struct types_address *a, const struct types_address *b);

/* Whether two absolute paths are the same by name, whatever slashes and "." are in them. */
bool types_same_path(const char *one, const char *other);

/* As libconfig reads them. */
void types_print_string(FILE *to, const char *text);
void types_print_integer(FILE *to, uint64_t value);
void types_print_size(FILE *to, uint64_t value);
void types_print_duration(FILE *to, uint64_t value);
void types_print_mode(FILE *to, unsigned mode);
void types_print_delimiter(FILE *to, const unsigned char *bytes, size_t len);

#endif
