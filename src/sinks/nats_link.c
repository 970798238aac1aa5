/*
 * nats_link: see nats_link.h.
 *
 * The first connection is tried for here, as only so the library says what is wrong.  One
 * that is lost is the library's to make again; one that it has given up (after
 * authorization errors) is made anew here.  After each, the stream is asked
 * about before anything is published: it may have no leader yet, or be gone.
 */
#include "sinks/nats_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "sinks/nats_inbox.h"
#include "sinks/nats_options.h"
#include "sinks/nats_stream.h"
#include "sinks/sink.h"

#define GRACE UINT64_C(1000000)	      /* not open for so long is trouble */
#define ASK_SOON UINT64_C(250000)     /* between questions while it is not open, ... */
#define ASK_AGAIN UINT64_C(1000000)   /* ... and while something is suspect */
#define RETRY UINT64_C(500000)	      /* between tries to connect, and new connections */
#define ENOUGH 262144 /* bytes: libnats 3.4.1 reads some pointers without looking whether they are NULL */
#define CLOSE_PATIENCE UINT64_C(3000000)

/* --------------------------------------------------------------- reference */

void
nats_link_unref(struct nats_link *link)
{
	bool last;

	pthread_mutex_lock(&link->lock);
	last = --link->references == 0;
	pthread_mutex_unlock(&link->lock);
	if (!last)
		return;
	natsOptions_Destroy(link->options);
	config_unref(link->config_reference);
	nats_stream_free_subjects(link->subjects, link->n_subjects);
	pthread_cond_destroy(&link->wake);
	pthread_cond_destroy(&link->tend);
	pthread_cond_destroy(&link->gone);
	pthread_mutex_destroy(&link->lock);
	free(link->stream);
	free(link);
}

void
nats_link_ref(struct nats_link *link)
{
	pthread_mutex_lock(&link->lock);
	link->references++;
	pthread_mutex_unlock(&link->lock);
}

struct sink *
nats_link_borrow_sink(struct nats_link *link)
{
	struct sink *sink;

	pthread_mutex_lock(&link->lock);
	sink = link->sink;
	link->busy += sink != NULL;
	pthread_mutex_unlock(&link->lock);
	return sink;
}

void
nats_link_give_back_sink(struct nats_link *link, const struct sink *sink)
{
	if (sink == NULL)
		return;
	pthread_mutex_lock(&link->lock);
	if (--link->busy == 0 && link->sink == NULL)
		pthread_cond_signal(&link->gone);
	pthread_mutex_unlock(&link->lock);
}

/* --------------------------------------------------------------- callbacks */

static void
set_state(struct nats_link *link, enum nats_link_state state)
{
	if (link->state != state) {
		link->state = state;
		link->since = clock_now();
		link->said = false;
		link->unheard = 0; /* all is sent again */
	}
	pthread_cond_signal(&link->wake);
	pthread_cond_signal(&link->tend);
}

static void
on_disconnected(natsConnection *connection, void *closure)
{
	struct nats_link *link = closure;

	(void)connection;
	pthread_mutex_lock(&link->lock);
	link->epoch++;
	if (link->state == NATS_LINK_OPEN)
		snprintf(link->why, sizeof(link->why), "the connection was lost");
	set_state(link, NATS_LINK_DOWN);
	pthread_mutex_unlock(&link->lock);
}

static void
on_connected(natsConnection *connection, void *closure)
{
	struct nats_link *link = closure;

	(void)connection;
	pthread_mutex_lock(&link->lock);
	link->next = 0;
	pthread_cond_signal(&link->tend);
	pthread_mutex_unlock(&link->lock);
}

static void
on_closed(natsConnection *connection, void *closure)
{
	on_disconnected(connection, closure);
	nats_link_unref(closure);
}

static void
on_error(natsConnection *connection, natsSubscription *subscription, natsStatus error,
	 void *closure)
{
	struct nats_link *link = closure;

	(void)connection;
	(void)subscription;
	pthread_mutex_lock(&link->lock);
	if (error == NATS_NOT_PERMITTED)
		link->forbidden = true;
	pthread_mutex_unlock(&link->lock);
	log_event(LOG_LEVEL_DEBUG, "nats-error", "%s", natsStatus_GetText(error));
}

/* -------------------------------------------------------------- connection */

static natsStatus
set_callbacks(natsOptions *o, struct nats_link *link)
{
	natsStatus status;

	if ((status = natsOptions_SetDisconnectedCB(o, on_disconnected, link)) != NATS_OK ||
	    (status = natsOptions_SetReconnectedCB(o, on_connected, link)) != NATS_OK ||
	    (status = natsOptions_SetClosedCB(o, on_closed, link)) != NATS_OK)
		return status;
	return natsOptions_SetErrorHandler(o, on_error, link);
}

static void
set_why(struct nats_link *link, const char *why)
{
	pthread_mutex_lock(&link->lock);
	snprintf(link->why, sizeof(link->why), "%s", why);
	pthread_mutex_unlock(&link->lock);
}

/* What the connection says is wrong, else what we know. */
static void
set_last_error(struct nats_link *link, natsConnection *connection, const char *known)
{
	const char *text = NULL;
	natsStatus status = natsConnection_GetLastError(connection, &text);

	if (status != NATS_OK && text != NULL && *text != '\0')
		known = text;
	else if (status != NATS_OK)
		known = natsStatus_GetText(status);
	set_why(link, known);
}

static void
connect_now(struct nats_link *link)
{
	natsConnection *connection = NULL;
	natsStatus status;

	if (!memory_is_there(ENOUGH)) {
		set_why(link, "out of memory");
		return;
	}
	nats_link_ref(link); /* of on_closed */
	status = natsConnection_Connect(&connection, link->options);
	if (status != NATS_OK) {
		nats_link_unref(link);
		set_why(link, status == NATS_NO_SERVER ? "no server can be reached"
						       : nats_last_words(status));
		return;
	}
	status = nats_inbox_open(link, connection);
	if (status != NATS_OK) {
		set_last_error(link, connection, natsStatus_GetText(status));
		natsConnection_Destroy(connection);
		return;
	}
	pthread_mutex_lock(&link->lock);
	link->connection = connection;
	link->next = 0; /* ask at once */
	pthread_mutex_unlock(&link->lock);
}

static void
disconnect(struct nats_link *link)
{
	natsConnection *connection;
	natsSubscription *answers;

	pthread_mutex_lock(&link->lock);
	connection = link->connection;
	answers = link->answers;
	link->connection = NULL;
	link->answers = NULL;
	while (link->users > 0)
		pthread_cond_wait(&link->tend, &link->lock);
	pthread_mutex_unlock(&link->lock);
	natsSubscription_Destroy(answers);
	natsConnection_Destroy(connection);
}

/* ------------------------------------------------------------------ keeper */

static void
say_connected(const struct nats_link *link)
{
	char url[256] = "";
	const char *host;

	if (natsConnection_GetConnectedUrl(link->connection, url, sizeof(url)) != NATS_OK)
		return;
	host = strrchr(url, '@'); /* passwords stay out of the log */
	if (host == NULL)
		host = strstr(url, "://") != NULL ? strstr(url, "://") + 2 : "-";
	log_event(LOG_LEVEL_INFO, "nats-connected", "sink %s: to %s, stream %s",
		  link->config->name, host + 1, link->stream);
}

static bool
is_well(struct nats_link *link, bool by_now)
{
	struct sink *sink = nats_link_borrow_sink(link);
	bool well = sink == NULL || sink_is_ready(sink);

	if (sink != NULL && by_now)
		sink_well(sink);
	nats_link_give_back_sink(link, sink);
	return well;
}

/* Takes over what is known of the stream now. */
static void
take_finding(struct nats_link *link, struct nats_finding *finding, unsigned epoch)
{
	bool opens, well;

	pthread_mutex_lock(&link->lock);
	if (link->epoch != epoch || link->stop) { /* it was another connection's */
		pthread_mutex_unlock(&link->lock);
		nats_stream_free_subjects(finding->subjects, finding->n_subjects);
		return;
	}
	link->suspect = false;
	link->full = finding->full;
	if (finding->subjects != NULL) {
		nats_stream_free_subjects(link->subjects, link->n_subjects);
		link->subjects = finding->subjects;
		link->n_subjects = finding->n_subjects;
	}
	if (link->misfit[0] != '\0' && nats_stream_takes(link, link->misfit, 0))
		link->misfit[0] = '\0';
	if (finding->limit > 0)
		link->limit = finding->limit;
	snprintf(link->why, sizeof(link->why), "%s", finding->why);
	opens = finding->state == NATS_LINK_OPEN && link->state != NATS_LINK_OPEN;
	set_state(link, finding->state);
	well = link->state == NATS_LINK_OPEN && !link->full && link->misfit[0] == '\0';
	pthread_mutex_unlock(&link->lock);
	if (opens)
		say_connected(link);
	if (well)
		(void)is_well(link, true);
}

static void
ask(struct nats_link *link)
{
	struct nats_finding finding;
	unsigned epoch;

	pthread_mutex_lock(&link->lock);
	epoch = link->epoch;
	link->asked = clock_now();
	link->forbidden = false;
	link->next = link->asked + ASK_SOON;
	pthread_mutex_unlock(&link->lock);
	if (!memory_is_there(ENOUGH)) {
		set_why(link, "out of memory");
		return;
	}
	nats_stream_ask(&finding, link->connection, link->config);
	pthread_mutex_lock(&link->lock);
	if (link->forbidden && finding.state == NATS_LINK_DOWN)
		finding.state = NATS_LINK_OPEN; /* publishing may be allowed: that will show */
	link->next = clock_now() + (finding.state == NATS_LINK_DOWN ? ASK_SOON : ASK_AGAIN);
	pthread_mutex_unlock(&link->lock);
	take_finding(link, &finding, epoch);
}

static void
wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until)
{
	struct timespec time = {.tv_sec = (time_t)(until / 1000000),
				.tv_nsec = (long)(until % 1000000) * 1000};

	pthread_cond_timedwait(cond, lock, &time);
}

/* Says that it is not open, once that has lasted; the lock is held, and given up meanwhile. */
static void
say_late(struct nats_link *link, uint64_t now)
{
	char why[sizeof(link->why)];
	struct sink *sink;

	if (link->state == NATS_LINK_OPEN || link->said ||
	    (link->state == NATS_LINK_DOWN && now - link->since < GRACE))
		return;
	link->said = true;
	memcpy(why, link->why, sizeof(why));
	pthread_mutex_unlock(&link->lock);
	sink = nats_link_borrow_sink(link);
	if (sink != NULL)
		sink_failing_as(sink, link->stream, why);
	nats_link_give_back_sink(link, sink);
	pthread_mutex_lock(&link->lock);
}

/* What is due; the lock is held, and given up meanwhile. */
static void
tend(struct nats_link *link)
{
	natsConnection *connection = link->connection;
	natsConnStatus status = NATS_CONN_STATUS_DISCONNECTED;
	uint64_t now = clock_now(), until;
	bool lasts, due, doubted;

	say_late(link, now);
	due = now >= link->next;
	if (connection == NULL && due)
		link->next = now + RETRY;
	pthread_mutex_unlock(&link->lock);
	lasts = !is_well(link, false);
	if (connection != NULL)
		status = natsConnection_Status(connection);
	else if (due)
		connect_now(link);
	if (status == NATS_CONN_STATUS_CLOSED) {
		set_last_error(link, connection, "the connection was closed");
		disconnect(link);
	}
	pthread_mutex_lock(&link->lock);
	if (status == NATS_CONN_STATUS_CONNECTED && nats_inbox_is_silent(link, clock_now()) &&
	    memory_is_there(ENOUGH)) {
		pthread_mutex_unlock(&link->lock);
		nats_inbox_renew(link);
		pthread_mutex_lock(&link->lock);
	}
	doubted = lasts || link->suspect || link->state != NATS_LINK_OPEN;
	if (status == NATS_CONN_STATUS_CONNECTED && now >= link->next && doubted) {
		pthread_mutex_unlock(&link->lock);
		ask(link);
		pthread_mutex_lock(&link->lock);
		return;
	}
	if (link->stop || (connection == NULL && due))
		return;
	until = now + (doubted ? ASK_SOON : ASK_AGAIN);
	if (link->next > now && link->next < until)
		until = link->next;
	wait_until(&link->tend, &link->lock, until);
}

static void *
keeper_run(void *arg)
{
	struct nats_link *link = arg;

	pthread_mutex_lock(&link->lock);
	link->since = clock_now(); /* on a busy machine it was opened long ago */
	while (!link->stop)
		tend(link);
	pthread_mutex_unlock(&link->lock);
	disconnect(link);
	nats_ReleaseThreadMemory();
	pthread_mutex_lock(&link->lock);
	link->ended = true;
	pthread_cond_signal(&link->gone);
	pthread_mutex_unlock(&link->lock);
	nats_link_unref(link);
	return NULL;
}

/* ---------------------------------------------------------- open and close */

static int
init(struct nats_link *link)
{
	pthread_condattr_t attributes;
	int error = pthread_condattr_init(&attributes);

	if (error != 0)
		return error;
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* is a clock */
	/* None of these fails on Linux. */
	pthread_mutex_init(&link->lock, NULL);
	pthread_cond_init(&link->wake, &attributes);
	pthread_cond_init(&link->tend, &attributes);
	pthread_cond_init(&link->gone, &attributes);
	pthread_condattr_destroy(&attributes);
	return 0;
}

int
nats_link_open(struct nats_link **opened, struct sink *sink,
	       void (*answered)(struct sink *sink, uint64_t token,
				const struct nats_answer *answer))
{
	const struct config_sink *config = sink->config;
	struct nats_link *link = calloc(1, sizeof(*link));
	char why[256] = "out of memory";
	int code = EX_OSERR;

	if (link == NULL || init(link) != 0) {
		free(link);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", config->name);
		return EX_OSERR;
	}
	link->references = 1;
	link->sink = sink;
	link->config = config;
	link->config_reference = config_ref(sink->config_reference);
	link->answered = answered;
	link->stream = strdup(config->nats.stream);
	link->since = clock_now();
	snprintf(link->why, sizeof(link->why), "not connected yet");
	if (link->stream != NULL)
		code = nats_options_new(&link->options, config, why, sizeof(why));
	if (code == 0 && set_callbacks(link->options, link) != NATS_OK)
		code = EX_OSERR;
	if (code != 0) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s:%d: %s", config->name,
			  config->place.file, config->place.line, why);
		nats_link_unref(link);
		return code;
	}
	*opened = link;
	return 0;
}

int
nats_link_start(struct nats_link *link)
{
	int code;

	sink_starting(link->sink, "not connected yet");
	nats_link_ref(link);
	code = sink_start_thread(link->sink, &link->keeper, "keep", keeper_run, link);
	link->started = code == 0;
	if (code != 0)
		nats_link_unref(link);
	return code;
}

void
nats_link_close(struct nats_link *link)
{
	uint64_t until = clock_now() + CLOSE_PATIENCE;
	bool ended;

	pthread_mutex_lock(&link->lock);
	link->stop = true;
	pthread_cond_signal(&link->tend);
	while (link->started && !link->ended && clock_now() < until)
		wait_until(&link->gone, &link->lock, until);
	link->sink = NULL;
	while (link->busy > 0)
		pthread_cond_wait(&link->gone, &link->lock);
	ended = link->ended;
	pthread_mutex_unlock(&link->lock);
	/* One that hangs, in a look-up of names say, has its own hold on the link. */
	if (link->started && ended)
		pthread_join(link->keeper, NULL);
	else if (link->started)
		pthread_detach(link->keeper);
	nats_link_unref(link);
}

/* ------------------------------------------------------------------- usage */

void
nats_link_suspect(struct nats_link *link)
{
	if (!link->suspect)
		pthread_cond_signal(&link->tend);
	link->suspect = true;
}

bool
nats_link_reply(const struct nats_link *link, uint64_t token, char reply[NATS_LINK_REPLY])
{
	if (link->connection == NULL)
		return false;
	snprintf(reply, NATS_LINK_REPLY, "%s.%016" PRIx64, link->inbox, token);
	return true;
}

natsStatus
nats_link_publish(struct nats_link *link, natsMsg *message)
{
	natsConnection *connection;
	natsStatus status;

	pthread_mutex_lock(&link->lock);
	connection = link->connection;
	link->users++;
	if (link->unheard == 0) /* before it can be answered */
		link->unheard = clock_now();
	pthread_mutex_unlock(&link->lock);
	status = connection == NULL ? NATS_CONNECTION_CLOSED
				    : natsConnection_PublishMsg(connection, message);
	pthread_mutex_lock(&link->lock);
	if (--link->users == 0 && link->connection == NULL)
		pthread_cond_signal(&link->tend);
	pthread_mutex_unlock(&link->lock);
	return status;
}
