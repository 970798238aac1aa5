/*
 * process: what the kernel says of this process.
 */
#ifndef STATUS_PROCESS_H
#define STATUS_PROCESS_H

#include <stdint.h>

/* Below 0: not known. */
struct process {
	double cpu_seconds;
	double open_fds, max_fds;
	double virtual_memory, resident_memory; /* bytes */
	double threads;
	double start_time; /* seconds since 1970 */
};

/* started: wall time. */
void process_look(struct process *process, uint64_t started);

#endif
