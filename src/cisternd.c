/*
 * cisternd: the command line.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <event2/event.h>
#include <libconfig.h>

#include "base/log.h"
#include "base/standard.h"
#include "config/config.h"
#include "daemon.h"
#include "intake/tls.h"
#include "sinks/kafka.h"
#include "sinks/sink.h"
#ifdef HAVE_NATS
#include "sinks/nats_options.h"
#endif

#ifndef CISTERN_SYSCONFDIR
#define CISTERN_SYSCONFDIR "/etc/cistern"
#endif
#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

static const char default_file[] = CISTERN_SYSCONFDIR "/cistern.conf";

static void
usage(FILE *to)
{
	fprintf(to,
		"usage: cisternd [-c FILE] [-t | -T] [-d] [-v] [-V] [-h]\n"
		"Receives messages over TCP, whole, and hands them on.\n"
		"\n"
		"  -c, --config FILE  configuration file\n"
		"                     (default: %s)\n"
		"  -t, --test         check the file, say OK or every error, and exit\n"
		"  -T, --dump         print the effective configuration, and exit\n"
		"  -d, --daemon       go to the background\n"
		"  -v, --verbose      log more; may be repeated\n"
		"  -V, --version      version and what was compiled in\n"
		"  -h, --help         this\n"
		"\n"
		"See cisternd(8) and cistern.conf(5).\n",
		default_file);
}

static void
version(void)
{
	printf("cisternd %s\n", PACKAGE_VERSION);
	printf("libevent %s, libconfig %d.%d.%d\n", event_get_version(), LIBCONFIG_VER_MAJOR,
	       LIBCONFIG_VER_MINOR, LIBCONFIG_VER_REVISION);
	printf("%s\n", tls_version());
	printf("%s\n", kafka_version());
#ifdef HAVE_NATS
	printf("NATS: libnats %s\n", nats_version());
#else
	printf("NATS: no\n");
#endif
#ifdef FAULT_POINTS
	printf("fault points: yes (a test build, not for use)\n");
#endif
}

/* What was printed must have arrived: a full disk behind -T is an error. */
static int
printed(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	perror("cisternd: standard output");
	return EX_IOERR;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
		{"dump", no_argument, NULL, 'T'},         {"daemon", no_argument, NULL, 'd'},
		{"verbose", no_argument, NULL, 'v'},      {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
	};
	const char *file = default_file;
	bool test = false, dump = false, background = false;
	struct config_errors errors;
	struct config *config;
	int option, code;

	daemon_hold_signals();
	standard_hold();
	while ((option = getopt_long(argc, argv, "c:tTdvVh", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			file = optarg;
			break;
		case 't':
			test = true;
			break;
		case 'T':
			dump = true;
			break;
		case 'd':
			background = true;
			break;
		case 'v':
			log_verbose(1);
			break;
		case 'V':
			version();
			return printed(0);
		case 'h':
			usage(stdout);
			return printed(0);
		default:
			fprintf(stderr, "cisternd: see cisternd --help\n");
			return EX_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "cisternd: unexpected argument \"%s\" (the file is given with -c)\n",
			argv[optind]);
		return EX_USAGE;
	}
	if (test && dump) {
		fprintf(stderr, "cisternd: -t and -T exclude each other\n");
		return EX_USAGE;
	}
	kafka_init();
	config = config_load(file, &errors);
	config_errors_print(&errors, stderr);
	code = config == NULL ? errors.exit_code : 0;
	config_errors_free(&errors);
	if (config == NULL)
		return code;
	if (test) {
		code = tls_check(config, stderr) + kafka_check(config, stderr) == 0 ? 0 : EX_CONFIG;
		if (!sinks_check(config, stderr))
			code = EX_CONFIG;
		if (code == 0)
			printf("%s: OK\n", file);
		config_unref(config);
		return printed(code);
	}
	if (dump) {
		code = config_dump(config, stdout) == -1 ? EX_IOERR : 0;
		config_unref(config);
		return printed(code);
	}
	return daemon_run(config, background);
}
