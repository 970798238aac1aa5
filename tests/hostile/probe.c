/*
 * probe: a good client, who sends a message now and then and looks at the time.
 *
 *	probe -p PORT [-a ADDRESS] [-s SOURCE] [-t SECONDS] [-i MICROSECONDS] [-g TAG]
 *	      [-l FILE] [-q PATIENCE] [-L MILLISECONDS]
 *
 * Every so many microseconds one message, in turn on a connection that is held ("held":
 * from the send to the receipt) and on one of its own ("fresh": from the connect, by
 * send and close of our side, to the receipt and the server's close).  A held
 * connection must never end; each receipt must name the size.
 *
 * FILE gets a line for each receipt, "ID NUMBER", to be looked for in what the daemon has
 * stored: the message is "TAG NUMBER " and filler.
 *
 * A machine may be so busy that we are late ourselves, past an idle_timeout: with -L a held
 * connection on which we were silent for so long is opened anew, and a message that was
 * sent so long after its connect, and not answered, is late and not failed.
 *
 * The line at the end: messages, failed, late, and of both kinds the p50, p99 and max in
 * microseconds.  Exit 0 when nothing has failed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define SIZE 100 /* of a message, its line feed included */
#define ID 26
#define MOST 1000000
#define SECOND UINT64_C(1000000000)

static struct {
	struct sockaddr_in server;
	struct in_addr source;
	uint64_t seconds;
	uint64_t interval;
	time_t patience;
	uint64_t late; /* nanoseconds; 0: never */
	const char *tag;
	FILE *list;
} options = {.seconds = 1, .interval = 1000, .patience = 60, .tag = "probe"};

struct kind {
	const char *name;
	uint32_t *times; /* microseconds / 10 */
	size_t count;
};

static struct kind held = {.name = "held"}, fresh = {.name = "fresh"};
static size_t failed, late;

static int
begin(void)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = options.source};
	const struct timeval patience = {.tv_sec = options.patience};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd == -1)
		bench_fail("socket");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1 ||
	    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == -1 ||
	    bind(fd, (struct sockaddr *)&from, sizeof(from)) == -1)
		bench_fail("bind");
	if (connect(fd, (struct sockaddr *)&options.server, sizeof(options.server)) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The receipt of a message.  False: another answer, or none. */
static bool
is_answered(int fd, unsigned long number, char *answer, size_t room)
{
	char expected[32];
	size_t len = 0;
	ssize_t n;

	do {
		n = recv(fd, answer + len, room - 1 - len, 0);
		if (n > 0)
			len += (size_t)n;
		answer[len] = '\0';
	} while (n > 0 && answer[len - 1] != '\n' && len < room - 1);
	if (n <= 0)
		snprintf(answer + len, room - len, "%s", n == 0 ? "(closed)" : strerror(errno));
	snprintf(expected, sizeof(expected), " %d\n", SIZE - 1);
	if (n <= 0 || strncmp(answer, "OK ", 3) != 0 || len != 3 + ID + strlen(expected) ||
	    strcmp(answer + 3 + ID, expected) != 0)
		return false;
	if (options.list != NULL)
		fprintf(options.list, "%.*s %lu\n", ID, answer + 3, number);
	return true;
}

static uint64_t heard; /* when the held connection was last of use */

/* One message, on the connection that is held or on one of its own. */
static bool
send_one(int fd, unsigned long number)
{
	char message[SIZE + 1], answer[100] = "";
	bool own = fd == -1, well;
	struct kind *kind = own ? &fresh : &held;
	uint64_t begun, sent;
	int len;

	len = snprintf(message, sizeof(message), "%s %lu ", options.tag, number);
	memset(message + len, '.', (size_t)(SIZE - 1 - len));
	message[SIZE - 1] = '\n';
	begun = bench_clock();
	if (own && (fd = begin()) == -1) {
		fprintf(stderr, "probe: %s message %lu: connect: %s\n", kind->name, number, strerror(errno));
		return false;
	}
	well = send(fd, message, SIZE, MSG_NOSIGNAL) == SIZE && (!own || shutdown(fd, SHUT_WR) == 0);
	sent = bench_clock();
	well = well && is_answered(fd, number, answer, sizeof(answer)) &&
	       (!own || recv(fd, answer, 1, 0) == 0);
	if (!well && options.late != 0 && sent - (own ? begun : heard) >= options.late) {
		late++;
		if (own)
			close(fd);
		return own; /* a held one is opened anew */
	}
	begun = (bench_clock() - begun) / 100;
	if (!own)
		heard = bench_clock();
	if (!well)
		fprintf(stderr, "probe: %s message %lu: %s\n", kind->name, number,
			answer[0] != '\0' ? answer : strerror(errno));
	else if (kind->count < MOST)
		kind->times[kind->count++] = begun < UINT32_MAX ? (uint32_t)begun : UINT32_MAX;
	if (own)
		close(fd);
	return well;
}

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void
report(struct kind *kind)
{
	if (kind->count == 0)
		return;
	qsort(kind->times, kind->count, sizeof(*kind->times), compare);
	printf(" %s_p50=%.1f %s_p99=%.1f %s_max=%.1f", kind->name,
	       kind->times[kind->count / 2] / 10.0, kind->name,
	       kind->times[(kind->count - 1) * 99 / 100] / 10.0, kind->name,
	       kind->times[kind->count - 1] / 10.0);
}

static void
sleep_until(uint64_t when)
{
	struct timespec ts = {.tv_sec = (time_t)(when / SECOND), .tv_nsec = (long)(when % SECOND)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void
run(void)
{
	uint64_t begun = bench_clock(), due = begun;
	unsigned long number = 0;
	size_t before;
	int fd = begin();

	if (fd == -1)
		bench_fail("connect");
	heard = bench_clock();
	while ((due += options.interval * 1000) - begun < options.seconds * SECOND) {
		bool own = number % 2 == 1;

		sleep_until(due);
		if (!own && options.late != 0 && bench_clock() - heard >= options.late) {
			late++;
			close(fd);
			fd = begin();
			if (fd == -1)
				bench_fail("connect again");
			heard = bench_clock();
		}
		before = late;
		if (!send_one(own ? -1 : fd, number)) {
			failed += late == before;
			if (!own) {
				close(fd);
				fd = begin();
				if (fd == -1)
					bench_fail("connect again");
				heard = bench_clock();
			}
		}
		number++;
		/* What was late is not made up for: that would measure the queue. */
		if (bench_clock() > due)
			due = bench_clock();
	}
	close(fd);
}

static _Noreturn void
usage(void)
{
	fputs("usage: probe -p PORT [-a ADDRESS] [-s SOURCE] [-t SECONDS] [-i MICROSECONDS]\n"
	      "             [-g TAG] [-l FILE] [-q PATIENCE] [-L MILLISECONDS]\n", stderr);
	exit(64);
}

static void
address(const char *text, struct in_addr *to)
{
	if (inet_pton(AF_INET, text, to) != 1)
		usage();
}

static void
parse(int argc, char **argv)
{
	int option;

	options.server = (struct sockaddr_in){.sin_family = AF_INET};
	options.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while ((option = getopt(argc, argv, "L:a:g:i:l:p:q:s:t:")) != -1) {
		switch (option) {
		case 'L':
			options.late = bench_number(optarg) * (SECOND / 1000);
			break;
		case 'a':
			address(optarg, &options.server.sin_addr);
			break;
		case 'g':
			options.tag = optarg;
			break;
		case 'i':
			options.interval = bench_number(optarg);
			break;
		case 'l':
			options.list = fopen(optarg, "ae");
			if (options.list == NULL)
				bench_fail("%s", optarg);
			break;
		case 'p':
			options.server.sin_port = htons((uint16_t)bench_number(optarg));
			break;
		case 'q':
			options.patience = (time_t)bench_number(optarg);
			break;
		case 's':
			address(optarg, &options.source);
			break;
		case 't':
			options.seconds = bench_number(optarg);
			break;
		default:
			usage();
		}
	}
	if (optind != argc || options.server.sin_port == 0 || options.interval == 0 ||
	    strlen(options.tag) > SIZE / 2)
		usage();
}

int
main(int argc, char **argv)
{
	parse(argc, argv);
	held.times = bench_alloc(MOST, sizeof(*held.times));
	fresh.times = bench_alloc(MOST, sizeof(*fresh.times));
	run();
	if (options.list != NULL && fclose(options.list) != 0)
		bench_fail("the list");
	printf("messages=%zu failed=%zu late=%zu", held.count + fresh.count, failed, late);
	report(&held);
	report(&fresh);
	putchar('\n');
	free(held.times);
	free(fresh.times);
	return failed == 0 ? 0 : 1;
}
