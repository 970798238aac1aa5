/*
 * connection_say: a line of the log about a connection, which it names in one way
 * everywhere.  What does not fit into the message is cut off.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/net.h"
#include "intake/connection.h"

void
connection_say(enum log_level level, const char *event, const struct connection *c,
	       const struct log_field *fields, const char *format, ...)
{
	char peer[NET_TEXT_LEN], message[512];
	struct log_subject subject = {
		.connection = c->origin.connection, .listener = c->origin.listener, .peer = peer,
		.fields = fields};
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	net_address_text(&c->origin.peer, peer);
	log_connection(level, event, &subject, "%s", message);
}
