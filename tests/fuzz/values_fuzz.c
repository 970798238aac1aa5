/*
 * values_fuzz: sizes, durations, modes, delimiters, addresses, blocks and the Host of a
 * request: no text breaks a parser, and what it has understood means the same when it
 * is written down.
 *
 * An input is 1 byte for the kind, and the text.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/acl.h"
#include "base/net.h"
#include "config/config.h"
#include "config/types.h"
#include "status/http.h"

#define FUZZ_MOST 300

const char *const fuzz_corpus[] = { "values", NULL };

/* The text of a value as it stands in a file, without its quotes; NULL: it has none, as a
 * number is libconfig's to read. */
static char *
fuzz_print(void (*print)(FILE *to, uint64_t value), uint64_t value)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	fuzz_require(to != NULL);
	print(to, value);
	fuzz_require(fclose(to) == 0 && text != NULL);
	if (text[0] != '"') {
		free(text);
		return NULL;
	}
	fuzz_require(size > 2 && text[size - 1] == '"');
	text[size - 1] = '\0';
	memmove(text, text + 1, size - 1);
	return text;
}

static void
fuzz_value(const char *text, bool (*parse)(const char *text, uint64_t *value),
	   void (*print)(FILE *to, uint64_t value))
{
	uint64_t value, again;
	char *written;

	if (!parse(text, &value))
		return;
	written = fuzz_print(print, value);
	if (written != NULL)
		fuzz_require(parse(written, &again) && again == value);
	free(written);
}

static void
fuzz_delimiter(const char *text)
{
	size_t room = strlen(text), len = 0;
	unsigned char *bytes = malloc(room > 0 ? room : 1);

	fuzz_require(bytes != NULL);
	if (types_delimiter(text, bytes, &len) == NULL)
		fuzz_require(len <= room);
	free(bytes);
}

static void
fuzz_addresses(const char *text)
{
	struct types_address addresses[2];
	size_t count = 0;

	if (types_address(text, addresses, &count) == NULL) {
		fuzz_require(count == 1 || count == 2);
		fuzz_require(types_addresses_collide(&addresses[0], &addresses[0]));
	}
}

/* A block holds the address that it is written with. */
static void
fuzz_block(const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct net_address address;
	struct acl *acl = acl_new();
	const char *why = NULL;
	char base[FUZZ_MOST + 1];

	fuzz_require(acl != NULL);
	strcpy(base, text);
	base[strcspn(base, "/")] = '\0';
	if (acl_add(acl, text, &why) == -1) {
		fuzz_require(why != NULL);
	} else {
		fuzz_require(acl_finish(acl) == 0);
		if (inet_pton(AF_INET, base, &in.sin_addr) == 1)
			net_address_set(&address, (struct sockaddr *)&in);
		else if (inet_pton(AF_INET6, base, &in6.sin6_addr) == 1)
			net_address_set(&address, (struct sockaddr *)&in6);
		else
			abort();
		fuzz_require(acl_match(acl, &address));
	}
	acl_free(acl);
}

static void
fuzz_host(const char *text)
{
	static const struct config_status config = {.address = (char *)(uintptr_t)"127.0.0.1"};

	(void)http_host_is_ours(text, &config);
}

static void
fuzz_mode(const char *text)
{
	unsigned mode;

	fuzz_require(!types_mode(text, &mode) || mode <= 07777);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1 || size > FUZZ_MOST)
		return 0;
	text = malloc(size); /* of its size, so that a byte too many is noticed */
	fuzz_require(text != NULL);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 7) {
	case 0:
		fuzz_value(text, types_size, types_print_size);
		break;
	case 1:
		fuzz_value(text, types_duration, types_print_duration);
		break;
	case 2:
		fuzz_mode(text);
		break;
	case 3:
		fuzz_delimiter(text);
		break;
	case 4:
		fuzz_addresses(text);
		break;
	case 5:
		fuzz_block(text);
		break;
	case 6:
		fuzz_host(text);
		break;
	}
	free(text);
	return 0;
}
