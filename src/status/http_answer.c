/*
 * http_answer: see http.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>

#include "status/http.h"

struct http_body *
http_body_new(char *bytes, size_t len)
{
	struct http_body *body = malloc(sizeof(*body));

	if (body == NULL)
		free(bytes);
	else
		*body = (struct http_body){.references = 1, .len = len, .bytes = bytes};
	return body;
}

void
http_body_unref(struct http_body *body)
{
	if (body == NULL || --body->references > 0)
		return;
	free(body->bytes);
	free(body);
}

static void
body_on_sent(const void *bytes, size_t len, void *arg)
{
	(void)bytes;
	(void)len;
	http_body_unref(arg);
}

static const char *
reason(int code)
{
	switch (code) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 421:
		return "Misdirected Request";
	default:
		return "Service Unavailable";
	}
}

/* evhttp goes on to read while it writes, only to hang up as soon as it finds that the client has
 * closed its side, or has said nothing for some seconds, however much of the answer has not left. */
static void
stop_reading(struct evhttp_connection *connection)
{
	if (connection != NULL) /* else the client has gone */
		bufferevent_disable(evhttp_connection_get_bufferevent(connection), EV_READ);
}

void
http_reply(struct evhttp_request *request, int code, const char *type, const char *policy,
	   struct http_body *body)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	bool head = evhttp_request_get_command(request) == EVHTTP_REQ_HEAD;
	struct evbuffer *out = head || body == NULL ? NULL : evbuffer_new();
	char length[24];

	evhttp_add_header(headers, "Connection", "close");
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "Content-Security-Policy",
			  policy != NULL ? policy : "default-src 'none'; frame-ancestors 'none'");
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Cross-Origin-Resource-Policy", "same-origin");
	evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	if (head && body != NULL) {
		snprintf(length, sizeof(length), "%zu", body->len);
		evhttp_add_header(headers, "Content-Length", length);
	}
	if (out != NULL) {
		body->references++;
		if (evbuffer_add_reference(out, body->bytes, body->len, body_on_sent, body) == -1) {
			http_body_unref(body);
			evbuffer_free(out);
			out = NULL;
		}
	}
	if (out == NULL && !head)
		code = HTTP_SERVUNAVAIL; /* no memory: without its body it would mislead */
	evhttp_send_reply(request, code, reason(code), out);
	stop_reading(connection);
	if (out != NULL)
		evbuffer_free(out);
}

void
http_reply_text(struct evhttp_request *request, int code, const char *text)
{
	char *copy = strdup(text);
	struct http_body *body = copy != NULL ? http_body_new(copy, strlen(text)) : NULL;

	http_reply(request, code, "text/plain; charset=utf-8", NULL, body);
	http_body_unref(body);
}
