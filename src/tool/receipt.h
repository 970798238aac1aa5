/*
 * receipt: the line that a listener with reply = "receipt" writes for each message.
 * Pure: bytes in, a verdict out.
 */
#ifndef TOOL_RECEIPT_H
#define TOOL_RECEIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message/id.h"

#define RECEIPT_LINE_MAX 256 /* with its newline; a longer line is none of ours */
#define RECEIPT_REASON_MAX 64

enum receipt_kind { RECEIPT_OK, RECEIPT_RETRY, RECEIPT_REJECT };

struct receipt {
	enum receipt_kind kind;
	char id[ID_TEXT_LEN + 1]; /* of RECEIPT_OK */
	uint64_t size;
	char reason[RECEIPT_REASON_MAX + 1]; /* of the others */
};

/* One line without its newline; false: it is no receipt. */
bool receipt_parse(const char *line, size_t len, struct receipt *receipt);

/* Whether a rejection with this reason ends the connection, so that nothing behind the
 * message was looked at. */
bool receipt_ends(const struct receipt *receipt);

#endif
