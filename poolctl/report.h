/* report.h: what a simulation found, as one HTML file with its plots in it. */
#pragma once

#include <jansson.h>

#include "common/error.h"

/* Writes @path anew: a table and plots over time of hosts in use and of what is reserved on them,
 * for each of @simulations as poolctl simulate -o json has them. */
int report_write(const char *path, const json_t *simulations, struct error *err);
