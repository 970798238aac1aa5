/*
 * heap: counts what is allocated and not freed, to the byte, where others can read it
 * (LD_PRELOAD; the file is that of $SOAK_HEAP: bytes, blocks).
 *
 * Resident memory is what malloc has ever needed at a time and cannot give back; a leak of some
 * bytes for a connection is lost in it for hours.  Here it is seen in seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own names of what is replaced here. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

struct counts {
	_Atomic int64_t bytes;
	_Atomic int64_t blocks;
};

static struct counts early; /* until the file is there */
static struct counts *counts = &early;

static void *
count(void *memory)
{
	if (memory == NULL)
		return NULL;
	atomic_fetch_add_explicit(&counts->bytes, (int64_t)malloc_usable_size(memory),
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&counts->blocks, 1, memory_order_relaxed);
	return memory;
}

static void
discount(void *memory)
{
	if (memory == NULL)
		return;
	atomic_fetch_sub_explicit(&counts->bytes, (int64_t)malloc_usable_size(memory),
				  memory_order_relaxed);
	atomic_fetch_sub_explicit(&counts->blocks, 1, memory_order_relaxed);
}

static void __attribute__((constructor))
begin(void)
{
	const char *path = getenv("SOAK_HEAP");
	int fd = path != NULL ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	struct counts *shared;

	if (fd == -1)
		return;
	if (ftruncate(fd, sizeof(*shared)) == 0) {
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (shared != MAP_FAILED) {
			atomic_store(&shared->bytes, atomic_load(&early.bytes));
			atomic_store(&shared->blocks, atomic_load(&early.blocks));
			counts = shared;
		}
	}
	close(fd);
}

void *
malloc(size_t size)
{
	return count(__libc_malloc(size));
}

void *
calloc(size_t number, size_t size)
{
	return count(__libc_calloc(number, size));
}

void *
realloc(void *memory, size_t size)
{
	size_t before = memory != NULL ? malloc_usable_size(memory) : 0;
	void *moved;

	if (memory == NULL)
		return malloc(size);
	moved = __libc_realloc(memory, size);
	if (moved != NULL)
		atomic_fetch_add_explicit(&counts->bytes,
					  (int64_t)malloc_usable_size(moved) - (int64_t)before,
					  memory_order_relaxed);
	else if (size == 0) { /* which has freed it */
		atomic_fetch_sub_explicit(&counts->bytes, (int64_t)before, memory_order_relaxed);
		atomic_fetch_sub_explicit(&counts->blocks, 1, memory_order_relaxed);
	}
	return moved;
}

void *
memalign(size_t alignment, size_t size)
{
	return count(__libc_memalign(alignment, size));
}

void *
aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

int
posix_memalign(void **memory, size_t alignment, size_t size)
{
	void *made = memalign(alignment, size);

	if (made == NULL)
		return ENOMEM;
	*memory = made;
	return 0;
}

void
free(void *memory)
{
	discount(memory);
	__libc_free(memory);
}
