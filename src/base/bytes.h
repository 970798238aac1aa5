/*
 * bytes: how far a run of harmless bytes goes, many at a time.
 *
 * Each function returns how many of the len bytes, from the first, are of its
 * kind.  With SSE2 sixteen at a time, elsewhere eight, the rest one by one.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BYTES_ONES UINT64_C(0x0101010101010101)
#define BYTES_TOPS UINT64_C(0x8080808080808080)

static inline uint64_t
bytes_load(const unsigned char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof word);
	return word;
}

/* Not 0 when one of the eight is below limit (at most 0x80). */
static inline uint64_t
bytes_below(uint64_t word, unsigned char limit)
{
	return (word - BYTES_ONES * limit) & ~word & BYTES_TOPS;
}

static inline uint64_t
bytes_equal(uint64_t word, unsigned char byte)
{
	return bytes_below(word ^ BYTES_ONES * byte, 1);
}

/* Below 0x80. */
static inline size_t
bytes_ascii(const unsigned char *bytes, size_t len)
{
	size_t at = 0;

#ifdef __SSE2__
	for (; len - at >= 16; at += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
		unsigned other = (unsigned)_mm_movemask_epi8(v);

		if (other != 0)
			return at + (size_t)__builtin_ctz(other);
	}
#endif
	while (len - at >= 8 && (bytes_load(bytes + at) & BYTES_TOPS) == 0)
		at += 8;
	while (at < len && bytes[at] < 0x80)
		at++;
	return at;
}

/* 0x20 to 0x7e. */
static inline size_t
bytes_printable(const unsigned char *bytes, size_t len)
{
	size_t at = 0;

#ifdef __SSE2__
	const __m128i low = _mm_set1_epi8(0x1f), high = _mm_set1_epi8(0x7f);

	/* As signed numbers all from 0x80 are below 0. */
	for (; len - at >= 16; at += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
		__m128i ok = _mm_and_si128(_mm_cmpgt_epi8(v, low), _mm_cmplt_epi8(v, high));
		unsigned other = (unsigned)_mm_movemask_epi8(ok) ^ 0xffffU;

		if (other != 0)
			return at + (size_t)__builtin_ctz(other);
	}
#endif
	while (len - at >= 8) {
		uint64_t word = bytes_load(bytes + at);

		if ((bytes_below(word, 0x20) | bytes_equal(word, 0x7f) | (word & BYTES_TOPS)) != 0)
			break;
		at += 8;
	}
	while (at < len && bytes[at] >= 0x20 && bytes[at] < 0x7f)
		at++;
	return at;
}

/* What a JSON string holds as it is: all but the quote, the backslash and controls. */
static inline size_t
bytes_json(const unsigned char *bytes, size_t len)
{
	size_t at = 0;

#ifdef __SSE2__
	const __m128i controls = _mm_set1_epi8(0x1f), quote = _mm_set1_epi8('"'),
		      backslash = _mm_set1_epi8('\\');

	for (; len - at >= 16; at += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
		__m128i hit = _mm_or_si128(
		    _mm_cmpeq_epi8(_mm_min_epu8(v, controls), v),
		    _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)));
		unsigned other = (unsigned)_mm_movemask_epi8(hit);

		if (other != 0)
			return at + (size_t)__builtin_ctz(other);
	}
#endif
	while (len - at >= 8) {
		uint64_t word = bytes_load(bytes + at);

		if ((bytes_below(word, 0x20) | bytes_equal(word, '"') | bytes_equal(word, '\\')) != 0)
			break;
		at += 8;
	}
	while (at < len && bytes[at] >= 0x20 && bytes[at] != '"' && bytes[at] != '\\')
		at++;
	return at;
}

#endif
