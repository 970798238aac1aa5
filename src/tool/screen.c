/*
 * screen: see screen.h.
 *
 * Any signal that would end or stop us gives the terminal back first; what the
 * handlers call may be called there.
 */
#include "tool/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static const int fatal_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT,
				    SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGALRM};

static struct termios before, during;
static volatile sig_atomic_t is_open, resized;

static void
put(const char *text)
{
	size_t len = strlen(text);
	int saved = errno;

	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n == -1 && errno != EINTR && errno != EAGAIN)
			break; /* the terminal is gone: nothing to give back */
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
	errno = saved;
}

static void
enter(void)
{
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &during);
	put(ENTER);
}

static void
leave(void)
{
	put(LEAVE);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static void
on_fatal(int number)
{
	if (is_open)
		leave();
	is_open = 0;
	/* Reset by SA_RESETHAND, and delivered once we return. */
	(void)raise(number);
}

static void
on_stop(int number)
{
	int saved = errno;

	(void)number;
	leave();
	(void)raise(SIGSTOP);
	enter();
	resized = 1;
	errno = saved;
}

static void
on_resize(int number)
{
	(void)number;
	resized = 1;
}

bool
screen_open(void)
{
	struct sigaction action = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
	static bool registered;

	if (tcgetattr(STDIN_FILENO, &before) == -1)
		return false;
	during = before;
	during.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
	during.c_cc[VMIN] = 0;
	during.c_cc[VTIME] = 0;
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof fatal_signals / sizeof fatal_signals[0]; i++)
		sigaction(fatal_signals[i], &action, NULL);
	action.sa_flags = 0;
	action.sa_handler = on_stop;
	sigaction(SIGTSTP, &action, NULL);
	action.sa_handler = on_resize;
	sigaction(SIGWINCH, &action, NULL);
	if (!registered)
		registered = atexit(screen_close) == 0;
	is_open = 1;
	enter();
	return true;
}

void
screen_close(void)
{
	if (!is_open)
		return;
	is_open = 0;
	leave();
}

void
screen_size(int *rows, int *columns)
{
	struct winsize size;

	*rows = 24;
	*columns = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
		*rows = size.ws_row;
		*columns = size.ws_col;
	}
}

/* How many bytes of a line fit into so many columns. */
static size_t
fitting(const char *line, size_t len, int columns)
{
	size_t at = 0;

	while (at < len && columns > 0) {
		at++;
		while (at < len && ((unsigned char)line[at] & 0xc0) == 0x80)
			at++;
		columns--;
	}
	return at;
}

void
screen_draw(const char *text)
{
	int rows, columns, row;
	size_t len, size;
	char *frame = NULL;
	FILE *to = open_memstream(&frame, &size);

	if (to == NULL)
		return; /* the next one may do better */
	screen_size(&rows, &columns);
	fputs("\033[H", to);
	for (row = 0; row < rows && *text != '\0'; row++) {
		bool heading = *text == SCREEN_HEADING;

		text += heading;
		len = strcspn(text, "\n");
		if (row > 0)
			fputs("\r\n", to);
		fprintf(to, "%s%.*s\033[K%s", heading ? "\033[7m" : "",
			(int)fitting(text, len, columns), text, heading ? "\033[0m" : "");
		text += len + (text[len] == '\n');
	}
	fputs("\033[J", to);
	if (fclose(to) == 0)
		put(frame);
	free(frame);
}

/* The keys that send more than a character, behind the escape. */
static const struct {
	const char *bytes;
	int key;
} keys[] = {
	{"[A", SCREEN_UP},     {"OA", SCREEN_UP},      {"[B", SCREEN_DOWN},  {"OB", SCREEN_DOWN},
	{"[C", SCREEN_RIGHT},  {"OC", SCREEN_RIGHT},   {"[D", SCREEN_LEFT},  {"OD", SCREEN_LEFT},
	{"[5~", SCREEN_PAGE_UP}, {"[6~", SCREEN_PAGE_DOWN}, {"[H", SCREEN_HOME}, {"OH", SCREEN_HOME},
	{"[F", SCREEN_BOTTOM}, {"OF", SCREEN_BOTTOM},
};

/* Reads the rest of such a key, and no more than that: the next may follow at once. */
static int
escape(void)
{
	char bytes[8];
	size_t n = 0;

	while (n < sizeof bytes && read(STDIN_FILENO, bytes + n, 1) == 1) {
		n++;
		/* A letter or ~ ends it, but for the one that it begins with. */
		if (n >= 2 && bytes[n - 1] >= '@')
			break;
	}
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		if (n == strlen(keys[i].bytes) && memcmp(bytes, keys[i].bytes, n) == 0)
			return keys[i].key;
	return 0; /* some other key */
}

int
screen_key(uint64_t timeout)
{
	struct pollfd poll_fd = {.fd = STDIN_FILENO, .events = POLLIN};
	char byte;
	ssize_t n;
	int ready;

	if (resized) {
		resized = 0;
		return SCREEN_REDRAW;
	}
	ready = poll(&poll_fd, 1, (int)(timeout / 1000) + 1);
	if (ready == -1)
		return errno == EINTR ? SCREEN_REDRAW : SCREEN_END;
	if (ready == 0)
		return SCREEN_NONE;
	n = read(STDIN_FILENO, &byte, 1);
	if (n <= 0)
		return n == -1 && (errno == EINTR || errno == EAGAIN) ? SCREEN_REDRAW : SCREEN_END;
	return byte == '\033' ? escape() : (unsigned char)byte;
}
