/*
 * load: sends, on raw epoll, in one thread, and says in one line how it went.
 *
 *	load MODE -p PORT [-a ADDRESS] [-c CONNECTIONS] [-n MESSAGES] [-b BYTES]
 *	     [-s SIZE] [-f none|line|length] [-C PID]
 *
 *	stream    each connection sends BYTES in frames of SIZE, closes its side and
 *	          waits for the server's close
 *	short     MESSAGES times: connect, send SIZE bytes, close the side, wait for the
 *	          server's close; CONNECTIONS at once
 *	receipts  MESSAGES lines of SIZE, each sent once the one before on its
 *	          connection was answered by a line that begins with OK
 *	pingpong  the same, answered by the line itself
 *	idle      opens CONNECTIONS, says "open" and holds them until its input ends
 *
 * With -C the server is a process that was stopped: it is continued once all has
 * been sent that goes without it, so that what it then does is the same each time.
 *
 * The line: mode, messages, bytes, failed (connections or messages), seconds, cpu
 * (seconds, of this process), and for those that wait for answers p50, p90, p99,
 * p999 and max in microseconds.  Exit 0 when nothing failed, else 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define EVENTS 256
#define BLOCK 1048576  /* the least that is sent from */
#define PATIENCE 60000 /* milliseconds without any progress: the server hangs */
#define SETTLED 200    /* milliseconds in which nothing more could be sent */
#define SOURCES 250    /* addresses, from 127.0.1.1 on: each has ports of its own */

enum framing { NONE, LINE, LENGTH };

struct client {
	int fd;
	bool sent;         /* all that is to be sent for now */
	uint64_t left;     /* bytes to be sent */
	size_t at;         /* in the block */
	size_t answered;   /* bytes of the answer so far */
	uint64_t begun;
};

static struct {
	struct sockaddr_in server;
	size_t connections;
	uint64_t messages;
	uint64_t bytes;
	size_t size;
	enum framing framing;
	pid_t stopped;
	bool echo;
} options = {.connections = 1, .messages = 1, .size = 1024, .framing = LINE};

static unsigned char *block; /* whole frames */
static size_t block_len;
static int poller;
static uint32_t *latencies; /* microseconds / 10 */
static uint64_t started, answered, failed, bytes_sent;

/* ------------------------------------------------------------------ frames */

static void
fill(unsigned char *to, size_t len)
{
	static uint64_t state = 1;

	/* Letters, digits and spaces: text, which every server takes. */
	while (len-- > 0) {
		static const char letters[] =
			"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789";

		state = state * 6364136223846793005U + 1442695040888963407U;
		*to++ = (unsigned char)letters[(state >> 33) % (sizeof(letters) - 1)];
	}
}

static void
make_block(size_t least)
{
	size_t frames = (least + options.size - 1) / options.size, i;

	block_len = frames * options.size;
	block = bench_alloc(block_len, 1);
	fill(block, block_len);
	for (i = 0; i < frames; i++) {
		unsigned char *frame = block + i * options.size;
		uint32_t header = htonl((uint32_t)(options.size - sizeof(header)));

		if (options.framing == LINE)
			frame[options.size - 1] = '\n';
		else if (options.framing == LENGTH)
			memcpy(frame, &header, sizeof(header));
	}
}

/* ------------------------------------------------------------- connections */

/* Connects without waiting, from one source address after the other. */
static void
begin(struct client *client)
{
	static uint32_t source;
	struct sockaddr_in from = {.sin_family = AF_INET};
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = client};
	int on = 1;

	from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + source++ % SOURCES);
	client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (client->fd == -1)
		bench_fail("socket");
	if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) == -1 ||
	    bind(client->fd, (struct sockaddr *)&from, sizeof(from)) == -1)
		bench_fail("bind");
	if (connect(client->fd, (struct sockaddr *)&options.server, sizeof(options.server)) == -1 &&
	    errno != EINPROGRESS)
		bench_fail("connect");
	if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event) == -1)
		bench_fail("epoll_ctl");
	client->sent = false;
}

static void
end(struct client *client)
{
	close(client->fd);
	client->fd = -1;
}

/* Sends what is left, as far as it goes.  False: the connection is broken. */
static bool
send_on(struct client *client)
{
	while (client->left > 0) {
		size_t len = block_len - client->at;
		ssize_t n;

		if (len > client->left)
			len = (size_t)client->left;
		n = send(client->fd, block + client->at, len, MSG_NOSIGNAL);
		if (n == -1)
			return errno == EAGAIN || errno == EINTR;
		client->left -= (uint64_t)n;
		bytes_sent += (uint64_t)n;
		client->at += (size_t)n;
		if (client->at == block_len)
			client->at = 0;
	}
	return true;
}

/* Sends what is left and closes the side.  False: the connection is broken. */
static bool
send_to_the_end(struct client *client)
{
	if (client->sent)
		return true;
	if (!send_on(client))
		return false;
	if (client->left > 0)
		return true;
	client->sent = true;
	return shutdown(client->fd, SHUT_WR) == 0;
}

/* Reads what comes; whatever it is, only the close counts.  1: closed, -1: broken. */
static int
read_close(struct client *client)
{
	static unsigned char waste[65536];
	ssize_t n;

	for (;;) {
		n = read(client->fd, waste, sizeof(waste));
		if (n == 0)
			return client->sent ? 1 : -1;
		if (n == -1)
			return errno == EAGAIN || errno == EINTR ? 0 : -1;
	}
}

/* Waits for events.  The server that was stopped goes on once nothing happens. */
static int
wait_events(struct epoll_event *events)
{
	int n = epoll_wait(poller, events, EVENTS, options.stopped != 0 ? SETTLED : PATIENCE);

	if (n > 0)
		return n;
	if (n == -1 && errno != EINTR)
		bench_fail("epoll_wait");
	if (n == 0 && options.stopped == 0) {
		errno = ETIMEDOUT;
		bench_fail("%llu bytes sent, then nothing", (unsigned long long)bytes_sent);
	}
	if (n == 0) {
		if (kill(options.stopped, SIGCONT) == -1)
			bench_fail("kill %ld", (long)options.stopped);
		options.stopped = 0;
	}
	return 0;
}

/* Connects and sends at once, as a program does whose connect(2) and write(2) wait: on
 * loopback the connection stands by then.  Else the next event goes on. */
static bool
begin_sending(struct client *client)
{
	client->left = options.size;
	client->at = 0;
	begin(client);
	return send_to_the_end(client);
}

/* ------------------------------------------------------------------- modes */

static void
run_stream(struct client *clients)
{
	struct epoll_event events[EVENTS];
	size_t open = options.connections, i;
	int n;

	make_block(BLOCK);
	options.bytes -= options.bytes % options.size;
	for (i = 0; i < open; i++) {
		clients[i].left = options.bytes;
		begin(&clients[i]);
	}
	while (open > 0) {
		for (n = wait_events(events); n > 0; n--) {
			struct client *client = events[n - 1].data.ptr;
			int closed = send_to_the_end(client) ? read_close(client) : -1;

			if (closed == 0)
				continue;
			if (closed == 1)
				answered += options.bytes / options.size;
			else
				failed++;
			end(client);
			open--;
		}
	}
}

static void
run_short(struct client *clients)
{
	struct epoll_event events[EVENTS];
	size_t i;
	int n;

	make_block(options.size);
	for (i = 0; i < options.connections && started < options.messages; i++, started++)
		if (!begin_sending(&clients[i]))
			bench_fail("send");
	while (answered + failed < options.messages) {
		for (n = wait_events(events); n > 0; n--) {
			struct client *client = events[n - 1].data.ptr;
			bool writable = (events[n - 1].events & EPOLLOUT) != 0;
			int closed = 0;

			if (writable && !send_to_the_end(client))
				closed = -1;
			else if ((events[n - 1].events & ~(uint32_t)EPOLLOUT) != 0)
				closed = read_close(client);
			while (closed != 0) {
				if (closed == 1)
					answered++;
				else
					failed++;
				end(client);
				if (started == options.messages)
					break;
				started++;
				closed = begin_sending(client) ? 0 : -1;
			}
		}
	}
}

/* The next message of a connection that is answered. */
static bool
ask(struct client *client)
{
	if (started == options.messages)
		return true;
	started++;
	client->left = options.size;
	client->answered = 0;
	client->begun = bench_clock();
	return send_on(client);
}

/* Whether n bytes that came belong to the answer that is expected. */
static bool
is_expected(const struct client *client, const char *bytes, size_t n)
{
	static const char ok[] = "OK ";
	size_t len = sizeof(ok) - 1;

	if (options.echo)
		return client->answered + n <= options.size &&
		       memcmp(block + client->answered, bytes, n) == 0;
	if (client->answered >= len)
		return true;
	len -= client->answered;
	return memcmp(ok + client->answered, bytes, n < len ? n : len) == 0;
}

/* Reads the answer.  False: it is not what was expected, or none will come. */
static bool
hear(struct client *client)
{
	char bytes[65536];
	uint64_t taken;

	for (;;) {
		ssize_t n = read(client->fd, bytes, sizeof(bytes));

		if (n == -1)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0 || !is_expected(client, bytes, (size_t)n))
			return false;
		client->answered += (size_t)n;
		if (bytes[n - 1] != '\n')
			continue;
		taken = (bench_clock() - client->begun) / 100;
		latencies[answered++] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
		return ask(client);
	}
}

static void
run_exchange(struct client *clients)
{
	struct epoll_event events[EVENTS];
	int n, on = 1;
	size_t i;

	options.framing = LINE;
	make_block(options.size);
	latencies = bench_alloc(options.messages, sizeof(*latencies));
	for (i = 0; i < options.connections; i++) {
		begin(&clients[i]);
		if (setsockopt(clients[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1)
			bench_fail("TCP_NODELAY");
	}
	while (answered + failed < options.messages) {
		for (n = wait_events(events); n > 0; n--) {
			struct client *client = events[n - 1].data.ptr;
			uint32_t what = events[n - 1].events;
			bool well = true;

			if (!client->sent && (what & EPOLLOUT) != 0) {
				client->sent = true; /* it is connected: the first message */
				well = ask(client);
			} else if ((what & EPOLLOUT) != 0) {
				well = send_on(client);
			}
			if (well && (what & ~(uint32_t)EPOLLOUT) != 0)
				well = hear(client);
			if (well)
				continue;
			/* With it goes what it would have sent. */
			failed = options.messages - answered;
			return;
		}
	}
	for (i = 0; i < options.connections; i++)
		end(&clients[i]);
}

static void
run_idle(struct client *clients)
{
	struct epoll_event events[EVENTS];
	size_t open = 0, i = 0;
	char byte;

	while (open < options.connections) {
		int n;

		/* Few at once, lest the backlog overflow. */
		for (; i < options.connections && i < open + 128; i++)
			begin(&clients[i]);
		for (n = wait_events(events); n > 0; n--) {
			struct client *client = events[n - 1].data.ptr;

			if ((events[n - 1].events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0) {
				errno = 0;
				bench_fail("connection %zu was closed", open);
			}
			if (client->sent)
				continue;
			client->sent = true;
			open++;
		}
	}
	printf("open %zu\n", open);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	answered = open;
}

/* ----------------------------------------------------------------- results */

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double
percentile(double share)
{
	return latencies[(uint64_t)(share * (double)(answered - 1))] / 10.0;
}

static void
report(const char *mode, uint64_t nanoseconds)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("mode=%s messages=%llu bytes=%llu failed=%llu seconds=%.6f cpu=%.6f", mode,
	       (unsigned long long)answered, (unsigned long long)bytes_sent,
	       (unsigned long long)failed, (double)nanoseconds / 1e9,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	if (latencies != NULL && answered > 0) {
		qsort(latencies, answered, sizeof(*latencies), compare);
		printf(" p50=%.1f p90=%.1f p99=%.1f p999=%.1f max=%.1f", percentile(.5),
		       percentile(.9), percentile(.99), percentile(.999), percentile(1));
	}
	putchar('\n');
}

static _Noreturn void
usage(void)
{
	fputs("usage: load stream|short|receipts|pingpong|idle -p PORT [-a ADDRESS]\n"
	      "            [-c CONNECTIONS] [-n MESSAGES] [-b BYTES] [-s SIZE]\n"
	      "            [-f none|line|length] [-C PID]\n", stderr);
	exit(64);
}

static enum framing
framing_of(const char *name)
{
	if (strcmp(name, "none") == 0)
		return NONE;
	if (strcmp(name, "line") == 0)
		return LINE;
	if (strcmp(name, "length") == 0)
		return LENGTH;
	usage();
}

static void
parse(int argc, char **argv)
{
	int option;

	options.server = (struct sockaddr_in){.sin_family = AF_INET};
	options.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while ((option = getopt(argc, argv, "a:p:c:n:b:s:f:C:")) != -1) {
		switch (option) {
		case 'a':
			if (inet_pton(AF_INET, optarg, &options.server.sin_addr) != 1)
				usage();
			break;
		case 'p':
			options.server.sin_port = htons((uint16_t)bench_number(optarg));
			break;
		case 'c':
			options.connections = bench_number(optarg);
			break;
		case 'n':
			options.messages = bench_number(optarg);
			break;
		case 'b':
			options.bytes = bench_number(optarg);
			break;
		case 's':
			options.size = bench_number(optarg);
			break;
		case 'f':
			options.framing = framing_of(optarg);
			break;
		case 'C':
			options.stopped = (pid_t)bench_number(optarg);
			break;
		default:
			usage();
		}
	}
	if (optind != argc || options.server.sin_port == 0 || options.connections == 0 ||
	    options.messages == 0 || options.size == 0 ||
	    (options.framing == LENGTH && options.size < sizeof(uint32_t)))
		usage();
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct client *clients);
		bool echo;
	} modes[] = {
		{"stream", run_stream, false},     {"short", run_short, false},
		{"receipts", run_exchange, false}, {"pingpong", run_exchange, true},
		{"idle", run_idle, false},
	};
	struct client *clients;
	uint64_t begun;
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(argv[1], modes[i].name) != 0)
			continue;
		parse(argc - 1, argv + 1);
		options.echo = modes[i].echo;
		if (bench_descriptors() < options.connections + 16) {
			errno = 0;
			bench_fail("%zu connections are more than the limit of descriptors",
				   options.connections);
		}
		clients = bench_alloc(options.connections, sizeof(*clients));
		poller = epoll_create1(EPOLL_CLOEXEC);
		if (poller == -1)
			bench_fail("epoll_create1");
		begun = bench_clock();
		modes[i].run(clients);
		report(modes[i].name, bench_clock() - begun);
		return failed == 0 ? 0 : 1;
	}
	usage();
}
