/*
 * names_fuzz: what the tool reads: receipts, ids, and names of files in a spool.  What it
 * understands can be said again, to the byte.
 *
 * An input is 1 byte for the kind, and the line or name.
 */
#include "fuzz.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/id.h"
#include "tool/receipt.h"
#include "tool/spools.h"

#define FUZZ_MOST 400

const char *const fuzz_corpus[] = { "names", NULL };

static void
fuzz_require(bool holds)
{
	if (!holds)
		abort();
}

static void
fuzz_receipt(const char *line, size_t len)
{
	static const char *const words[] = {
		[RECEIPT_RETRY] = "RETRY", [RECEIPT_REJECT] = "REJECT"};
	struct receipt receipt;
	char again[FUZZ_MOST + 60];
	int n;

	if (!receipt_parse(line, len, &receipt))
		return;
	if (receipt.kind == RECEIPT_OK)
		n = snprintf(again, sizeof again, "OK %s %" PRIu64, receipt.id, receipt.size);
	else
		n = snprintf(again, sizeof again, "%s %s", words[receipt.kind], receipt.reason);
	fuzz_require((size_t)n == len && memcmp(line, again, len) == 0);
	fuzz_require(receipt.kind != RECEIPT_OK || !receipt_ends(&receipt));
}

static void
fuzz_id(const char *text)
{
	char again[ID_TEXT_LEN + 1];
	struct id id;

	if (id_parse(text, &id) == -1)
		return;
	id_text(&id, again);
	fuzz_require(strncmp(text, again, ID_TEXT_LEN) == 0);
}

static void
fuzz_name(const char *name)
{
	char id[ID_TEXT_LEN + 1], *listener = NULL, *peer = NULL;
	uint64_t time;

	if (!spools_parse(name, id, &time, &listener, &peer))
		return;
	fuzz_require(strncmp(name, id, ID_TEXT_LEN) == 0 && listener != NULL && peer != NULL);
	fuzz_require(strncmp(name + ID_TEXT_LEN + 1, listener, strlen(listener)) == 0);
	fuzz_require(strchr(listener, '.') == NULL);
	free(listener);
	free(peer);
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
	if (data[0] % 3 == 0)
		fuzz_receipt(text, size - 1);
	else if (data[0] % 3 == 1)
		fuzz_id(text);
	else
		fuzz_name(text);
	free(text);
	return 0;
}
