/*
 * Tests of base/output: order, joining, short writes, failures.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/output.h"
#include "unit.h"

#define BIG (1024 * 1024)

static struct output output;
static unsigned char *big; /* BIG bytes, none like its neighbour */
static int file;

static void
setup(void)
{
	file = memfd_create("output", MFD_CLOEXEC);
	ck_assert_int_ne(file, -1);
	ck_assert_int_eq(output_init(&output, file), 0);
	big = malloc(BIG);
	ck_assert_ptr_nonnull(big);
	for (size_t i = 0; i < BIG; i++)
		big[i] = (unsigned char)(i * 7 + (i >> 8));
}

static void
teardown(void)
{
	output_clear(&output);
	free(big);
	close(file);
}

/* The file holds just these bytes. */
static void
expect_file(const void *bytes, size_t len)
{
	unsigned char *found = malloc(len + 1);

	ck_assert_ptr_nonnull(found);
	ck_assert_int_eq(pread(file, found, len + 1, 0), (ssize_t)len);
	ck_assert_mem_eq(found, bytes, len);
	free(found);
}

START_TEST(empty)
{
	ck_assert_int_eq(output_put(&output, "", 0), 0);
	ck_assert_int_eq(output_refer(&output, NULL, 0), 0);
	ck_assert_ptr_nonnull(output_reserve(&output, 10));
	output_commit(&output, 0);
	ck_assert_uint_eq(output.n_pieces, 0);
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, 0);
}
END_TEST

START_TEST(in_order)
{
	unsigned char expected[6 + 5000 + 8 + 1 + 5];
	char small[] = "copied";
	void *to;

	ck_assert_int_eq(output_put(&output, small, 6), 0);
	memset(small, 'x', 6);
	ck_assert_int_eq(output_refer(&output, big, 5000), 0);
	to = output_reserve(&output, 100);
	ck_assert_ptr_nonnull(to);
	memcpy(to, "reserved", 8);
	output_commit(&output, 8);
	ck_assert_int_eq(output_put(&output, "!", 1), 0);
	ck_assert_int_eq(output_refer(&output, "short", 5), 0);
	ck_assert_uint_eq(output.n_pieces, 3);
	ck_assert_uint_eq(output.written, 0);
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, 6 + 5000 + 8 + 1 + 5);
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, 5020);
	memcpy(expected, "copied", 6);
	memcpy(expected + 6, big, 5000);
	memcpy(expected + 5006, "reserved!short", 14);
	expect_file(expected, sizeof expected);
}
END_TEST

START_TEST(neighbours_are_joined)
{
	ck_assert_int_eq(output_refer(&output, big, 2000), 0);
	for (size_t at = 2000; at < 65536; at += 8)
		ck_assert_int_eq(output_refer(&output, big + at, 8), 0);
	ck_assert_uint_eq(output.n_pieces, 1);
	ck_assert_ptr_eq(output.pieces[0].iov_base, big);
	ck_assert_uint_eq(output.pieces[0].iov_len, 65536);
	ck_assert_uint_eq(output.used, 0);
	/* Copies follow one another, too. */
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(output_put(&output, big + 65536 + i, 1), 0);
	ck_assert_uint_eq(output.n_pieces, 2);
	ck_assert_int_eq(output_flush(&output), 0);
	expect_file(big, 65636);
}
END_TEST

/* More pieces than go out at once; the last of them a copy, or room for one. */
START_TEST(many_pieces)
{
	unsigned char *mine = malloc(3 * BIG);
	size_t at = 0;
	void *to;

	ck_assert_ptr_nonnull(mine);
	for (unsigned i = 0; i < 3 * OUTPUT_PIECES / 2; i++, at += 1500) {
		size_t from = i % 2 * 300000 + i * 100; /* none follows the one before */

		ck_assert_int_eq(output_refer(&output, big + from, 1500), 0);
		memcpy(mine + at, big + from, 1500);
		ck_assert_uint_le(output.n_pieces, OUTPUT_PIECES);
	}
	ck_assert_uint_eq(output.written, (uint64_t)1500 * OUTPUT_PIECES);
	while (output.n_pieces < OUTPUT_PIECES) {
		ck_assert_int_eq(output_refer(&output, big + output.n_pieces % 2 * 300000, 1500), 0);
		memcpy(mine + at, big + (output.n_pieces - 1) % 2 * 300000, 1500);
		at += 1500;
	}
	to = output_reserve(&output, 3);
	ck_assert_ptr_nonnull(to);
	ck_assert_uint_eq(output.n_pieces, 0);
	memcpy(to, "end", 3);
	output_commit(&output, 3);
	memcpy(mine + at, "end", 3);
	ck_assert_int_eq(output_flush(&output), 0);
	expect_file(mine, at + 3);
	free(mine);
}
END_TEST

/* Whatever the mixture, the bytes come out as they went in. */
START_TEST(any_mixture)
{
	unsigned char *mine = malloc(64 * BIG);
	size_t at = 0, len;
	void *to;

	ck_assert_ptr_nonnull(mine);
	srand(11000);
	for (int i = 0; i < 20000 && at < 60 * BIG; i++) {
		size_t from = (size_t)rand() % (BIG / 2);

		len = (size_t)rand() % (rand() % 50 == 0 ? BIG / 2 : 3000);
		switch (rand() % 3) {
		case 0:
			ck_assert_int_eq(output_put(&output, big + from, len), 0);
			break;
		case 1:
			ck_assert_int_eq(output_refer(&output, big + from, len), 0);
			break;
		default:
			len = len > OUTPUT_BUFFER ? OUTPUT_BUFFER : len;
			to = output_reserve(&output, len);
			ck_assert_ptr_nonnull(to);
			memcpy(to, big + from, len / 2);
			output_commit(&output, len / 2);
			len /= 2;
			break;
		}
		memcpy(mine + at, big + from, len);
		at += len;
		ck_assert_uint_le(output.n_pieces, OUTPUT_PIECES);
		ck_assert_uint_le(output.used, OUTPUT_BUFFER);
	}
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, at);
	expect_file(mine, at);
	free(mine);
}
END_TEST

START_TEST(more_than_the_buffer)
{
	unsigned char *copy = malloc(BIG + 3);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, big, BIG);
	memcpy(copy + BIG, "end", 3);
	ck_assert_int_eq(output_put(&output, big, BIG), 0);
	memset(big, 0, BIG); /* what was put is the caller's again */
	ck_assert_uint_eq(output.written, BIG);
	ck_assert_int_eq(output_put(&output, "end", 3), 0);
	ck_assert_ptr_null(output_reserve(&output, OUTPUT_BUFFER + 1));
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_ptr_nonnull(output_reserve(&output, OUTPUT_BUFFER));
	ck_assert_uint_eq(output.written, BIG + 3);
	expect_file(copy, BIG + 3);
	free(copy);
}
END_TEST

START_TEST(failure_drops_until_reset)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	ck_assert_int_ne(full, -1);
	output_reset(&output, full);
	ck_assert_int_eq(output_put(&output, "lost", 4), 0);
	ck_assert_int_eq(output_flush(&output), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(output.error, ENOSPC);
	errno = 0;
	ck_assert_int_eq(output_put(&output, "x", 1), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(output_refer(&output, big, BIG), -1);
	ck_assert_ptr_null(output_reserve(&output, 1));
	errno = 0;
	ck_assert_int_eq(output_flush(&output), -1);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_uint_eq(output.written, 0);
	output_reset(&output, file);
	ck_assert_int_eq(output_put(&output, "kept", 4), 0);
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, 4);
	expect_file("kept", 4);
	close(full);
}
END_TEST

START_TEST(reset_forgets)
{
	ck_assert_int_eq(output_put(&output, "forgotten", 9), 0);
	ck_assert_int_eq(output_refer(&output, big, 5000), 0);
	output_reset(&output, file);
	ck_assert_int_eq(output_flush(&output), 0);
	expect_file("", 0);
}
END_TEST

/* The file may grow to 100,000 bytes: the write is short, the next one fails. */
START_TEST(written_counts_partial_writes)
{
	struct rlimit limit, old;

	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	limit = old;
	limit.rlim_cur = 100000;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(output_put(&output, big, 1000), 0);
	ck_assert_int_eq(output_refer(&output, big + 1000, 200000), 0);
	ck_assert_int_eq(output_flush(&output), -1);
	ck_assert_int_eq(errno, EFBIG);
	ck_assert_uint_eq(output.written, 100000);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	expect_file(big, 100000);
}
END_TEST

struct reader {
	int fd;
	size_t got;
	int wrong;
};

static void *
read_all(void *arg)
{
	struct reader *reader = arg;
	unsigned char part[3001];
	ssize_t n;

	while ((n = read(reader->fd, part, sizeof part)) > 0)
		for (ssize_t i = 0; i < n; i++)
			reader->wrong += part[i] != big[reader->got++ % BIG];
	return NULL;
}

static int waits;

static int
count_waits(struct output *o)
{
	ck_assert_ptr_eq(o->wait_arg, &waits);
	waits++;
	usleep(50);
	return 0;
}

/* A pipe that does not block and takes 4096 bytes at a time: with poll, and with
 * a wait of the caller's. */
START_TEST(short_writes)
{
	struct reader reader = { 0 };
	pthread_t thread;
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	ck_assert_int_ne(fcntl(ends[1], F_SETPIPE_SZ, 4096), -1);
	ck_assert_int_ne(fcntl(ends[1], F_SETFL, O_NONBLOCK), -1);
	reader.fd = ends[0];
	ck_assert_int_eq(pthread_create(&thread, NULL, read_all, &reader), 0);
	output_reset(&output, ends[1]);
	if (_i == 1) {
		output.wait = count_waits;
		output.wait_arg = &waits;
	}
	for (size_t at = 0; at < BIG;) {
		size_t n = at % 3 == 0 ? 1500 : 700;

		n = n > BIG - at ? BIG - at : n;
		if (at % 2 == 0)
			ck_assert_int_eq(output_refer(&output, big + at, n), 0);
		else
			ck_assert_int_eq(output_put(&output, big + at, n), 0);
		at += n;
	}
	ck_assert_int_eq(output_flush(&output), 0);
	ck_assert_uint_eq(output.written, BIG);
	close(ends[1]);
	pthread_join(thread, NULL);
	close(ends[0]);
	ck_assert_uint_eq(reader.got, BIG);
	ck_assert_int_eq(reader.wrong, 0);
	if (_i == 1)
		ck_assert_int_gt(waits, 0);
}
END_TEST

static int
give_up(struct output *o)
{
	(void)o;
	errno = ECANCELED;
	return -1;
}

START_TEST(wait_gives_up)
{
	int ends[2];
	int size;

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	size = fcntl(ends[1], F_GETPIPE_SZ);
	output_reset(&output, ends[1]);
	output.wait = give_up;
	ck_assert_int_eq(output_refer(&output, big, BIG), 0);
	ck_assert_int_eq(output_flush(&output), -1);
	ck_assert_int_eq(errno, ECANCELED);
	ck_assert_int_eq(output.error, ECANCELED);
	ck_assert_uint_eq(output.written, (uint64_t)size);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(reader_gone)
{
	int ends[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	output_reset(&output, ends[1]);
	ck_assert_int_eq(output_put(&output, "x", 1), 0);
	ck_assert_int_eq(output_flush(&output), -1);
	ck_assert_int_eq(errno, EPIPE);
	close(ends[1]);
}
END_TEST

static Suite *
output_suite(void)
{
	Suite *s = suite_create("output");
	TCase *tc = tcase_create("output");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, empty);
	tcase_add_test(tc, in_order);
	tcase_add_test(tc, neighbours_are_joined);
	tcase_add_test(tc, many_pieces);
	tcase_add_test(tc, any_mixture);
	tcase_add_test(tc, more_than_the_buffer);
	tcase_add_test(tc, failure_drops_until_reset);
	tcase_add_test(tc, reset_forgets);
	tcase_add_test(tc, written_counts_partial_writes);
	tcase_add_loop_test(tc, short_writes, 0, 2);
	tcase_add_test(tc, wait_gives_up);
	tcase_add_test(tc, reader_gone);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(output_suite());
}
