/* policy.c: the words for the policies. */
#include <string.h>

#include "scheduler/scheduler.h"

static const char *const names[SCHED_POLICIES] = {"pack", "spread", "balance", "best"};

const char *sched_policy_name(enum sched_policy policy)
{
    return (unsigned)policy < SCHED_POLICIES ? names[policy] : "?";
}

int sched_policy_parse(const char *word, enum sched_policy *policy, struct error *err)
{
    for (unsigned i = 0; i < SCHED_POLICIES; i++)
        if (strcmp(names[i], word) == 0) {
            *policy = (enum sched_policy)i;
            return 0;
        }
    return error_set(err, ERROR_USAGE, "a policy is pack, spread, balance or best, not \"%s\"",
                     word);
}
