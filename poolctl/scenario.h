/*
 * scenario.h: a simulated pool in which things happen at stated seconds, placed, drained, recovered
 * and rebalanced by the library that the controller runs. A line is one event, # begins a comment:
 *
 *     0 policy pack|spread|balance|best       before the first host
 *     0 host n1 64c,128G,25Gbps zone=a        again: what is known of it changes
 *     5 vm web1 4c,8G,1Gbps apart=web         rules: apart, avoid, with, spread=GROUP:LABEL:APART,
 *                                             select=KEY:VALUE, tenant, on
 *     9 rm web1
 *     20 drain n1 | undrain n1 | fail n1 | back n1
 *     30 rebalance | consolidate
 *
 * VMs of a host that fails start again elsewhere; those that have no place wait for one.
 */
#pragma once

#include <stdio.h>

#include "common/error.h"

/* Runs the scenario of @path and writes what happened to @log. What is wrong in it is ERROR_USAGE
 * with the line; the log then ends before it. */
int scenario_run(const char *path, FILE *log, struct error *err);
