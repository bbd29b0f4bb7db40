/* explain.h: decisions in words. Private to scheduler/. */
#pragma once

#include "scheduler/score.h"

/* One sentence why @node was chosen. */
void explain_choice(const struct scheduler *pool, const struct query *query,
                    const struct node *node, char *out, size_t size);
/* One sentence why no host fits: how many fail what, the closest, and the smallest change that
 * would make it fit. O(N). */
void explain_refusal(const struct scheduler *pool, const struct query *query, char *out,
                     size_t size);
/* Fills filter and reason of a verdict. */
void explain_failure(const struct query *query, const struct node *node, unsigned failed,
                     struct sched_verdict *verdict);
