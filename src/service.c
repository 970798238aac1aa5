/*
 * service: see service.h.
 *
 * That the manager cannot be told is logged once an episode; changes of state go out
 * with a later tick (systemd.h).  A manager's troubles are none of the clients'.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "heartbeat.h"
#include "service.h"

#define SECOND UINT64_C(1000000)
#define TICK (5 * SECOND)
/* A stop without an end of its own asks for so much more time at each tick. */
#define STOP_MORE (4 * TICK)

static void
told(struct service *service, int result)
{
	/* A full socket is a busy manager, told again soon. */
	if (result == -1 && errno != EAGAIN && errno != ENOBUFS && !service->mute)
		log_event(LOG_LEVEL_WARNING, "service-manager",
			  "the service manager cannot be told anything: %s", strerror(errno));
	service->mute = result == -1;
}

/* Signs of life are due every half of the manager's interval; twice as often leaves
 * room for a round that comes late. */
static uint64_t
tick_length(const struct service *service)
{
	uint64_t quarter = service->systemd.watchdog / 4;

	return quarter > 0 && quarter < TICK ? quarter : TICK;
}

static void
tell_status(struct service *service, uint64_t now)
{
	char text[sizeof(service->status)];
	struct figures figures;
	int result;
	double seconds = (double)(now - service->looked) / 1e6;

	service->look(&figures, service->arg);
	if (seconds >= 1) {
		service->rate = (double)(figures.received - service->received) / seconds;
		service->received = figures.received;
		service->looked = now;
	}
	snprintf(text, sizeof(text),
		 "%s%llu connections, %.0f messages/s, %llu in flight; accepted %llu, refused %llu, "
		 "failed %llu, discarded %llu",
		 service->stopping ? "stopping: " : "", (unsigned long long)figures.connections,
		 service->rate,
		 (unsigned long long)figures.in_flight, (unsigned long long)figures.accepted,
		 (unsigned long long)figures.refused, (unsigned long long)figures.failed,
		 (unsigned long long)figures.discarded);
	if (strcmp(text, service->status) == 0)
		return;
	result = systemd_status(&service->systemd, "%s", text);
	if (result == 0)
		memcpy(service->status, text, sizeof(text));
	told(service, result);
}

static void
tell_stopping(struct service *service, uint64_t now)
{
	uint64_t left = STOP_MORE;

	if (service->stop_end != 0)
		left = service->stop_end > now ? service->stop_end - now : 1;
	told(service, systemd_stopping(&service->systemd, left));
}

static void
service_on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct service *service = arg;
	uint64_t now = clock_now();

	(void)fd;
	(void)what;
	if (service->systemd.watchdog > 0) {
		/* Asked a tick ago; half of one is enough, should this one be early. */
		if (heartbeat_ok(service->heartbeat, tick_length(service) / 2))
			told(service, systemd_watchdog(&service->systemd));
		heartbeat_ask(service->heartbeat);
	}
	if (service->stopping && service->stop_end == 0)
		tell_stopping(service, now);
	if (now - service->looked >= TICK - SECOND / 2)
		tell_status(service, now);
}

void
service_open(struct service *service)
{
	*service = (struct service){0};
	if (systemd_open(&service->systemd) == -1)
		log_event(LOG_LEVEL_WARNING, "service-manager",
			  "NOTIFY_SOCKET or WATCHDOG_USEC cannot be used: %s", strerror(errno));
}

void
service_close(struct service *service)
{
	if (service->timer != NULL)
		event_free(service->timer);
	service->timer = NULL;
	systemd_close(&service->systemd);
}

int
service_start(struct service *service, struct event_base *base, struct heartbeat *heartbeat,
	      void (*look)(struct figures *figures, void *arg), void *arg)
{
	uint64_t tick = tick_length(service);
	struct timeval tv = {.tv_sec = (time_t)(tick / SECOND),
			     .tv_usec = (suseconds_t)(tick % SECOND)};

	if (service->systemd.fd == -1)
		return 0;
	service->heartbeat = heartbeat;
	service->look = look;
	service->arg = arg;
	service->looked = clock_now();
	service->timer = event_new(base, -1, EV_PERSIST, service_on_tick, service);
	if (service->timer == NULL || event_add(service->timer, &tv) == -1)
		return -1;
	if (service->systemd.watchdog > 0)
		heartbeat_ask(heartbeat);
	return 0;
}

void
service_ready(struct service *service, bool background)
{
	if (service->systemd.fd == -1)
		return;
	told(service, systemd_ready(&service->systemd, background));
	if (service->timer != NULL)
		tell_status(service, clock_now());
}

void
service_reloading(struct service *service)
{
	told(service, systemd_reloading(&service->systemd));
}

void
service_stopping(struct service *service, uint64_t patience)
{
	uint64_t now = clock_now();

	if (service->systemd.fd == -1)
		return;
	service->stopping = true;
	service->stop_end = patience == 0 ? 0 : now + patience;
	tell_stopping(service, now);
	if (service->timer != NULL)
		tell_status(service, now);
}
