/*
 * process: see process.h.  Where /proc cannot be read, less is known.
 *
 * Descriptors are counted by the directory's size, which kernels since 6.2 give; older
 * ones are asked for the highest one open, by walking the directory as far as FD_MOST.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status/process.h"

#define FD_MOST 20000 /* 10 ms; past that they are not counted but given as so many */

static double
count_fds(void)
{
	struct stat st;
	DIR *dir;
	double count = 0;

	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (double)st.st_size;
	dir = opendir("/proc/self/fd");
	if (dir == NULL)
		return -1;
	while (count < FD_MOST && readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count - 3; /* "." and "..", and the directory itself */
}

static void
look_at_stat(struct process *p)
{
	FILE *file = fopen("/proc/self/stat", "re");
	char line[1024], *at = NULL;
	unsigned long long virtual;
	long threads, resident;

	p->threads = p->virtual_memory = p->resident_memory = -1;
	if (file == NULL)
		return;
	if (fgets(line, sizeof(line), file) != NULL)
		at = strrchr(line, ')'); /* the name may hold anything */
	fclose(file);
	if (at == NULL || sscanf(at + 1,
				 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
				 "%*d %ld %*d %*u %llu %ld",
				 &threads, &virtual, &resident) != 3)
		return;
	p->threads = (double)threads;
	p->virtual_memory = (double)virtual;
	p->resident_memory = (double)resident * (double)sysconf(_SC_PAGESIZE);
}

void
process_look(struct process *p, uint64_t started)
{
	struct rusage usage;
	struct rlimit limit;

	p->cpu_seconds = p->max_fds = -1;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		p->cpu_seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
				 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		p->max_fds = (double)limit.rlim_cur;
	p->open_fds = count_fds();
	p->start_time = (double)started / 1e6;
	look_at_stat(p);
}
