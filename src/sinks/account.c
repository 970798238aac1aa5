/*
 * account: see account.h.  Nothing here can fail but account_new, for want of memory.
 */
#include <stdlib.h>
#include <string.h>

#include "sinks/account.h"

const uint32_t account_bounds[ACCOUNT_BOUNDS] = {
	500,    1000,   2500,    5000,    10000,   25000,    50000,    100000,
	250000, 500000, 1000000, 2500000, 5000000, 10000000, 60000000,
};

struct account *
account_new(const char *name)
{
	struct account *account = calloc(1, sizeof(*account));

	if (account == NULL)
		return NULL;
	account->name = strdup(name);
	if (account->name == NULL) {
		free(account);
		return NULL;
	}
	return account;
}

void
account_free(struct account *account)
{
	free(account->name);
	free(account);
}

void
account_time(struct account *account, uint64_t count, uint64_t microseconds)
{
	static _Thread_local unsigned last; /* mostly it is the same one again */
	unsigned i = last;

	if (i > 0 && microseconds <= account_bounds[i - 1])
		i = 0;
	while (i < ACCOUNT_BOUNDS && microseconds > account_bounds[i])
		i++;
	last = i;
	account_add(&account->seconds[i], count);
	account_add(&account->microseconds, count * microseconds);
}
