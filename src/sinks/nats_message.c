/*
 * nats_message: see nats_message.h.
 *
 * Servers count headers into max_payload and end the connection of whoever goes past it,
 * and libnats 3.4.1 looks at the data alone: so the headers' size is known before.
 */
#include "sinks/nats_message.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "config/config.h"

#define VERSION_LINE 10 /* "NATS/1.0" and its line's end; there is one more at the end */
#define HEADERS 16384	/* what their table takes, and more */

static void
add(struct nats_draft *draft, const char *name, const char *value)
{
	draft->names[draft->count] = name;
	draft->values[draft->count++] = value;
	/* ": " between them, CR LF behind them. */
	draft->headers_size += strlen(name) + strlen(value) + 4;
}

int
nats_draft_make(struct nats_draft *draft, const struct config_sink *config,
		const struct batch *batch, const struct message *message, const char *claim)
{
	const char *subject = batch->origin->tls_subject;

	draft->count = 0;
	draft->headers_size = VERSION_LINE + 2;
	draft->tls_subject = NULL;
	facts_set(&draft->facts, batch, message);
	if (subject != NULL) {
		draft->tls_subject = memory_alloc(FACT_HEADER_MAX(strlen(subject)));
		if (draft->tls_subject == NULL)
			return -1;
		fact_header_value(draft->tls_subject, subject);
		draft->facts.value[FACT_TLS_SUBJECT] = draft->tls_subject;
	}
	subject_fill(config->nats.subject, batch->origin->listener, draft->facts.peer,
		     draft->subject);
	add(draft, "Nats-Msg-Id", draft->facts.id);
	add(draft, "Nats-Expected-Stream", config->nats.stream);
	for (unsigned fact = 0; fact < FACT_COUNT; fact++)
		if (draft->facts.value[fact] != NULL)
			add(draft, fact_header(fact), draft->facts.value[fact]);
	if (claim != NULL)
		add(draft, "Cistern-Claim", claim);
	return 0;
}

void
nats_draft_clear(struct nats_draft *draft)
{
	memory_free(draft->tls_subject);
	draft->tls_subject = NULL;
}

static natsMsg *
make(const struct nats_draft *draft, const char *bytes, size_t len, const char *reply,
     natsStatus *status)
{
	natsMsg *made = NULL;

	if (len > INT_MAX) {
		*status = NATS_MAX_PAYLOAD;
		return NULL;
	}
	*status = natsMsg_Create(&made, draft->subject, reply, bytes, (int)len);
	/* libnats 3.4.1 does not survive it when a table of headers cannot grow. */
	if (*status == NATS_OK && !memory_is_there(HEADERS))
		*status = NATS_NO_MEMORY;
	for (unsigned i = 0; *status == NATS_OK && i < draft->count; i++)
		*status = natsMsgHeader_Set(made, draft->names[i], draft->values[i]);
	if (*status != NATS_OK) {
		natsMsg_Destroy(made);
		return NULL;
	}
	memory_charge(len);
	return made;
}

/* The bytes in one piece, to be freed with memory_free.  NULL: errno. */
static unsigned char *
gather(const struct message *message)
{
	unsigned char *bytes = memory_alloc(message->size + 1), *scratch;
	const unsigned char *piece;
	struct cursor cursor;
	size_t at = 0;
	ptrdiff_t n = 0;

	if (bytes == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	cursor_start(&cursor, message);
	/* What lies in a file is read straight to its place. */
	while (scratch = bytes + at,
	       (n = cursor_next(&cursor, &piece, scratch, message->size + 1 - at)) > 0) {
		if (piece != scratch)
			memcpy(scratch, piece, (size_t)n);
		at += (size_t)n;
	}
	if (n == 0)
		return bytes;
	memory_free(bytes);
	return NULL;
}

natsMsg *
nats_message_new(const struct nats_draft *draft, const struct message *message,
		 const char *reply, natsStatus *status, int *error)
{
	unsigned char *bytes;
	natsMsg *made;
	size_t charged;

	*error = 0;
	if (message->body == NULL)
		return make(draft, (const char *)message->data, (size_t)message->size, reply, status);
	bytes = gather(message);
	if (bytes == NULL) {
		*error = errno;
		*status = errno == ENOMEM ? NATS_NO_MEMORY : NATS_SYS_ERROR;
		return NULL;
	}
	charged = memory_size(bytes);
	memory_charge(charged);
	made = make(draft, (const char *)bytes, (size_t)message->size, reply, status);
	memory_release(charged);
	memory_free(bytes);
	return made;
}

natsMsg *
nats_message_text(const struct nats_draft *draft, const char *text, const char *reply,
		  natsStatus *status)
{
	return make(draft, text, strlen(text), reply, status);
}

void
nats_message_free(natsMsg *message)
{
	if (message == NULL)
		return;
	memory_release((size_t)natsMsg_GetDataLength(message));
	natsMsg_Destroy(message);
}
