/*
 * kafka_record: a message as a record of Kafka's: value, key, headers and time.
 *
 * Bytes in one piece are not copied: they stay where they are until the batch is answered,
 * which is after the report.  Others are read into memory that is charged until then.  A
 * message without bytes is an empty value, not none: none would delete its key's records
 * from a compacted topic.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "message/facts.h"
#include "sinks/kafka_producer.h"

/* "192.0.2.1", "2001:db8::1", "unix": without the port, which is another one with each
 * connection, so that all that a peer sends has one key.  Into text, and its length. */
static size_t
peer_key(const char *peer, char text[NET_TEXT_LEN])
{
	const char *end = strrchr(peer, ':');

	if (end == NULL)
		end = peer + strlen(peer);
	if (*peer == '[' && end - peer >= 2) {
		peer++;
		end--;
	}
	memcpy(text, peer, (size_t)(end - peer));
	return (size_t)(end - peer);
}

/* Reads what does not lie in one piece.  -1: errno. */
static int
copy(struct kafka_ticket *ticket, const struct message *message)
{
	unsigned char *bytes = memory_alloc(message->size > 0 ? message->size : 1);
	struct cursor cursor;
	const unsigned char *piece;
	uint64_t at = 0;
	ptrdiff_t n;

	if (bytes == NULL) {
		errno = ENOMEM;
		return -1;
	}
	cursor_start(&cursor, message);
	/* What lies in a file is read to where it belongs. */
	while ((n = cursor_next(&cursor, &piece, bytes + at, message->size - at)) > 0) {
		if (piece != bytes + at)
			memcpy(bytes + at, piece, (size_t)n);
		at += (uint64_t)n;
	}
	if (n == -1) {
		memory_free(bytes);
		return -1;
	}
	memory_charge(memory_size(bytes));
	ticket->copy = bytes;
	return 0;
}

static enum kafka_sent
judge(rd_kafka_error_t *error, char text[KAFKA_ERROR_LEN])
{
	rd_kafka_resp_err_t code;
	bool fatal;

	if (error == NULL)
		return KAFKA_SENT;
	code = rd_kafka_error_code(error);
	fatal = rd_kafka_error_is_fatal(error) || code == RD_KAFKA_RESP_ERR__FATAL;
	snprintf(text, KAFKA_ERROR_LEN, "%s", rd_kafka_err2str(code));
	rd_kafka_error_destroy(error);
	if (fatal)
		return KAFKA_FATAL;
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		return KAFKA_FULL;
	if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
		return KAFKA_TOO_LARGE;
	return KAFKA_FAILED;
}

/* What is known of it.  Not as single parts of the call: when no partition can be found for
 * a record (its topic is gone), librdkafka 2.0.2 frees those twice. */
static rd_kafka_headers_t *
headers_of(const struct facts *facts)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(FACT_COUNT);

	for (enum fact fact = 0; fact < FACT_COUNT; fact++)
		if (facts->value[fact] != NULL) /* fails for names that are too long only */
			rd_kafka_header_add(headers, fact_header(fact), -1, facts->value[fact], -1);
	return headers;
}

enum kafka_sent
kafka_record_send(struct kafka_producer *producer, struct kafka_ticket *ticket,
		  const struct batch *batch, const struct message *message,
		  char error[KAFKA_ERROR_LEN])
{
	static char nothing[1];
	rd_kafka_vu_t parts[6];
	enum config_key key = producer->kafka->sink->config->key;
	rd_kafka_headers_t *headers;
	char peer[NET_TEXT_LEN];
	struct facts facts;
	enum kafka_sent sent;
	size_t n = 0;

	if (message->size > producer->max_size)
		return KAFKA_TOO_LARGE;
	if (message->body != NULL && ticket->copy == NULL && copy(ticket, message) == -1)
		return KAFKA_LOST;
	facts_set(&facts, batch, message);
	headers = headers_of(&facts);
	parts[n++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = producer->topic};
	parts[n] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_VALUE};
	parts[n].u.mem.ptr = message->body != NULL ? ticket->copy
			     : message->size == 0  ? nothing
						   : (void *)(uintptr_t)message->data;
	parts[n++].u.mem.size = message->size;
	parts[n++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers};
	parts[n++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TIMESTAMP,
				     .u.i64 = (int64_t)(batch->time / 1000)};
	parts[n++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = ticket};
	if (key != CONFIG_KEY_NONE) {
		parts[n] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_KEY};
		parts[n].u.mem.ptr = key == CONFIG_KEY_PEER ? peer : facts.id;
		parts[n++].u.mem.size = key == CONFIG_KEY_PEER ? peer_key(facts.peer, peer) : ID_TEXT_LEN;
	}
	sent = judge(rd_kafka_produceva(producer->rk, parts, n), error);
	if (sent != KAFKA_SENT)
		rd_kafka_headers_destroy(headers); /* else they are the library's */
	return sent;
}
