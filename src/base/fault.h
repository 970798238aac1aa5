/*
 * fault: points of the storage path where a test build can be made to fail.
 *
 * Every system call and allocation that storage depends on goes through a
 * macro of this file.  In an ordinary build they are the calls themselves.
 * With --enable-fault-points the environment decides:
 *
 *	CISTERN_FAULT=[NAME/]K:ACTION[:TIMES]
 *
 * The K-th call (of those called NAME, or of all) meets ACTION: an errno's name
 * makes it fail without taking place ("EIO"; a close takes place all the same),
 * "short" makes a write take half of what it was given, "kill" kills the process
 * before the call and "kill-after" after it.  TIMES is "once" (the default), "on"
 * (from then on) or a number of calls.
 *
 *	CISTERN_FAULT_TRACE=FILE
 *
 * records all calls in FILE as they begin and end; see fault.c.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef FAULT_POINTS

int fault_open(const char *path, int flags, mode_t mode);
int fault_openat(int directory, const char *path, int flags, mode_t mode);
int fault_mkostemp(char *path, int flags);
int fault_mkdirat(int directory, const char *path, mode_t mode);
ssize_t fault_write(int fd, const void *bytes, size_t len);
ssize_t fault_writev(int fd, const struct iovec *pieces, int count);
ssize_t fault_pwrite(int fd, const void *bytes, size_t len, off_t at);
ssize_t fault_pread(int fd, void *bytes, size_t len, off_t at);
int fault_fdatasync(int fd);
int fault_fsync(int fd);
int fault_syncfs(int fd);
int fault_sync_file_range(int fd, off_t at, off_t len, unsigned flags);
int fault_fstat(int fd, struct stat *st);
int fault_fstatvfs(int fd, struct statvfs *st);
int fault_fchmod(int fd, mode_t mode);
int fault_ftruncate(int fd, off_t len);
int fault_linkat(int from, const char *old, int to, const char *new, int flags);
int fault_renameat(int from, const char *old, int to, const char *new);
int fault_unlinkat(int directory, const char *path, int flags);
int fault_close(int fd);
void *fault_malloc(size_t size);

/* Records a moment that is no call: an answer given. */
void fault_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#else

#define fault_open(path, flags, mode) open(path, flags, mode)
#define fault_openat(directory, path, flags, mode) openat(directory, path, flags, mode)
#define fault_mkostemp(path, flags) mkostemp(path, flags)
#define fault_mkdirat(directory, path, mode) mkdirat(directory, path, mode)
#define fault_write(fd, bytes, len) write(fd, bytes, len)
#define fault_writev(fd, pieces, count) writev(fd, pieces, count)
#define fault_pwrite(fd, bytes, len, at) pwrite(fd, bytes, len, at)
#define fault_pread(fd, bytes, len, at) pread(fd, bytes, len, at)
#define fault_fdatasync(fd) fdatasync(fd)
#define fault_fsync(fd) fsync(fd)
#define fault_syncfs(fd) syncfs(fd)
#define fault_sync_file_range(fd, at, len, flags) sync_file_range(fd, at, len, flags)
#define fault_fstat(fd, st) fstat(fd, st)
#define fault_fstatvfs(fd, st) fstatvfs(fd, st)
#define fault_fchmod(fd, mode) fchmod(fd, mode)
#define fault_ftruncate(fd, len) ftruncate(fd, len)
#define fault_linkat(from, old, to, new, flags) linkat(from, old, to, new, flags)
#define fault_renameat(from, old, to, new) renameat(from, old, to, new)
#define fault_unlinkat(directory, path, flags) unlinkat(directory, path, flags)
#define fault_close(fd) close(fd)
#define fault_malloc(size) malloc(size)
#define fault_note(...) ((void)0)

#endif

#endif
