/*
 * top_command: `cistern top`: what a daemon does, from its status service.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/types.h"
#include "tool/fetch.h"
#include "tool/screen.h"
#include "tool/status.h"
#include "tool/tool.h"
#include "tool/top_view.h"

#define HINT "cisternd answers there when its configuration has the group status"
#define DEFAULT_TARGET "127.0.0.1:11080"
#define DEFAULT_PORT "11080"
#define DEFAULT_PATH "/status.json"
#define INTERVAL_LEAST (TYPES_SECOND / 10)
#define INTERVAL_MOST (3600 * TYPES_SECOND)
#define FETCH_TIMEOUT (5 * TYPES_SECOND)

struct top {
	struct target target;
	const char *target_text;
	const char *path;
	uint64_t interval;
	enum status_column column;
	bool reverse;
	bool once;
	bool json;
	struct status *status; /* NULL: none has come yet */
	char why[FETCH_WHY_MAX]; /* the last attempt failed; "" */
	size_t first; /* of the connections on the screen */
};

static void
usage(void)
{
	printf("usage: cistern top [OPTION...] [URL|HOST:PORT]\n"
	       "Shows what a running cisternd does, from its status service\n"
	       "(default: http://" DEFAULT_TARGET DEFAULT_PATH ").\n"
	       "\n"
	       "  -1, --once           two looks, an interval apart, printed; for scripts\n"
	       "  -j, --json           print an object a line; with --once a single one\n"
	       "  -i, --interval TIME  between two looks (1s)\n"
	       "  -s, --sort COLUMN    connection, listener, peer, age, rate (the default),\n"
	       "                       message-rate, bytes, messages, in-flight, waits-for\n"
	       "  -r, --reverse        the other way round\n"
	       "  -h, --help           this\n"
	       "\n"
	       "Keys: q quits, s and left and right choose the column to sort by, r turns the\n"
	       "order, up, down, page up and page down move, space looks at once.\n");
}

/* Another look.  0 or an exit status; why says why. */
static int
look(struct top *top)
{
	struct status *status;
	char *body;
	size_t len;
	int code = fetch(&top->target, top->path, FETCH_TIMEOUT, &body, &len, top->why);

	if (code != 0)
		return code;
	status = status_parse(body, len, top->why, sizeof top->why);
	free(body);
	if (status == NULL)
		return EX_PROTOCOL;
	top->why[0] = '\0';
	status_rate(status, top->status);
	status_sort(status, top->column, top->reverse);
	status_free(top->status);
	top->status = status;
	return 0;
}

static void
rest(uint64_t time)
{
	struct timespec left = {
		.tv_sec = (time_t)(time / TYPES_SECOND),
		.tv_nsec = (long)(time % TYPES_SECOND) * 1000,
	};

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

/* Without a terminal: once, or JSON for ever. */
static int
print(struct top *top)
{
	unsigned looks;
	int code;

	for (looks = 1;; looks++) {
		code = look(top);
		if (code != 0) {
			tool_complain("%s: %s", top->target_text, top->why);
			if (code == EX_UNAVAILABLE && top->status == NULL)
				tool_complain("%s", HINT);
			return code;
		}
		/* After a restart in between there are no rates, but there is a status. */
		if (top->status->rated || looks == 2) {
			if (top->json) {
				top_view_json(stdout, top->status);
			} else {
				top_view_head(stdout, top->status, false);
				top_view_connections(stdout, top->status, top->column, 0, SIZE_MAX, false);
			}
			if (fflush(stdout) != 0 || top->once)
				return 0;
		}
		rest(top->interval);
	}
}

static void
draw(struct top *top)
{
	char *text = NULL, *shown;
	size_t size, used = 0, rest_rows;
	int rows, columns;
	FILE *to = open_memstream(&text, &size);

	if (to == NULL)
		return;
	screen_size(&rows, &columns);
	if (top->why[0] != '\0') {
		shown = tool_show(top->why);
		fprintf(to, "%s: %s\n", top->target_text, shown);
		free(shown);
		if (top->status == NULL)
			fputs(HINT "\n", to);
	}
	if (top->status != NULL) {
		top_view_head(to, top->status, true);
		fflush(to);
		for (size_t i = 0; i < size; i++)
			used += text[i] == '\n';
		rest_rows = (size_t)rows > used + 1 ? (size_t)rows - used - 1 : 1;
		if (top->first + rest_rows > top->status->n_connections)
			top->first = top->status->n_connections > rest_rows ?
					     top->status->n_connections - rest_rows : 0;
		top_view_connections(to, top->status, top->column, top->first, rest_rows, true);
	} else if (top->why[0] == '\0') {
		fprintf(to, "%s ...\n", top->target_text);
	}
	if (fclose(to) == 0)
		screen_draw(text);
	free(text);
}

/* False: it was the last one. */
static bool
take_key(struct top *top, int key)
{
	int rows, columns;
	size_t page;

	screen_size(&rows, &columns);
	page = rows > 4 ? (size_t)rows / 2 : 1;
	switch (key) {
	case 'q':
	case 'Q':
	case SCREEN_END:
		return false;
	case 's':
	case SCREEN_RIGHT:
		top->column = (top->column + 1) % STATUS_COLUMNS;
		break;
	case SCREEN_LEFT:
		top->column = (top->column + STATUS_COLUMNS - 1) % STATUS_COLUMNS;
		break;
	case 'r':
		top->reverse = !top->reverse;
		break;
	case SCREEN_UP:
		top->first -= top->first > 0;
		break;
	case SCREEN_DOWN:
		top->first++;
		break;
	case SCREEN_PAGE_UP:
		top->first -= top->first > page ? page : top->first;
		break;
	case SCREEN_PAGE_DOWN:
		top->first += page;
		break;
	case SCREEN_HOME:
		top->first = 0;
		break;
	case SCREEN_BOTTOM:
		top->first = SIZE_MAX / 2;
		break;
	default:
		break;
	}
	if (top->status != NULL)
		status_sort(top->status, top->column, top->reverse);
	return true;
}

static int
watch(struct top *top)
{
	uint64_t next = 0, now;
	bool on = true;
	int key;

	if (!isatty(STDOUT_FILENO) || !screen_open()) {
		tool_complain("this is no terminal; use --once or --json");
		return EX_USAGE;
	}
	draw(top);
	while (on) {
		now = clock_now();
		if (now >= next) {
			/* A failure is on the screen until it is over. */
			(void)look(top);
			now = clock_now();
			next = now + top->interval;
		}
		draw(top);
		key = screen_key(next > now ? next - now : 0);
		if (key == ' ')
			next = 0;
		on = take_key(top, key);
	}
	screen_close();
	return 0;
}

/* 0, or an exit status; -1: help was given. */
static int
take_option(struct top *top, int option)
{
	int column;

	switch (option) {
	case '1':
		top->once = true;
		return 0;
	case 'j':
		top->json = true;
		return 0;
	case 'i':
		if (!tool_duration("--interval", optarg, &top->interval))
			return EX_USAGE;
		if (top->interval >= INTERVAL_LEAST && top->interval <= INTERVAL_MOST)
			return 0;
		return tool_misused("--interval: \"%s\": expected 100ms to 1h", optarg);
	case 's':
		column = status_column_from_name(optarg);
		if (column == -1)
			return tool_misused("--sort: \"%s\": expected connection, listener, peer, age, "
					    "rate, message-rate, bytes, messages, in-flight or waits-for",
					    optarg);
		top->column = (enum status_column)column;
		return 0;
	case 'r':
		top->reverse = true;
		return 0;
	case 'h':
		usage();
		return -1;
	default:
		return tool_hint(); /* getopt has complained */
	}
}

int
top_command(int argc, char **argv)
{
	static char name[] = "cistern top";
	static const struct option options[] = {
		{"once", no_argument, NULL, '1'},
		{"json", no_argument, NULL, 'j'},
		{"interval", required_argument, NULL, 'i'},
		{"sort", required_argument, NULL, 's'},
		{"reverse", no_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct top top = {
		.target_text = DEFAULT_TARGET,
		.interval = TYPES_SECOND,
		.column = STATUS_RATE,
	};
	const char *why;
	int option, code = 0;

	tool_name = argv[0] = name; /* as getopt complains, too */
	while (code == 0 && (option = getopt_long(argc, argv, "1ji:s:rh", options, NULL)) != -1)
		code = take_option(&top, option);
	if (code == 0 && argc - optind > 1)
		code = tool_misused("\"%s\": one service at a time", argv[optind + 1]);
	if (code == 0 && optind < argc)
		top.target_text = argv[optind];
	if (code == 0) {
		why = target_parse_url(top.target_text, DEFAULT_PORT, DEFAULT_PATH, &top.target,
				       &top.path);
		if (why != NULL)
			code = tool_misused("\"%s\": %s", top.target_text, why);
	}
#ifndef HAVE_JANSSON
	if (code == 0) {
		tool_complain("it was built without jansson, which reads JSON; the status service's "
			      "page shows the same (configure --with-jansson)");
		code = EX_UNAVAILABLE;
	}
#endif
	if (code == 0)
		code = top.once || top.json ? print(&top) : watch(&top);
	status_free(top.status);
	return tool_printed(code == -1 ? 0 : code);
}
