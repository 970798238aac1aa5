/*
 * command: what the sink's loop (command.c), a process (command_process.c) and what
 * it prints (command_output.c) share.  All of it is the sink's thread's.
 */
#ifndef SINKS_COMMAND_H
#define SINKS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/net.h"
#include "message/message.h"
#include "sinks/valve.h"

struct config_sink;

#define COMMAND_LINE 900  /* bytes of a line that are logged */
#define COMMAND_LINES 100 /* lines of a process */

/* Whose message a line is about. */
struct command_label {
	const char *sink;
	const struct origin *origin;
	char id[ID_TEXT_LEN + 1];
};

/* Standard output and error of one process, on their way into the log. */
struct command_output {
	int fd; /* -1: there is none, or it has ended */
	struct valve *valve;
	unsigned lines;
	uint64_t unsaid; /* bytes past COMMAND_LINES */
	size_t used;
	bool cut; /* the line is longer than what is kept of it */
	unsigned char line[COMMAND_LINE];
};

/* Reads what is there, but not for ever, and says whole lines.  scratch: COMMAND_SCRATCH
 * bytes. */
#define COMMAND_SCRATCH 65536
void command_output_read(struct command_output *output, const struct command_label *label,
			 unsigned char *scratch);
/* Says what is left, and closes. */
void command_output_end(struct command_output *output, const struct command_label *label,
			unsigned char *scratch);

/* What all processes of a sink have in common. */
struct command_setup {
	const struct config_sink *config;
	const char *spill_directory;
	char *home; /* "HOME=..." of whoever we are */
};

/* Whether we may and can run it at all.  0, or an exit code, having logged why. */
int command_setup_check(const struct config_sink *config);
/* -1: errno. */
int command_setup_open(struct command_setup *setup, const struct config_sink *config,
		       const char *spill_directory);
void command_setup_close(struct command_setup *setup);

enum command_stage { COMMAND_RUNS, COMMAND_TERMINATED, COMMAND_KILLED };

struct command_process {
	pid_t pid; /* also that of its session and process group; 0: none */
	int pidfd;
	enum command_stage stage;
	enum outcome why;  /* since it is no longer COMMAND_RUNS */
	uint64_t began;
	uint64_t deadline; /* the next stage's; 0: none */
	size_t charged;    /* its input, to memory */
	int *error;	   /* of execve(2); in memory that the child shares */
	struct message *message;
	struct command_work *work;
	struct command_label label;
	struct command_output output;
};

/* Starts one for a message.  0, or -1 with errno and *what it was about; *outcome is
 * then the message's. */
int command_process_start(struct command_process *process, const struct command_setup *setup,
			  const struct batch *batch, struct message *message, const char **what,
			  enum outcome *outcome);

/* TERM to all of the process group, and after a while (microseconds) KILL. */
void command_process_end(struct command_process *process, enum outcome why, uint64_t grace);
void command_process_kill(struct command_process *process);

/* It has ended: takes its status (as of wait(2)), and what is left of its group if it had
 * to be ended.  Says its last words.  -1 with errno: its program could not be run. */
int command_process_reap(struct command_process *process, unsigned char *scratch, int *status);

/* Whether programs can be run again, as far as that can be seen without running it. */
bool command_process_try(const struct command_setup *setup);

#endif
