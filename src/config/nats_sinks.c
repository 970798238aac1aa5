/*
 * nats_sinks: see nats_sinks.h.
 *
 * Files are only looked at for whether they can be read and are what they should be at
 * first sight; the sink's check (sinks_check, and its opening) has the library read
 * them.  Nothing here connects.
 */
#include "config/nats_sinks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message/subject.h"

#define CREDENTIALS_MAX 65536 /* bytes of a file that are looked at */

/* Bytes of a user's name and password as they may stand in a URL. */
static bool
is_userinfo(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~' || strchr("/@[]", text[i]) != NULL)
			return false;
	return len > 0;
}

static size_t
host_length(const char *text)
{
	const char *end;

	if (*text != '[')
		return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._");
	end = text + 1 + strspn(text + 1, "0123456789abcdefABCDEF:.");
	return *end == ']' && end > text + 2 ? (size_t)(end + 1 - text) : 0;
}

/* "", or a colon and a port. */
static bool
is_port(const char *text)
{
	size_t digits;

	if (*text == '\0')
		return true;
	digits = strspn(text + 1, "0123456789");
	return *text == ':' && digits > 0 && digits < 6 && text[1 + digits] == '\0' &&
	       atoi(text + 1) > 0 && atoi(text + 1) < 65536;
}

bool
nats_sinks_check_server(struct parse *parse, const config_setting_t *setting, const char *text)
{
	const char *at = text, *host = strrchr(text, '@');
	char quoted[REPORT_QUOTE_LEN];
	size_t len;
	bool good = true;

	if (strncmp(at, "nats://", 7) == 0 || strncmp(at, "tls://", 6) == 0)
		at = strchr(at, '/') + 2;
	if (host != NULL && host >= at) {
		good = is_userinfo(at, (size_t)(host - at));
		at = host + 1;
	}
	len = host_length(at);
	if (good && len > 0 && is_port(at + len))
		return true;
	/* A password that may be in it is not shown. */
	parse_error(parse, setting,
		    "\"servers\" has %s; expected \"nats://HOST:PORT\", with USER:PASSWORD@ or "
		    "TOKEN@ before the host where the server asks for it, or \"tls://HOST:PORT\"",
		    host != NULL ? "a bad address (not shown: it has a password)"
				 : report_quote(quoted, text));
	return false;
}

/* Streams' names are tokens of subjects, and directories of the servers. */
static void
check_stream(struct parse *parse, const config_setting_t *setting, const char *stream)
{
	char quoted[REPORT_QUOTE_LEN];
	bool good = strlen(stream) <= 255;

	for (const char *at = stream; *at != '\0'; at++)
		good = good && *at > ' ' && *at <= '~' && strchr(".*>/\\", *at) == NULL;
	if (!good)
		parse_error(parse, setting,
			    "\"stream\" is %s; expected a stream's name: at most 255 printable "
			    "characters, none of which is a space or one of . * > / \\",
			    report_quote(quoted, stream));
}

static void
check_subject(struct parse *parse, const config_setting_t *setting, const char *subject)
{
	char quoted[REPORT_QUOTE_LEN];
	const char *why = subject_check(subject);

	if (why != NULL)
		parse_error(parse, setting, "\"subject\" is %s: %s; expected a subject such as "
			    "\"intake.{listener}\"", report_quote(quoted, subject), why);
}

/* Its first bytes, with a NUL; NULL: errno. */
static char *
read_start(const char *path)
{
	char *bytes = malloc(CREDENTIALS_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error;
	ssize_t n = 0;
	size_t len = 0;

	while (bytes != NULL && fd != -1 && len < CREDENTIALS_MAX &&
	       (n = read(fd, bytes + len, CREDENTIALS_MAX - len)) > 0)
		len += (size_t)n;
	error = errno;
	if (fd != -1)
		close(fd); /* nothing was written to it */
	if (bytes != NULL && fd != -1 && n != -1) {
		bytes[len] = '\0';
		return bytes;
	}
	free(bytes);
	errno = error;
	return NULL;
}

static void
check_file(struct parse *parse, const config_setting_t *group, const char *name, const char *path,
	   const char *mark, const char *expected)
{
	char quoted[REPORT_QUOTE_LEN], *bytes;

	if (path == NULL)
		return;
	bytes = read_start(path);
	if (bytes == NULL)
		parse_error(parse, parse_member(group, name), "\"%s\" is %s: %s", name,
			    report_quote(quoted, path), strerror(errno));
	else if (strstr(bytes, mark) == NULL)
		parse_error(parse, parse_member(group, name), "\"%s\" is %s; expected %s", name,
			    report_quote(quoted, path), expected);
	free(bytes);
}

static void
check_tls(struct parse *parse, const config_setting_t *group, const struct config_client_tls *tls)
{
	if ((tls->certificate == NULL) != (tls->key == NULL))
		parse_error(parse, group, "\"tls\" lacks \"%s\"; expected both certificate and key, "
			    "or neither", tls->key == NULL ? "key" : "certificate");
	check_file(parse, group, "ca", tls->ca, "-----BEGIN ", "certificates (PEM)");
	check_file(parse, group, "certificate", tls->certificate, "-----BEGIN ",
		   "certificates (PEM)");
	check_file(parse, group, "key", tls->key, "PRIVATE KEY-----", "a private key (PEM)");
}

static void
resolve_claim(struct parse *parse, const config_setting_t *setting, struct config_nats *nats)
{
	struct report_nearest nearest = {.name = nats->claim_check};
	char quoted[REPORT_QUOTE_LEN], hint[REPORT_QUOTE_LEN];
	const struct config *config = parse->config;

	int place = parse_find_sink(config, nats->claim_check);

	if (place != -1 && config->sinks[place].type == CONFIG_SINK_SPOOL) {
		nats->claim = &config->sinks[place];
		/* The file would go on, and the reference would refer to nothing. */
		if (nats->claim->forward != NULL)
			parse_error(parse, setting, "\"claim_check\" names %s, which forwards what it "
				    "gets; expected a spool without \"forward\"",
				    report_quote(quoted, nats->claim_check));
		return;
	}
	for (size_t i = 0; i < config->n_sinks; i++)
		if (config->sinks[i].type == CONFIG_SINK_SPOOL)
			report_nearest_offer(&nearest, config->sinks[i].name);
	parse_error(parse, setting, "\"claim_check\" names %s, which is no spool%s; expected a sink "
		    "of type \"spool\"", report_quote(quoted, nats->claim_check),
		    report_nearest_hint(&nearest, hint));
}

static void
check_sink(struct parse *parse, const config_setting_t *group, struct config_sink *sink)
{
	struct config_nats *nats = &sink->nats;

#ifndef HAVE_NATS
	parse_error(parse, parse_member(group, "type"),
		    "\"type\" is \"nats\", which cannot be had: this cisternd was built without "
		    "NATS; expected another type, or a build with libnats and jansson (configure "
		    "--with-nats)");
#endif
	if (nats->subject != NULL)
		check_subject(parse, parse_member(group, "subject"), nats->subject);
	if (nats->stream != NULL)
		check_stream(parse, parse_member(group, "stream"), nats->stream);
	check_file(parse, group, "credentials", nats->credentials, "NATS USER JWT",
		   "a file of credentials, with the user's JWT and seed");
	if (nats->tls.ciphers != NULL)
		check_tls(parse, parse_member(group, "tls"), &nats->tls);
	if (nats->claim_check != NULL)
		resolve_claim(parse, parse_member(group, "claim_check"), nats);
}

void
nats_sinks_check(struct parse *parse, const config_setting_t *group)
{
	struct config *config = parse->config;

	for (size_t i = 0; i < config->n_sinks; i++)
		if (config->sinks[i].type == CONFIG_SINK_NATS)
			check_sink(parse, parse_member(group, config->sinks[i].name),
				   &config->sinks[i]);
}
