/*
 * framing_bench: what the delimiter framing costs a byte, however the bytes arrive.
 *
 * One message of 16 MiB, in pieces of 1 byte, 1 KiB and 64 KiB.  A framing that
 * searched what it has again with each piece would cost more and more as the message
 * grows.  So for each size of pieces it prints what a byte of the last quarter costs
 * in terms of one of the first (1.00 is flat), and what a byte costs in terms of one
 * in the largest pieces, which is the price of a call.  Medians of several runs.
 *
 *	framing_bench [RUNS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "framing/framing.h"

#define SIZE ((size_t)16 << 20)
#define QUARTERS 4
#define RUNS_MOST 101

static const unsigned char delimiter[] = "<EOF>";

/* Text in which the delimiter's first bytes are not rare. */
static unsigned char *
make_message(size_t *len)
{
	size_t n = sizeof(delimiter) - 1, i;
	unsigned char *message = bench_alloc(SIZE + n, 1);
	uint64_t state = 1;

	for (i = 0; i < SIZE; i++) {
		static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789 <EO>";

		state = state * 6364136223846793005U + 1442695040888963407U;
		message[i] = (unsigned char)letters[(state >> 33) % (sizeof(letters) - 1)];
		/* A delimiter by chance would end the message. */
		if (i >= 1 && message[i] == 'E' && message[i - 1] == '<' && (state >> 20 & 7) != 0)
			message[i] = 'O';
		if (i >= 2 && message[i] == 'O' && message[i - 1] == 'E' && message[i - 2] == '<')
			message[i] = 'a';
	}
	memcpy(message + SIZE, delimiter, n);
	*len = SIZE + n;
	return message;
}

static void
measure(const struct framing_config *config, const unsigned char *message, size_t len,
	size_t piece, double quarters[QUARTERS])
{
	struct framing_state state = {0};
	struct framing_step step = {0};
	size_t at = 0, q;

	for (q = 0; q < QUARTERS; q++) {
		size_t end = q + 1 < QUARTERS ? SIZE / QUARTERS * (q + 1) : len;
		uint64_t begun = bench_clock();

		for (; at < end; at += piece < end - at ? piece : end - at)
			framing_feed(config, &state, message + at, piece < end - at ? piece : end - at,
				     &step);
		quarters[q] = (double)(bench_clock() - begun);
	}
	if (step.verdict != FRAMING_MESSAGE) {
		fputs("framing_bench: the message has not ended where it does\n", stderr);
		exit(1);
	}
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return values[count / 2];
}

int
main(int argc, char **argv)
{
	static const size_t pieces[] = {65536, 1024, 1};
	static const char *const names[] = {"64 KiB", "1 KiB", "1 byte"};
	double last[RUNS_MOST], all[RUNS_MOST], quarters[QUARTERS], largest = 0;
	struct framing_config config = {.kind = FRAMING_DELIMITER};
	uint64_t runs = argc > 1 ? bench_number(argv[1]) : 5;
	unsigned char *message;
	size_t len, i, run;

	if (runs == 0 || runs > RUNS_MOST) {
		fprintf(stderr, "usage: framing_bench [RUNS]; from 1 to %d of them\n", RUNS_MOST);
		return 64;
	}
	config.delimiter_len = sizeof(delimiter) - 1;
	config.delimiter = bench_alloc(config.delimiter_len, 1);
	memcpy(config.delimiter, delimiter, config.delimiter_len);
	if (framing_prepare(&config) == -1)
		bench_fail("framing_prepare");
	message = make_message(&len);
	for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		measure(&config, message, len, pieces[i], quarters); /* warms up */
		for (run = 0; run < runs; run++) {
			measure(&config, message, len, pieces[i], quarters);
			last[run] = quarters[QUARTERS - 1] / quarters[0];
			all[run] = quarters[0] + quarters[1] + quarters[2] + quarters[3];
		}
		if (i == 0)
			largest = median(all, runs);
		printf("framing=delimiter pieces=\"%s\" last-to-first-quarter=%.2f "
		       "to-largest-pieces=%.2f\n", names[i], median(last, runs),
		       median(all, runs) / largest);
	}
	framing_clear(&config);
	free(message);
	return 0;
}
