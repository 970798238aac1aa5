/*
 * limit: servers on raw epoll that do the least that can be done, to compare with.
 *
 *	limit MODE [-p PORT] [-t THREADS] [-o PATH] [-r BYTES] [-n]
 *
 *	discard  reads
 *	file     reads, and appends whole lines to the file PATH
 *	files    reads, and makes a file of each connection in the directory PATH
 *	echo     writes back what it reads
 *	log      appends lines to PATH, a group at a time, syncs, answers each
 *	spool    makes a file of each line in PATH, a group at a time, syncs, answers
 *
 * Each of THREADS has its listening socket (SO_REUSEPORT) and its epoll; for spool
 * they are the threads that commit.  -r: the size of a read.  -n: no sync.  Says
 * "port N" on its standard output once it listens on 127.0.0.1.  Whatever fails
 * ends it.
 */
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define EVENTS 256
#define BACKLOG 4096
#define TURN 16 /* reads of one connection before the others have their turn */

enum mode { DISCARD, FILE_OF_LINES, FILES, ECHO, LOG, SPOOL };

struct peer {
	unsigned char *kept; /* an unfinished line */
	size_t n_kept, room;
	int file; /* its own */
};

struct server {
	int listener, poller;
	unsigned char *buffer;
	pthread_t thread;
};

static struct limit_options options = {.threads = 1, .sync = true};
static enum mode mode;
static size_t read_size = 65536;
static struct peer *peers; /* by descriptor */
static size_t n_peers;
static int target = -1; /* the file, or the directory */

static void
write_all(int fd, const unsigned char *bytes, size_t len)
{
	struct pollfd poller = {.fd = fd, .events = POLLOUT};

	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n == -1 && errno == EAGAIN) {
			poll(&poller, 1, -1);
			continue;
		}
		if (n == -1 && (errno == EPIPE || errno == ECONNRESET))
			return;
		if (n == -1)
			bench_fail("write");
		bytes += n;
		len -= (size_t)n;
	}
}

/* ------------------------------------------------------------------- bytes */

static void
keep(struct peer *peer, const unsigned char *bytes, size_t len)
{
	if (peer->n_kept + len > peer->room) {
		peer->room = 2 * (peer->n_kept + len);
		peer->kept = realloc(peer->kept, peer->room);
		if (peer->kept == NULL)
			bench_fail("%zu bytes", peer->room);
	}
	memcpy(peer->kept + peer->n_kept, bytes, len);
	peer->n_kept += len;
}

/* Whole lines go to the file, all at once: others write there, too. */
static void
take_lines(struct peer *peer, const unsigned char *bytes, size_t len)
{
	const unsigned char *end = memrchr(bytes, '\n', len);
	size_t whole = end == NULL ? 0 : (size_t)(end + 1 - bytes);

	if (whole > 0 && peer->n_kept > 0) {
		/* The unfinished line's end first; the rest needs no copy. */
		size_t rest = (size_t)((const unsigned char *)memchr(bytes, '\n', len) + 1 - bytes);

		keep(peer, bytes, rest);
		write_all(target, peer->kept, peer->n_kept);
		peer->n_kept = 0;
		bytes += rest;
		len -= rest;
		whole -= rest;
	}
	if (whole > 0)
		write_all(target, bytes, whole);
	if (len > whole)
		keep(peer, bytes + whole, len - whole);
}

static void
take_messages(int fd, struct peer *peer, const unsigned char *bytes, size_t len)
{
	const unsigned char *end;

	while ((end = memchr(bytes, '\n', len)) != NULL) {
		size_t line = (size_t)(end + 1 - bytes);

		if (peer->n_kept > 0) {
			keep(peer, bytes, line);
			commit_line(fd, peer->kept, peer->n_kept);
			peer->n_kept = 0;
		} else {
			commit_line(fd, bytes, line);
		}
		bytes += line;
		len -= line;
	}
	if (len > 0)
		keep(peer, bytes, len);
}

static void
take(int fd, const unsigned char *bytes, size_t len)
{
	struct peer *peer = &peers[fd];
	static atomic_ullong names;
	char name[32];

	switch (mode) {
	case DISCARD:
		break;
	case FILE_OF_LINES:
		take_lines(peer, bytes, len);
		break;
	case FILES:
		if (peer->file == -1) {
			snprintf(name, sizeof(name), "%026llu", atomic_fetch_add(&names, 1));
			peer->file = openat(target, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0640);
			if (peer->file == -1)
				bench_fail("%s/%s", options.path, name);
		}
		write_all(peer->file, bytes, len);
		break;
	case ECHO:
		write_all(fd, bytes, len);
		break;
	case LOG:
	case SPOOL:
		take_messages(fd, peer, bytes, len);
		break;
	}
}

/* ------------------------------------------------------------- connections */

static void
finish(int fd)
{
	struct peer *peer = &peers[fd];

	if (peer->n_kept > 0 && mode == FILE_OF_LINES)
		write_all(target, peer->kept, peer->n_kept);
	free(peer->kept);
	if (peer->file != -1 && close(peer->file) == -1)
		bench_fail("close");
	*peer = (struct peer){.file = -1};
	close(fd);
}

/* Reads until there is no more, in fair measure; at accept (first) even after a
 * short read, for the client may have closed.  False: it has, or is gone. */
static bool
serve(struct server *server, int fd, bool first)
{
	unsigned turn;

	for (turn = 0; turn < TURN; turn++) {
		ssize_t n = read(fd, server->buffer, read_size);

		if (n == -1 && errno == EAGAIN)
			return true;
		if (n <= 0) {
			finish(fd);
			return false;
		}
		take(fd, server->buffer, (size_t)n);
		if (!first && (size_t)n < read_size)
			return true;
	}
	return true;
}

static void
accept_all(struct server *server)
{
	int fd;

	while ((fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

		if ((size_t)fd >= n_peers) {
			errno = EMFILE;
			bench_fail("accept4");
		}
		peers[fd].file = -1;
		if (serve(server, fd, true) &&
		    epoll_ctl(server->poller, EPOLL_CTL_ADD, fd, &event) == -1)
			bench_fail("epoll_ctl");
	}
	if (errno != EAGAIN && errno != ECONNABORTED)
		bench_fail("accept4");
}

static void *
server_run(void *arg)
{
	struct server *server = arg;
	struct epoll_event events[EVENTS];
	bool commits = mode == LOG || mode == SPOOL;

	for (;;) {
		int n = epoll_wait(server->poller, events, EVENTS, -1), i;

		if (n == -1 && errno != EINTR)
			bench_fail("epoll_wait");
		if (commits)
			commit_round_begin();
		for (i = 0; i < n; i++) {
			if (events[i].data.fd == server->listener)
				accept_all(server);
			else
				serve(server, events[i].data.fd, false);
		}
		if (commits)
			commit_round_end();
	}
	return NULL;
}

/* ------------------------------------------------------------------- start */

static void
server_open(struct server *server, struct sockaddr_in *address)
{
	struct epoll_event event = {.events = EPOLLIN};
	socklen_t len = sizeof(*address);
	int on = 1;

	server->buffer = bench_alloc(read_size, 1);
	server->poller = epoll_create1(EPOLL_CLOEXEC);
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	event.data.fd = server->listener;
	/* What is accepted inherits TCP_NODELAY. */
	if (server->poller == -1 || server->listener == -1 ||
	    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
	    setsockopt(server->listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1 ||
	    setsockopt(server->listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1 ||
	    bind(server->listener, (struct sockaddr *)address, len) == -1 ||
	    getsockname(server->listener, (struct sockaddr *)address, &len) == -1 ||
	    listen(server->listener, BACKLOG) == -1 ||
	    epoll_ctl(server->poller, EPOLL_CTL_ADD, server->listener, &event) == -1)
		bench_fail("a listening socket");
}

static void
open_target(void)
{
	if (mode == FILE_OF_LINES)
		target = open(options.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	else if (mode == FILES)
		target = open(options.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if ((mode == FILE_OF_LINES || mode == FILES) && target == -1)
		bench_fail("%s", options.path);
	if (mode == LOG || mode == SPOOL)
		commit_start(&options, mode == SPOOL);
}

static _Noreturn void
usage(void)
{
	fputs("usage: limit discard|file|files|echo|log|spool [-p PORT] [-t THREADS] [-o PATH]\n"
	      "             [-r BYTES] [-n]\n", stderr);
	exit(64);
}

static void
parse_mode(const char *name)
{
	static const char *const names[] = {"discard", "file", "files", "echo", "log", "spool"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0) {
			mode = (enum mode)i;
			return;
		}
	}
	usage();
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct server *servers;
	size_t n_servers, i;
	int option;

	if (argc < 2)
		usage();
	parse_mode(argv[1]);
	while ((option = getopt(argc - 1, argv + 1, "p:t:o:r:n")) != -1) {
		switch (option) {
		case 'p':
			address.sin_port = htons((uint16_t)bench_number(optarg));
			break;
		case 't':
			options.threads = bench_number(optarg);
			break;
		case 'o':
			options.path = optarg;
			break;
		case 'r':
			read_size = bench_number(optarg);
			break;
		case 'n':
			options.sync = false;
			break;
		default:
			usage();
		}
	}
	if (optind != argc - 1 || options.threads == 0 || read_size == 0 ||
	    (mode != DISCARD && mode != ECHO && options.path == NULL))
		usage();
	signal(SIGPIPE, SIG_IGN);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	n_peers = bench_descriptors();
	peers = bench_alloc(n_peers, sizeof(*peers));
	open_target();
	n_servers = mode == LOG || mode == SPOOL ? 1 : options.threads;
	servers = bench_alloc(n_servers, sizeof(*servers));
	for (i = 0; i < n_servers; i++)
		server_open(&servers[i], &address);
	printf("port %d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (i = 1; i < n_servers; i++) {
		errno = pthread_create(&servers[i].thread, NULL, server_run, &servers[i]);
		if (errno != 0)
			bench_fail("pthread_create");
	}
	server_run(&servers[0]);
}
