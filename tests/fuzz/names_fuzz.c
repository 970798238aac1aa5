/*
 * names_fuzz: what the tool reads (receipts, ids, names of files in a spool, targets, answers
 * of the status service), and what a spool keeps of a message (its name and its attribute).
 * What is understood can be said again, to the byte.
 *
 * An input is 1 byte for the kind, and the line, name or answer.
 */
#include "fuzz.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/id.h"
#include "sinks/spool.h"
#include "sinks/spool_facts.h"
#include "tool/fetch.h"
#include "tool/receipt.h"
#include "tool/spools.h"
#include "tool/status.h"
#include "tool/target.h"

#define FUZZ_MOST 4096

const char *const fuzz_corpus[] = { "names", NULL };

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

/* A message of which so much is known. */
struct fuzz_letter {
	struct origin origin;
	struct batch batch;
	struct message message;
};

static void
fuzz_write(struct fuzz_letter *letter, struct spool_facts *facts)
{
	*letter = (struct fuzz_letter){
		.origin = {.listener = facts->listener, .peer = facts->peer,
			   .local = facts->has_local ? &facts->local : NULL,
			   .tls_subject = facts->subject[0] != '\0' ? facts->subject : NULL},
		.message = {.id = facts->id, .ended = facts->ended},
	};
	letter->batch.time = facts->time;
	letter->batch.origin = &letter->origin;
}

static void
fuzz_require_same(const struct net_address *one, const struct net_address *other)
{
	char text[NET_TEXT_LEN], again[NET_TEXT_LEN];

	net_address_text(one, text);
	net_address_text(other, again);
	fuzz_require(strcmp(text, again) == 0);
}

/* The daemon takes the same files for messages as the tool, and would give them the same name. */
static void
fuzz_spooled(const char *name, const char *listener)
{
	static struct spool_facts facts, again;
	char written[SPOOL_NAME_LEN + 1], rewritten[SPOOL_NAME_LEN + 1];
	struct fuzz_letter letter;
	bool is_one = spool_facts_of_name(&facts, name) == 0;

	fuzz_require(is_one == (listener != NULL && strlen(listener) <= SPOOL_FACTS_LISTENER));
	if (!is_one)
		return;
	fuzz_require(strcmp(facts.listener, listener) == 0);
	fuzz_write(&letter, &facts);
	spool_name(&letter.batch, &letter.message, written);
	fuzz_require(strncmp(name, written, ID_TEXT_LEN) == 0);
	fuzz_require(spool_facts_of_name(&again, written) == 0);
	fuzz_require_same(&facts.peer, &again.peer);
	fuzz_write(&letter, &again);
	spool_name(&letter.batch, &letter.message, rewritten);
	fuzz_require(strcmp(written, rewritten) == 0);
}

static void
fuzz_name(const char *name)
{
	char id[ID_TEXT_LEN + 1], *listener = NULL, *peer = NULL;
	uint64_t time;

	if (!spools_parse(name, id, &time, &listener, &peer)) {
		fuzz_spooled(name, NULL);
		return;
	}
	fuzz_require(strncmp(name, id, ID_TEXT_LEN) == 0 && listener != NULL && peer != NULL);
	fuzz_require(strncmp(name + ID_TEXT_LEN + 1, listener, strlen(listener)) == 0);
	fuzz_require(strchr(listener, '.') == NULL);
	fuzz_spooled(name, listener);
	free(listener);
	free(peer);
}

static void
fuzz_facts(char *text)
{
	static const char name[] = "01ARZ3NDEKTSV4RRFFQ69G5FAV.main.192.0.2.1-5140";
	static struct spool_facts facts, again;
	char written[SPOOL_FACTS_TEXT];
	struct fuzz_letter letter;
	size_t len;

	fuzz_require(spool_facts_of_name(&facts, name) == 0);
	spool_facts_take(&facts, text);
	fuzz_require(facts.ended < ENDED_COUNT);
	fuzz_write(&letter, &facts);
	len = spool_facts_text(written, &letter.batch, &letter.message, name);
	fuzz_require(len < sizeof written && strlen(written) == len);
	fuzz_require(spool_facts_of_name(&again, name) == 0);
	spool_facts_take(&again, written);
	fuzz_require(facts.time == again.time && facts.ended == again.ended);
	fuzz_require(facts.has_local == again.has_local);
	if (facts.has_local)
		fuzz_require_same(&facts.local, &again.local);
	fuzz_require(strcmp(facts.listener, again.listener) == 0);
	fuzz_require(strcmp(facts.subject, again.subject) == 0);
}

static void
fuzz_target(const char *text)
{
	char again[TARGET_HOST_MAX + TARGET_PATH_MAX + 16];
	struct target target, same;
	const char *path;

	if (target_parse_url(text, "11080", "/status.json", &target, &path) == NULL)
		for (; *path != '\0'; path++)
			fuzz_require(*path > ' ' && *path < 0x7f);
	if (target_parse(text, "11000", &target) != NULL)
		return;
	if (target.local)
		snprintf(again, sizeof again, "unix:%s", target.path);
	else if (strchr(target.host, ':') != NULL || strcmp(target.host, "unix") == 0)
		snprintf(again, sizeof again, "[%s]:%s", target.host, target.port);
	else
		snprintf(again, sizeof again, "%s:%s", target.host, target.port);
	fuzz_require(target_parse(again, NULL, &same) == NULL);
	fuzz_require(target.local == same.local && strcmp(target.path, same.path) == 0);
	fuzz_require(strcmp(target.host, same.host) == 0 && strcmp(target.port, same.port) == 0);
}

static enum fetch_verdict
fuzz_answer(const char *bytes, size_t len, bool closed, char *copy, struct fetch_response *response)
{
	enum fetch_verdict verdict;

	memcpy(copy, bytes, len);
	verdict = fetch_parse(copy, len, closed, response);
	switch (verdict) {
	case FETCH_MORE:
		fuzz_require(!closed && memcmp(bytes, copy, len) == 0); /* it is read again */
		break;
	case FETCH_WHOLE:
		fuzz_require(response->head <= len && response->length <= len - response->head);
		break;
	case FETCH_BAD:
		fuzz_require(response->why != NULL);
		break;
	}
	return verdict;
}

/* What is whole before all has come is the same when more has come. */
static void
fuzz_fetch(const char *bytes, size_t len)
{
	size_t part = len > 0 ? (unsigned char)bytes[0] * len / 255 : 0;
	char *copy = malloc(len + 1), *whole = malloc(len + 1);
	struct fetch_response response, more;

	fuzz_require(copy != NULL && whole != NULL);
	if (fuzz_answer(bytes, part, false, copy, &response) == FETCH_WHOLE) {
		fuzz_require(fuzz_answer(bytes, len, false, whole, &more) == FETCH_WHOLE);
		fuzz_require(response.head == more.head && response.length == more.length);
		fuzz_require(memcmp(copy + response.head, whole + more.head, more.length) == 0);
	}
	fuzz_answer(bytes, len, true, copy, &response);
	free(copy);
	free(whole);
}

static void
fuzz_require_harmless(const char *text)
{
	fuzz_require(text != NULL);
	for (; *text != '\0'; text++)
		fuzz_require((unsigned char)*text >= 0x20 && *text != 0x7f);
}

static void
fuzz_status(const char *text, size_t len)
{
	struct status *status, *before;
	char why[200] = "";

	status = status_parse(text, len, why, sizeof why);
	if (status == NULL) {
		fuzz_require(why[0] != '\0');
		return;
	}
	before = status_parse(text, len, why, sizeof why);
	fuzz_require(before != NULL);
	before->uptime--;
	for (int column = 0; column < STATUS_COLUMNS; column++) {
		status_rate(status, before);
		status_sort(status, (enum status_column)column, column % 2 != 0);
	}
	fuzz_require_harmless(status->version);
	fuzz_require_harmless(status->not_ready);
	for (size_t i = 0; i < status->n_sinks; i++)
		fuzz_require_harmless(status->sinks[i].why);
	for (size_t i = 0; i < status->n_listeners; i++)
		fuzz_require_harmless(status->listeners[i].addresses);
	for (size_t i = 0; i < status->n_connections; i++)
		fuzz_require_harmless(status->connections[i].subject);
	status_free(before);
	status_free(status);
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
		fuzz_receipt(text, size - 1);
		break;
	case 1:
		fuzz_id(text);
		break;
	case 2:
		fuzz_name(text);
		break;
	case 3:
		fuzz_facts(text);
		break;
	case 4:
		fuzz_target(text);
		break;
	case 5:
		fuzz_fetch(text, size - 1);
		break;
	case 6:
		fuzz_status(text, size - 1);
		break;
	}
	free(text);
	return 0;
}
