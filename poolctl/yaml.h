/*
 * yaml.h: JSON values as YAML 1.2.
 *
 * Block style for objects and lists, strings always in double quotes with JSON's escapes (which are
 * YAML's too), so that "no", "1e3" or "null" stay strings for every reader.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* Prints @value as one document, without "---". Returns -1 where memory ran out. */
int yaml_print(FILE *out, json_t *value);
