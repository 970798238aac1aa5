/*
 * tls_test: what a listener's certificate, key and rules are made of, and what is said
 * when they cannot be.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/log.h"
#include "intake/tls.h"
#include "unit.h"

static char directory[] = "/tmp/cistern-tls-test.XXXXXX";
static char error[TLS_ERROR_LEN];
static char certificate[64], key[64], other_key[64], kind_key[64], expired[64], future[64], encrypted[64],
	garbage[64], missing[64], logged[64];

static EVP_PKEY *
make_key(int kind)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(kind, NULL);
	EVP_PKEY *made = NULL;

	ck_assert_int_eq(EVP_PKEY_keygen_init(ctx), 1);
	ck_assert_int_eq(EVP_PKEY_keygen(ctx, &made), 1);
	EVP_PKEY_CTX_free(ctx);
	return made;
}

static void
write_key(const char *path, EVP_PKEY *made, const char *passphrase)
{
	FILE *file = fopen(path, "w");
	size_t len = passphrase != NULL ? strlen(passphrase) : 0;

	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(PEM_write_PrivateKey(file, made, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
					      (const unsigned char *)passphrase, (int)len, NULL, NULL),
			 1);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_int_eq(chmod(path, 0600), 0);
}

/* Valid from so many seconds from now to so many. */
static void
write_certificate(const char *path, EVP_PKEY *made, long from, long to)
{
	X509 *x509 = X509_new();
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
	X509_gmtime_adj(X509_getm_notBefore(x509), from);
	X509_gmtime_adj(X509_getm_notAfter(x509), to);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_UTF8,
				   (const unsigned char *)"test", -1, -1, 0);
	X509_set_issuer_name(x509, X509_get_subject_name(x509));
	X509_set_pubkey(x509, made);
	ck_assert_int_gt(X509_sign(x509, made, NULL), 0);
	ck_assert_int_eq(PEM_write_X509(file, x509), 1);
	ck_assert_int_eq(fclose(file), 0);
	X509_free(x509);
}

static void
name(char path[64], const char *file)
{
	ck_assert_int_lt(snprintf(path, 64, "%s/%s", directory, file), 64);
}

static void
setup(void)
{
	EVP_PKEY *mine, *other, *kind;
	FILE *file;

	ck_assert_ptr_nonnull(mkdtemp(directory));
	name(certificate, "certificate");
	name(key, "key");
	name(other_key, "other-key");
	name(kind_key, "kind-key");
	name(expired, "expired");
	name(future, "future");
	name(encrypted, "encrypted");
	name(garbage, "garbage");
	name(missing, "missing");
	name(logged, "log");
	mine = make_key(EVP_PKEY_ED25519);
	other = make_key(EVP_PKEY_ED25519);
	kind = make_key(EVP_PKEY_ED448);
	write_key(key, mine, NULL);
	write_key(encrypted, mine, "secret");
	write_key(other_key, other, NULL);
	write_key(kind_key, kind, NULL);
	write_certificate(certificate, mine, -10, 86400);
	write_certificate(expired, mine, -86400, -10);
	write_certificate(future, mine, 3600, 86400);
	file = fopen(garbage, "w");
	fputs("no PEM here\n", file);
	fclose(file);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(other);
	EVP_PKEY_free(kind);
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, logged, LOG_LEVEL_INFO, false), 0);
}

static void
teardown(void)
{
	char *paths[] = {certificate, key, other_key, kind_key, expired, future, encrypted, garbage, logged};

	log_close();
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		unlink(paths[i]);
	rmdir(directory);
}

static char ciphers[128] = "ECDHE+AESGCM:ECDHE+CHACHA20";

static struct config_tls
settings(void)
{
	return (struct config_tls){.certificate = certificate, .key = key, .ciphers = ciphers};
}

static void
expect_error(const struct config_tls *config, const char *expected)
{
	struct tls_context *context = tls_context_new(config, error);

	ck_assert_ptr_null(context);
	ck_assert_msg(strstr(error, expected) != NULL, "\"%s\" lacks \"%s\"", error, expected);
}

/* Whether the log has this text. */
static bool
has_logged(const char *text)
{
	FILE *file = fopen(logged, "r");
	char line[512];
	bool found = false;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		found |= strstr(line, text) != NULL;
	fclose(file);
	return found;
}

START_TEST(good_files)
{
	struct config_tls config = settings();
	struct tls_context *context = tls_context_new(&config, error);
	SSL *ssl;

	ck_assert_msg(context != NULL, "%s", error);
	ssl = tls_session(context);
	ck_assert_ptr_nonnull(ssl);
	ck_assert_int_eq(SSL_get_verify_mode(ssl), SSL_VERIFY_NONE);
	ck_assert_int_eq(SSL_get_min_proto_version(ssl), TLS1_2_VERSION);
	ck_assert_uint_eq(SSL_get_num_tickets(ssl), 0);
	ck_assert(SSL_get_options(ssl) & SSL_OP_NO_RENEGOTIATION);
	ck_assert(SSL_get_options(ssl) & SSL_OP_NO_TICKET);
	ck_assert(SSL_get_mode(ssl) & SSL_MODE_RELEASE_BUFFERS);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF
	ck_assert(!(SSL_get_options(ssl) & SSL_OP_IGNORE_UNEXPECTED_EOF));
#endif
	ck_assert_int_eq(SSL_get_read_ahead(ssl), 0);
	tls_context_free(context); /* a connection outlives it */
	SSL_free(ssl);
	ck_assert(!has_logged("tls-"));
}
END_TEST

START_TEST(bad_files)
{
	struct config_tls config = settings();
	char text[256];

	config.certificate = missing;
	snprintf(text, sizeof(text), "tls.certificate %s: No such file", missing);
	expect_error(&config, text);
	config.certificate = directory;
	expect_error(&config, "not a regular file");
	config.certificate = garbage;
	snprintf(text, sizeof(text), "tls.certificate %s: no certificate in PEM format: no start line",
		 garbage);
	expect_error(&config, text);
	config = settings();
	config.key = missing;
	snprintf(text, sizeof(text), "tls.key %s: No such file", missing);
	expect_error(&config, text);
	config.key = certificate;
	expect_error(&config, "no private key in PEM format");
	config.key = other_key;
	snprintf(text, sizeof(text), "tls.key %s: not the key of the certificate in %s", other_key,
		 certificate);
	expect_error(&config, text);
	config.key = kind_key; /* nor of its kind */
	snprintf(text, sizeof(text), "tls.key %s: not the key of the certificate in %s", kind_key,
		 certificate);
	expect_error(&config, text);
	config.key = encrypted;
	expect_error(&config, "encrypted");
	config = settings();
	config.client_ca = missing;
	expect_error(&config, "tls.client_ca");
	config.client_ca = garbage;
	expect_error(&config, "tls.client_ca");
}
END_TEST

START_TEST(unreadable_files)
{
	struct config_tls config = settings();

	if (geteuid() == 0)
		return; /* root reads all */
	ck_assert_int_eq(chmod(key, 0), 0);
	expect_error(&config, "Permission denied");
}
END_TEST

START_TEST(warnings)
{
	struct config_tls config = settings();
	struct tls_context *context;

	config.certificate = expired;
	context = tls_context_new(&config, error);
	ck_assert_msg(context != NULL, "%s", error);
	tls_context_free(context);
	ck_assert(has_logged("the certificate has expired"));
	config.certificate = future;
	context = tls_context_new(&config, error);
	ck_assert_msg(context != NULL, "%s", error);
	tls_context_free(context);
	ck_assert(has_logged("not valid yet"));
	ck_assert(!has_logged("everybody"));
	ck_assert_int_eq(chmod(key, 0644), 0);
	tls_context_free(tls_context_new(&config, error));
	ck_assert(has_logged("everybody"));
}
END_TEST

/* Whether the words are taken, and how many ciphers of TLS 1.2 and suites of 1.3 are left. */
static void
expect_ciphers(const char *words, int older, int newer)
{
	struct config_tls config = settings();
	struct tls_context *context;
	STACK_OF(SSL_CIPHER) *all;
	SSL *ssl;
	int i, found[2] = {0, 0};

	snprintf(ciphers, sizeof(ciphers), "%s", words);
	context = tls_context_new(&config, error);
	ck_assert_msg(context != NULL, "%s: %s", words, error);
	ssl = tls_session(context);
	all = SSL_get_ciphers(ssl);
	for (i = 0; i < sk_SSL_CIPHER_num(all); i++)
		found[strncmp(SSL_CIPHER_get_name(sk_SSL_CIPHER_value(all, i)), "TLS_", 4) == 0]++;
	ck_assert_int_eq(found[1], newer);
	if (older > 0)
		ck_assert_int_eq(found[0], older);
	else
		ck_assert_int_gt(found[0], 0);
	SSL_free(ssl);
	tls_context_free(context);
}

START_TEST(cipher_lists)
{
	struct config_tls config = settings();

	expect_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256", 1, 3);
	expect_ciphers("TLS_AES_128_GCM_SHA256", 0, 1);
	expect_ciphers("TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-RSA-AES128-GCM-SHA256 "
		       "TLS_AES_256_GCM_SHA384",
		       2, 2);
	expect_ciphers("HIGH:!aNULL:-SHA1:@SECLEVEL=1", 0, 3);
	snprintf(ciphers, sizeof(ciphers), "%s", "HIGH:ECDHE-ROT13");
	expect_error(&config, "knows no \"ECDHE-ROT13\"");
	snprintf(ciphers, sizeof(ciphers), "%s", "TLS_ROT13");
	expect_error(&config, "does not take \"TLS_ROT13\"");
	snprintf(ciphers, sizeof(ciphers), "%s", "ECDHE+AESGCM:!ALL");
	expect_error(&config, "does not take \"ECDHE+AESGCM:!ALL\"");
	snprintf(ciphers, sizeof(ciphers), "%s", ": ,");
	expect_error(&config, "names none");
}
END_TEST

START_TEST(client_certificates)
{
	struct config_tls config = settings();
	struct tls_context *context;
	SSL *ssl;
	int required;

	config.client_ca = certificate;
	config.only_1_3 = true;
	for (required = 0; required < 2; required++) {
		config.require_client_certificate = required != 0;
		context = tls_context_new(&config, error);
		ck_assert_msg(context != NULL, "%s", error);
		ssl = tls_session(context);
		ck_assert_int_eq(SSL_get_verify_mode(ssl),
				 SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0));
		ck_assert_int_eq(SSL_get_min_proto_version(ssl), TLS1_3_VERSION);
		ck_assert_int_eq(sk_X509_NAME_num(SSL_get_client_CA_list(ssl)), 1);
		SSL_free(ssl);
		tls_context_free(context);
	}
}
END_TEST

START_TEST(check_names_the_place)
{
	struct config_listener listeners[2] = {{.tls = settings()}, {.tls = settings()}};
	struct config config = {.listeners = listeners, .n_listeners = 2};
	char *text = NULL, expected[256];
	size_t size;
	FILE *to = open_memstream(&text, &size);

	listeners[1].tls.key = other_key;
	listeners[1].tls.place = (struct config_place){.file = "cistern.conf", .line = 7};
	ck_assert_uint_eq(tls_check(&config, to), 1);
	fclose(to);
	snprintf(expected, sizeof(expected), "cistern.conf:7: tls.key %s: ", other_key);
	ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "%s", text);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("tls");
	TCase *tcase = tcase_create("context");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, good_files);
	tcase_add_test(tcase, bad_files);
	tcase_add_test(tcase, unreadable_files);
	tcase_add_test(tcase, warnings);
	tcase_add_test(tcase, cipher_lists);
	tcase_add_test(tcase, client_certificates);
	tcase_add_test(tcase, check_names_the_place);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
