/*
 * link_tls: TLS by OpenSSL for link.c.  The certificate is verified, and with it the
 * host's name, unless the user insists otherwise.
 *
 * What a broken connection cuts off is never taken for an end: without a
 * close_notify it is a failure.
 */
#include "tool/link.h"

#include <stdio.h>
#include <sysexits.h>

#ifdef HAVE_OPENSSL

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* What OpenSSL says of the first thing that went wrong. */
static void
explain(struct link *link, const char *what)
{
	unsigned long error = ERR_get_error();
	const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);

	/* Of errno's, such as a file that is not there, OpenSSL has no text. */
	if (error != 0 && ERR_GET_LIB(error) == ERR_LIB_SYS)
		reason = strerror(ERR_GET_REASON(error));
	snprintf(link->why, sizeof link->why, "%s: %s", what,
		 reason != NULL ? reason : "OpenSSL does not say why");
	ERR_clear_error();
}

static int
load_files(struct link *link, const struct link_tls *tls)
{
	const char *key = tls->key != NULL ? tls->key : tls->certificate;
	char what[LINK_WHY_MAX / 2];

	if (tls->ca != NULL ? SSL_CTX_load_verify_locations(link->tls, tls->ca, NULL) != 1 :
			      SSL_CTX_set_default_verify_paths(link->tls) != 1) {
		snprintf(what, sizeof what, "--tls-ca %s: no certificates in PEM", tls->ca != NULL ? tls->ca : "");
		explain(link, what);
		return EX_NOINPUT;
	}
	if (tls->certificate == NULL)
		return 0;
	if (SSL_CTX_use_certificate_chain_file(link->tls, tls->certificate) != 1) {
		snprintf(what, sizeof what, "--tls-cert %s: no certificate in PEM", tls->certificate);
		explain(link, what);
		return EX_NOINPUT;
	}
	if (SSL_CTX_use_PrivateKey_file(link->tls, key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(link->tls) != 1) {
		snprintf(what, sizeof what, "--tls-key %s: no key in PEM for the certificate", key);
		explain(link, what);
		return EX_NOINPUT;
	}
	return 0;
}

static bool
is_address(const char *name)
{
	unsigned char address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

/* Whom to ask for, and whom the certificate must name. */
static bool
set_name(struct link *link, const char *name, bool insecure)
{
	if (is_address(name))
		return insecure ||
		       X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), name) == 1;
	if (SSL_set_tlsext_host_name(link->ssl, name) != 1)
		return false;
	SSL_set_hostflags(link->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return insecure || SSL_set1_host(link->ssl, name) == 1;
}

/* Whether a connection ended without a close_notify; OpenSSL 1.1.1 says SYSCALL, 3 SSL. */
static bool
is_cut_off(int error)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
	if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return true;
#endif
	return error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0;
}

/* -1: again, wants says when; else as SSL_get_error. */
static int
outcome(struct link *link, int result, short *wants)
{
	int error = SSL_get_error(link->ssl, result);

	if (error == SSL_ERROR_WANT_READ)
		*wants = POLLIN;
	else if (error == SSL_ERROR_WANT_WRITE)
		*wants = POLLOUT;
	else
		return error;
	return -1;
}

static ssize_t
broken(struct link *link, int error)
{
	int system = errno;
	unsigned long first = ERR_peek_error();

	if (error == SSL_ERROR_SYSCALL && system != 0 && first == 0)
		snprintf(link->why, sizeof link->why, "%s",
			 system == ECONNRESET || system == EPIPE ? "the connection was reset" :
								   strerror(system));
	else if (is_cut_off(error))
		snprintf(link->why, sizeof link->why, "the connection was cut off");
	else
		explain(link, "TLS");
	ERR_clear_error();
	return LINK_FAILED;
}

static int
handshake(struct link *link, uint64_t until)
{
	short wants = POLLIN;
	long verdict;
	int result, error;

	for (;;) {
		ERR_clear_error();
		errno = 0;
		result = SSL_connect(link->ssl);
		if (result == 1)
			return 0;
		error = outcome(link, result, &wants);
		if (error != -1)
			break;
		if (link_wait(link, wants, link_left(until)) <= 0) {
			snprintf(link->why, sizeof link->why, "TLS: the handshake took too long");
			link->temporary = true;
			return EX_UNAVAILABLE;
		}
	}
	verdict = SSL_get_verify_result(link->ssl);
	if (verdict != X509_V_OK) {
		snprintf(link->why, sizeof link->why,
			 "TLS: the server's certificate: %s (--tls-ca names whom to trust)",
			 X509_verify_cert_error_string(verdict));
		ERR_clear_error();
		return EX_PROTOCOL;
	}
	/* Broken off by the network is another matter than refused. */
	link->temporary = error == SSL_ERROR_SYSCALL || is_cut_off(error);
	broken(link, error);
	return link->temporary ? EX_UNAVAILABLE : EX_PROTOCOL;
}

int
link_tls_open(struct link *link, const struct target *target, const struct link_tls *tls,
	      uint64_t until)
{
	const char *name = tls->name != NULL ? tls->name : target->host;
	int code;

	link->tls = SSL_CTX_new(TLS_client_method());
	if (link->tls == NULL || SSL_CTX_set_min_proto_version(link->tls, TLS1_2_VERSION) != 1) {
		explain(link, "TLS");
		return EX_OSERR;
	}
	SSL_CTX_set_verify(link->tls, tls->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(link->tls,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	code = load_files(link, tls);
	if (code != 0)
		return code;
	link->ssl = SSL_new(link->tls);
	if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1 ||
	    !set_name(link, name, tls->insecure)) {
		explain(link, "TLS");
		return EX_OSERR;
	}
	return handshake(link, until);
}

ssize_t
link_tls_read(struct link *link, void *bytes, size_t len)
{
	size_t n;
	int error;

	ERR_clear_error();
	errno = 0;
	if (SSL_read_ex(link->ssl, bytes, len, &n) == 1)
		return (ssize_t)n;
	error = outcome(link, 0, &link->wants_read);
	if (error == -1)
		return LINK_AGAIN;
	return error == SSL_ERROR_ZERO_RETURN ? 0 : broken(link, error);
}

ssize_t
link_tls_write(struct link *link, const void *bytes, size_t len)
{
	size_t n;
	int error;

	ERR_clear_error();
	errno = 0;
	if (SSL_write_ex(link->ssl, bytes, len, &n) == 1)
		return (ssize_t)n;
	error = outcome(link, 0, &link->wants_write);
	return error == -1 ? LINK_AGAIN : broken(link, error);
}

int
link_tls_finish(struct link *link)
{
	int result, error;

	ERR_clear_error();
	errno = 0;
	result = SSL_shutdown(link->ssl);
	if (result >= 0)
		return 0; /* ours is out; the other one is read like anything else */
	error = outcome(link, result, &link->wants_write);
	return error == -1 ? LINK_AGAIN : (int)broken(link, error);
}

void
link_tls_close(struct link *link)
{
	SSL_free(link->ssl);
	SSL_CTX_free(link->tls);
	link->ssl = NULL;
	link->tls = NULL;
}

#else

int
link_tls_open(struct link *link, const struct target *target, const struct link_tls *tls,
	      uint64_t until)
{
	(void)target, (void)tls, (void)until;
	snprintf(link->why, sizeof link->why, "TLS was not compiled in (configure --with-openssl)");
	return EX_UNAVAILABLE;
}

ssize_t
link_tls_read(struct link *link, void *bytes, size_t len)
{
	(void)link, (void)bytes, (void)len;
	return LINK_FAILED;
}

ssize_t
link_tls_write(struct link *link, const void *bytes, size_t len)
{
	(void)link, (void)bytes, (void)len;
	return LINK_FAILED;
}

int
link_tls_finish(struct link *link)
{
	(void)link;
	return LINK_FAILED;
}

void
link_tls_close(struct link *link)
{
	(void)link;
}

#endif
