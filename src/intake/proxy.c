/*
 * proxy: both versions of the header, read from the front each time it is asked.
 *
 * A byte that cannot be is told as soon as it is seen; an address of version 1 at its
 * end, a checksum when all is there.  Nothing else can fail.
 */
#include "intake/proxy.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#define LINE_MOST 107 /* of version 1, with its CR and LF */
#define FIXED_LEN 16  /* of version 2: signature, command, family, length */

#define VERSION_LOCAL 0x20 /* with its command */
#define VERSION_PROXY 0x21

#define FAMILY_UNSPEC 0
#define FAMILY_INET 1
#define FAMILY_INET6 2
#define FAMILY_UNIX 3
#define TRANSPORT_UNSPEC 0
#define TRANSPORT_DATAGRAM 2

#define TLV_FIXED 3 /* type and length */
#define TLV_CRC32C 3
#define CRC32C_LEN 4

static const unsigned char signature[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
					   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

/* A line of version 1, as far as it has come and may be looked at. */
struct line {
	const unsigned char *bytes;
	size_t at, len;
	struct proxy_result *result;
};

static enum proxy_verdict
malformed(struct proxy_result *result, const char *why)
{
	result->why = why;
	return PROXY_MALFORMED;
}

/* The line's bytes are used up before its end.  Its CR and LF have to fit, too. */
static enum proxy_verdict
line_ends(const struct line *line)
{
	if (line->at >= LINE_MOST - 1)
		return malformed(line->result, "expected CR LF within 107 bytes");
	return PROXY_MORE;
}

static enum proxy_verdict
line_word(struct line *line, const char *word, const char *why)
{
	for (; *word != '\0'; word++) {
		if (line->at == line->len)
			return line_ends(line);
		if (line->bytes[line->at++] != (unsigned char)*word)
			return malformed(line->result, why);
	}
	return PROXY_DONE;
}

/* The line's last byte; it alone may be the 107th. */
static enum proxy_verdict
line_feed(struct line *line, size_t len)
{
	if (line->at == len)
		return PROXY_MORE;
	if (line->bytes[line->at++] != '\n')
		return malformed(line->result, "expected LF after CR");
	line->result->used = line->at;
	return PROXY_DONE;
}

/* Up to a space, which is used, too. */
static enum proxy_verdict
line_address(struct line *line, int family, struct net_address *address)
{
	const char *allowed = family == AF_INET ? "0123456789." : "0123456789abcdefABCDEF:.";
	const char *why = family == AF_INET ? "expected an IPv4 address" :
					      "expected an IPv6 address";
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	char text[INET6_ADDRSTRLEN];
	size_t n = 0;

	for (;; n++) {
		if (line->at == line->len)
			return line_ends(line);
		text[n] = (char)line->bytes[line->at++];
		if (text[n] == ' ')
			break;
		if (n == sizeof text - 1 || text[n] == '\0' || strchr(allowed, text[n]) == NULL)
			return malformed(line->result, why);
	}
	text[n] = '\0';
	if (inet_pton(family, text,
		      family == AF_INET ? (void *)&in.sin_addr : (void *)&in6.sin6_addr) != 1)
		return malformed(line->result, why);
	net_address_set(address, family == AF_INET ? (const struct sockaddr *)&in :
						     (const struct sockaddr *)&in6);
	return PROXY_DONE;
}

/* Up to the byte that ends it, which is used, too. */
static enum proxy_verdict
line_port(struct line *line, unsigned char end, struct net_address *address)
{
	static const char why[] = "expected a port from 0 to 65535";
	uint32_t port = 0;
	unsigned char byte;

	for (size_t n = 0;; n++) {
		if (line->at == line->len)
			return line_ends(line);
		byte = line->bytes[line->at++];
		if (byte == end && n > 0)
			break;
		if (byte < '0' || byte > '9' || (n > 0 && port == 0))
			return malformed(line->result, why);
		port = 10 * port + (byte - '0');
		if (port > UINT16_MAX)
			return malformed(line->result, why);
	}
	if (address->family == AF_INET)
		address->in.sin_port = htons((uint16_t)port);
	else
		address->in6.sin6_port = htons((uint16_t)port);
	return PROXY_DONE;
}

/* What a proxy says of an unknown connection is of no use, but has to be one line. */
static enum proxy_verdict
line_unknown(struct line *line)
{
	static const char why[] = "expected UNKNOWN, then CR LF or a space";
	enum proxy_verdict verdict = line_word(line, "NKNOWN", why);
	bool first = true;
	unsigned char byte;

	if (verdict != PROXY_DONE)
		return verdict;
	for (;; first = false) {
		if (line->at == line->len)
			return line_ends(line);
		byte = line->bytes[line->at++];
		if (byte == '\r')
			break;
		if (byte == '\n')
			return malformed(line->result, "expected CR before LF");
		if (first && byte != ' ')
			return malformed(line->result, why);
	}
	line->result->local = true;
	return PROXY_DONE;
}

static enum proxy_verdict
line_tcp(struct line *line)
{
	static const char why[] = "expected TCP4, TCP6 or UNKNOWN";
	struct proxy_result *result = line->result;
	enum proxy_verdict verdict = line_word(line, "CP", why);
	int family;

	if (verdict != PROXY_DONE)
		return verdict;
	if (line->at == line->len)
		return PROXY_MORE;
	family = line->bytes[line->at] == '4' ? AF_INET : AF_INET6;
	verdict = line_word(line, family == AF_INET ? "4 " : "6 ", why);
	if (verdict == PROXY_DONE)
		verdict = line_address(line, family, &result->source);
	if (verdict == PROXY_DONE)
		verdict = line_address(line, family, &result->destination);
	if (verdict == PROXY_DONE)
		verdict = line_port(line, ' ', &result->source);
	if (verdict == PROXY_DONE)
		verdict = line_port(line, '\r', &result->destination);
	return verdict;
}

static enum proxy_verdict
parse_line(const unsigned char *bytes, size_t len, struct proxy_result *result)
{
	struct line line = { bytes, 0, len < LINE_MOST - 1 ? len : LINE_MOST - 1, result };
	enum proxy_verdict verdict;

	verdict = line_word(&line, "PROXY ", "expected PROXY and a space");
	if (verdict != PROXY_DONE)
		return verdict;
	if (line.at == line.len)
		return PROXY_MORE;
	switch (bytes[line.at++]) {
	case 'T':
		verdict = line_tcp(&line);
		break;
	case 'U':
		verdict = line_unknown(&line);
		break;
	default:
		return malformed(result, "expected TCP4, TCP6 or UNKNOWN");
	}
	return verdict == PROXY_DONE ? line_feed(&line, len) : verdict;
}

static unsigned
load16(const unsigned char *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Castagnoli's, bit by bit: few bytes, once a connection. */
static uint32_t
crc32c_byte(uint32_t crc, unsigned char byte)
{
	crc ^= byte;
	for (int bit = 0; bit < 8; bit++)
		crc = crc >> 1 ^ ((crc & 1) != 0 ? UINT32_C(0x82f63b78) : 0);
	return crc;
}

/* Whether the header's checksum, at `place`, is that of all of it with zeros there. */
static bool
crc32c_holds(const unsigned char *bytes, size_t len, size_t place)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++)
		crc = crc32c_byte(crc, i - place < CRC32C_LEN ? 0 : bytes[i]);
	return ~crc == ((uint32_t)load16(bytes + place) << 16 | load16(bytes + place + 2));
}

/* Looks at what follows the addresses, as far as it has come; `total` is the header's
 * length.  Returns NULL, or what was expected.  A header that names nobody is opaque and
 * may hold anything; but where that is a chain of values, a checksum has to be right. */
static const char *
check_tlvs(const unsigned char *bytes, size_t len, size_t at, size_t total, bool opaque)
{
	size_t checksum = 0, size;

	for (; at < total; at += size) {
		if (total - at < TLV_FIXED)
			return opaque ? NULL : "expected a type and a length after the addresses";
		if (len < at + TLV_FIXED)
			return NULL;
		size = TLV_FIXED + load16(bytes + at + 1);
		if (size > total - at)
			return opaque ? NULL : "expected no value to go beyond the header";
		if (bytes[at] != TLV_CRC32C)
			continue;
		if (size != TLV_FIXED + CRC32C_LEN || checksum != 0)
			return opaque ? NULL : "expected one checksum, of 4 bytes";
		checksum = at + TLV_FIXED;
	}
	if (checksum != 0 && len >= total && !crc32c_holds(bytes, total, checksum))
		return "expected the header's CRC32c as its checksum";
	return NULL;
}

static void
set_ipv4(struct net_address *address, const unsigned char *ip, const unsigned char *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET };

	memcpy(&in.sin_addr, ip, sizeof in.sin_addr);
	memcpy(&in.sin_port, port, sizeof in.sin_port);
	net_address_set(address, (const struct sockaddr *)&in);
}

static void
set_ipv6(struct net_address *address, const unsigned char *ip, const unsigned char *port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

	memcpy(&in6.sin6_addr, ip, sizeof in6.sin6_addr);
	memcpy(&in6.sin6_port, port, sizeof in6.sin6_port);
	net_address_set(address, (const struct sockaddr *)&in6);
}

static void
set_addresses(struct proxy_result *result, unsigned family, const unsigned char *block)
{
	switch (family) {
	case FAMILY_INET:
		set_ipv4(&result->source, block, block + 8);
		set_ipv4(&result->destination, block + 4, block + 10);
		break;
	case FAMILY_INET6:
		set_ipv6(&result->source, block, block + 32);
		set_ipv6(&result->destination, block + 16, block + 34);
		break;
	default:
		result->source.family = AF_UNIX;
		result->destination.family = AF_UNIX;
		break;
	}
}

/* The fixed part of version 2, as far as it has come. */
static enum proxy_verdict
parse_fixed(const unsigned char *bytes, size_t len, struct proxy_result *result)
{
	size_t total = 0;

	for (size_t i = 0; i < sizeof signature; i++) {
		if (i == len)
			return PROXY_MORE;
		if (bytes[i] != signature[i])
			return malformed(result, "expected the signature of version 2");
	}
	if (len > 12 && bytes[12] != VERSION_LOCAL && bytes[12] != VERSION_PROXY)
		return malformed(result, "expected version 2 and LOCAL or PROXY");
	if (len > 13 && bytes[12] == VERSION_PROXY &&
	    (bytes[13] >> 4 > FAMILY_UNIX || (bytes[13] & 0xf) > TRANSPORT_DATAGRAM))
		return malformed(result, "expected a known family and transport");
	if (len > 14)
		total = FIXED_LEN + ((size_t)bytes[14] << 8);
	if (len > 15)
		total += bytes[15];
	if (total > PROXY_MOST)
		return malformed(result, "expected a header of at most 4096 bytes");
	return len < FIXED_LEN ? PROXY_MORE : PROXY_DONE;
}

static enum proxy_verdict
parse_binary(const unsigned char *bytes, size_t len, struct proxy_result *result)
{
	static const size_t sizes[] = { 0, 2 * 4 + 2 * 2, 2 * 16 + 2 * 2, 2 * 108 };
	enum proxy_verdict verdict = parse_fixed(bytes, len, result);
	unsigned family, transport;
	size_t total, at = FIXED_LEN;
	const char *why;
	bool opaque;

	if (verdict != PROXY_DONE)
		return verdict;
	family = bytes[13] >> 4;
	transport = bytes[13] & 0xf;
	total = FIXED_LEN + load16(bytes + 14);
	/* LOCAL says nothing of a family, whatever is there. */
	opaque = bytes[12] == VERSION_LOCAL || family == FAMILY_UNSPEC ||
		 transport == TRANSPORT_UNSPEC;
	if (family <= FAMILY_UNIX)
		at += sizes[family];
	if (at > total && !opaque)
		return malformed(result, "expected addresses as long as their family's");
	why = check_tlvs(bytes, len, at, total, opaque);
	if (why != NULL)
		return malformed(result, why);
	if (len < total)
		return PROXY_MORE;
	result->used = total;
	/* Nothing that came as datagrams can be a stream's client. */
	result->local = opaque || transport == TRANSPORT_DATAGRAM;
	if (!result->local)
		set_addresses(result, family, bytes + FIXED_LEN);
	return PROXY_DONE;
}

enum proxy_verdict
proxy_parse(const unsigned char *bytes, size_t len, struct proxy_result *result)
{
	enum proxy_verdict verdict = PROXY_MORE;

	memset(result, 0, sizeof *result);
	if (len == 0)
		return verdict;
	if (bytes[0] == 'P')
		verdict = parse_line(bytes, len, result);
	else if (bytes[0] == signature[0])
		verdict = parse_binary(bytes, len, result);
	else
		verdict = malformed(result, "expected a header of the PROXY protocol");
	if (verdict != PROXY_DONE) {
		/* What a line says counts only once it is whole. */
		memset(&result->source, 0, sizeof result->source);
		memset(&result->destination, 0, sizeof result->destination);
		result->local = false;
	}
	return verdict;
}
