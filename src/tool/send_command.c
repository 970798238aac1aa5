/*
 * send_command: `cistern send`: files, and the certainty that they have arrived.
 *
 * What was acknowledged is never sent again.  What may or may not have been is sent
 * again only when retries are asked for: at least once, then.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "config/types.h"
#include "tool/delivery.h"
#include "tool/tool.h"

#define RETRY_DELAY (TYPES_SECOND / 2) /* the first; doubled from then on, ... */
#define RETRY_DELAY_MOST (30 * TYPES_SECOND) /* ... up to this */
#define SILENT_MOST 2 /* connections closed without a receipt, until it is no accident */
#define DELIMITER_MAX 1024

struct send {
	struct delivery_options options;
	bool retries; /* asked for */
	bool counted; /* at most `attempts` more without success */
	uint64_t attempts;
	uint64_t retry_for; /* 0: no bound in time */
	uint64_t retry_delay;
	bool no_progress;
	bool delimiter_given;
};

static void
usage(void)
{
	printf("usage: cistern send [OPTION...] HOST:PORT|unix:/PATH [FILE...]\n"
	       "Sends each file (- or none: standard input) as one message, and waits until it\n"
	       "is accepted.\n"
	       "\n"
	       "  -f, --framing KIND       eof (the default), line (each line is a message),\n"
	       "                           delimiter, length, netstring, octet-counted, mllp\n"
	       "  -d, --delimiter TEXT     what ends a message, with C's escapes (\\n, \\x00)\n"
	       "      --length-bytes N     1, 2, 4 (the default) or 8\n"
	       "      --length-order ORDER big (the default) or little\n"
	       "      --length-includes-header\n"
	       "  -r, --receipt            wait for a receipt a message (reply = \"receipt\")\n"
	       "  -i, --print-ids          print the id of each message accepted\n"
	       "  -n, --retry N            try again up to N times in a row\n"
	       "      --retry-for TIME     try again for so long\n"
	       "      --retry-delay TIME   before the first time (0.5s), then twice as long\n"
	       "      --timeout TIME       without anything happening (60s; 0: none)\n"
	       "      --per-connection N   messages for each connection\n"
	       "      --no-progress        no bar on the terminal\n"
	       "      --tls                speak TLS, and verify the server's certificate\n"
	       "      --tls-ca FILE        whom to trust (default: whom the system trusts)\n"
	       "      --tls-cert FILE, --tls-key FILE\n"
	       "                           to show to the server\n"
	       "      --tls-name NAME      the server's name, if it is not HOST\n"
	       "      --tls-insecure       take any certificate\n"
	       "  -v, --verbose            say what happens; implies -i with -r\n"
	       "  -h, --help               this\n"
	       "\n"
	       "Exit status: 0 accepted, 75 try again, 65 rejected; more in cistern(1).\n");
}

/* A time to wait before the next attempt, between half of delay and all of it. */
static void
wait_jittered(uint64_t delay)
{
	struct timespec rest;
	uint32_t chance = 0;

	if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) == -1)
		chance = (uint32_t)clock_now();
	delay = delay / 2 + delay / 2 * (chance % 1024) / 1023;
	rest.tv_sec = (time_t)(delay / TYPES_SECOND);
	rest.tv_nsec = (long)(delay % TYPES_SECOND) * 1000;
	while (nanosleep(&rest, &rest) == -1 && errno == EINTR)
		;
}

static void
explain(const struct send *send, const struct outbox *outbox, const struct delivery_result *result)
{
	const char *to = send->options.target_text;

	tool_complain("%s: %s", to, result->why);
	if (result->silent)
		tool_complain("%s: does the listener there have reply = \"receipt\"?", to);
	if (result->unknown)
		tool_complain("%s: what was under way may have been accepted all the same", to);
	if (outbox->accepted > 0)
		tool_complain("%s: %llu messages were accepted before that", to,
			      (unsigned long long)outbox->accepted);
}

/* Until all is answered for or the patience is over. */
static int
send_all(const struct send *send, struct outbox *outbox, struct progress *progress)
{
	uint64_t delay = send->retry_delay, tried = 0, since = 0, before, now;
	unsigned silent = 0;
	bool spoken = false;
	int empty;

	while ((empty = outbox_is_empty(outbox)) == 0) {
		struct delivery_result result;
		bool again;

		before = outbox->accepted + outbox->rejected;
		delivery_run(&send->options, outbox, progress, &result);
		/* Who has given a receipt gives them: it, or what stood behind it, is gone now. */
		spoken = spoken || result.spoken;
		result.silent = result.silent && !spoken;
		if (outbox->accepted + outbox->rejected > before) {
			delay = send->retry_delay;
			tried = 0;
			since = 0;
			if (result.verdict == DELIVERY_GONE_WELL)
				continue;
		}
		if (outbox_is_empty(outbox) == 1 && result.verdict == DELIVERY_TEMPORARY)
			break;
		silent = result.silent ? silent + 1 : 0;
		if (silent == SILENT_MOST) {
			result.verdict = DELIVERY_FINAL;
			result.code = EX_PROTOCOL;
		}
		if (result.verdict == DELIVERY_GONE_WELL) {
			result.verdict = DELIVERY_TEMPORARY; /* but nothing was gained */
			result.code = EX_TEMPFAIL;
		}
		now = clock_now();
		if (since == 0)
			since = now;
		again = result.verdict == DELIVERY_TEMPORARY && send->retries &&
			(!send->counted || tried < send->attempts) &&
			(send->retry_for == 0 || now - since < send->retry_for);
		progress_clear(progress);
		if (!again) {
			explain(send, outbox, &result);
			return result.code;
		}
		if (send->options.verbose)
			tool_complain("%s: %s; trying again", send->options.target_text, result.why);
		tried++;
		wait_jittered(delay);
		delay = delay * 2 > RETRY_DELAY_MOST ? RETRY_DELAY_MOST : delay * 2;
	}
	progress_clear(progress);
	if (empty == -1)
		return outbox->input->code;
	return outbox->rejected > 0 ? EX_DATAERR : 0;
}

static bool
set_framing(struct send *send, const char *name)
{
	int kind = framing_from_name(name);

	if (kind == -1) {
		tool_misused("--framing: \"%s\": expected eof, line, delimiter, length, netstring, "
			     "octet-counted or mllp", name);
		return false;
	}
	send->options.framing.kind = (enum framing_kind)kind;
	return true;
}

static bool
set_delimiter(struct send *send, const char *text)
{
	struct framing_config *framing = &send->options.framing;
	const char *why;

	free(framing->delimiter);
	framing->delimiter = tool_alloc(strlen(text) + 1);
	why = types_delimiter(text, framing->delimiter, &framing->delimiter_len);
	if (why == NULL && (framing->delimiter_len == 0 || framing->delimiter_len > DELIMITER_MAX))
		why = "expected 1 to 1024 bytes";
	if (why != NULL)
		tool_misused("--delimiter: \"%s\": %s", text, why);
	send->delimiter_given = true;
	return why == NULL;
}

static bool
set_length(struct send *send, const char *bytes, const char *order)
{
	struct framing_config *framing = &send->options.framing;

	if (bytes != NULL) {
		if (strlen(bytes) != 1 || strchr("1248", *bytes) == NULL) {
			tool_misused("--length-bytes: \"%s\": expected 1, 2, 4 or 8", bytes);
			return false;
		}
		framing->length_bytes = (unsigned)(*bytes - '0');
	}
	if (order != NULL) {
		framing->length_little = strcmp(order, "little") == 0;
		if (!framing->length_little && strcmp(order, "big") != 0) {
			tool_misused("--length-order: \"%s\": expected big or little", order);
			return false;
		}
	}
	return true;
}

/* One option.  0, or the exit status; -1: help was given. */
static int
take_option(struct send *send, int option)
{
	struct delivery_options *options = &send->options;

	switch (option) {
	case 'f':
		return set_framing(send, optarg) ? 0 : EX_USAGE;
	case 'd':
		return set_delimiter(send, optarg) ? 0 : EX_USAGE;
	case 'B':
		return set_length(send, optarg, NULL) ? 0 : EX_USAGE;
	case 'O':
		return set_length(send, NULL, optarg) ? 0 : EX_USAGE;
	case 'H':
		options->framing.length_includes_header = true;
		return 0;
	case 'r':
		options->receipt = true;
		return 0;
	case 'i':
		options->print_ids = true;
		return 0;
	case 'n':
		send->retries = send->counted = true;
		return tool_number("--retry", optarg, 1000000, &send->attempts) ? 0 : EX_USAGE;
	case 'F':
		send->retries = true;
		return tool_duration("--retry-for", optarg, &send->retry_for) ? 0 : EX_USAGE;
	case 'D':
		return tool_duration("--retry-delay", optarg, &send->retry_delay) ? 0 : EX_USAGE;
	case 't':
		return tool_duration("--timeout", optarg, &options->timeout) ? 0 : EX_USAGE;
	case 'P':
		return tool_number("--per-connection", optarg, UINT32_MAX,
				   &options->per_connection) ? 0 : EX_USAGE;
	case 'b':
		send->no_progress = true;
		return 0;
	case 'T':
		options->tls.on = true;
		return 0;
	case 'A':
		options->tls.ca = optarg;
		return 0;
	case 'C':
		options->tls.certificate = optarg;
		return 0;
	case 'K':
		options->tls.key = optarg;
		return 0;
	case 'N':
		options->tls.name = optarg;
		return 0;
	case 'I':
		options->tls.insecure = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case 'h':
		usage();
		return -1;
	default:
		return tool_hint(); /* getopt has complained */
	}
}

/* What options must not be without one another. */
static int
check_options(struct send *send)
{
	struct delivery_options *options = &send->options;
	const struct link_tls *tls = &options->tls;
	enum framing_kind kind = options->framing.kind;

	if ((kind == FRAMING_DELIMITER) != send->delimiter_given)
		return tool_misused("--framing delimiter and --delimiter go together");
	if (!tls->on && (tls->ca != NULL || tls->certificate != NULL || tls->key != NULL ||
			 tls->name != NULL || tls->insecure))
		return tool_misused("--tls-... is of no use without --tls");
#ifndef HAVE_OPENSSL
	if (tls->on)
		return tool_misused("TLS was not compiled in (configure --with-openssl)");
#endif
	if (tls->key != NULL && tls->certificate == NULL)
		return tool_misused("--tls-key is of no use without --tls-cert");
	if (options->print_ids && !options->receipt)
		return tool_misused("ids are in receipts: --print-ids takes --receipt");
	if (options->target.local && tls->on)
		return tool_misused("there is no TLS over a local socket");
	if (options->target.local && !options->receipt)
		return tool_misused("a local socket knows no reset, so that a close says nothing: "
				    "use --receipt (and reply = \"receipt\" there)");
	options->print_ids = options->print_ids || (options->verbose && options->receipt);
	if (kind == FRAMING_EOF)
		options->per_connection = 1;
	if (send->retry_delay == 0)
		send->retry_delay = 1;
	if (framing_prepare(&options->framing) == 0)
		return 0;
	tool_complain("out of memory");
	return EX_OSERR;
}

static int
run(struct send *send, char **names, size_t n_names)
{
	struct progress progress;
	struct outbox outbox;
	struct input input;
	int code = input_open(&input, &send->options.framing, names, n_names);

	if (code == 0) {
		outbox_open(&outbox, &input);
		progress_start(&progress, !send->no_progress);
		code = send_all(send, &outbox, &progress);
		outbox_close(&outbox);
	}
	input_close(&input);
	return code;
}

int
send_command(int argc, char **argv)
{
	static char name[] = "cistern send";
	static const struct option options[] = {
		{"framing", required_argument, NULL, 'f'},
		{"delimiter", required_argument, NULL, 'd'},
		{"length-bytes", required_argument, NULL, 'B'},
		{"length-order", required_argument, NULL, 'O'},
		{"length-includes-header", no_argument, NULL, 'H'},
		{"receipt", no_argument, NULL, 'r'},
		{"print-ids", no_argument, NULL, 'i'},
		{"retry", required_argument, NULL, 'n'},
		{"retry-for", required_argument, NULL, 'F'},
		{"retry-delay", required_argument, NULL, 'D'},
		{"timeout", required_argument, NULL, 't'},
		{"per-connection", required_argument, NULL, 'P'},
		{"no-progress", no_argument, NULL, 'b'},
		{"tls", no_argument, NULL, 'T'},
		{"tls-ca", required_argument, NULL, 'A'},
		{"tls-cert", required_argument, NULL, 'C'},
		{"tls-key", required_argument, NULL, 'K'},
		{"tls-name", required_argument, NULL, 'N'},
		{"tls-insecure", no_argument, NULL, 'I'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct send send = {
		.options.timeout = 60 * TYPES_SECOND,
		.options.framing.length_bytes = 4,
		.retry_delay = RETRY_DELAY,
	};
	const char *why;
	int option, code = 0;

	tool_name = argv[0] = name; /* as getopt complains, too */
	signal(SIGPIPE, SIG_IGN);
	while (code == 0 && (option = getopt_long(argc, argv, "f:d:rin:vh", options, NULL)) != -1)
		code = take_option(&send, option);
	if (code == 0 && optind >= argc)
		code = tool_misused("to whom? HOST:PORT or unix:/path is missing");
	if (code == 0) {
		send.options.target_text = argv[optind];
		why = target_parse(argv[optind], NULL, &send.options.target);
		if (why != NULL)
			code = tool_misused("\"%s\": %s", argv[optind], why);
		optind++;
	}
	if (code == 0)
		code = check_options(&send);
	if (code == 0)
		code = run(&send, argv + optind, (size_t)(argc - optind));
	framing_clear(&send.options.framing);
	return tool_printed(code == -1 ? 0 : code);
}
