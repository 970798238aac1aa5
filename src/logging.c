/*
 * logging: see logging.h.
 */
#include "base/log.h"
#include "config/config.h"
#include "logging.h"

int
logging_open(const struct config_log *log, bool background)
{
	static const enum log_target targets[] = {
		[CONFIG_LOG_STDERR] = LOG_TARGET_STDERR,
		[CONFIG_LOG_SYSLOG] = LOG_TARGET_SYSLOG,
		[CONFIG_LOG_JOURNAL] = LOG_TARGET_JOURNAL,
		[CONFIG_LOG_FILE] = LOG_TARGET_FILE,
	};
	enum log_target target = targets[log->target];

	/* In the background nobody reads standard error. */
	if (background && (target == LOG_TARGET_STDERR || target == LOG_TARGET_JOURNAL))
		target = LOG_TARGET_SYSLOG;
	return log_open(target, log->path, (enum log_level)log->level, log->json);
}
