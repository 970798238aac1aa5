/*
 * http: evhttp with all its limits set.
 *
 * GET and HEAD only, one request a connection, no body; headers, time and the number
 * of connections are bounded, and the oldest that has not asked yet makes room for a
 * newcomer.  Whoever asks by a name that is none of ours is turned away, for a page
 * from elsewhere could have had its name lead here (DNS rebinding).
 *
 * Main thread.
 */
#ifndef STATUS_HTTP_H
#define STATUS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

struct config_status;
struct event_base;
struct evhttp_request;
struct http;

/* What is asked for: a path, decoded no further.  To be answered by http_reply, now or
 * later, exactly once. */
typedef void http_handler(struct evhttp_request *request, const char *path, void *arg);

/* Binds, and listens from http_begin on.  0, or an exit code, having logged why. */
int http_open(struct http **http, struct event_base *base, const struct config_status *config,
	      http_handler *handle, void *arg);
void http_begin(struct http *http, const struct config_status *config);

/* The names that it may be asked by; the configuration has to stay. */
void http_set_hosts(struct http *http, const struct config_status *config);

/* Accepts no more.  Requests that are being answered go on until http_is_idle. */
void http_retire(struct http *http);
bool http_is_idle(const struct http *http);

/* Requests that wait for an answer are not to be answered any more.  NULL is fine. */
void http_close(struct http *http);

/* A body that many answers may share. */
struct http_body {
	unsigned references;
	size_t len;
	char *bytes; /* of malloc */
};

struct http_body *http_body_new(char *bytes, size_t len); /* takes the bytes over; NULL: freed */
void http_body_unref(struct http_body *body);             /* NULL is fine */

/* policy: Content-Security-Policy; NULL: the strictest.  body NULL: there was no memory. */
void http_reply(struct evhttp_request *request, int code, const char *type, const char *policy,
		struct http_body *body);
void http_reply_text(struct evhttp_request *request, int code, const char *text);

/* A header of the request; "" where there is none. */
const char *http_header(struct evhttp_request *request, const char *name);

/* Whether a Host header names an address, this machine or one of the names. */
bool http_host_is_ours(const char *host, const struct config_status *config);

#endif
