/*
 * failing: linked into a test's daemon, it makes allocations fail, whoever asks: cistern,
 * libevent, OpenSSL, libconfig or libc.
 *
 *	CISTERN_FAIL_MEMORY=K[:TIMES]	the K-th and, with TIMES, so many in all ("on": all
 *					from then on); with a c before K of those that
 *					libcrypto asks for, else of all others
 *	CISTERN_FAIL_TRACE=FILE		the allocation that failed goes there; without
 *					CISTERN_FAIL_MEMORY how many there were, by library
 *
 * The functions here stand before those of libc and of a sanitizer, which do the work.
 * libconfig's are left out: 1.5 looks at none of its allocations.  parse.c makes sure that
 * there is memory before it is asked, and tests/crash/scarce.py that this does.  So are
 * librdkafka's: it ends the process where it gets none (rd_malloc), and says so; and those
 * of libnats 3.4.1, which uses some NULLs (natsStrHash_Create, natsStrHash_SetEx).
 *
 * So is glibc's look-up of a user, which command_process.c prepares in the same way.
 *
 * What main has not begun yet is not counted, nor what comes after exit.  The same two
 * moments are told to failing_calls by a system call that nobody else makes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "failing.h"

#define LIBRARIES 32
#define FRAMES 24

/* Called before a sanitizer is ready. */
#define UNCHECKED \
	__attribute__((no_sanitize("address"), no_sanitize("undefined"), no_sanitize("thread")))

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* A sanitizer's own, where there is one, and libc's. */
void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t size) __attribute__((weak));
void *__interceptor_realloc(void *old, size_t size) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool counting;
static bool crypto; /* those are counted */
static struct library {
	const char *name;
	uintptr_t begin, end; /* where its code lies */
} libcrypto = {.name = "/libcrypto.so"}, libconfig = {.name = "/libconfig.so"},
  librdkafka = {.name = "/librdkafka.so"}, libnats = {.name = "/libnats.so"};
static unsigned long long first, last;
static int trace = -1;
static _Atomic unsigned long long count;
static _Thread_local bool inside; /* of our own doing: not counted */

static struct {
	_Atomic(const char *) name;
	_Atomic unsigned long long n;
} libraries[LIBRARIES];

static void
failing_count(const void *caller)
{
	Dl_info info;
	size_t i;

	if (dladdr(caller, &info) == 0 || info.dli_fname == NULL)
		return;
	for (i = 0; i < LIBRARIES; i++) {
		const char *nobody = NULL;

		if (atomic_compare_exchange_strong(&libraries[i].name, &nobody, info.dli_fname) ||
		    nobody == info.dli_fname) {
			atomic_fetch_add(&libraries[i].n, 1);
			return;
		}
	}
}

static void
failing_tell(unsigned long long number, size_t size)
{
	void *frames[FRAMES];
	char line[80];
	int n = snprintf(line, sizeof(line), "! memory/%llu of %zu bytes\n", number, size);

	if (trace == -1 || write(trace, line, (size_t)n) != n)
		return;
	n = backtrace(frames, FRAMES);
	backtrace_symbols_fd(frames, n, trace);
}

UNCHECKED static bool
failing_is_of(const struct library *library, const void *caller)
{
	return (uintptr_t)caller >= library->begin && (uintptr_t)caller < library->end;
}

/* glibc's look-up of users asserts that it has memory; see command_setup_open. */
static bool
failing_is_excused(void)
{
	void *frames[FRAMES];
	Dl_info info;
	int n = backtrace(frames, FRAMES), i;

	for (i = 0; i < n; i++)
		if (dladdr(frames[i], &info) != 0 && info.dli_sname != NULL &&
		    strcmp(info.dli_sname, "getpwuid_r") == 0)
			return true;
	return false;
}

/* Whether this allocation is the one. */
UNCHECKED static bool
failing_strikes(size_t size, const void *caller)
{
	unsigned long long number;
	Dl_info info;
	bool strikes;

	if (!counting || inside)
		return false;
	if (first != 0 && (crypto != failing_is_of(&libcrypto, caller) ||
			   failing_is_of(&libconfig, caller) ||
			   failing_is_of(&librdkafka, caller) ||
			   failing_is_of(&libnats, caller)))
		return false;
	number = atomic_fetch_add(&count, 1) + 1;
	strikes = number >= first && number <= last;
	inside = true;
	/* A sanitizer's start of a thread, which does not go on without. */
	if (strikes && dladdr(caller, &info) != 0 && info.dli_sname != NULL &&
	    strcmp(info.dli_sname, "pthread_getattr_np") == 0)
		strikes = false;
	if (strikes && number == first && failing_is_excused()) {
		first++;
		last += last < UINT64_MAX;
		strikes = false;
	}
	if (first == 0 && trace != -1)
		failing_count(caller);
	if (strikes && number == first)
		failing_tell(number, size);
	inside = false;
	if (strikes)
		errno = ENOMEM;
	return strikes;
}

UNCHECKED static void *
failing_malloc(size_t size)
{
	return __interceptor_malloc != NULL ? __interceptor_malloc(size) : __libc_malloc(size);
}

UNCHECKED void *
malloc(size_t size)
{
	return failing_strikes(size, __builtin_return_address(0)) ? NULL : failing_malloc(size);
}

UNCHECKED void *
calloc(size_t n, size_t size)
{
	if (failing_strikes(n * size, __builtin_return_address(0)))
		return NULL;
	return __interceptor_calloc != NULL ? __interceptor_calloc(n, size)
					    : __libc_calloc(n, size);
}

UNCHECKED void *
realloc(void *old, size_t size)
{
	if (size > 0 && failing_strikes(size, __builtin_return_address(0)))
		return NULL;
	return __interceptor_realloc != NULL ? __interceptor_realloc(old, size)
					     : __libc_realloc(old, size);
}

/* A sanitizer's would not come by here. */
UNCHECKED char *
strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = failing_strikes(size, __builtin_return_address(0)) ? NULL : failing_malloc(size);

	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

/* What libraries call that were built with libc's macros. */
UNCHECKED char *
__strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = failing_strikes(size, __builtin_return_address(0)) ? NULL : failing_malloc(size);

	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

UNCHECKED char *
strndup(const char *text, size_t most)
{
	size_t len = strnlen(text, most);
	char *copy = failing_strikes(len + 1, __builtin_return_address(0)) ? NULL
									   : failing_malloc(len + 1);

	if (copy == NULL)
		return NULL;
	copy[len] = '\0';
	return memcpy(copy, text, len);
}

static int
failing_find(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct library *library = arg;
	int i;

	(void)size;
	if (strstr(info->dlpi_name, library->name) == NULL)
		return 0;
	library->begin = info->dlpi_addr;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t end = info->dlpi_addr + part->p_vaddr + part->p_memsz;

		if (part->p_type == PT_LOAD && end > library->end)
			library->end = end;
	}
	return 1;
}

static void
failing_end(void)
{
	size_t i;

	counting = false;
	syscall(SYS_getpriority, FAILING_MARK, FAILING_END);
	if (trace == -1 || first != 0)
		return;
	for (i = 0; i < LIBRARIES && libraries[i].name != NULL; i++)
		dprintf(trace, "= %llu %s\n", atomic_load(&libraries[i].n), libraries[i].name);
	dprintf(trace, "= %llu all\n", atomic_load(&count));
}

static void __attribute__((constructor))
failing_begin(void)
{
	const char *plan = getenv("CISTERN_FAIL_MEMORY"), *file = getenv("CISTERN_FAIL_TRACE");
	void *frame;
	char *times;

	if (file != NULL)
		trace = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	dl_iterate_phdr(failing_find, &libcrypto);
	dl_iterate_phdr(failing_find, &libconfig);
	dl_iterate_phdr(failing_find, &librdkafka);
	dl_iterate_phdr(failing_find, &libnats);
	if (plan != NULL) {
		crypto = *plan == 'c';
		plan += crypto;
		first = last = strtoull(plan, &times, 10);
		if (strcmp(times, ":on") == 0)
			last = UINT64_MAX;
		else if (*times == ':')
			last = first + strtoull(times + 1, NULL, 10) - 1;
	}
	backtrace(&frame, 1); /* loads what it needs now */
	atexit(failing_end);
	counting = plan != NULL || file != NULL;
	syscall(SYS_getpriority, FAILING_MARK, FAILING_BEGIN);
}
