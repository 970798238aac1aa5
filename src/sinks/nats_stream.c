/*
 * nats_stream: see nats_stream.h.
 *
 * A stream that is there is taken as it is, whatever `create` says: it is somebody's.
 */
#include "sinks/nats_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "config/config.h"

#define ASK_WAIT 2000	 /* milliseconds */
#define CREATE_WAIT 5000 /* the servers have to agree on who has it */

static void
set_why(struct nats_finding *finding, const char *what, const char *more)
{
	size_t len = strlen(what);

	memcpy(finding->why, what, len);
	utf8_show_text(finding->why + len, sizeof(finding->why) - len, more);
}

void
nats_stream_free_subjects(char **subjects, int count)
{
	for (int i = 0; subjects != NULL && i < count; i++)
		free(subjects[i]);
	free(subjects);
}

static void
copy_subjects(struct nats_finding *finding, const jsStreamConfig *config)
{
	char **copies = calloc((size_t)config->SubjectsLen + 1, sizeof(*copies));
	int count = 0;

	while (copies != NULL && count < config->SubjectsLen) {
		copies[count] = strdup(config->Subjects[count]);
		if (copies[count] == NULL) {
			nats_stream_free_subjects(copies, count);
			return; /* unknown, then */
		}
		count++;
	}
	finding->subjects = copies;
	finding->n_subjects = count;
}

/* One that refuses new messages, and has hardly room for any: it is not well until some
 * have gone. */
static bool
is_full(const jsStreamInfo *info)
{
	const jsStreamConfig *config = info->Config;

	if (config->Discard != js_DiscardNew)
		return false;
	if (config->MaxMsgs > 0 && info->State.Msgs >= (uint64_t)config->MaxMsgs)
		return true;
	return config->MaxBytes > 0 &&
	       info->State.Bytes >= (uint64_t)(config->MaxBytes - config->MaxBytes / 16);
}

static void
judge(struct nats_finding *finding, const jsStreamInfo *info, const char *subject)
{
	const jsStreamConfig *config = info->Config;

	finding->state = NATS_LINK_OPEN;
	copy_subjects(finding, config);
	finding->full = is_full(info);
	if (config->MaxMsgSize > 0 && (uint64_t)config->MaxMsgSize < finding->limit)
		finding->limit = (uint64_t)config->MaxMsgSize;
	if (info->Cluster != NULL && (info->Cluster->Leader == NULL || *info->Cluster->Leader == '\0')) {
		finding->state = NATS_LINK_DOWN;
		set_why(finding, "the stream has no leader", "");
	} else if (config->Sealed || config->Mirror != NULL || config->NoAck) {
		finding->state = NATS_LINK_UNFIT;
		set_why(finding, config->NoAck ? "the stream acknowledges nothing (no_ack)"
					       : "the stream takes no messages (sealed, or a mirror)", "");
	} else if (strchr(subject, '{') == NULL && finding->subjects != NULL) {
		bool takes = false;

		for (int i = 0; i < finding->n_subjects; i++)
			takes |= subject_matches(finding->subjects[i], subject);
		if (!takes) {
			finding->state = NATS_LINK_UNFIT;
			set_why(finding, "the stream does not take the subject ", subject);
		}
	}
}

static void
judge_error(struct nats_finding *finding, natsStatus status, jsErrCode code)
{
	const char *text = nats_GetLastError(NULL);

	finding->state = NATS_LINK_DOWN;
	/* A server that has just started says the same for a moment. */
	if (code == JSNotEnabledErr || code == JSNotEnabledForAccountErr ||
	    status == NATS_NO_RESPONDERS) {
		set_why(finding, "JetStream is not enabled on the servers, or for this account", "");
	} else if (status == NATS_TIMEOUT) {
		set_why(finding, "JetStream does not answer", "");
	} else {
		set_why(finding, "", status == NATS_ERR && text != NULL ? text : natsStatus_GetText(status));
	}
}

/* Limits are not for dropping what was acknowledged: a stream of ours refuses instead. */
static natsStatus
create(jsStreamInfo **info, jsCtx *js, const struct config_sink *config, jsErrCode *code)
{
	const struct config_create *settings = &config->nats.create;
	char pattern[SUBJECT_SIZE];
	const char *subjects[] = {pattern};
	jsStreamConfig wanted;
	jsOptions options;
	natsStatus status = jsStreamConfig_Init(&wanted);

	if (status != NATS_OK || (status = jsOptions_Init(&options)) != NATS_OK)
		return status;
	options.Wait = CREATE_WAIT;
	subject_pattern(config->nats.subject, pattern);
	wanted.Name = config->nats.stream;
	wanted.Subjects = subjects;
	wanted.SubjectsLen = 1;
	wanted.Replicas = settings->replicas;
	wanted.Storage = settings->memory ? js_MemoryStorage : js_FileStorage;
	wanted.Discard = js_DiscardNew;
	wanted.MaxBytes = settings->max_bytes > 0 ? (int64_t)settings->max_bytes : -1;
	wanted.MaxAge = (int64_t)settings->max_age * 1000;
	wanted.Duplicates = (int64_t)settings->duplicate_window * 1000;
	if (settings->max_age > 0 && settings->duplicate_window > settings->max_age)
		wanted.Duplicates = wanted.MaxAge; /* more is refused by the servers */
	status = js_AddStream(info, js, &wanted, &options, code);
	if (status == NATS_OK)
		log_event(LOG_LEVEL_NOTICE, "nats-stream",
			  "sink %s: made the stream %s: subjects %s, %u replica%s, in %s",
			  config->name, wanted.Name, pattern, settings->replicas,
			  settings->replicas == 1 ? "" : "s", settings->memory ? "memory" : "files");
	return status;
}

void
nats_stream_ask(struct nats_finding *finding, natsConnection *connection,
		const struct config_sink *config)
{
	int64_t most = natsConnection_GetMaxPayload(connection);
	jsStreamInfo *info = NULL;
	jsErrCode code = 0;
	jsCtx *js = NULL;
	jsOptions options;
	natsStatus status;

	*finding = (struct nats_finding){.limit = most > 0 ? (uint64_t)most : 0};
	status = jsOptions_Init(&options);
	options.Wait = ASK_WAIT;
	if (status == NATS_OK)
		status = natsConnection_JetStream(&js, connection, &options);
	if (status == NATS_OK)
		status = js_GetStreamInfo(&info, js, config->nats.stream, NULL, &code);
	if (status == NATS_NOT_FOUND || code == JSStreamNotFoundErr) {
		if (config->nats.create.replicas > 0) {
			code = 0;
			status = create(&info, js, config, &code);
		} else {
			finding->state = NATS_LINK_UNFIT;
			set_why(finding, "there is no such stream; make it (nats stream add), or give "
				"the sink a \"create\"", "");
			jsCtx_Destroy(js);
			return;
		}
	}
	if (status == NATS_OK)
		judge(finding, info, config->nats.subject);
	else
		judge_error(finding, status, code);
	jsStreamInfo_Destroy(info);
	jsCtx_Destroy(js);
}

bool
nats_stream_takes(const struct nats_link *link, const char *subject, uint64_t after)
{
	bool takes = link->subjects == NULL || link->asked < after || link->suspect;

	for (int i = 0; !takes && i < link->n_subjects; i++)
		takes = subject_matches(link->subjects[i], subject);
	return takes;
}

void
nats_stream_set_misfit(struct nats_link *link, const char *subject)
{
	snprintf(link->misfit, sizeof(link->misfit), "%s", subject);
}
