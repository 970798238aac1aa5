/*
 * commit_ways: what a group commit costs, done in several ways, on the filesystem of a
 * directory.  The figures in HACKING.md ("Group commit") are from here.
 *
 *	commit_ways DIRECTORY WAY THREADS GROUP SIZE SECONDS
 *
 * Each thread makes GROUP files of SIZE bytes without names, makes them durable (each:
 * fdatasync of each; early: the same, with the writing out of all begun first; uring:
 * all at once by io_uring; syncfs: one for all), links them into the directory and
 * syncs that.  append: GROUP records to one file, and one fdatasync.
 *
 * What a disk does depends on what it did before: alternate the ways, throw the first
 * round away, and compare within one run only.
 */
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 256
#define GROUP_MAX 1024

struct ring {
	int fd;
	unsigned *tail, *mask, *array, *done_head, *done_tail, *done_mask;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *done;
};

static const char *const ways[] = { "each", "early", "uring", "syncfs", "append" };
enum way { EACH, EARLY, URING, SYNCFS, APPEND, N_WAYS };

static char directory[4096];
static enum way way;
static size_t group;
static size_t size;
static atomic_ullong names;
static atomic_ullong total;
static atomic_bool stop;

static void
must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

static void
ring_open(struct ring *ring)
{
	struct io_uring_params p = { 0 };
	char *submit, *done;

	ring->fd = (int)syscall(SYS_io_uring_setup, GROUP_MAX, &p);
	must(ring->fd != -1, "io_uring_setup");
	submit = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned),
		      PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	done = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*ring->done),
		    PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->entries = mmap(NULL, p.sq_entries * sizeof(*ring->entries), PROT_READ | PROT_WRITE,
			     MAP_SHARED, ring->fd, IORING_OFF_SQES);
	must(submit != MAP_FAILED && done != MAP_FAILED && ring->entries != MAP_FAILED, "mmap");
	ring->tail = (unsigned *)(void *)(submit + p.sq_off.tail);
	ring->mask = (unsigned *)(void *)(submit + p.sq_off.ring_mask);
	ring->array = (unsigned *)(void *)(submit + p.sq_off.array);
	ring->done_head = (unsigned *)(void *)(done + p.cq_off.head);
	ring->done_tail = (unsigned *)(void *)(done + p.cq_off.tail);
	ring->done_mask = (unsigned *)(void *)(done + p.cq_off.ring_mask);
	ring->done = (struct io_uring_cqe *)(void *)(done + p.cq_off.cqes);
}

static void
ring_sync(struct ring *ring, const int *fds)
{
	unsigned tail = *ring->tail, head = *ring->done_head;

	for (unsigned i = 0; i < group; i++) {
		unsigned slot = (tail + i) & *ring->mask;

		ring->entries[slot] = (struct io_uring_sqe){ .opcode = IORING_OP_FSYNC,
			.fd = fds[i], .fsync_flags = IORING_FSYNC_DATASYNC };
		ring->array[slot] = slot;
	}
	__atomic_store_n(ring->tail, tail + (unsigned)group, __ATOMIC_RELEASE);
	must(syscall(SYS_io_uring_enter, ring->fd, (unsigned)group, (unsigned)group,
		     IORING_ENTER_GETEVENTS, NULL, 0) == (long)group, "io_uring_enter");
	for (; head != __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE); head++)
		must(ring->done[head & *ring->done_mask].res == 0, "fdatasync by io_uring");
	__atomic_store_n(ring->done_head, head, __ATOMIC_RELEASE);
}

static void
sync_files(const int *fds, int dir, struct ring *ring)
{
	switch (way) {
	case EACH:
	case EARLY:
		for (size_t i = 0; i < group; i++)
			must(fdatasync(fds[i]) == 0, "fdatasync");
		break;
	case URING:
		ring_sync(ring, fds);
		break;
	case SYNCFS:
		must(syncfs(dir) == 0, "syncfs");
		break;
	case APPEND:
	case N_WAYS:
		break;
	}
}

static void
commit(const char *bytes, int dir, struct ring *ring)
{
	int fds[GROUP_MAX];
	char path[64], name[64];

	for (size_t i = 0; i < group; i++) {
		fds[i] = openat(dir, ".", O_TMPFILE | O_WRONLY, 0600);
		must(fds[i] != -1, "O_TMPFILE");
		must(write(fds[i], bytes, size) == (ssize_t)size, "write");
		if (way == EARLY)
			must(sync_file_range(fds[i], 0, 0, SYNC_FILE_RANGE_WRITE) == 0, "early");
	}
	sync_files(fds, dir, ring);
	for (size_t i = 0; i < group; i++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
		snprintf(name, sizeof name, "%020llu", atomic_fetch_add(&names, 1));
		must(linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) == 0, "linkat");
		must(close(fds[i]) == 0, "close");
	}
	must(fsync(dir) == 0, "fsync");
}

static void *
run(void *arg)
{
	struct ring ring = { .fd = -1 };
	size_t bytes_size = way == APPEND ? size * group : size;
	char *bytes = calloc(1, bytes_size + 1), name[64];
	int dir = open(directory, O_RDONLY | O_DIRECTORY), log = -1;

	must(bytes != NULL && dir != -1, directory);
	if (way == URING)
		ring_open(&ring);
	if (way == APPEND) {
		snprintf(name, sizeof name, "log%llu", atomic_fetch_add(&names, 1));
		log = openat(dir, name, O_CREAT | O_WRONLY | O_APPEND, 0600);
		must(log != -1, name);
	}
	while (!atomic_load(&stop)) {
		if (log == -1) {
			commit(bytes, dir, &ring);
		} else {
			must(write(log, bytes, bytes_size) == (ssize_t)bytes_size, "write");
			must(fdatasync(log) == 0, "fdatasync");
		}
		atomic_fetch_add(&total, group);
	}
	free(bytes);
	return arg;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	int n_threads = argc == 7 ? atoi(argv[3]) : 0;
	double begin, took;

	for (way = EACH; argc == 7 && way < N_WAYS && strcmp(argv[2], ways[way]) != 0; way++)
		;
	group = argc == 7 ? strtoul(argv[4], NULL, 10) : 0;
	if (way == N_WAYS || n_threads < 1 || n_threads > THREADS_MAX || group < 1 ||
	    group > GROUP_MAX) {
		fprintf(stderr, "usage: %s DIRECTORY WAY THREADS GROUP SIZE SECONDS\n", argv[0]);
		return 64;
	}
	size = strtoul(argv[5], NULL, 10);
	snprintf(directory, sizeof directory, "%.4000s/commit_ways.XXXXXX", argv[1]);
	must(mkdtemp(directory) != NULL, directory);
	begin = now();
	for (int i = 0; i < n_threads; i++)
		must(pthread_create(&threads[i], NULL, run, NULL) == 0, "pthread_create");
	usleep((useconds_t)(atof(argv[6]) * 1e6));
	atomic_store(&stop, true);
	for (int i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	took = now() - begin;
	printf("%-7s %3d threads, groups of %4zu, %6zu bytes: %8.0f/s, %7.2f ms a group\n",
	       argv[2], n_threads, group, size, (double)total / took,
	       took * 1e3 * n_threads * (double)group / (double)total);
	fflush(stdout);
	execlp("rm", "rm", "-rf", directory, (char *)NULL);
	return 1;
}
