/*
 * files.h: small files and folders, made and replaced so that a crash leaves the old or the new.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/error.h"

/* Creates @path and its missing parents; an existing folder is fine. New ones get @mode. */
int files_make_dirs(const char *path, mode_t mode, struct error *err);

/* Opens folder @name below @dir_fd (AT_FDCWD: a path) for use with the *at() calls. Links are not
 * followed below a descriptor. */
int files_open_dir(int dir_fd, const char *name, struct error *err);

/* Writes @size bytes to @name below @dir_fd by way of a temporary file and rename(2). */
int files_write(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                struct error *err);

/* Reads the whole of @name, at most @max bytes; @data is free()d by the caller and has a zero byte
 * behind its @size bytes. A longer file is an error. */
int files_read(int dir_fd, const char *name, size_t max, char **data, size_t *size,
               struct error *err);

/* Removes the folder @name below @dir_fd with what is in it, at most four levels deep, links not
 * followed. A folder that is not there is fine. */
int files_remove_tree(int dir_fd, const char *name, struct error *err);
