/*
 * nats_options: see nats_options.h.
 */
#include "sinks/nats_options.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "config/config.h"

#define CONNECT_WAIT 2000 /* milliseconds for one server to answer */
#define WRITE_WAIT 2000	  /* for a server to take what is written to it */
#define PING_INTERVAL 2000
#define PINGS_OUT 2	 /* a server that owes more answers is left */
#define RECONNECT_LEAST 50 /* between two rounds through all servers ... */
#define RECONNECT_MOST 1000

const char *
nats_version(void)
{
	return nats_GetVersion();
}

const char *
nats_last_words(natsStatus status)
{
	const char *text = nats_GetLastError(NULL), *end;

	if (text == NULL || *text == '\0')
		return natsStatus_GetText(status);
	end = *text == '(' ? strstr(text, "): ") : NULL;
	return end != NULL ? end + 3 : text;
}

static int64_t
on_delay(natsConnection *connection, int attempts, void *closure)
{
	int64_t delay = RECONNECT_LEAST;

	(void)connection;
	(void)closure;
	while (--attempts > 0 && delay < RECONNECT_MOST)
		delay *= 2;
	return delay < RECONNECT_MOST ? delay : RECONNECT_MOST;
}

/* Servers that are found by themselves are asked in with what stands in the first URL:
 * theirs have no names and passwords. */
static natsStatus
set_user(natsOptions *options, const char *server)
{
	const char *scheme = strstr(server, "://");
	const char *at = scheme != NULL ? scheme + 3 : server, *end = strrchr(server, '@'), *colon;
	char *text;
	natsStatus status;

	if (end == NULL || end < at || memchr(at, '%', (size_t)(end - at)) != NULL)
		return NATS_OK;
	text = strndup(at, (size_t)(end - at));
	if (text == NULL)
		return NATS_NO_MEMORY;
	colon = strchr(text, ':');
	if (colon != NULL) {
		text[colon - text] = '\0';
		status = natsOptions_SetUserInfo(options, text, colon + 1);
	} else {
		status = natsOptions_SetToken(options, text);
	}
	free(text);
	return status;
}

static natsStatus
set_tls(natsOptions *options, const struct config_sink *config, const char **what)
{
	const struct config_client_tls *tls = &config->nats.tls;
	bool secure = tls->ciphers != NULL;
	natsStatus status = NATS_OK;

	for (size_t i = 0; i < config->nats.servers.count; i++)
		secure |= strncmp(config->nats.servers.items[i], "tls://", 6) == 0;
	*what = "TLS";
	if (secure)
		status = natsOptions_SetSecure(options, true);
	if (status == NATS_OK && tls->ciphers != NULL) {
		*what = "ciphers";
		status = natsOptions_SetCiphers(options, tls->ciphers);
	}
	if (status == NATS_OK && tls->ca != NULL) {
		*what = tls->ca;
		status = natsOptions_LoadCATrustedCertificates(options, tls->ca);
	}
	if (status == NATS_OK && tls->certificate != NULL) {
		*what = tls->certificate;
		status = natsOptions_LoadCertificatesChain(options, tls->certificate, tls->key);
	}
	return status;
}

static natsStatus
set_all(natsOptions *o, const struct config_sink *config, const char **what)
{
	const struct config_strings *servers = &config->nats.servers;
	natsStatus status;

	*what = "servers";
	if ((status = natsOptions_SetServers(o, (const char **)servers->items,
					     (int)servers->count)) != NATS_OK ||
	    (status = set_user(o, servers->items[0])) != NATS_OK ||
	    (status = set_tls(o, config, what)) != NATS_OK)
		return status;
	*what = "credentials";
	if (config->nats.credentials != NULL &&
	    (status = natsOptions_SetUserCredentialsFromFiles(o, config->nats.credentials, NULL)) !=
		    NATS_OK)
		return status;
	*what = "options";
	if ((status = natsOptions_SetName(o, "cistern")) != NATS_OK ||
	    (status = natsOptions_SetTimeout(o, CONNECT_WAIT)) != NATS_OK ||
	    (status = natsOptions_SetWriteDeadline(o, WRITE_WAIT)) != NATS_OK ||
	    (status = natsOptions_SetPingInterval(o, PING_INTERVAL)) != NATS_OK ||
	    (status = natsOptions_SetMaxPingsOut(o, PINGS_OUT)) != NATS_OK ||
	    /* A subscription for each question: one for all might be lost, and no question be answered. */
	    (status = natsOptions_UseOldRequestStyle(o, true)) != NATS_OK ||
	    (status = natsOptions_SetAllowReconnect(o, true)) != NATS_OK ||
	    (status = natsOptions_SetMaxReconnect(o, INT32_MAX)) != NATS_OK)
		return status;
	return natsOptions_SetCustomReconnectDelay(o, on_delay, NULL);
}

int
nats_options_new(natsOptions **options, const struct config_sink *config, char *why, size_t size)
{
	const char *what = "options";
	sigset_t all, before;
	natsStatus status;

	/* The library starts its first threads here; signals are not theirs. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	status = natsOptions_Create(options);
	if (status == NATS_OK)
		status = set_all(*options, config, &what);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status == NATS_OK)
		return 0;
	snprintf(why, size, "%s: %s", what, nats_last_words(status));
	natsOptions_Destroy(*options);
	*options = NULL;
	return status == NATS_NO_MEMORY ? EX_OSERR : EX_CONFIG;
}
