/*
 * attack: clients that mean no good, many of them, at a rate that is given.
 *
 *	attack MODE -p PORT [-a ADDRESS] [-s SOURCE] [-n CLIENTS] [-r RATE] [-t SECONDS]
 *	       [-w PATIENCE] [-b BYTES] [-f FILE] [-o FIRST] [-m LAST] [-k]
 *
 * RATE acts a second, in slots that are gone round; what an act is says the mode:
 *
 *	drip      opens, or sends one byte of a message that never ends
 *	silent    opens, and says nothing
 *	flood     closes what the slot has, in order, and opens another
 *	reset     opens and resets: at once (often before it was accepted), after a byte,
 *	          after a message, within the second one
 *	segments  a message of BYTES, each byte a segment of its own, some of them urgent
 *	deaf      messages of BYTES and more of them; the answers are never read, and the
 *	          window is as small as the kernel lets it be
 *	half      a message, our side closed, and then nothing: no read, no close
 *	late      a message, and more bytes once the server has closed
 *	blob      the first bytes of FILE, from FIRST to LAST (or all) of them, one more each
 *	          time, and then nothing
 *	syn       a SYN from an address that answers nothing (root; no connection at all)
 *
 * Acts go on for SECONDS; what the server ends meanwhile is opened again by a later act.
 * When all slots have had their first act it says "pressing".  Then nothing is opened any
 * more, and for PATIENCE seconds the server has to end what is open, by itself.  Behind
 * bytes that a deaf client does not read its end cannot be seen: deaf says "over", waits until
 * its input ends, and then reads; what it had let go of before that, only the server knows.
 *
 * All of it runs as SCHED_IDLE, unless -k: it takes only the time that is left, so that
 * what others feel is what the server does about it, and not the generator.
 *
 * The line at the end: opened, fin and reset (ended so by the server), ours (ended by us),
 * left (still open at the end), failed (connects that were refused), sent (bytes, or
 * SYNs), seconds and cpu (of this process).  Exit 0 when nothing is left.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define EVENTS 256
#define SOURCES 250 /* addresses, from 127.0.1.1 on: each has ports of its own */
#define SECOND UINT64_C(1000000000)
#define BURST 2000 /* acts at most that are made up for at once */
#define BLOB 65536

struct client {
	int fd;
	size_t at;  /* bytes sent, for modes that count them */
};

struct mode {
	const char *name;
	void (*act)(struct client *client);
	uint32_t events; /* beside errors and hang-ups */
	bool ours;       /* at the end of the acts what is open is closed by us */
};

static struct {
	struct sockaddr_in server;
	struct in_addr source; /* 0: one after the other */
	size_t clients;
	uint64_t rate;
	uint64_t seconds;
	uint64_t patience;
	size_t bytes;
	const char *file;
	size_t first;
	size_t last;
	bool keen;
} options = {.clients = 1, .rate = 1000, .seconds = 1, .patience = 30, .bytes = 100};

static struct {
	uint64_t opened, fin, reset, ours, failed, sent;
} count;

static const struct mode *mode;
static int poller, raw = -1;
static size_t n_open;
static bool listening; /* the deaf, too */
static unsigned char *block; /* a message of options.bytes, its line feed last */
static unsigned char blob[BLOB];
static size_t blob_next; /* how many of its bytes are sent next */

/* ------------------------------------------------------------- connections */

static void
forget(struct client *client, uint64_t *how)
{
	close(client->fd);
	client->fd = -1;
	client->at = 0;
	n_open--;
	(*how)++;
}

static void
reset(struct client *client)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == -1)
		bench_fail("SO_LINGER");
	forget(client, &count.ours);
}

/* On loopback the handshake is over when connect returns.  False: it was refused. */
static bool
begin(struct client *client)
{
	static uint32_t source;
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = options.source};
	struct epoll_event event = {
		.events = mode->events | EPOLLRDHUP | EPOLLET, .data.ptr = client};
	int on = 1, least = 1;

	if (from.sin_addr.s_addr == 0)
		from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + source++ % SOURCES);
	client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (client->fd == -1)
		bench_fail("socket");
	if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) == -1 ||
	    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1 ||
	    (mode->events == 0 && setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &least,
					     sizeof(least)) == -1) ||
	    bind(client->fd, (struct sockaddr *)&from, sizeof(from)) == -1)
		bench_fail("bind");
	client->at = 0;
	n_open++;
	if (connect(client->fd, (struct sockaddr *)&options.server, sizeof(options.server)) == -1 &&
	    errno != EINPROGRESS) {
		forget(client, &count.failed);
		return false;
	}
	if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event) == -1)
		bench_fail("epoll_ctl");
	count.opened++;
	return true;
}

/* As much as there is room for; what it says when it is over is heard of later. */
static size_t
say(struct client *client, const void *bytes, size_t len, int flags)
{
	ssize_t n = send(client->fd, bytes, len, MSG_NOSIGNAL | flags);

	if (n == -1)
		return 0;
	count.sent += (uint64_t)n;
	return (size_t)n;
}

/* -------------------------------------------------------------------- acts */

static void
act_drip(struct client *client)
{
	if (client->fd == -1)
		begin(client);
	else
		say(client, "x", 1, 0);
}

static void
act_silent(struct client *client)
{
	if (client->fd == -1)
		begin(client);
}

static void
act_flood(struct client *client)
{
	if (client->fd != -1)
		forget(client, &count.ours);
	begin(client);
}

static void
act_reset(struct client *client)
{
	static unsigned turn;
	unsigned what = turn++ % 4;

	if (client->fd != -1)
		reset(client);
	if (!begin(client))
		return;
	if (what == 1)
		say(client, block, 1, 0);
	if (what >= 2)
		say(client, block, options.bytes, 0);
	if (what == 3)
		say(client, block, options.bytes / 2, 0);
	reset(client);
}

static void
act_segments(struct client *client)
{
	if (client->fd == -1 && !begin(client))
		return;
	/* Every 64th is urgent: out of the stream, unless it stays in line. */
	if (client->at % 64 == 63 && client->at + 1 < options.bytes)
		say(client, "!", 1, MSG_OOB);
	if (say(client, block + client->at, 1, 0) == 1)
		client->at = (client->at + 1) % options.bytes;
}

/* A whole message is sent, or the rest of one; nothing is ever read. */
static void
act_deaf(struct client *client)
{
	if (client->fd == -1 && !begin(client))
		return;
	client->at += say(client, block + client->at, options.bytes - client->at, 0);
	if (client->at == options.bytes)
		client->at = 0;
}

static void
act_half(struct client *client)
{
	if (client->fd != -1 || !begin(client))
		return;
	say(client, block, options.bytes, 0);
	shutdown(client->fd, SHUT_WR);
}

/* What comes after the server's end is sent by hear. */
static void
act_late(struct client *client)
{
	if (client->fd == -1 && begin(client))
		say(client, block, options.bytes, 0);
}

static void
act_blob(struct client *client)
{
	if (client->fd != -1 || !begin(client))
		return;
	if (blob_next > 0)
		say(client, blob, blob_next, 0);
	blob_next = blob_next < options.last ? blob_next + 1 : options.first;
}

static uint16_t
checksum(uint32_t sum, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;

	for (; len > 1; len -= 2, at += 2)
		sum += (uint32_t)at[0] << 8 | at[1];
	while (sum > UINT16_MAX)
		sum = (sum & UINT16_MAX) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* Sources are those of the server's own network of 65,536, at random. */
static void
act_syn(struct client *client)
{
	static uint64_t state = 1;
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} packet = {{0}, {{{0}}}};
	uint32_t server = ntohl(options.server.sin_addr.s_addr), source;

	(void)client;
	state = state * 6364136223846793005U + 1442695040888963407U;
	source = (server & 0xffff0000) | (uint32_t)(state >> 48);
	if (source == server)
		return;
	packet.ip.version = 4;
	packet.ip.ihl = sizeof(packet.ip) / 4;
	packet.ip.ttl = 64;
	packet.ip.protocol = IPPROTO_TCP;
	packet.ip.saddr = htonl(source);
	packet.ip.daddr = htonl(server);
	packet.ip.tot_len = htons(sizeof(packet));
	packet.tcp.source = htons((uint16_t)(1024 + (state >> 32) % 60000));
	packet.tcp.dest = options.server.sin_port;
	packet.tcp.seq = htonl((uint32_t)(state >> 16));
	packet.tcp.doff = sizeof(packet.tcp) / 4;
	packet.tcp.syn = 1;
	packet.tcp.window = htons(65535);
	packet.tcp.check = checksum((source >> 16) + (source & UINT16_MAX) + (server >> 16) +
					    (server & UINT16_MAX) + IPPROTO_TCP +
					    sizeof(packet.tcp),
				    &packet.tcp, sizeof(packet.tcp));
	if (sendto(raw, &packet, sizeof(packet), 0, (struct sockaddr *)&options.server,
		   sizeof(options.server)) == -1) {
		count.failed++;
		return;
	}
	count.sent++;
}

static const struct mode modes[] = {
	{"drip", act_drip, EPOLLIN, false},         {"silent", act_silent, EPOLLIN, false},
	{"flood", act_flood, EPOLLIN, true},        {"reset", act_reset, EPOLLIN, true},
	{"segments", act_segments, EPOLLIN, false}, {"deaf", act_deaf, 0, false},
	{"half", act_half, 0, false},               {"late", act_late, EPOLLIN, false},
	{"blob", act_blob, EPOLLIN, false},         {"syn", act_syn, EPOLLIN, false},
};

/* ------------------------------------------------------------------ events */

/* What the server has said is thrown away; its end is counted. */
static void
hear(struct client *client, uint32_t what)
{
	static unsigned char waste[65536];
	int error = 0;
	socklen_t len = sizeof(error);
	ssize_t n;

	if (client->fd == -1)
		return; /* it was ended by an act */
	if ((what & (EPOLLERR | EPOLLHUP)) != 0) {
		if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
			bench_fail("SO_ERROR");
		if (error != 0) {
			forget(client, error == ECONNREFUSED ? &count.failed : &count.reset);
			return;
		}
	}
	if ((what & EPOLLIN) != 0 && (mode->events != 0 || listening)) {
		while ((n = read(client->fd, waste, sizeof(waste))) > 0)
			;
		if (n == -1 && errno != EAGAIN) {
			forget(client, &count.reset);
			return;
		}
	}
	if ((what & (EPOLLRDHUP | EPOLLHUP)) == 0)
		return;
	if (mode->act == act_late) {
		say(client, block, options.bytes, 0);
		say(client, block, 1, 0);
	}
	forget(client, &count.fin);
}

static void
listen_for(int milliseconds)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(poller, events, EVENTS, milliseconds);

	if (n == -1 && errno != EINTR)
		bench_fail("epoll_wait");
	for (; n > 0; n--)
		hear(events[n - 1].data.ptr, events[n - 1].events);
}

/* Acts at the rate, whether or not the server keeps up. */
static void
press(struct client *clients, uint64_t begun)
{
	uint64_t acts = 0, due, now;
	bool said = false;

	while ((now = bench_clock()) - begun < options.seconds * SECOND) {
		due = (uint64_t)((double)(now - begun) * (double)options.rate / (double)SECOND);
		if (due > acts + BURST)
			due = acts + BURST;
		for (; acts < due; acts++)
			mode->act(&clients[acts % options.clients]);
		if (!said && acts >= options.clients) {
			said = true;
			puts("pressing");
			fflush(stdout);
		}
		listen_for(1);
	}
	if (!said) {
		puts("pressing"); /* on a machine too busy for a whole lap */
		fflush(stdout);
	}
}

/* The deaf begin to read. */
static void
listen_at_last(struct client *clients)
{
	size_t i;
	char byte;

	puts("over");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	listening = true;
	for (i = 0; i < options.clients; i++) {
		struct epoll_event event = {
			.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &clients[i]};

		if (clients[i].fd != -1 && epoll_ctl(poller, EPOLL_CTL_MOD, clients[i].fd, &event) == -1)
			bench_fail("epoll_ctl");
	}
}

static void
drain(struct client *clients)
{
	uint64_t until;
	size_t i;

	for (i = 0; mode->ours && i < options.clients; i++)
		if (clients[i].fd != -1)
			forget(&clients[i], &count.ours);
	if (mode->act == act_deaf)
		listen_at_last(clients);
	until = bench_clock() + options.patience * SECOND;
	while (n_open > 0 && bench_clock() < until)
		listen_for(20);
}

static void
report(uint64_t begun)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("mode=%s opened=%llu fin=%llu reset=%llu ours=%llu left=%zu failed=%llu sent=%llu "
	       "seconds=%.3f cpu=%.3f\n",
	       mode->name, (unsigned long long)count.opened, (unsigned long long)count.fin,
	       (unsigned long long)count.reset, (unsigned long long)count.ours, n_open,
	       (unsigned long long)count.failed, (unsigned long long)count.sent,
	       (double)(bench_clock() - begun) / (double)SECOND,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

/* ----------------------------------------------------------------- options */

static _Noreturn void
usage(void)
{
	fputs("usage: attack MODE -p PORT [-a ADDRESS] [-s SOURCE] [-n CLIENTS] [-r RATE]\n"
	      "              [-t SECONDS] [-w PATIENCE] [-b BYTES] [-f FILE] [-o FIRST] [-m LAST] [-k]\n",
	      stderr);
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
	while ((option = getopt(argc, argv, "a:b:f:km:n:o:p:r:s:t:w:")) != -1) {
		switch (option) {
		case 'a':
			address(optarg, &options.server.sin_addr);
			break;
		case 'b':
			options.bytes = bench_number(optarg);
			break;
		case 'f':
			options.file = optarg;
			break;
		case 'k':
			options.keen = true;
			break;
		case 'm':
			options.last = bench_number(optarg);
			break;
		case 'n':
			options.clients = bench_number(optarg);
			break;
		case 'o':
			options.first = bench_number(optarg);
			break;
		case 'p':
			options.server.sin_port = htons((uint16_t)bench_number(optarg));
			break;
		case 'r':
			options.rate = bench_number(optarg);
			break;
		case 's':
			address(optarg, &options.source);
			break;
		case 't':
			options.seconds = bench_number(optarg);
			break;
		case 'w':
			options.patience = bench_number(optarg);
			break;
		default:
			usage();
		}
	}
	if (optind != argc || options.server.sin_port == 0 || options.clients == 0 ||
	    options.rate == 0 || options.bytes == 0 || (mode->act == act_blob) != (options.file != NULL))
		usage();
}

/* What the mode needs beside its clients. */
static void
prepare(void)
{
	const struct sched_param idle = {.sched_priority = 0};
	FILE *file;
	size_t len;

	if (!options.keen && sched_setscheduler(0, SCHED_IDLE, &idle) == -1)
		bench_fail("SCHED_IDLE");
	block = bench_alloc(options.bytes, 1);
	memset(block, 'x', options.bytes);
	block[options.bytes - 1] = '\n';
	if (options.file != NULL) {
		file = fopen(options.file, "rb");
		if (file == NULL)
			bench_fail("%s", options.file);
		len = fread(blob, 1, sizeof(blob), file);
		fclose(file);
		if (options.last == 0)
			options.last = len;
		blob_next = options.first;
		if (options.first > options.last || options.last > len)
			usage();
	}
	if (mode->act == act_syn) {
		raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
		if (raw == -1)
			bench_fail("a raw socket");
	}
	if (bench_descriptors() < options.clients + 16) {
		errno = 0;
		bench_fail("%zu clients are more than the limit of descriptors", options.clients);
	}
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (poller == -1)
		bench_fail("epoll_create1");
}

int
main(int argc, char **argv)
{
	struct client *clients;
	uint64_t begun;
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			mode = &modes[i];
	if (mode == NULL)
		usage();
	parse(argc - 1, argv + 1);
	prepare();
	clients = bench_alloc(options.clients, sizeof(*clients));
	for (i = 0; i < options.clients; i++)
		clients[i].fd = -1;
	begun = bench_clock();
	press(clients, begun);
	drain(clients);
	report(begun);
	free(clients);
	return n_open == 0 ? 0 : 1;
}
