/* uuid.h: random identifiers. */
#pragma once

#include <stdbool.h>

#define UUID_SIZE 37
/* A random UUID (version 4). Returns @out. */
const char *uuid_make(char out[UUID_SIZE]);
bool uuid_valid(const char *text);
/* 16 random hex digits. */
#define SHORT_ID_SIZE 17
const char *short_id_make(char out[SHORT_ID_SIZE]);
