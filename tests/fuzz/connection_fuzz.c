/*
 * connection_fuzz: a connection's whole life, played on the real intake over a pair of
 * sockets: bytes, half closes, closes, pauses of any length, answers of sinks in any
 * order and of any kind, memory that ends.  The time is ours (clock_now is replaced by
 * the linker), and so is the only sink.
 *
 * Whatever is played: every message is counted once, no receipt says OK of what the sink has
 * not accepted, the connection comes to its end, and nothing is left of it.
 *
 * An input is 1 byte, the listener, and steps: 1 byte each (a step of STEPS, and its number),
 * those that send followed by their bytes.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "generation.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/limits.h"
#include "intake/listener.h"
#include "message/body.h"
#include "sinks/sink.h"
#include "worker.h"

#define FUZZ_DELIVERIES 1024
#define FUZZ_MOST 4096

const char *const fuzz_corpus[] = { "connection", NULL };

static const char settings[] =
	"workers = 1; memory_limit = \"128K\"; spill_directory = \"/tmp\"; idle_timeout = 10;\n"
	"address = \"127.0.0.1\"; buffer_size = 256; max_message_size = 3000; deliver = [ \"s\" ];\n"
	"sinks = { s = { type = \"console\"; }; scraps = { type = \"console\"; format = \"raw\"; }; };\n"
	"listeners = {\n"
	"  a = { port = 1; };\n"
	"  b = { port = 2; framing = \"line\"; reply = \"receipt\"; max_in_flight = 3; };\n"
	"  c = { port = 3; framing = \"delimiter\"; delimiter = \"<E>\"; keep_delimiter = true;\n"
	"        reply = \"echo\"; max_messages = 2; };\n"
	"  d = { port = 4; framing = \"netstring\"; reply = \"receipt\"; incomplete = \"scraps\"; };\n"
	"  e = { port = 5; framing = \"mllp\"; reply = \"receipt\"; message_timeout = 5; };\n"
	"  f = { port = 6; quiet_timeout = 1; incomplete = \"scraps\"; reply = \"receipt\"; };\n"
	"  g = { port = 7; framing = \"octet-counted\"; reply = \"receipt\"; proxy_protocol = true;\n"
	"        proxy_from = \"0.0.0.0/0\"; max_connections_per_address = 1; };\n"
	"  h = { port = 8; framing = \"line\"; rate_limit = { connection = 600; }; min_rate = 9;\n"
	"        reply = \"receipt\"; };\n"
	"};\n";

/* ------------------------------------------------------------------ the world */

static uint64_t now = 1000000000;
static struct worker worker;
static struct intake intake;
static struct reign reign;
static struct inbox main_inbox;
static struct generation *generation;

static struct delivery *deliveries[FUZZ_DELIVERIES];
static size_t n_deliveries;
static uint64_t n_accepted; /* messages, of the sink that clients are answered for */

uint64_t __wrap_clock_now(void);

uint64_t
__wrap_clock_now(void)
{
	return now;
}

/* What it is given must be there to be read, whole. */
static void
fuzz_deliver(struct sink *sink, struct delivery *first)
{
	unsigned char scratch[512];
	const unsigned char *piece;
	struct delivery *next;

	(void)sink;
	for (; first != NULL; first = next) {
		const struct batch *batch = first->batch;

		next = first->next;
		fuzz_require(batch->count > 0);
		for (unsigned i = 0; i < batch->count; i++) {
			struct cursor cursor;
			uint64_t size = 0;
			ptrdiff_t n;

			cursor_start(&cursor, &batch->messages[i]);
			while ((n = cursor_next(&cursor, &piece, scratch, sizeof scratch)) > 0)
				size += (uint64_t)n;
			fuzz_require(n == 0 && size == batch->messages[i].size && size <= 3000);
		}
		fuzz_require(n_deliveries < FUZZ_DELIVERIES);
		deliveries[n_deliveries++] = first;
	}
}

static const struct sink_kind fuzz_sink = {.name = "fuzz", .deliver = fuzz_deliver};

static void
fuzz_answer(size_t which, enum outcome outcome)
{
	struct delivery *delivery = deliveries[which];

	deliveries[which] = deliveries[--n_deliveries];
	if (outcome == OUTCOME_ACCEPTED && !delivery->batch->incomplete)
		n_accepted += delivery->batch->count;
	sink_answer(delivery, outcome);
}

static void
fuzz_nothing(struct inbox_item *item)
{
	(void)item;
}

static void
fuzz_open(void)
{
	int fd = memfd_create("cistern.conf", MFD_CLOEXEC);
	struct config_errors errors;
	struct config *config;
	char path[40];

	fuzz_require(write(fd, settings, sizeof settings - 1) == sizeof settings - 1);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	config = config_load(path, &errors);
	config_errors_print(&errors, stderr);
	fuzz_require(config != NULL);
	config_errors_free(&errors);
	log_verbose(-10);
	signal(SIGPIPE, SIG_IGN); /* as daemon.c does */
	memory_init(config->memory_limit);
	reign.n_workers = 1;
	reign.intakes = &intake;
	fuzz_require(worker_open(&worker, 0, &main_inbox, fuzz_nothing) == 0);
	fuzz_require(intake_open(&intake, &worker, &intake, 1) == 0);
	fuzz_require(generation_new(&generation, &reign, config) == 0);
	fuzz_require(generation_open(generation) == 0);
	fuzz_require(generation_attach(generation) == 0);
	for (size_t i = 0; i < generation->n_sinks; i++)
		generation->sinks[i]->kind = &fuzz_sink;
	generation_begin(generation);
}

/* ------------------------------------------------------------------- a client */

static struct {
	int fd;
	size_t receipts, accepted; /* lines; those that say OK */
	size_t in_line;
	bool ok;
} client;

static void
fuzz_turn(void)
{
	for (int i = 0; i < 6; i++)
		event_base_loop(worker.base, EVLOOP_NONBLOCK);
}

/* Later it is; who has waited for that is told. */
static void
fuzz_wait(uint64_t microseconds)
{
	now += microseconds;
	event_active(intake.deadlines.timer, EV_TIMEOUT, 0);
	event_active(intake.hunger, EV_TIMEOUT, 0);
	fuzz_turn();
}

/* Counts receipts, however they are split. */
static void
fuzz_read(bool receipts)
{
	char bytes[1024];
	ssize_t n;

	while (client.fd != -1 && (n = recv(client.fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; receipts && i < n; i++) {
			if (client.in_line++ == 0)
				client.ok = bytes[i] == 'O';
			if (bytes[i] != '\n')
				continue;
			client.receipts++;
			client.accepted += client.ok;
			client.in_line = 0;
		}
	}
	fuzz_require(client.accepted <= n_accepted);
}

static void
fuzz_hang_up(void)
{
	if (client.fd != -1)
		close(client.fd);
	client.fd = -1;
}

static size_t
fuzz_step(const uint8_t *data, size_t size, bool receipts)
{
	static const uint64_t pauses[] = {1000, 300000, 1100000, 2100000, 6000000, 11000000, 70000000};
	unsigned number = data[0] >> 3;
	size_t len;

	switch (data[0] & 7) {
	case 0:
	case 1:
		len = number < size - 1 ? number : size - 1;
		if (client.fd != -1 && len > 0)
			(void)!send(client.fd, data + 1, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		return 1 + len;
	case 2:
		fuzz_turn();
		break;
	case 3:
		fuzz_wait(pauses[number % (sizeof pauses / sizeof pauses[0])]);
		break;
	case 4:
		if (n_deliveries > 0)
			fuzz_answer(number % n_deliveries, OUTCOME_ACCEPTED);
		break;
	case 5:
		if (n_deliveries > 0)
			fuzz_answer((number >> 2) % n_deliveries,
				    number & 1 ? OUTCOME_STORAGE : OUTCOME_REFUSED);
		break;
	case 6:
		fuzz_read(receipts);
		break;
	case 7:
		if (number < 8 && client.fd != -1)
			shutdown(client.fd, SHUT_WR);
		else if (number < 12)
			fuzz_hang_up();
		else if (number < 20)
			memory_set_limit(number < 16 ? 1 : 131072);
		else
			fuzz_turn();
		break;
	}
	return 1;
}

/* Everything is answered, all time is over: then it is gone. */
static void
fuzz_end(bool receipts)
{
	memory_set_limit(131072);
	for (int i = 0; i < 50 && (intake.n_connections > 0 || n_deliveries > 0); i++) {
		fuzz_turn();
		while (n_deliveries > 0)
			fuzz_answer(0, i & 1 ? OUTCOME_REFUSED : OUTCOME_ACCEPTED);
		fuzz_turn();
		fuzz_read(receipts);
		fuzz_wait(UINT64_C(31000000));
		if (i == 10)
			fuzz_hang_up();
	}
	fuzz_hang_up();
	fuzz_turn();
	fuzz_require(intake.n_connections == 0 && n_deliveries == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct listener_group *group;
	struct counters sum = {0};
	struct net_address peer = {.in = {.sin_family = AF_INET, .sin_port = htons(9)}};
	int pair[2];
	bool receipts;

	if (size < 2 || size > FUZZ_MOST)
		return 0;
	if (generation == NULL)
		fuzz_open();
	group = &generation->groups[data[0] % generation->n_groups];
	receipts = group->config->reply == CONFIG_REPLY_RECEIPT;
	peer.in.sin_addr.s_addr = htonl(0x7f000001);
	n_accepted = 0;
	client.receipts = client.accepted = client.in_line = 0;
	fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	fuzz_require(fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
	client.fd = pair[0];
	fuzz_require(limits_take(group->limits));
	connection_open(group->members[0], pair[1], &peer);
	for (size_t at = 1; at < size;)
		at += fuzz_step(data + at, size - at, receipts);
	fuzz_end(receipts);
	reign_count(&reign, group->ledger, &sum);
	fuzz_require(sum.received == sum.accepted + sum.refused + sum.failed && sum.in_flight == 0);
	fuzz_require(sum.connections_active == 0);
	return 0;
}
