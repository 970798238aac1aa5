/*
 * reload: see reload.h.
 *
 * One after the other: while workers take a configuration over, further requests are
 * remembered as one.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "background.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/compare.h"
#include "config/config.h"
#include "generation.h"
#include "generation_sinks.h"
#include "logging.h"
#include "reload.h"
#include "sinks/sink.h"
#include "status/status.h"

int
reload_open(struct reload *reload, struct reign *reign, const char *file)
{
	char *directory;
	int result;

	*reload = (struct reload){.reign = reign};
	if (*file == '/') {
		reload->file = strdup(file);
		return reload->file == NULL ? -1 : 0;
	}
	/* The working directory may be another one later.  Symbolic links are not
	 * followed: they may lead elsewhere then, too. */
	directory = getcwd(NULL, 0);
	if (directory == NULL)
		return -1;
	result = asprintf(&reload->file, "%s/%s", directory, file);
	free(directory);
	if (result != -1)
		return 0;
	reload->file = NULL;
	return -1;
}

void
reload_close(struct reload *reload)
{
	free(reload->file);
}

/* ----------------------------------------------------------------- summary */

static void __attribute__((format(printf, 2, 3)))
add(struct reload *reload, const char *format, ...)
{
	size_t used = strlen(reload->summary);
	va_list args;

	va_start(args, format);
	vsnprintf(reload->summary + used, sizeof(reload->summary) - used, format, args);
	va_end(args);
}

/* One more name under a heading. */
static void
add_name(struct reload *reload, bool *begun, const char *heading, const char *name)
{
	if (*begun)
		add(reload, ", %s", name);
	else
		add(reload, "; %s: %s", heading, name);
	*begun = true;
}

static const struct config_listener *
find_listener(const struct config *config, const char *name)
{
	size_t i;

	for (i = 0; i < config->n_listeners; i++)
		if (strcmp(config->listeners[i].name, name) == 0)
			return &config->listeners[i];
	return NULL;
}

static void
sum_up(struct reload *reload, const struct generation *old, const struct generation *new)
{
	bool added = false, changed = false, removed = false, opened = false, closed = false;
	const struct config_listener *before;
	size_t i;

	reload->summary[0] = '\0';
	for (i = 0; i < new->n_groups; i++)
		if (find_listener(old->config, new->groups[i].config->name) == NULL)
			add_name(reload, &added, "listeners added", new->groups[i].config->name);
	for (i = 0; i < new->n_groups; i++) {
		before = find_listener(old->config, new->groups[i].config->name);
		if (before != NULL && compare_listeners(before, new->groups[i].config) != COMPARE_SAME)
			add_name(reload, &changed, "listeners changed", before->name);
	}
	for (i = 0; i < old->n_groups; i++)
		if (find_listener(new->config, old->groups[i].config->name) == NULL)
			add_name(reload, &removed, "listeners removed", old->groups[i].config->name);
	for (i = 0; i < new->n_sinks; i++)
		if (!generation_has_sink(old, new->sinks[i]))
			add_name(reload, &opened, "sinks opened", new->sinks[i]->config->name);
	for (i = 0; i < old->n_sinks; i++)
		if (!generation_has_sink(new, old->sinks[i]))
			add_name(reload, &closed, "sinks closed", old->sinks[i]->config->name);
	if (!added && !changed && !removed && !opened && !closed)
		add(reload, "; listeners and sinks are as they were");
}

/* ------------------------------------------------------------------ reload */

static void
refuse(const struct reload *reload)
{
	log_event(LOG_LEVEL_ERROR, "reload-refused",
		  "%s: refused; the configuration before stays in force", reload->file);
}

static struct config *
load(const struct reload *reload)
{
	struct config_errors errors;
	struct config *config = config_load(reload->file, &errors);
	size_t i;

	for (i = 0; i < errors.count; i++) {
		if (errors.items[i].line == 0)
			log_event(LOG_LEVEL_ERROR, "reload-refused", "%s: %s", errors.items[i].file,
				  errors.items[i].text);
		else
			log_event_with(LOG_LEVEL_ERROR, "reload-refused",
				  LOG_FIELDS(LOG_TEXT("file", errors.items[i].file),
					     LOG_NUMBER("line", (unsigned)errors.items[i].line)),
				  "%s:%d: %s",
				  errors.items[i].file, errors.items[i].line, errors.items[i].text);
	}
	if (config == NULL && errors.exit_code == EX_OSERR)
		log_event(LOG_LEVEL_ERROR, "reload-refused", "out of memory");
	config_errors_free(&errors);
	return config;
}

static void
warn_fixed(const char *name, const char *old_value, const char *new_value)
{
	log_event_with(LOG_LEVEL_WARNING, "reload-partly", LOG_FIELDS(LOG_TEXT("setting", name)),
		  "%s stays %s; restart cisternd to change it to %s", name, old_value, new_value);
}

/* Everything that can fail; what is in force does not notice. */
static int
prepare(struct reload *reload, struct config *config, struct generation **made)
{
	struct background_loss loss;
	struct generation *g;
	int code;

	if (reload->silent && background_lost(config, &loss)) {
		log_event(LOG_LEVEL_ERROR, "reload-refused",
			  "%s:%d: %s %s delivers to the console, which is lost in the "
			  "background (-d); name another sink in `%s`",
			  loss.place.file != NULL ? loss.place.file : reload->file,
			  loss.place.line, loss.kind, loss.name, loss.setting);
		return -1;
	}
	code = generation_new(made, reload->reign, config);
	g = *made;
	if (code != 0 || (code = generation_bind(g)) != 0 ||
	    (code = status_bind(reload->status, config)) != 0 || (code = generation_open(g)) != 0 ||
	    (code = generation_attach(g)) != 0 || (code = generation_start(g)) != 0)
		return code;
	if (logging_open(&config->log, reload->background) == -1) {
		log_event(LOG_LEVEL_ERROR, "reload-refused", "cannot open the log %s: %s",
			  config->log.path != NULL ? config->log.path : "", strerror(errno));
		return -1;
	}
	/* The last step: clients connect from here on. */
	code = generation_listen(g);
	if (code != 0 && logging_open(&reload->reign->newest->config->log, reload->background) == -1)
		log_event(LOG_LEVEL_WARNING, "log-reopen", "cannot go back to the old log: %s",
			  strerror(errno));
	return code;
}

void
reload_now(struct reload *reload)
{
	struct generation *old = reload->reign->newest, *new = NULL;
	struct config *config;

	if (reload->under_way) {
		reload->again = true;
		return;
	}
	config = load(reload);
	if (config == NULL) {
		refuse(reload);
		return;
	}
	if (prepare(reload, config, &new) != 0) {
		refuse(reload);
		status_abandon(reload->status);
		generation_free(new);
	} else {
		compare_fixed(old->config, config, warn_fixed);
		sum_up(reload, old, new);
		memory_set_limit(config->memory_limit);
		reload->under_way = true;
		generation_hand_over(new);
		status_begin(reload->status, new->config);
	}
	config_unref(config);
}

void
reload_taken(struct reload *reload, const struct generation *g, bool stopping)
{
	reload->under_way = false;
	reload_announce(g);
	log_event(LOG_LEVEL_NOTICE, "reloaded", "%s%s", reload->file, reload->summary);
	if (!reload->again)
		return;
	reload->again = false;
	if (!stopping)
		reload_now(reload);
}

void
reload_announce(const struct generation *g)
{
	char most[16] = "";
	size_t i, k;
	FILE *file = fopen("/proc/sys/net/core/somaxconn", "r");
	long clamp = 0;

	if (file != NULL) {
		if (fgets(most, sizeof(most), file) != NULL)
			clamp = strtol(most, NULL, 10);
		fclose(file);
	}
	for (i = 0; i < g->n_groups; i++) {
		const struct listener_group *group = &g->groups[i];
		bool said = false;

		for (k = 0; k < group->sockets.count; k++) {
			struct socket *s = group->sockets.items[k];

			if (s->announced)
				continue;
			s->announced = true;
			said |= s->given == -1; /* its backlog is the service manager's */
			socket_say(s, group->config);
		}
		if (said && clamp > 0 && group->config->backlog > clamp)
			log_event(LOG_LEVEL_WARNING, "backlog-clamped",
				  "listener %s: the kernel uses a backlog of %ld, not %d: raise the sysctl "
				  "net.core.somaxconn",
				  group->config->name, clamp, group->config->backlog);
	}
}
