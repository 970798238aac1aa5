/*
 * command_output: what programs print, as events of the log.
 *
 * One event a line, with controls shown, not sent.  What goes past the bounds (of a
 * line, of a process, of all of a sink's in ten seconds) is read and dropped, so that no
 * program is stopped or killed for printing, and the log says that something is missing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "sinks/command.h"

#define LAST_READS 4 /* a pipe holds 64 KiB; a child of its own may go on writing */

static void
say(const struct command_label *label, const char *text, const char *more)
{
	char peer[NET_TEXT_LEN];
	struct log_subject subject = {.connection = label->origin->connection,
				      .listener = label->origin->listener, .peer = peer};

	net_address_text(&label->origin->peer, peer);
	log_connection(LOG_LEVEL_INFO, "command-output", &subject, "sink %s: message %s: %s%s",
		       label->sink, label->id, text, more);
}

static void
end_line(struct command_output *output, const struct command_label *label)
{
	char text[UTF8_SHOW_MAX(COMMAND_LINE) + 1];
	struct utf8_show show = {.lines = false};
	size_t len;

	if (output->lines >= COMMAND_LINES || !log_enabled(LOG_LEVEL_INFO)) {
		output->unsaid += output->used + 1;
	} else if (valve_pass(output->valve, clock_now())) {
		len = utf8_show(&show, text, output->line, output->used);
		len += utf8_show_end(&show, text + len);
		text[len] = '\0';
		say(label, text, output->cut ? " ... (the line goes on)" : "");
	}
	output->lines++;
	output->used = 0;
	output->cut = false;
}

static void
feed(struct command_output *output, const struct command_label *label, const unsigned char *bytes,
     size_t len)
{
	while (len > 0) {
		const unsigned char *end;
		size_t part, room = sizeof(output->line) - output->used;

		if (output->lines >= COMMAND_LINES) {
			output->unsaid += len;
			return;
		}
		end = memchr(bytes, '\n', len);
		part = end != NULL ? (size_t)(end - bytes) : len;
		if (part > room)
			output->cut = true;
		memcpy(output->line + output->used, bytes, part < room ? part : room);
		output->used += part < room ? part : room;
		if (end == NULL)
			return;
		end_line(output, label);
		bytes += part + 1;
		len -= part + 1;
	}
}

/* One read.  False: nothing more for now, or for ever. */
static bool
read_some(struct command_output *output, const struct command_label *label,
	  unsigned char *scratch)
{
	ssize_t n;

	do
		n = read(output->fd, scratch, COMMAND_SCRATCH);
	while (n == -1 && errno == EINTR);
	if (n > 0) {
		feed(output, label, scratch, (size_t)n);
		return true;
	}
	if (n == 0 || errno != EAGAIN) {
		close(output->fd);
		output->fd = -1;
	}
	return false;
}

void
command_output_read(struct command_output *output, const struct command_label *label,
		    unsigned char *scratch)
{
	(void)read_some(output, label, scratch);
}

void
command_output_end(struct command_output *output, const struct command_label *label,
		   unsigned char *scratch)
{
	char text[64];
	int i;

	for (i = 0; output->fd != -1 && i < LAST_READS && read_some(output, label, scratch); i++)
		;
	if (output->fd != -1)
		close(output->fd);
	output->fd = -1;
	if (output->used > 0)
		end_line(output, label);
	if (output->unsaid > 0 && valve_pass(output->valve, clock_now())) {
		snprintf(text, sizeof(text), "... and %llu bytes more",
			 (unsigned long long)output->unsaid);
		say(label, text, "");
	}
}
