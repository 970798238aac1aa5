/*
 * survey: see survey.h.  What does not fit is left out, and counted.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/survey.h"
#include "worker.h"

#define NAME_ROOM 65 /* of a listener */

static const char *
waits_for(const struct connection *c)
{
	switch ((enum connection_state)c->state) {
	case CONNECTION_PREFACE:
		return "proxy-header";
	case CONNECTION_GREETING:
		return "handshake";
	case CONNECTION_OPEN:
		if (c->starved)
			return "memory";
		if (c->paced)
			return "rate";
		if (c->unsent > REPLY_UNSENT_MOST)
			return "replies";
		return c->paused_since != 0 && c->in_flight > 0 ? "sinks" : "client";
	case CONNECTION_ENDING:
		return c->in_flight > 0 ? "sinks" : c->unsent > 0 ? "replies" : "close";
	case CONNECTION_LINGERING:
		return "close";
	case CONNECTION_DEAD:
		break;
	}
	return "sinks";
}

/* The text's place among the part's; 0: there is no room for it. */
static uint32_t
keep(struct survey_part *part, const char *text, size_t most)
{
	size_t len = strnlen(text, most), at = part->text_used;

	if (part->text_room - at < len + 1)
		return 0;
	memcpy(part->text + at, text, len);
	part->text[at + len] = '\0';
	part->text_used += len + 1;
	return (uint32_t)at;
}

static void
survey_on_ask(struct inbox_item *item)
{
	struct survey_part *part =
		(struct survey_part *)((char *)item - offsetof(struct survey_part, ask));
	struct intake *intake = part->intake;
	uint64_t now = clock_now();
	const char *listener = NULL;
	const struct connection *c;
	uint32_t name = 0;

	part->count = part->left_out = 0;
	part->text_used = 1;
	for (c = intake->connections; c != NULL; c = c->next) {
		struct survey_entry *entry = &part->entries[part->count];

		if (c->state == CONNECTION_DEAD && c->flight == NULL)
			continue;
		if (part->count == part->room) {
			part->left_out = intake->n_connections - part->count;
			break;
		}
		if (c->origin.listener != listener) {
			listener = c->origin.listener;
			name = keep(part, listener, NAME_ROOM - 1);
		}
		*entry = (struct survey_entry){
			.id = c->origin.connection, .age = now > c->opened ? now - c->opened : 0,
			.bytes = c->bytes, .messages = c->messages, .in_flight = c->in_flight,
			.listener = name, .peer = c->origin.peer, .waits_for = waits_for(c)};
		if (c->origin.tls_subject != NULL)
			entry->subject = keep(part, c->origin.tls_subject, SURVEY_SUBJECT);
		part->count++;
	}
	inbox_post(intake->worker->parent, &part->answer);
}

int
survey_open(struct survey_part *part, struct intake *intake, size_t room,
	    void (*answered)(struct inbox_item *item))
{
	*part = (struct survey_part){.intake = intake, .room = room};
	part->ask.run = survey_on_ask;
	part->answer.run = answered;
	part->text_room = 4096 + room * NAME_ROOM;
	part->entries = calloc(room + 1, sizeof(*part->entries));
	part->text = calloc(1, part->text_room);
	if (part->entries != NULL && part->text != NULL)
		return 0;
	survey_close(part);
	return -1;
}

void
survey_close(struct survey_part *part)
{
	free(part->entries);
	free(part->text);
	part->entries = NULL;
	part->text = NULL;
}

void
survey_ask(struct survey_part *part)
{
	inbox_post(&part->intake->worker->inbox, &part->ask);
}
