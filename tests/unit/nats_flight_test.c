/*
 * nats_flight_test: what of a nats sink decides that a message is accepted: its window, with
 * the sink's own thread, over a link of the test's.  Only the stream's own word for a message
 * accepts it: no other answer, no end of its time, no new connection.
 *
 * That link publishes nothing; it keeps what it was given, and answers when the test says.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "batches.h"
#include "sinks/nats_flight.h"
#include "sinks/nats_stream.h"
#include "unit.h"

#define SHORT UINT64_C(1000000) /* a message's time, where it is to end */
#define LONG UINT64_C(50000000) /* where it is not */
#define SENT 64

struct sent {
	uint64_t token;
	char id[ID_TEXT_LEN + 1];
};

static struct nats_link link_;
static struct sent sent[SENT];
static unsigned n_sent;
static bool at_once; /* whether the answer is there before publishing has ended */
static _Atomic natsStatus status;
static pthread_cond_t something = PTHREAD_COND_INITIALIZER;
static char *server = (char *)"nats://nowhere";
static struct batches b;

/* ---------------------------------------------------------------- the link */

int
nats_link_open(struct nats_link **link, struct sink *sink,
	       void (*answered)(struct sink *sink, uint64_t token, const struct nats_answer *answer))
{
	pthread_condattr_t attributes;

	ck_assert_int_eq(nats_Open(-1), NATS_OK); /* messages are freed by a thread of the library's */
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&link_.lock, NULL);
	pthread_cond_init(&link_.wake, &attributes);
	pthread_condattr_destroy(&attributes);
	link_.sink = sink;
	link_.answered = answered;
	link_.state = NATS_LINK_OPEN;
	link_.since = clock_now();
	link_.limit = 1000000;
	*link = &link_;
	return 0;
}

int
nats_link_start(struct nats_link *link)
{
	(void)link;
	return 0;
}

void
nats_link_close(struct nats_link *link)
{
	nats_Close();
	pthread_cond_destroy(&link->wake);
	pthread_mutex_destroy(&link->lock);
}

void
nats_link_suspect(struct nats_link *link)
{
	link->suspect = true;
}

bool
nats_stream_takes(const struct nats_link *link, const char *subject, uint64_t after)
{
	(void)link;
	(void)subject;
	(void)after;
	return true;
}

void
nats_stream_set_misfit(struct nats_link *link, const char *subject)
{
	(void)link;
	(void)subject;
}

bool
nats_link_reply(const struct nats_link *link, uint64_t token, char reply[NATS_LINK_REPLY])
{
	(void)link;
	snprintf(reply, NATS_LINK_REPLY, "inbox.%llx", (unsigned long long)token);
	return true;
}

static void
answer(uint64_t token, enum nats_verdict verdict)
{
	struct nats_answer said = {.verdict = verdict, .outcome = OUTCOME_UNAVAILABLE, .sequence = 1};

	link_.answered(link_.sink, token, &said);
}

natsStatus
nats_link_publish(struct nats_link *link, natsMsg *message)
{
	const char *id = NULL, *token = strrchr(natsMsg_GetReply(message), '.') + 1;
	struct sent *now;

	pthread_mutex_lock(&link->lock);
	ck_assert_uint_lt(n_sent, SENT);
	now = &sent[n_sent++];
	now->token = strtoull(token, NULL, 16);
	ck_assert_int_eq(natsMsgHeader_Get(message, "Nats-Msg-Id", &id), NATS_OK);
	snprintf(now->id, sizeof(now->id), "%s", id);
	pthread_cond_signal(&something);
	pthread_mutex_unlock(&link->lock);
	if (at_once)
		answer(now->token, NATS_STORED);
	return status;
}

/* ------------------------------------------------------------------- tools */

static struct config_sink *claim; /* the spool for what is too large, or NULL */

static void
open_sink(uint64_t timeout)
{
	struct config_sink settings = {
		.name = (char *)"n", .type = CONFIG_SINK_NATS, .timeout = timeout,
		.nats = {.servers = {.items = &server, .count = 1},
			 .subject = (char *)"intake.{listener}", .stream = (char *)"S",
			 .claim = claim}};

	n_sent = 0;
	batches_open(&b, &settings);
}

static struct batch *
deliver(unsigned count)
{
	struct batch *batch = batches_make(&b, count, "message %u");

	batch->since = clock_now();
	batches_deliver(&b, batch);
	return batch;
}

/* Until so many have been published since the begin. */
static void
wait_sent(unsigned count)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	pthread_mutex_lock(&link_.lock);
	while (n_sent < count)
		if (pthread_cond_timedwait(&something, &link_.lock, &until) != 0)
			ck_abort_msg("%u were sent, not %u, within 20 seconds", n_sent, count);
	ck_assert_uint_eq(n_sent, count);
	pthread_mutex_unlock(&link_.lock);
}

static void
set_state(enum nats_link_state state)
{
	pthread_mutex_lock(&link_.lock);
	if (state == NATS_LINK_DOWN && link_.state == NATS_LINK_OPEN)
		link_.epoch++;
	link_.state = state;
	link_.since = clock_now();
	pthread_cond_signal(&link_.wake);
	pthread_mutex_unlock(&link_.lock);
}

/* The connection is lost and there again: what has no answer yet goes out once more, and by
 * then the sink's thread has looked at all that it was left. */
static void
reconnect(unsigned count)
{
	set_state(NATS_LINK_DOWN);
	set_state(NATS_LINK_OPEN);
	wait_sent(count);
}

static void
check_not_home(struct batch *batch)
{
	inbox_run(&b.inbox);
	ck_assert(!batch->answered);
}

static void
end(struct batch *batch, enum outcome outcome)
{
	batches_wait(&b);
	for (unsigned i = 0; i < batch->count; i++)
		ck_assert_int_eq(batches_outcome(batch, i), outcome);
	batch_free(batch);
}

/* ------------------------------------------------------------------- tests */

START_TEST(an_answer_is_for_its_token_only)
{
	struct batch *batch;
	unsigned place;

	open_sink(LONG);
	batch = deliver(1);
	wait_sent(1);
	answer(sent[0].token, NATS_STORED);
	end(batch, OUTCOME_ACCEPTED);

	batch = deliver(1);
	wait_sent(2);
	/* The place is the same, or this would show nothing. */
	place = (unsigned)(sent[1].token % NATS_WINDOW);
	ck_assert_uint_eq(sent[0].token % NATS_WINDOW, place);
	ck_assert_uint_ne(sent[0].token, sent[1].token);
	answer(sent[0].token, NATS_STORED); /* late, or twice */
	answer(sent[1].token + NATS_WINDOW, NATS_STORED);
	answer(place, NATS_NEVER);
	answer((place + 1) % NATS_WINDOW, NATS_STORED); /* nothing is there */
	answer(UINT64_MAX - NATS_WINDOW + 1 + place, NATS_STORED);
	check_not_home(batch);
	reconnect(3);
	check_not_home(batch);
	ck_assert_uint_eq(sent[2].token, sent[1].token);
	answer(sent[1].token, NATS_STORED);
	end(batch, OUTCOME_ACCEPTED);
	ck_assert_uint_eq(account_get(&b.sink->account->accepted), 2);
	batches_close(&b);
}
END_TEST

START_TEST(the_end_of_its_time_accepts_nothing)
{
	struct batch *batch;
	uint64_t begun = clock_now();

	open_sink(SHORT);
	batch = deliver(3);
	wait_sent(3);
	end(batch, OUTCOME_TIMEOUT);
	ck_assert_uint_ge(clock_now() - begun, SHORT);
	for (unsigned i = 0; i < 3; i++)
		answer(sent[i].token, NATS_STORED); /* too late: its sender was told */
	ck_assert_uint_eq(account_get(&b.sink->account->accepted), 0);
	ck_assert_uint_eq(account_get(&b.sink->account->failed), 3);
	/* Without a connection, sent before it was lost or never. */
	batch = deliver(2);
	wait_sent(5);
	set_state(NATS_LINK_DOWN);
	end(batch, OUTCOME_UNAVAILABLE);
	end(deliver(2), OUTCOME_UNAVAILABLE);
	wait_sent(5);
	/* The first of two is acknowledged in time. */
	set_state(NATS_LINK_OPEN);
	batch = deliver(2);
	wait_sent(7);
	answer(sent[5].token, NATS_STORED);
	batches_wait(&b);
	ck_assert_int_eq(batches_outcome(batch, 0), OUTCOME_ACCEPTED);
	ck_assert_int_eq(batches_outcome(batch, 1), OUTCOME_TIMEOUT);
	batch_free(batch);
	batches_close(&b);
}
END_TEST

START_TEST(a_new_connection_accepts_nothing)
{
	struct batch *batch;

	open_sink(LONG);
	batch = deliver(3);
	wait_sent(3);
	answer(sent[1].token, NATS_STORED);
	reconnect(5); /* the two others, in their order, under the same ids and tokens */
	check_not_home(batch);
	ck_assert_str_eq(sent[3].id, sent[0].id);
	ck_assert_str_eq(sent[4].id, sent[2].id);
	ck_assert_uint_eq(sent[3].token, sent[0].token);
	ck_assert_uint_eq(sent[4].token, sent[2].token);
	answer(sent[3].token, NATS_STORED);
	reconnect(6);
	check_not_home(batch);
	ck_assert_str_eq(sent[5].id, sent[2].id);
	answer(sent[5].token, NATS_STORED);
	end(batch, OUTCOME_ACCEPTED);
	batches_close(&b);

	open_sink(SHORT); /* and what is never answered is not, however often it was sent */
	batch = deliver(1);
	wait_sent(1);
	reconnect(2);
	end(batch, OUTCOME_TIMEOUT);
	batches_close(&b);
}
END_TEST

START_TEST(what_is_said_while_it_is_sent_counts_once)
{
	struct batch *batch;

	open_sink(LONG);
	at_once = true;
	end(deliver(20), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(account_get(&b.sink->account->accepted), 20);
	ck_assert_uint_eq(n_sent, 20);
	/* The library says that it could not, and the stream that it has it. */
	status = NATS_CONNECTION_DISCONNECTED;
	end(deliver(5), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(n_sent, 25);
	at_once = false;
	batch = deliver(1); /* it could not, and nobody says anything: again */
	wait_sent(26);
	wait_sent(27);
	check_not_home(batch);
	ck_assert_str_eq(sent[25].id, sent[26].id);
	status = NATS_OK;
	answer(sent[26].token, NATS_STORED);
	end(batch, OUTCOME_ACCEPTED);
	batches_close(&b);
}
END_TEST

START_TEST(a_stop_accepts_nothing)
{
	struct batch *batch;

	open_sink(LONG);
	batch = deliver(2);
	wait_sent(2);
	answer(sent[0].token, NATS_STORED);
	sink_hurry(b.sink);
	batches_wait(&b);
	ck_assert_int_eq(batches_outcome(batch, 0), OUTCOME_ACCEPTED);
	ck_assert_int_eq(batches_outcome(batch, 1), OUTCOME_SHUTDOWN);
	batch_free(batch);
	pthread_mutex_lock(&link_.lock);
	link_.hurried = false;
	pthread_mutex_unlock(&link_.lock);
	batches_close(&b);
}
END_TEST

static void
answer_too_large(uint64_t token)
{
	struct nats_answer said = {.verdict = NATS_NEVER, .outcome = OUTCOME_TOO_LARGE, .too_large = true};

	link_.answered(link_.sink, token, &said);
}

/* Two copies went out before the stream said that they are too large: when it says so of the
 * second, a reference may be there, which must not lose its file. */
START_TEST(a_late_answer_takes_no_claim)
{
	char directory[4096], path[NATS_CLAIM_PATH];
	struct config_sink spool = {.name = (char *)"p", .type = CONFIG_SINK_SPOOL, .mode = 0640,
				    .directory = directory};
	struct batch *batch;
	struct nats *n;
	struct stat st;

	snprintf(directory, sizeof(directory), "%s", batches_path("claims"));
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	ck_assert_int_eq(mkdir(batches_path("claims/new"), 0700), 0);
	ck_assert_int_eq(mkdir(batches_path("claims/tmp"), 0700), 0);
	claim = &spool;
	open_sink(LONG);
	n = b.sink->state;
	batch = deliver(1);
	wait_sent(1);
	reconnect(2);
	answer_too_large(sent[0].token);
	wait_sent(3);
	nats_claim_path(&n->claim, batch, &batch->messages[0], path);
	ck_assert_int_eq(stat(path, &st), 0);
	answer_too_large(sent[0].token);
	reconnect(4);
	check_not_home(batch);
	answer(sent[0].token, NATS_STORED);
	end(batch, OUTCOME_ACCEPTED);
	ck_assert_int_eq(stat(path, &st), 0);
	/* What is said of a reference counts, and none is in the stream then. */
	batch = deliver(1);
	wait_sent(5);
	answer_too_large(sent[4].token);
	wait_sent(6);
	nats_claim_path(&n->claim, batch, &batch->messages[0], path);
	ck_assert_int_eq(stat(path, &st), 0);
	answer_too_large(sent[4].token);
	end(batch, OUTCOME_TOO_LARGE);
	ck_assert_int_eq(stat(path, &st), -1);
	batches_close(&b);
	claim = NULL;
}
END_TEST

static Suite *
nats_flight_suite(void)
{
	Suite *suite = suite_create("nats_flight");
	TCase *tcase = tcase_create("nats_flight");

	tcase_add_checked_fixture(tcase, NULL, batches_clean);
	tcase_add_test(tcase, an_answer_is_for_its_token_only);
	tcase_add_test(tcase, the_end_of_its_time_accepts_nothing);
	tcase_add_test(tcase, a_new_connection_accepts_nothing);
	tcase_add_test(tcase, what_is_said_while_it_is_sent_counts_once);
	tcase_add_test(tcase, a_stop_accepts_nothing);
	tcase_add_test(tcase, a_late_answer_takes_no_claim);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	return unit_run(nats_flight_suite());
}
