/*
 * publisher: what libnats does by itself: publishes messages to a stream, asynchronously, a
 * window ahead of the acknowledgements, and says how long all of them took.
 *
 *	publisher URL SUBJECT MESSAGES SIZE WINDOW HEADERS
 *
 * Each message has an id, and so many headers more.  The line: messages, seconds.  Exit 0
 * when all were acknowledged.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nats/nats.h>

static atomic_long failed;

static void
on_answer(jsCtx *js, natsMsg *message, jsPubAck *answer, jsPubAckErr *error, void *closure)
{
	(void)js;
	(void)answer;
	(void)closure;
	if (error != NULL)
		atomic_fetch_add(&failed, 1);
	natsMsg_Destroy(message);
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static natsStatus
publish(jsCtx *js, const char *subject, const char *bytes, int size, long number, int headers,
	const char *run)
{
	char id[64], name[32];
	jsPubOptions options;
	natsMsg *message = NULL;
	natsStatus status = natsMsg_Create(&message, subject, NULL, bytes, size);

	snprintf(id, sizeof(id), "%s-%016ld", run, number);
	for (int i = 0; status == NATS_OK && i < headers; i++) {
		snprintf(name, sizeof(name), "Cistern-Header-%d", i);
		status = natsMsgHeader_Set(message, name, "127.0.0.1:12345");
	}
	if (status == NATS_OK)
		status = jsPubOptions_Init(&options);
	options.MsgId = id;
	if (status == NATS_OK)
		status = js_PublishMsgAsync(js, &message, &options);
	natsMsg_Destroy(message);
	return status;
}

int
main(int argc, char **argv)
{
	natsConnection *connection = NULL;
	jsCtx *js = NULL;
	jsOptions options;
	natsStatus status;
	char run[32], *bytes;
	long count, i;
	double begun;

	if (argc != 7) {
		fprintf(stderr, "usage: publisher URL SUBJECT MESSAGES SIZE WINDOW HEADERS\n");
		return 64;
	}
	count = atol(argv[3]);
	bytes = calloc(1, (size_t)atol(argv[4]) + 1);
	if (bytes == NULL)
		return 71;
	memset(bytes, 'x', (size_t)atol(argv[4]));
	snprintf(run, sizeof(run), "%" PRIx64, nats_NowInNanoSeconds());
	status = natsConnection_ConnectTo(&connection, argv[1]);
	if (status == NATS_OK)
		status = jsOptions_Init(&options);
	options.PublishAsync.MaxPending = atol(argv[5]);
	options.PublishAsync.StallWait = 60000;
	options.PublishAsync.AckHandler = on_answer;
	if (status == NATS_OK)
		status = natsConnection_JetStream(&js, connection, &options);
	begun = now();
	for (i = 0; status == NATS_OK && i < count; i++)
		status = publish(js, argv[2], bytes, atoi(argv[4]), i, atoi(argv[6]), run);
	if (status == NATS_OK)
		status = js_PublishAsyncComplete(js, NULL);
	printf("%ld %.6f\n", i, now() - begun);
	if (status != NATS_OK || failed > 0)
		fprintf(stderr, "publisher: %s, %ld refused\n", natsStatus_GetText(status), failed);
	jsCtx_Destroy(js);
	natsConnection_Destroy(connection);
	free(bytes);
	return status == NATS_OK && failed == 0 ? 0 : 1;
}
