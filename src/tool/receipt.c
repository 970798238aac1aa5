/*
 * receipt: see receipt.h.
 */
#include "tool/receipt.h"

#include <string.h>

static bool
starts(const char *line, size_t len, const char *word)
{
	size_t n = strlen(word);

	return len > n && memcmp(line, word, n) == 0;
}

/* All of it decimal digits without a leading zero, and no more than fit. */
static bool
parse_size(const char *digits, size_t len, uint64_t *size)
{
	*size = 0;
	if (len == 0 || len > 19 || (len > 1 && digits[0] == '0'))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return false;
		*size = *size * 10 + (uint64_t)(digits[i] - '0');
	}
	return true;
}

/* A word of the metrics' kind: lower case and hyphens. */
static bool
parse_reason(const char *word, size_t len, struct receipt *receipt)
{
	if (len == 0 || len > RECEIPT_REASON_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((word[i] < 'a' || word[i] > 'z') && (word[i] < '0' || word[i] > '9') &&
		    word[i] != '-')
			return false;
	memcpy(receipt->reason, word, len);
	receipt->reason[len] = '\0';
	return true;
}

bool
receipt_parse(const char *line, size_t len, struct receipt *receipt)
{
	struct id id;

	*receipt = (struct receipt){0};
	if (starts(line, len, "RETRY ")) {
		receipt->kind = RECEIPT_RETRY;
		return parse_reason(line + 6, len - 6, receipt);
	}
	if (starts(line, len, "REJECT ")) {
		receipt->kind = RECEIPT_REJECT;
		return parse_reason(line + 7, len - 7, receipt);
	}
	if (!starts(line, len, "OK ") || len < 3 + ID_TEXT_LEN + 2 || line[3 + ID_TEXT_LEN] != ' ')
		return false;
	memcpy(receipt->id, line + 3, ID_TEXT_LEN);
	return id_parse(receipt->id, &id) == 0 &&
	       parse_size(line + 3 + ID_TEXT_LEN + 1, len - 3 - ID_TEXT_LEN - 1, &receipt->size);
}

bool
receipt_ends(const struct receipt *receipt)
{
	static const char *const reasons[] = {"too-large", "malformed", "incomplete"};

	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (receipt->kind == RECEIPT_REJECT && strcmp(receipt->reason, reasons[i]) == 0)
			return true;
	return false;
}
