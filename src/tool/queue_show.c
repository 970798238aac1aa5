/*
 * queue_show: see queue_show.h.
 */
#include "tool/queue_show.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"
#include "tool/tool.h"

#define PIECE 65536
#define PREVIEW 512

/* "2026-11-22 18:41:55Z" */
static void
time_text(uint64_t time, char text[CLOCK_TEXT_LEN + 1])
{
	clock_rfc3339(time, text);
	text[10] = ' ';
	strcpy(text + 19, "Z");
}

static uint64_t
age_of(const struct spools_message *message, uint64_t now)
{
	return now > message->time ? now - message->time : 0;
}

static int
width(int least, const char *text)
{
	int len = (int)strlen(text);

	return len > least ? len : least;
}

int
queue_show_table(struct spools *spools, uint64_t now)
{
	size_t counts[SPOOLS_STATES] = {0};
	int listener_width = 8, peer_width = 4;
	char size[TOOL_SHORT];
	double bytes = 0;

	for (size_t i = 0; i < spools->n_messages; i++) {
		listener_width = width(listener_width, spools->messages[i].listener);
		peer_width = width(peer_width, spools->messages[i].peer);
	}
	if (spools->n_messages > 0)
		printf("%-26s  %-20s  %4s  %5s  %-*s  %-*s  %s\n", "ID", "TIME", "AGE", "SIZE",
		       listener_width, "LISTENER", peer_width, "PEER", "STATE");
	for (size_t i = 0; i < spools->n_messages; i++) {
		const struct spools_message *message = &spools->messages[i];
		char time[CLOCK_TEXT_LEN + 1], age[TOOL_SHORT];
		char *id = tool_show(message->id[0] != '\0' ? message->id : message->name);
		char *listener = tool_show(message->listener), *peer = tool_show(message->peer);

		if (spools->n_directories > 1 &&
		    (i == 0 || message->directory != spools->messages[i - 1].directory))
			printf("%s:\n", spools->directories[message->directory].path);
		time_text(message->time, time);
		tool_age(age_of(message, now), age);
		tool_size((double)message->size, size);
		printf("%-26s  %-20s  %4s  %5s  %-*s  %-*s  %s\n", id, time, age, size,
		       listener_width, listener, peer_width, peer, spools_state_name(message->state));
		counts[message->state]++;
		bytes += (double)message->size;
		free(id);
		free(listener);
		free(peer);
	}
	tool_size(bytes, size);
	printf("-- %s%s in %zu message%s", size, bytes < 1024 ? " bytes" : "", spools->n_messages,
	       spools->n_messages == 1 ? "" : "s");
	for (int state = SPOOLS_HOLD; state < SPOOLS_STATES; state++)
		if (counts[state] > 0)
			printf(", %zu %s%s", counts[state], state == SPOOLS_HOLD ? "on " : "",
			       spools_state_name((enum spools_state)state));
	printf(".\n");
	return 0;
}

static void
put_json(const char *name, const char *text)
{
	char *escaped = tool_alloc(JSON_ESCAPED_MAX(UTF8_SHOW_MAX(strlen(text))) + 1);
	size_t len = json_text(escaped, text);

	printf("\"%s\":\"%.*s\"", name, (int)len, escaped);
	free(escaped);
}

int
queue_show_json(struct spools *spools, uint64_t now)
{
	for (size_t i = 0; i < spools->n_messages; i++) {
		const struct spools_message *message = &spools->messages[i];
		char time[CLOCK_TEXT_LEN + 1];

		clock_rfc3339(message->time, time);
		printf("{");
		put_json("id", message->id);
		printf(",\"time\":\"%s\",\"age\":%.3f,\"size\":%llu,", time,
		       (double)age_of(message, now) / 1e6, (unsigned long long)message->size);
		put_json("listener", message->listener);
		printf(",");
		put_json("peer", message->peer);
		printf(",\"state\":\"%s\",", spools_state_name(message->state));
		put_json("spool", spools->directories[message->directory].path);
		printf(",");
		put_json("file", message->name);
		printf("}\n");
	}
	return 0;
}

/* Fills bytes from a file; how many, or -1. */
static ssize_t
read_some(int fd, unsigned char *bytes, size_t len)
{
	ssize_t n;

	do
		n = read(fd, bytes, len);
	while (n == -1 && errno == EINTR);
	return n;
}

static void
put_shown(struct utf8_show *show, const unsigned char *bytes, size_t len)
{
	char *shown = tool_alloc(UTF8_SHOW_MAX(len) + 1);

	fwrite(shown, 1, utf8_show(show, shown, bytes, len), stdout);
	free(shown);
}

static void
put_shown_end(struct utf8_show *show)
{
	char held[UTF8_SHOW_MAX(4)];

	fwrite(held, 1, utf8_show_end(show, held), stdout);
}

static void
show_preview(int fd)
{
	unsigned char bytes[PREVIEW];
	struct utf8_show show = {.lines = true};
	ssize_t n = read_some(fd, bytes, sizeof bytes);

	if (n <= 0)
		return;
	printf("\n");
	put_shown(&show, bytes, (size_t)n);
	put_shown_end(&show);
	if (bytes[n - 1] != '\n')
		printf("\n");
}

int
queue_show_each(struct spools *spools, uint64_t now)
{
	int code = 0;

	for (size_t i = 0; i < spools->n_messages; i++) {
		const struct spools_message *message = &spools->messages[i];
		char time[CLOCK_TEXT_LEN + 1], age[TOOL_SHORT], size[TOOL_SHORT];
		struct passwd *owner = getpwuid(message->owner);
		char *name = tool_show(message->name), *peer = tool_show(message->peer);
		char *listener = tool_show(message->listener);
		enum spools_result result;
		int fd = spools_message_open(spools, message, &result, &code);

		clock_rfc3339(message->time, time);
		tool_age(age_of(message, now), age);
		tool_size((double)message->size, size);
		printf("%sid        %s\n", i == 0 ? "" : "\n", message->id);
		printf("state     %s%s\n", spools_state_name(message->state),
		       result == SPOOLS_GONE ? " (gone meanwhile)" : "");
		printf("time      %s (%s ago)\n", time, age);
		printf("size      %llu (%s)\n", (unsigned long long)message->size, size);
		printf("listener  %s\n", listener);
		printf("peer      %s\n", peer);
		printf("file      %s/%s/%s\n", spools->directories[message->directory].path,
		       spools_state_name(message->state), name);
		if (owner != NULL)
			printf("owner     %s, mode %04o\n", owner->pw_name,
			       (unsigned)message->mode & 07777);
		else
			printf("owner     %u, mode %04o\n", (unsigned)message->owner,
			       (unsigned)message->mode & 07777);
		if (fd != -1) {
			show_preview(fd);
			close(fd);
		}
		free(name);
		free(peer);
		free(listener);
	}
	return code;
}

int
queue_show_bytes(struct spools *spools, bool raw)
{
	unsigned char *bytes = tool_alloc(PIECE);
	bool escape = !raw && isatty(STDOUT_FILENO);
	int code = 0;

	for (size_t i = 0; i < spools->n_messages; i++) {
		struct spools_message *message = &spools->messages[i];
		struct utf8_show show = {.lines = true};
		enum spools_result result;
		int fd = spools_message_open(spools, message, &result, &code);
		ssize_t n;

		if (result == SPOOLS_GONE) {
			/* Unlike a move, bytes that were asked for and are not there are missing. */
			tool_complain("%s: gone meanwhile", message->name);
			code = EX_NOINPUT;
		}
		if (fd == -1)
			continue;
		while ((n = read_some(fd, bytes, PIECE)) > 0) {
			if (escape)
				put_shown(&show, bytes, (size_t)n);
			else
				fwrite(bytes, 1, (size_t)n, stdout);
		}
		if (n == -1)
			code = spools_complain(message->name, "reading it", errno);
		if (escape)
			put_shown_end(&show);
		close(fd);
	}
	free(bytes);
	return code;
}
