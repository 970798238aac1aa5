/*
 * nats_message: what is published of a message: its subject, its headers and their size, its
 * bytes; and the file that stands for one that is too large.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/memory.h"
#include "batches.h"
#include "message/body.h"
#include "sinks/nats_claim.h"
#include "sinks/nats_message.h"
#include "unit.h"

static struct batches b;
static struct config_sink spool, config;
static char directory[4096];

/* The spool is the one whose sink is open: it has made the directories. */
static void
begin(void)
{
	snprintf(directory, sizeof(directory), "%s", batches_path("claims \"q\""));
	spool = (struct config_sink){.name = (char *)(uintptr_t)"claims", .type = CONFIG_SINK_SPOOL,
				     .directory = directory, .sync = true, .mode = 0640};
	config = (struct config_sink){.name = (char *)(uintptr_t)"n", .type = CONFIG_SINK_NATS};
	config.nats.subject = (char *)(uintptr_t)"in.{listener}.{peer}";
	config.nats.stream = (char *)(uintptr_t)"S";
	batches_open(&b, &spool);
	ck_assert_int_eq(nats_Open(-1), NATS_OK); /* as its options do in the daemon */
}

static void
end(void)
{
	batches_close(&b);
	nats_Close();
	batches_clean();
}

static const char *
header(const struct nats_draft *draft, const char *name)
{
	for (unsigned i = 0; i < draft->count; i++)
		if (strcmp(draft->names[i], name) == 0)
			return draft->values[i];
	return NULL;
}

/* As the protocol has them: a line for the version, one each, an empty one. */
static size_t
size_of_headers(const struct nats_draft *draft)
{
	size_t size = strlen("NATS/1.0\r\n") + strlen("\r\n");

	for (unsigned i = 0; i < draft->count; i++)
		size += strlen(draft->names[i]) + strlen(": ") + strlen(draft->values[i]) + strlen("\r\n");
	return size;
}

START_TEST(says_what_is_known)
{
	struct batch *batch;
	struct nats_draft draft;
	char id[ID_TEXT_LEN + 1];

	begin();
	b.origin.tls_subject = "CN=a\r\nNats-Msg-Id: x";
	batch = batches_make(&b, 1, "hello");
	id_text(&batch->messages[0].id, id);
	ck_assert_int_eq(nats_draft_make(&draft, &config, batch, &batch->messages[0], NULL), 0);
	ck_assert_str_eq(draft.subject, "in.main.192_0_2_1");
	ck_assert_str_eq(header(&draft, "Nats-Msg-Id"), id);
	ck_assert_str_eq(header(&draft, "Nats-Expected-Stream"), "S");
	ck_assert_str_eq(header(&draft, "Cistern-Id"), id);
	ck_assert_str_eq(header(&draft, "Cistern-Listener"), "main");
	ck_assert_str_eq(header(&draft, "Cistern-Peer"), "192.0.2.1:5140");
	ck_assert_str_eq(header(&draft, "Cistern-Local"), "192.0.2.1:5140");
	ck_assert_str_eq(header(&draft, "Cistern-Size"), "5");
	ck_assert_str_eq(header(&draft, "Cistern-Ended"), "frame");
	/* What a certificate says adds no header. */
	ck_assert_str_eq(header(&draft, "Cistern-Tls-Subject"), "CN=a\\x0D\\x0ANats-Msg-Id: x");
	ck_assert_ptr_null(header(&draft, "Cistern-Claim"));
	ck_assert_uint_eq(draft.headers_size, size_of_headers(&draft));
	nats_draft_clear(&draft);
	b.origin.tls_subject = NULL;
	ck_assert_int_eq(nats_draft_make(&draft, &config, batch, &batch->messages[0], "/claim"), 0);
	ck_assert_ptr_null(header(&draft, "Cistern-Tls-Subject"));
	ck_assert_str_eq(header(&draft, "Cistern-Claim"), "/claim");
	ck_assert_uint_eq(draft.headers_size, size_of_headers(&draft));
	nats_draft_clear(&draft);
	batch_free(batch);
	end();
}
END_TEST

/* The message as the library has it: its bytes, and what it takes of memory_limit. */
static void
check_message(struct batch *batch, const void *bytes, size_t size)
{
	struct nats_draft draft;
	natsStatus status = NATS_OK;
	natsMsg *made;
	const char *value = NULL;
	uint64_t before = memory_used();
	int error = 0;

	ck_assert_int_eq(nats_draft_make(&draft, &config, batch, &batch->messages[0], NULL), 0);
	made = nats_message_new(&draft, &batch->messages[0], "_INBOX.a.0", &status, &error);
	ck_assert_ptr_nonnull(made);
	ck_assert_int_eq(status, NATS_OK);
	ck_assert_uint_eq(memory_used(), before + size);
	ck_assert_int_eq(natsMsg_GetDataLength(made), (int)size);
	ck_assert(size == 0 || memcmp(natsMsg_GetData(made), bytes, size) == 0);
	ck_assert_str_eq(natsMsg_GetReply(made), "_INBOX.a.0");
	ck_assert_int_eq(natsMsgHeader_Get(made, "Nats-Msg-Id", &value), NATS_OK);
	ck_assert_str_eq(value, draft.facts.id);
	nats_message_free(made);
	ck_assert_uint_eq(memory_used(), before);
	nats_draft_clear(&draft);
	batch_free(batch);
}

START_TEST(copies_the_bytes)
{
	size_t size = 70001;
	unsigned char *bytes = malloc(size);

	begin();
	ck_assert_ptr_nonnull(bytes);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(i * 31 + i / 251);
	check_message(batches_make_bytes(&b, "", 0), "", 0);
	check_message(batches_make_bytes(&b, bytes, 1000), bytes, 1000);
	check_message(batches_make_body(&b, bytes, size, NULL), bytes, size);
	check_message(batches_make_body(&b, bytes, size, directory), bytes, size);
	nats_message_free(NULL);
	free(bytes);
	end();
}
END_TEST

/* Bytes that cannot be read back are not published, and nothing stays charged. */
START_TEST(does_not_publish_half)
{
	static unsigned char bytes[70001];
	struct nats_draft draft;
	natsStatus status = NATS_OK;
	struct batch *batch;
	uint64_t before;
	int error = 0;

	begin();
	batch = batches_make_body(&b, bytes, sizeof(bytes), directory);
	ck_assert_int_eq(nats_draft_make(&draft, &config, batch, &batch->messages[0], NULL), 0);
	ck_assert_int_eq(ftruncate(batch->messages[0].body->file, 1000), 0);
	before = memory_used();
	ck_assert_ptr_null(nats_message_new(&draft, &batch->messages[0], "r", &status, &error));
	ck_assert_int_eq(status, NATS_SYS_ERROR);
	ck_assert_int_eq(error, EIO);
	ck_assert_uint_eq(memory_used(), before);
	nats_draft_clear(&draft);
	batch_free(batch);
	end();
}
END_TEST

START_TEST(claims_are_files)
{
	char path[NATS_CLAIM_PATH], *found;
	struct nats_claim claim;
	struct batch *batch;
	struct stat st;
	size_t len;

	begin();
	ck_assert_int_eq(nats_claim_open(&claim, &spool), 0);
	if (_i == 1)
		claim.group.unnamed = false; /* as where no file without a name can be made */
	batch = batches_make(&b, 1, "too large a message");
	nats_claim_path(&claim, batch, &batch->messages[0], path);
	ck_assert_int_eq(stat(path, &st), -1);
	/* Twice, as when the first reference was not acknowledged: there is one file. */
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(nats_claim_store(&claim, batch, &batch->messages[0]), i); /* 1: there */
		found = batches_read(path, &len);
		ck_assert_str_eq(found, "too large a message");
		free(found);
	}
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	ck_assert_int_eq(nats_claim_withdraw(&claim, batch, &batch->messages[0]), 0);
	ck_assert_int_eq(stat(path, &st), -1);
	/* A consumer has taken it: that is no failure. */
	ck_assert_int_eq(nats_claim_withdraw(&claim, batch, &batch->messages[0]), 0);
	batch_free(batch);
	nats_claim_close(&claim);
	end();
}
END_TEST

/* What has a claim's name and not its bytes, as a loss of power may leave it, is no claim. */
START_TEST(claims_are_whole)
{
	char path[NATS_CLAIM_PATH], *found;
	struct nats_claim claim;
	struct batch *batch;
	size_t len;
	FILE *half;

	begin();
	ck_assert_int_eq(nats_claim_open(&claim, &spool), 0);
	batch = batches_make(&b, 1, "too large a message");
	nats_claim_path(&claim, batch, &batch->messages[0], path);
	half = fopen(path, "w");
	ck_assert_ptr_nonnull(half);
	fputs("too lar", half);
	fclose(half);
	ck_assert_int_eq(nats_claim_store(&claim, batch, &batch->messages[0]), 1);
	found = batches_read(path, &len);
	ck_assert_str_eq(found, "too large a message");
	free(found);
	batch_free(batch);
	nats_claim_close(&claim);
	end();
}
END_TEST

START_TEST(claims_keep_min_free)
{
	struct nats_claim claim;
	struct batch *batch;
	char path[NATS_CLAIM_PATH];
	struct stat st;

	begin();
	spool.min_free = UINT64_C(1) << 60;
	ck_assert_int_eq(nats_claim_open(&claim, &spool), 0);
	batch = batches_make(&b, 1, "x");
	errno = 0;
	ck_assert_int_eq(nats_claim_store(&claim, batch, &batch->messages[0]), -1);
	ck_assert_int_eq(errno, ENOSPC);
	nats_claim_path(&claim, batch, &batch->messages[0], path);
	ck_assert_int_eq(stat(path, &st), -1);
	spool.min_free = 1;
	ck_assert_int_eq(nats_claim_store(&claim, batch, &batch->messages[0]), 0);
	batch_free(batch);
	nats_claim_close(&claim);
	end();
}
END_TEST

START_TEST(claims_need_their_directories)
{
	struct nats_claim claim;
	char nowhere[4096];
	struct config_sink other;

	begin();
	snprintf(nowhere, sizeof(nowhere), "%s", batches_path("nowhere"));
	other = spool;
	other.directory = nowhere;
	errno = 0;
	ck_assert_int_eq(nats_claim_open(&claim, &other), -1);
	ck_assert_int_eq(errno, ENOENT);
	end();
}
END_TEST

/* What is published in a message's place is JSON, whatever its certificate says. */
START_TEST(claims_are_said_in_json)
{
	struct nats_claim claim;
	struct facts facts;
	struct batch *batch;
	char path[NATS_CLAIM_PATH], *text;
	json_t *json;

	begin();
	b.origin.tls_subject = "CN=\"a\"\\\x01\xff,O=\xe2\x82\xac";
	ck_assert_int_eq(nats_claim_open(&claim, &spool), 0);
	batch = batches_make(&b, 1, "x");
	facts_set(&facts, batch, &batch->messages[0]);
	text = nats_claim_text(&claim, &facts, batch, &batch->messages[0]);
	ck_assert_ptr_nonnull(text);
	json = json_loads(text, 0, NULL);
	ck_assert_msg(json_is_object(json), "%s", text);
	nats_claim_path(&claim, batch, &batch->messages[0], path);
	ck_assert_str_eq(json_string_value(json_object_get(json, "claim")), path);
	ck_assert_str_eq(json_string_value(json_object_get(json, "id")), facts.id);
	ck_assert_str_eq(json_string_value(json_object_get(json, "listener")), "main");
	ck_assert_str_eq(json_string_value(json_object_get(json, "ended")), "frame");
	ck_assert_int_eq(json_integer_value(json_object_get(json, "size")), 1);
	ck_assert_ptr_nonnull(json_object_get(json, "tls_subject"));
	json_decref(json);
	memory_free(text);
	b.origin.tls_subject = NULL;
	batch_free(batch);
	nats_claim_close(&claim);
	end();
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("nats_message");
	TCase *tcase = tcase_create("nats_message");

	tcase_add_test(tcase, says_what_is_known);
	tcase_add_test(tcase, copies_the_bytes);
	tcase_add_test(tcase, does_not_publish_half);
	tcase_add_loop_test(tcase, claims_are_files, 0, 2);
	tcase_add_test(tcase, claims_are_whole);
	tcase_add_test(tcase, claims_keep_min_free);
	tcase_add_test(tcase, claims_need_their_directories);
	tcase_add_test(tcase, claims_are_said_in_json);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
