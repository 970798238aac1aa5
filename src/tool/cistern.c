/*
 * cistern: the tool beside the daemon: sends files, handles spools, watches.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/standard.h"
#include "tool/tool.h"

#ifdef HAVE_OPENSSL
#include <openssl/crypto.h>
#endif
#ifdef HAVE_JANSSON
#include <jansson.h>
#endif

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

static const struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
} subcommands[] = {
	{"send", send_command},
	{"queue", queue_command},
	{"top", top_command},
};

static void
usage(FILE *to)
{
	fputs("usage: cistern send [OPTION...] HOST:PORT [FILE...]\n"
	      "       cistern queue [COMMAND] [OPTION...] [MESSAGE...]\n"
	      "       cistern top [OPTION...] [URL]\n"
	      "       cistern -V | -h\n"
	      "\n"
	      "  send   sends files, and says whether they were accepted\n"
	      "  queue  lists, shows, holds, releases and removes what lies in a spool\n"
	      "  top    shows what a running cisternd does\n"
	      "\n"
	      "Each has a --help of its own.  See cistern(1).\n", to);
}

static void
version(void)
{
	printf("cistern %s\n", PACKAGE_VERSION);
#ifdef HAVE_OPENSSL
	printf("TLS: %s\n", OpenSSL_version(OPENSSL_VERSION));
#else
	printf("TLS: no\n");
#endif
#ifdef HAVE_JANSSON
	printf("top: jansson %s\n", JANSSON_VERSION);
#else
	printf("top: no (it takes jansson)\n");
#endif
}

int
main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	standard_hold();
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
	for (size_t i = 0; i < sizeof subcommands / sizeof subcommands[0]; i++)
		if (strcmp(word, subcommands[i].name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0) {
		version();
		return tool_printed(0);
	}
	if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "help") == 0) {
		usage(stdout);
		return tool_printed(0);
	}
	if (*word == '\0')
		tool_complain("send, queue or top?");
	else
		tool_complain("\"%s\": expected send, queue or top", word);
	usage(stderr);
	return EX_USAGE;
}
