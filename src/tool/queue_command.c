/*
 * queue_command: `cistern queue`: what lies in a spool, and what to do about it.
 *
 * Nothing is changed that was not selected; all of it only by the word ALL.
 */
#include <errno.h>
#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/config.h"
#include "tool/queue_show.h"
#include "tool/selection.h"
#include "tool/tool.h"

#ifndef CISTERN_SYSCONFDIR
#define CISTERN_SYSCONFDIR "/etc/cistern"
#endif

#define NEW SPOOLS_BIT(SPOOLS_NEW)
#define HOLD SPOOLS_BIT(SPOOLS_HOLD)
#define FAILED SPOOLS_BIT(SPOOLS_FAILED)
#define DONE SPOOLS_BIT(SPOOLS_DONE)

enum action { ACTION_LIST, ACTION_SHOW, ACTION_CAT, ACTION_MOVE, ACTION_DELETE };

static const struct command {
	const char *name;
	enum action action;
	enum spools_state to; /* of ACTION_MOVE */
	unsigned states;      /* that it is for, unless told otherwise */
	unsigned allowed;
	const char *did;
	const char *question; /* asked on a terminal */
} commands[] = {
	{"list", ACTION_LIST, 0, NEW | HOLD | FAILED, SPOOLS_ALL, NULL, NULL},
	{"show", ACTION_SHOW, 0, SPOOLS_ALL, SPOOLS_ALL, NULL, NULL},
	{"cat", ACTION_CAT, 0, SPOOLS_ALL, SPOOLS_ALL, NULL, NULL},
	{"hold", ACTION_MOVE, SPOOLS_HOLD, NEW, NEW | FAILED, "put on hold", NULL},
	{"release", ACTION_MOVE, SPOOLS_NEW, HOLD, HOLD, "released", NULL},
	{"requeue", ACTION_MOVE, SPOOLS_NEW, FAILED | DONE, FAILED | DONE, "requeued", NULL},
	{"delete", ACTION_DELETE, 0, SPOOLS_ALL, SPOOLS_ALL, "deleted", "Delete"},
	{"expire", ACTION_DELETE, 0, NEW | FAILED | DONE, SPOOLS_ALL, "expired", "Expire"},
};

struct queue {
	const struct command *command;
	struct selection selection;
	struct spools spools;
	const char *file; /* the configuration to look in */
	bool json;
	bool raw;
	bool force;
	bool quiet;
	bool dry;
	bool to_failed;
};

static void
usage(void)
{
	printf("usage: cistern queue [list] [OPTION...] [MESSAGE...]\n"
	       "       cistern queue show|cat [OPTION...] MESSAGE...\n"
	       "       cistern queue hold|release|requeue|delete [OPTION...] MESSAGE...|ALL\n"
	       "       cistern queue expire --older TIME [OPTION...] [MESSAGE...]\n"
	       "A MESSAGE is an id, the beginning of one, or a glob on the name of its file.\n"
	       "\n"
	       "  -c, --config FILE    look up the spools there\n"
	       "                       (default: %s/cistern.conf)\n"
	       "  -d, --directory DIR  the spool; may be repeated\n"
	       "      --older TIME     received longer ago than that (30s, 5m, 12h, 7d)\n"
	       "      --newer TIME     received since then\n"
	       "      --listener GLOB  received by that listener\n"
	       "      --peer GLOB      received from there: address, or address and port\n"
	       "      --state STATE    new, hold, failed, done or all; may be repeated\n"
	       "      --json           list: an object a line\n"
	       "      --raw            cat: bytes as they are, on a terminal, too\n"
	       "      --to-failed      expire: move from new to failed instead of deleting\n"
	       "  -f, --force          delete, expire: do not ask\n"
	       "  -n, --dry-run        list what would be done\n"
	       "  -q, --quiet          say nothing of what was done\n"
	       "  -h, --help           this\n",
	       CISTERN_SYSCONFDIR);
}

/* The spools of a configuration file. */
static int
open_configured(struct queue *queue)
{
	struct config_errors errors;
	struct config *config = config_load(queue->file, &errors);
	int code = config == NULL ? errors.exit_code : 0;
	bool found = false;

	config_errors_print(&errors, stderr);
	config_errors_free(&errors);
	if (config == NULL)
		tool_complain("no spool can be looked up in %s (-d names a directory)", queue->file);
	for (size_t i = 0; config != NULL && code == 0 && i < config->n_sinks; i++) {
		if (config->sinks[i].type != CONFIG_SINK_SPOOL)
			continue;
		found = true;
		code = spools_open(&queue->spools, config->sinks[i].directory);
	}
	if (config != NULL && !found && code == 0) {
		tool_complain("%s: no spool is configured there (-d names a directory)", queue->file);
		code = EX_CONFIG;
	}
	config_unref(config);
	return code;
}

static bool
add_state(struct selection *selection, const char *name)
{
	int state = spools_state_from_name(name);

	if (strcmp(name, "all") == 0)
		selection->states = SPOOLS_ALL;
	else if (state != -1)
		selection->states |= SPOOLS_BIT(state);
	else
		tool_misused("--state: \"%s\": expected new, hold, failed, done or all", name);
	return state != -1 || selection->states == SPOOLS_ALL;
}

/* 0 would be no condition at all, which a script that reckons does not mean. */
static int
take_age(const char *option, uint64_t *age)
{
	if (!tool_duration(option, optarg, age))
		return EX_USAGE;
	return *age > 0 ? 0 : tool_misused("%s: \"%s\": expected more than 0", option, optarg);
}

/* 0, or an exit status; -1: help was given. */
static int
take_option(struct queue *queue, int option)
{
	struct selection *selection = &queue->selection;

	switch (option) {
	case 'c':
		queue->file = optarg;
		return 0;
	case 'd':
		return spools_open(&queue->spools, optarg);
	case 'O':
		return take_age("--older", &selection->older);
	case 'N':
		return take_age("--newer", &selection->newer);
	case 'L':
		selection->listener = optarg;
		return 0;
	case 'P':
		selection->peer = optarg;
		return 0;
	case 'S':
		return add_state(selection, optarg) ? 0 : EX_USAGE;
	case 'J':
		queue->json = true;
		return 0;
	case 'R':
		queue->raw = true;
		return 0;
	case 'F':
		queue->to_failed = true;
		return 0;
	case 'f':
		queue->force = true;
		return 0;
	case 'n':
		queue->dry = true;
		return 0;
	case 'q':
		queue->quiet = true;
		return 0;
	case 'h':
		usage();
		return -1;
	default:
		return tool_hint(); /* getopt has complained */
	}
}

static const struct command *
find_command(const char *name)
{
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		if (strcmp(name, commands[i].name) == 0)
			return &commands[i];
	return NULL;
}

/* Ids begin with a digit, for some thousand years yet. */
static bool
is_word(const char *text)
{
	return isalpha((unsigned char)*text) && strpbrk(text, ".*?[") == NULL;
}

static int
check(struct queue *queue)
{
	const struct command *command = queue->command;
	struct selection *selection = &queue->selection;
	bool expires = strcmp(command->name, "expire") == 0;

	for (size_t i = 0; i < selection->n_patterns; i++)
		if (*selection->patterns[i] == '\0') /* every id begins so */
			return tool_misused("\"\": which message?");
	if (expires && selection->older == 0)
		return tool_misused("expire takes --older");
	if (queue->to_failed && !expires)
		return tool_misused("--to-failed belongs to expire");
	if (command->action != ACTION_LIST && !selection_is_given(selection))
		return tool_misused("%s: which messages? (ALL for all of them)", command->name);
	if (queue->to_failed)
		selection->states = selection->states == 0 ? NEW : selection->states & NEW;
	else if (selection->states == 0)
		selection->states = command->states;
	else if (selection->states != SPOOLS_ALL && (selection->states & ~command->allowed) != 0)
		return tool_misused("%s is not for messages in that state", command->name);
	selection->states &= command->allowed;
	return 0;
}

/* On a terminal, before anything is deleted. */
static bool
is_wanted(const struct queue *queue)
{
	char answer[16] = "";

	if (queue->command->question == NULL || queue->force || queue->spools.n_messages == 0 ||
	    !isatty(STDIN_FILENO))
		return true;
	fprintf(stderr, "%s %zu message%s? [y/N] ", queue->command->question,
		queue->spools.n_messages, queue->spools.n_messages == 1 ? "" : "s");
	fflush(stderr);
	return fgets(answer, sizeof answer, stdin) != NULL && (*answer == 'y' || *answer == 'Y');
}

static int
change(struct queue *queue)
{
	struct spools *spools = &queue->spools;
	size_t did = 0, gone = 0;
	int code = 0, synced;

	if (!is_wanted(queue)) {
		tool_complain("nothing was changed");
		return 0;
	}
	for (size_t i = 0; i < spools->n_messages; i++) {
		struct spools_message *message = &spools->messages[i];
		enum spools_result result;

		if (queue->to_failed)
			result = spools_move(spools, message, SPOOLS_FAILED, &code);
		else if (queue->command->action == ACTION_MOVE)
			result = spools_move(spools, message, queue->command->to, &code);
		else
			result = spools_remove(spools, message, &code);
		did += result == SPOOLS_DID;
		gone += result == SPOOLS_GONE;
	}
	synced = spools_sync(spools);
	if (!queue->quiet) {
		printf("%zu message%s %s", did, did == 1 ? "" : "s", queue->command->did);
		if (gone > 0)
			printf(", %zu gone meanwhile", gone);
		printf("\n");
	}
	return code != 0 ? code : synced;
}

static int
run(struct queue *queue)
{
	struct spools *spools = &queue->spools;
	enum action action = queue->command->action;
	int code = 0, missing;
	uint64_t now;

	if (spools->n_directories == 0)
		code = open_configured(queue);
	if (code == 0)
		code = spools_read(spools, queue->selection.states);
	if (code != 0)
		return code;
	now = clock_wall();
	missing = selection_apply(&queue->selection, spools, now);
	if (missing == EX_USAGE)
		return missing;
	if (action == ACTION_LIST || queue->dry)
		code = queue->json ? queue_show_json(spools, now) : queue_show_table(spools, now);
	else if (action == ACTION_SHOW)
		code = queue_show_each(spools, now);
	else if (action == ACTION_CAT)
		code = queue_show_bytes(spools, queue->raw);
	else
		code = change(queue);
	return code != 0 ? code : missing;
}

int
queue_command(int argc, char **argv)
{
	static char name[] = "cistern queue";
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"directory", required_argument, NULL, 'd'},
		{"older", required_argument, NULL, 'O'},
		{"newer", required_argument, NULL, 'N'},
		{"listener", required_argument, NULL, 'L'},
		{"peer", required_argument, NULL, 'P'},
		{"state", required_argument, NULL, 'S'},
		{"json", no_argument, NULL, 'J'},
		{"raw", no_argument, NULL, 'R'},
		{"to-failed", no_argument, NULL, 'F'},
		{"force", no_argument, NULL, 'f'},
		{"dry-run", no_argument, NULL, 'n'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct queue queue = {.command = &commands[0], .file = CISTERN_SYSCONFDIR "/cistern.conf"};
	int option, code = 0;

	tool_name = argv[0] = name; /* as getopt complains, too */
	while (code == 0 && (option = getopt_long(argc, argv, "c:d:fnqh", options, NULL)) != -1)
		code = take_option(&queue, option);
	if (code == 0 && optind < argc && find_command(argv[optind]) != NULL)
		queue.command = find_command(argv[optind++]);
	else if (code == 0 && optind < argc && is_word(argv[optind]) && strcmp(argv[optind], "ALL") != 0)
		code = tool_misused("\"%s\": expected list, show, cat, hold, release, requeue, delete, "
				    "expire, or a message", argv[optind]);
	if (code == 0 && argc - optind == 1 && strcmp(argv[optind], "ALL") == 0) {
		queue.selection.all = true;
		optind++;
	}
	queue.selection.patterns = argv + optind;
	queue.selection.n_patterns = (size_t)(argc - optind);
	if (code == 0)
		code = check(&queue);
	if (code == 0)
		code = run(&queue);
	spools_close(&queue.spools);
	return tool_printed(code == -1 ? 0 : code);
}
