/*
 * nats_answer: see nats_answer.h.
 *
 * Read by jansson, which is strict.  What cannot be read acknowledges nothing: the
 * message is sent again.
 */
#include "sinks/nats_answer.h"

#include <jansson.h>
#include <string.h>

#include "base/utf8.h"

/* Error codes of JetStream; the servers' errors.json has them all. */
enum {
	ACCOUNT_RESOURCES = 10002,
	NOT_AVAILABLE = 10008,
	NOT_LEADER = 10009,
	INSUFFICIENT_RESOURCES = 10023,
	MEMORY_RESOURCES = 10028,
	STORAGE_RESOURCES = 10047,
	EXCEEDS_MAXIMUM = 10054,
	STORE_FAILED = 10077,
	STREAM_OFFLINE = 10118,
	DUPLICATE_IN_PROCESS = 10158, /* its first copy has no sequence yet */
};

/* Texts of servers go into the log. */
static void
set_why(struct nats_answer *answer, const char *what, const char *text)
{
	size_t len = strlen(what);

	memcpy(answer->why, what, len);
	utf8_show_text(answer->why + len, sizeof(answer->why) - len, text);
}

static void
read_error(struct nats_answer *answer, const json_t *error)
{
	const char *text = json_string_value(json_object_get(error, "description"));

	answer->verdict = NATS_NEVER;
	answer->outcome = OUTCOME_UNAVAILABLE;
	set_why(answer, "", text != NULL && *text != '\0' ? text : "an error without a description");
	switch (json_integer_value(json_object_get(error, "err_code"))) {
	case EXCEEDS_MAXIMUM:
		answer->outcome = OUTCOME_TOO_LARGE;
		answer->too_large = true;
		break;
	case ACCOUNT_RESOURCES:
	case INSUFFICIENT_RESOURCES:
	case MEMORY_RESOURCES:
	case STORAGE_RESOURCES:
	case STORE_FAILED:
		answer->outcome = OUTCOME_STORAGE;
		break;
	case NOT_AVAILABLE:
	case NOT_LEADER:
	case STREAM_OFFLINE:
	case DUPLICATE_IN_PROCESS:
		answer->verdict = NATS_AGAIN;
		break;
	default:
		break;
	}
}

void
nats_answer_read(struct nats_answer *answer, const char *bytes, size_t len, const char *stream)
{
	json_t *json = json_loadb(bytes, len, 0, NULL);
	const json_t *error = json_object_get(json, "error");
	const json_t *sequence = json_object_get(json, "seq");
	const char *name = json_string_value(json_object_get(json, "stream"));

	*answer = (struct nats_answer){.verdict = NATS_AGAIN, .outcome = OUTCOME_UNAVAILABLE};
	if (error != NULL) {
		read_error(answer, error);
	} else if (name == NULL || !json_is_integer(sequence) || json_integer_value(sequence) < 1) {
		set_why(answer, "what answered is no stream", "");
	} else if (strcmp(name, stream) != 0) {
		answer->verdict = NATS_NEVER;
		set_why(answer, "it went to another stream: ", name);
	} else {
		answer->verdict = NATS_STORED;
		answer->outcome = OUTCOME_ACCEPTED;
		answer->sequence = (uint64_t)json_integer_value(sequence);
		answer->duplicate = json_is_true(json_object_get(json, "duplicate"));
	}
	json_decref(json);
}

void
nats_answer_nobody(struct nats_answer *answer)
{
	*answer = (struct nats_answer){.verdict = NATS_AGAIN, .outcome = OUTCOME_UNAVAILABLE};
	set_why(answer, "no stream takes it now", "");
}
