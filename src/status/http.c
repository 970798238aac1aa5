/*
 * http: see http.h.
 *
 * evhttp 2.1 neither counts its connections nor says when one has gone.  So each gets a
 * bufferevent that is ours, too: bufferevent_free takes its callbacks away, which is seen
 * by a look at all of them once a second and before another one is accepted.  A
 * connection is ended by shutting its socket down, which evhttp finds out by itself.
 *
 * Nor does evhttp do anything when it cannot accept: it would try again at once, for ever.
 *
 * evhttp 2.1.12 closes the descriptor while the bufferevent's events are still in the
 * base.  Without our reference they would go at once; with it whoever was given the number
 * next (a listener of a reload) would never hear of anything, as libevent took the number
 * for one that it watches already.  So the bufferevent owns the descriptor, and closes it
 * when its events have gone; until then it may take in READ bytes, and no more.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/net.h"
#include "config/config.h"
#include "config/types.h"
#include "status/http.h"

#define MOST 64         /* connections; then the oldest one that has not asked goes */
#define MOST_EVER 96    /* then nobody is accepted any more */
#define BACKLOG 1024
#define NEWCOMER 100000 /* microseconds that nobody is sent away in */
#define EPISODE 10000000 /* without failures to accept, and the next one is told again */
#define HEADERS 8192    /* bytes of a request */
#define READ 16384      /* bytes that lie unread at the most; evhttp has to see that there are too many */
#define SILENCE 5       /* seconds */
#define ASK 5000000     /* microseconds for a request, whole ... */
#define ANSWER 30000000 /* ... and for its answer to be taken */

struct peer {
	struct peer *next; /* the youngest first */
	struct bufferevent *bev;
	uint64_t deadline;
	bool fresh; /* evhttp does not have it yet */
	bool asked;
};

struct http {
	struct evhttp *server;
	struct event_base *base;
	struct evconnlistener *listeners[2];
	struct evhttp_bound_socket *bound[2];
	size_t n_listeners;
	const struct config_status *config;
	struct peer *peers;
	unsigned n_peers;
	struct event *look;
	bool full;
	uint64_t failed; /* when nobody could be accepted; 0: never */
	http_handler *handle;
	void *arg;
	struct http *next; /* of all */
};

/* A listener's callbacks get an argument of evhttp's; by this ours is found. */
static struct http *all;

/* ------------------------------------------------------------- connections */

static bool
http_listen(struct http *http, bool on)
{
	bool done = true;
	size_t i;

	for (i = 0; i < http->n_listeners; i++)
		done &= (on ? evconnlistener_enable(http->listeners[i])
			    : evconnlistener_disable(http->listeners[i])) == 0;
	return done;
}

/* Nobody is accepted until there is room again. */
static void
http_shut(struct http *http)
{
	http->full = true;
	(void)http_listen(http, false);
}

/* No descriptor, no memory: again in a while. */
static void
http_on_error(struct evconnlistener *listener, void *arg)
{
	static const struct timeval later = {.tv_usec = 100000};
	int error = EVUTIL_SOCKET_ERROR();
	uint64_t now = clock_now();
	struct http *http = all;

	(void)arg;
	while (http != NULL && http->listeners[0] != listener && http->listeners[1] != listener)
		http = http->next;
	if (http == NULL)
		return;
	http_shut(http);
	event_add(http->look, &later);
	if (http->failed == 0 || now - http->failed >= EPISODE)
		log_event(LOG_LEVEL_ERROR, "accept-failed",
			  "the status service cannot accept: %s; who asks waits", strerror(error));
	http->failed = now;
}

/* Whether evhttp has freed its connection.  The descriptor is open until our reference goes. */
static bool
is_gone(const struct peer *peer)
{
	void *arg = NULL;

	if (peer->fresh)
		return false;
	bufferevent_getcb(peer->bev, NULL, NULL, NULL, &arg);
	return arg == NULL;
}

/* One that is not gone. */
static void
peer_end(struct peer *peer)
{
	evutil_socket_t fd = bufferevent_getfd(peer->bev);

	if (fd != -1)
		shutdown(fd, SHUT_RDWR); /* one that the client has ended is as good */
}

static void
http_look(struct http *http)
{
	struct peer **at = &http->peers, *peer;
	uint64_t now = clock_now();

	while ((peer = *at) != NULL) {
		if (is_gone(peer)) {
			*at = peer->next;
			bufferevent_decref(peer->bev);
			free(peer);
			http->n_peers--;
			continue;
		}
		if (now >= peer->deadline && !peer->fresh)
			peer_end(peer);
		at = &peer->next;
	}
}

static void
http_on_look(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval again = {.tv_sec = 1}, soon = {.tv_usec = 20000};
	struct http *http = arg;
	struct peer *peer;

	(void)fd;
	(void)what;
	memory_stock_close();
	for (peer = http->peers; peer != NULL; peer = peer->next)
		peer->fresh = false;
	for (peer = http->peers; http->full && peer != NULL; peer = peer->next)
		if (!peer->asked && peer->deadline - ASK + NEWCOMER <= clock_now())
			peer->deadline = 0;
	http_look(http);
	if (http->full && http->n_peers < MOST && memory_stock())
		http->full = !http_listen(http, true);
	memory_stock_close();
	if (http->n_peers > 0 || http->full)
		event_add(http->look, http->full ? &soon : &again);
}

/* The oldest that has not asked yet makes room. */
static void
make_room(struct http *http)
{
	struct peer *peer, *oldest = NULL;

	for (peer = http->peers; peer != NULL; peer = peer->next)
		if (!peer->asked && !peer->fresh)
			oldest = peer;
	if (oldest == NULL)
		return;
	oldest->asked = true; /* not twice */
	peer_end(oldest);
}

/* For a connection that is being accepted.  NULL, for want of memory: evhttp makes one
 * that is not counted, and tries to live with that. */
static struct bufferevent *
http_on_accept(struct event_base *base, void *arg)
{
	struct http *http = arg;
	struct peer *peer = calloc(1, sizeof(*peer)), *last = http->peers;

	/* What evhttp does next must have memory; and who comes next waits until there is
	 * enough again. */
	if (!memory_stock())
		http_shut(http);
	event_active(http->look, EV_TIMEOUT, 0);
	if (peer == NULL)
		return NULL;
	peer->bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (peer->bev == NULL) {
		free(peer);
		return NULL;
	}
	bufferevent_setwatermark(peer->bev, EV_READ, 0, READ);
	bufferevent_incref(peer->bev); /* ours, so that it can be looked at until the end */
	if (last != NULL)
		last->fresh = false; /* evhttp has seen to it before it accepts another one */
	http_look(http);
	if (http->n_peers >= MOST)
		make_room(http);
	peer->fresh = true;
	peer->deadline = clock_now() + ASK;
	peer->next = http->peers;
	http->peers = peer;
	if (++http->n_peers >= MOST_EVER)
		http_shut(http);
	return peer->bev;
}

static void
note_asked(struct http *http, struct evhttp_request *request)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
	struct peer *peer;

	for (peer = http->peers; peer != NULL; peer = peer->next) {
		if (peer->bev != bev)
			continue;
		peer->fresh = false;
		peer->asked = true;
		peer->deadline = clock_now() + ANSWER;
	}
}

/* ---------------------------------------------------------------- requests */

bool
http_host_is_ours(const char *host, const struct config_status *config)
{
	char name[256], own[256] = "";
	unsigned char address[16];
	size_t len = strlen(host), i;
	const char *colon;

	if (len == 0 || len >= sizeof(name))
		return false;
	memcpy(name, host, len + 1);
	if (name[0] == '[') {
		char *end = strchr(name, ']');

		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return false;
		*end = '\0';
		return inet_pton(AF_INET6, name + 1, address) == 1;
	}
	colon = strrchr(name, ':');
	if (colon != NULL) {
		if (strspn(colon + 1, "0123456789") != strlen(colon + 1))
			return false;
		name[colon - name] = '\0';
	}
	len = strlen(name);
	if (len > 0 && name[len - 1] == '.')
		name[--len] = '\0';
	/* No name that others own leads to an address or to localhost. */
	if (inet_pton(AF_INET, name, address) == 1 || strcasecmp(name, "localhost") == 0 ||
	    (len > 10 && strcasecmp(name + len - 10, ".localhost") == 0))
		return true;
	if (gethostname(own, sizeof(own) - 1) == 0 && own[0] != '\0' && strcasecmp(name, own) == 0)
		return true;
	for (i = 0; i < config->hosts.count; i++)
		if (strcasecmp(name, config->hosts.items[i]) == 0)
			return true;
	return false;
}

const char *
http_header(struct evhttp_request *request, const char *name)
{
	const char *value = evhttp_find_header(evhttp_request_get_input_headers(request), name);

	return value != NULL ? value : "";
}

static unsigned
count_headers(struct evhttp_request *request, const char *name)
{
	const struct evkeyval *header;
	unsigned count = 0;

	for (header = TAILQ_FIRST(evhttp_request_get_input_headers(request)); header != NULL;
	     header = TAILQ_NEXT(header, next))
		count += strcasecmp(header->key, name) == 0;
	return count;
}

static void
http_on_request(struct evhttp_request *request, void *arg)
{
	struct http *http = arg;
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	enum evhttp_cmd_type command = evhttp_request_get_command(request);
	const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;

	note_asked(http, request);
	if (uri == NULL || evhttp_uri_get_host(uri) != NULL || count_headers(request, "Host") > 1) {
		http_reply_text(request, HTTP_BADREQUEST, "bad request\n");
	} else if (command != EVHTTP_REQ_GET && command != EVHTTP_REQ_HEAD) {
		evhttp_add_header(evhttp_request_get_output_headers(request), "Allow", "GET, HEAD");
		http_reply_text(request, HTTP_BADMETHOD, "only GET and HEAD\n");
	} else if (!http_host_is_ours(*http_header(request, "Host") != '\0'
					      ? http_header(request, "Host") : "localhost",
				      http->config)) {
		http_reply_text(request, 421,
				"this name is not known here: ask by the address, or add the name to "
				"`hosts` in the group `status` of cistern.conf(5)\n");
	} else {
		http->handle(request, path != NULL && *path != '\0' ? path : "/", http->arg);
	}
}

/* ------------------------------------------------------------- open, close */

static int
http_bind(struct http *http, const struct types_address *address, const struct config_status *config)
{
	struct sockaddr_storage name = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&name;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&name;
	socklen_t len = address->family == AF_INET ? sizeof(*in) : sizeof(*in6);
	size_t n = http->n_listeners;
	int fd, one = 1;

	name.ss_family = address->family;
	if (address->family == AF_INET) {
		in->sin_addr = address->in;
		in->sin_port = htons((uint16_t)config->port);
	} else {
		in6->sin6_addr = address->in6;
		in6->sin6_port = htons((uint16_t)config->port);
		if (address->scope[0] != '\0')
			in6->sin6_scope_id = if_nametoindex(address->scope);
	}
	fd = socket(address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == -1 ||
	    (address->family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) == -1) ||
	    bind(fd, (struct sockaddr *)&name, len) == -1 || listen(fd, BACKLOG) == -1)
		goto failed;
	/* It listens already, as far as libevent is concerned: 0. */
	http->listeners[n] = evconnlistener_new(http->base, NULL, NULL,
						LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (http->listeners[n] == NULL) {
		errno = ENOMEM;
		goto failed;
	}
	http->bound[n] = evhttp_bind_listener(http->server, http->listeners[n]);
	if (http->bound[n] == NULL) {
		evconnlistener_free(http->listeners[n]);
		errno = ENOMEM;
		return -1;
	}
	evconnlistener_set_error_cb(http->listeners[n], http_on_error);
	evconnlistener_disable(http->listeners[n]); /* until http_begin */
	http->n_listeners++;
	return 0;
failed:
	n = (size_t)errno;
	close(fd);
	errno = (int)n;
	return -1;
}

int
http_open(struct http **opened, struct event_base *base, const struct config_status *config,
	  http_handler *handle, void *arg)
{
	struct http *http = calloc(1, sizeof(*http));
	struct types_address addresses[2];
	size_t count = 0, i;
	int failed = 0;

	*opened = NULL;
	if (http == NULL || (http->server = evhttp_new(base)) == NULL) {
		free(http);
		log_event(LOG_LEVEL_ERROR, "out-of-memory", "the status service: out of memory");
		return EX_OSERR;
	}
	http->base = base;
	http->config = config;
	http->look = evtimer_new(base, http_on_look, http);
	if (http->look == NULL) {
		evhttp_free(http->server);
		free(http);
		log_event(LOG_LEVEL_ERROR, "out-of-memory", "the status service: out of memory");
		return EX_OSERR;
	}
	http->handle = handle;
	http->arg = arg;
	http->next = all;
	all = http;
	evhttp_set_gencb(http->server, http_on_request, http);
	evhttp_set_bevcb(http->server, http_on_accept, http);
	evhttp_set_max_headers_size(http->server, HEADERS);
	evhttp_set_max_body_size(http->server, 0);
	evhttp_set_timeout(http->server, SILENCE);
	evhttp_set_allowed_methods(http->server, UINT16_MAX); /* told by us that they are not */
	(void)types_address(config->address, addresses, &count); /* the parser has looked */
	for (i = 0; i < count; i++)
		if (http_bind(http, &addresses[i], config) == -1 &&
		    (errno != EAFNOSUPPORT || count == 1))
			failed = errno;
	if (failed != 0 || http->n_listeners == 0) {
		log_event(LOG_LEVEL_ERROR, "status-failed",
			  "the status service cannot listen on %s, port %d: %s", config->address,
			  config->port, strerror(failed != 0 ? failed : EAFNOSUPPORT));
		http_close(http);
		return failed == EACCES ? EX_NOPERM : EX_OSERR;
	}
	*opened = http;
	return 0;
}

void
http_begin(struct http *http, const struct config_status *config)
{
	char text[NET_TEXT_LEN + 8];
	size_t i;

	http->config = config;
	errno = ENOMEM;
	if (!memory_stock() || !http_listen(http, true)) {
		log_event(LOG_LEVEL_ERROR, "status-failed",
			  "the status service cannot accept: %s; it goes on trying", strerror(errno));
		http_shut(http);
		event_active(http->look, EV_TIMEOUT, 0);
	}
	memory_stock_close();
	for (i = 0; i < http->n_listeners; i++) {
		struct sockaddr_storage name = {0};
		const struct sockaddr_in *in = (const struct sockaddr_in *)&name;
		socklen_t len = sizeof(name);
		bool loopback;

		if (getsockname(evconnlistener_get_fd(http->listeners[i]), (struct sockaddr *)&name,
				&len) == -1)
			continue;
		net_sockaddr_text((const struct sockaddr *)&name, text, sizeof(text));
		log_event_with(LOG_LEVEL_INFO, "status-listening", LOG_FIELDS(LOG_TEXT("address", text)),
			       "status service on http://%s/", text);
		loopback = name.ss_family == AF_INET
				   ? ntohl(in->sin_addr.s_addr) >> 24 == 127
				   : IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&name)->sin6_addr);
		if (!loopback)
			log_event(LOG_LEVEL_WARNING, "status-exposed",
				  "status service on %s: anybody who can reach that address sees who "
				  "connects and how much they send", text);
	}
}

void
http_set_hosts(struct http *http, const struct config_status *config)
{
	http->config = config;
}

void
http_retire(struct http *http)
{
	size_t i;

	for (i = 0; i < http->n_listeners; i++)
		evhttp_del_accept_socket(http->server, http->bound[i]);
	http->n_listeners = 0;
}

bool
http_is_idle(const struct http *http)
{
	return http->n_peers == 0;
}

void
http_close(struct http *http)
{
	struct http **at;
	struct peer *peer;

	if (http == NULL)
		return;
	for (at = &all; *at != http; at = &(*at)->next)
		;
	*at = http->next;
	http->n_listeners = 0; /* evhttp frees them */
	evhttp_free(http->server);
	while ((peer = http->peers) != NULL) {
		http->peers = peer->next;
		bufferevent_decref(peer->bev);
		free(peer);
	}
	event_free(http->look);
	free(http);
}
