/*
 * tls_turn: see tls_turn.h.  A filter before OpenSSL's own socket.
 */
#include "intake/tls_turn.h"

#include <stdint.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

/* Two for a record: its head, and the rest. */
#define READS 64

static BIO_METHOD *method; /* the main thread's, read by all */

static int
turn_read(BIO *bio, char *bytes, int len)
{
	uintptr_t reads = (uintptr_t)BIO_get_data(bio) + 1;
	int n;

	BIO_clear_retry_flags(bio);
	if (reads > READS) {
		BIO_set_data(bio, NULL);
		BIO_set_retry_read(bio);
		return -1;
	}
	n = BIO_read(BIO_next(bio), bytes, len);
	BIO_copy_next_retry(bio);
	/* Where there is nothing, the turn is over by itself. */
	BIO_set_data(bio, n > 0 ? (void *)reads : NULL);
	return n;
}

static int
turn_write(BIO *bio, const char *bytes, int len)
{
	int n;

	BIO_clear_retry_flags(bio);
	n = BIO_write(BIO_next(bio), bytes, len);
	BIO_copy_next_retry(bio);
	return n;
}

static long
turn_control(BIO *bio, int command, long number, void *pointer)
{
	return BIO_ctrl(BIO_next(bio), command, number, pointer);
}

static int
turn_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

bool
tls_turn_open(void)
{
	int number = method == NULL ? BIO_get_new_index() : -1;

	if (number != -1)
		method = BIO_meth_new(number | BIO_TYPE_FILTER, "a turn");
	if (number == -1 || method == NULL)
		return method != NULL;
	BIO_meth_set_read(method, turn_read);
	BIO_meth_set_write(method, turn_write);
	BIO_meth_set_ctrl(method, turn_control);
	BIO_meth_set_create(method, turn_create);
	return true;
}

bool
tls_turn_set(SSL *ssl, int fd)
{
	BIO *socket = BIO_new_socket(fd, BIO_NOCLOSE), *filter = BIO_new(method);

	if (socket == NULL || filter == NULL) {
		BIO_free(socket);
		BIO_free(filter);
		ERR_clear_error();
		return false;
	}
	BIO_push(filter, socket);
	SSL_set_bio(ssl, filter, filter);
	return true;
}
