/*
 * plan_file.h: a plan as "poolctl plan" writes it: { "schema_version": 1, "plan": {...} }. Only
 * what carrying it out needs is read back; the file is as hostile as any other.
 */
#pragma once

#include "common/error.h"
#include "proto/admin.pb-c.h"

#define PLAN_FILE_BYTES_MAX (16u << 20)

/* Reads @path, or standard input for "-". What is wrong is ERROR_USAGE with the line or the place,
 * what stands there and what was expected. Free with vmpool__plan__free_unpacked(plan, NULL). */
Vmpool__Plan *plan_file_read(const char *path, struct error *err);
