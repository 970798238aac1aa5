/*
 * tls: see tls.h.
 *
 * Of sessions nothing is kept, neither here nor in tickets: a ticket is sent after the
 * handshake, and a client that only writes and closes answers it with a reset, which
 * takes its own message along.
 */
#include "intake/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/log.h"
#include "base/memory.h"
#include "intake/tls_turn.h"

/* Bytes of certificates that a client may send: what a handshake may hold. */
#define CERTIFICATES_MOST 32768
/* Authorities between a client's certificate and one of client_ca, as in Postfix. */
#define AUTHORITIES_MOST 9

/* More than OpenSSL takes until it has done its first handshake. */
#define OPENSSL_MEMORY ((size_t)4 << 20)

struct tls_context {
	SSL_CTX *ctx;
};

/* What OpenSSL says was wrong, the first and closest cause; its queue is empty then. */
static const char *
reason(void)
{
	unsigned long error = ERR_get_error();
	const char *text = error != 0 ? ERR_reason_error_string(error) : NULL;

	ERR_clear_error();
	return text != NULL ? text : "it does not say why";
}

static bool __attribute__((format(printf, 2, 3)))
fail(char error[TLS_ERROR_LEN], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, TLS_ERROR_LEN, format, args);
	va_end(args);
	ERR_clear_error();
	return false;
}

/* OpenSSL does not say in plain words that a file cannot be read. */
static bool
is_readable(const char *setting, const char *path, struct stat *st, char error[TLS_ERROR_LEN])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1)
		return fail(error, "tls.%s %s: %s", setting, path, strerror(errno));
	if (fstat(fd, st) == -1 || !S_ISREG(st->st_mode)) {
		close(fd);
		return fail(error, "tls.%s %s: not a regular file", setting, path);
	}
	close(fd);
	return true;
}

/* Nobody is there to type a passphrase. */
static int
no_passphrase(char *to, int size, int writing, void *arg)
{
	(void)to;
	(void)size;
	(void)writing;
	*(bool *)arg = true;
	return 0;
}

static void
look_at_dates(const char *path, const X509 *certificate)
{
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		log_event(LOG_LEVEL_WARNING, "tls-certificate",
			  "%s: the certificate has expired; clients will refuse it", path);
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		log_event(LOG_LEVEL_WARNING, "tls-certificate",
			  "%s: the certificate is not valid yet; clients will refuse it", path);
}

static bool
load_certificate(SSL_CTX *ctx, const struct config_tls *config, char error[TLS_ERROR_LEN])
{
	bool encrypted = false;
	struct stat st;

	if (!is_readable("certificate", config->certificate, &st, error))
		return false;
	if (SSL_CTX_use_certificate_chain_file(ctx, config->certificate) != 1)
		return fail(error, "tls.certificate %s: no certificate in PEM format: %s",
			    config->certificate, reason());
	if (!is_readable("key", config->key, &st, error))
		return false;
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	SSL_CTX_set_default_passwd_cb_userdata(ctx, &encrypted);
	if (SSL_CTX_use_PrivateKey_file(ctx, config->key, SSL_FILETYPE_PEM) != 1) {
		unsigned long code = ERR_peek_error();

		if (encrypted)
			return fail(error, "tls.key %s: it is encrypted, and nobody is there to type "
				    "its passphrase; store it without one", config->key);
		if (ERR_GET_LIB(code) == ERR_LIB_X509 &&
		    ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH)
			return fail(error, "tls.key %s: not the key of the certificate in %s",
				    config->key, config->certificate);
		return fail(error, "tls.key %s: no private key in PEM format: %s", config->key, reason());
	}
	SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return fail(error, "tls.key %s: not the key of the certificate in %s", config->key,
			    config->certificate);
	if ((st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		log_event(LOG_LEVEL_WARNING, "tls-key", "%s: the key can be read or changed by everybody; "
			  "chmod o-rw it", config->key);
	look_at_dates(config->certificate, SSL_CTX_get0_certificate(ctx));
	return true;
}

/* Who may issue clients' certificates. */
static bool
load_authorities(SSL_CTX *ctx, const struct config_tls *config, char error[TLS_ERROR_LEN])
{
	STACK_OF(X509_NAME) *names;
	int mode = SSL_VERIFY_PEER;
	struct stat st;

	if (config->client_ca == NULL)
		return true;
	if (!is_readable("client_ca", config->client_ca, &st, error))
		return false;
	names = SSL_load_client_CA_file(config->client_ca);
	if (names == NULL || SSL_CTX_load_verify_locations(ctx, config->client_ca, NULL) != 1) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return fail(error, "tls.client_ca %s: no certificate in PEM format: %s",
			    config->client_ca, reason());
	}
	SSL_CTX_set_client_CA_list(ctx, names);
	if (config->require_client_certificate)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(ctx, mode, NULL);
	return true;
}

/* OpenSSL passes over names that it does not know, so each is tried alone. */
static bool
is_cipher(const char *word)
{
	SSL_CTX *scratch;
	bool good;

	if (strchr("!+-@", word[0]) != NULL)
		return true; /* a command for the list, not a name */
	scratch = SSL_CTX_new(TLS_server_method());
	good = scratch != NULL && SSL_CTX_set_cipher_list(scratch, word) == 1;
	SSL_CTX_free(scratch);
	ERR_clear_error();
	return good;
}

/* One list for an operator: the names of TLS 1.3's suites begin with TLS_, and only
 * theirs; OpenSSL wants the two kinds apart. */
static bool
set_ciphers(SSL_CTX *ctx, const char *ciphers, char error[TLS_ERROR_LEN])
{
	size_t room = strlen(ciphers) + 2;
	char *words = strdup(ciphers), *suites = calloc(1, room), *others = calloc(1, room);
	char *word, *state;
	bool good = words != NULL && suites != NULL && others != NULL;

	if (!good)
		(void)fail(error, "out of memory");
	for (word = good ? strtok_r(words, ": ,", &state) : NULL; good && word != NULL;
	     word = strtok_r(NULL, ": ,", &state)) {
		bool is_suite = strncmp(word, "TLS_", 4) == 0;
		char *to = is_suite ? suites : others;

		if (!is_suite && !is_cipher(word))
			good = fail(error, "tls.ciphers: OpenSSL knows no \"%s\"", word);
		strcat(*to != '\0' ? strcat(to, ":") : to, word);
	}
	if (good && *suites == '\0' && *others == '\0')
		good = fail(error, "tls.ciphers names none");
	if (good && *suites != '\0' && SSL_CTX_set_ciphersuites(ctx, suites) != 1)
		good = fail(error, "tls.ciphers: OpenSSL does not take \"%s\": %s", suites, reason());
	if (good && *others != '\0' && SSL_CTX_set_cipher_list(ctx, others) != 1)
		good = fail(error, "tls.ciphers: OpenSSL does not take \"%s\": %s", others, reason());
	free(words);
	free(suites);
	free(others);
	return good;
}

static bool
set_rules(SSL_CTX *ctx, const struct config_tls *config, char error[TLS_ERROR_LEN])
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
				 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	/* Records are only read on when the one before has been taken. */
	SSL_CTX_set_read_ahead(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
			      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_cert_list(ctx, CERTIFICATES_MOST);
	SSL_CTX_set_verify_depth(ctx, AUTHORITIES_MOST);
	if (SSL_CTX_set_num_tickets(ctx, 0) != 1 ||
	    SSL_CTX_set_min_proto_version(ctx, config->only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION) != 1)
		return fail(error, "OpenSSL: %s", reason());
	return set_ciphers(ctx, config->ciphers, error);
}

struct tls_context *
tls_context_new(const struct config_tls *config, char error[TLS_ERROR_LEN])
{
	struct tls_context *context = calloc(1, sizeof(*context));

	/* OpenSSL 3.0 remembers what it could not look up for want of memory as unknown, and never
	 * again does a handshake.  Nothing of its runs at exit: threads may still use it. */
	if (context != NULL && !memory_is_there(OPENSSL_MEMORY)) {
		(void)fail(error, "out of memory");
	} else if (context == NULL || OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL) != 1 ||
	    !tls_turn_open() || (context->ctx = SSL_CTX_new(TLS_server_method())) == NULL) {
		(void)fail(error, "OpenSSL cannot be used: %s", reason());
	} else if (set_rules(context->ctx, config, error) &&
		   load_certificate(context->ctx, config, error) &&
		   load_authorities(context->ctx, config, error)) {
		ERR_clear_error();
		return context;
	}
	tls_context_free(context);
	return NULL;
}

void
tls_context_free(struct tls_context *context)
{
	if (context == NULL)
		return;
	SSL_CTX_free(context->ctx);
	free(context);
}

int
tls_open(struct tls_context **context, const struct config_listener *listener)
{
	const struct config_tls *config = &listener->tls;
	char error[TLS_ERROR_LEN];

	*context = NULL;
	if (config->certificate == NULL)
		return 0;
	*context = tls_context_new(config, error);
	if (*context != NULL)
		return 0;
	log_event(LOG_LEVEL_ERROR, "tls-unusable", "listener %s (%s:%d): %s", listener->name,
		  config->place.file, config->place.line, error);
	return EX_CONFIG;
}

struct ssl_st *
tls_session(struct tls_context *context)
{
	SSL *ssl = SSL_new(context->ctx);

	ERR_clear_error();
	return ssl;
}

size_t
tls_check(const struct config *config, FILE *to)
{
	size_t i, n = 0;

	for (i = 0; i < config->n_listeners; i++) {
		const struct config_tls *tls = &config->listeners[i].tls;
		char error[TLS_ERROR_LEN];
		struct tls_context *context;

		if (tls->certificate == NULL)
			continue;
		context = tls_context_new(tls, error);
		if (context == NULL) {
			fprintf(to, "%s:%d: %s\n", tls->place.file, tls->place.line, error);
			n++;
		}
		tls_context_free(context);
	}
	return n;
}

const char *
tls_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}
