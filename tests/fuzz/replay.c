/*
 * replay.c: a fuzzer without libFuzzer: gives it each file of the folders that it is called with,
 * or, with --list, names it. So that what was once found stays found with any compiler.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (1u << 20)

#pragma weak LLVMFuzzerInitialize /* some fuzzers have none */

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *room = malloc(INPUT_MAX);
    size_t size = file && room ? fread(room, 1, INPUT_MAX, file) : 0;
    int failed = !file || !room || ferror(file);
    if (file)
        (void)fclose(file);
    if (!failed) {
        uint8_t *exactly = malloc(size ? size : 1); /* so that a byte behind is seen */
        if (exactly) {
            memcpy(exactly, room, size);
            (void)LLVMFuzzerTestOneInput(exactly, size);
        }
        failed = !exactly;
        free(exactly);
    }
    free(room);
    return failed ? -1 : 0;
}

/* Files read; -1: one could not be. */
static long replay_folder(const char *folder)
{
    long count = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing && count >= 0 && (entry = readdir(listing));) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        (void)fprintf(stderr, "%s\n", path); /* the last one named is the one that failed */
        count = replay_file(path) < 0 ? -1 : count + 1;
    }
    if (!listing)
        return -1;
    (void)closedir(listing);
    return count;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--list") == 0)
        return 0;
    if (LLVMFuzzerInitialize && LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    for (int i = 1; i < argc && argv[i][0] != '-'; i++) {
        long count = replay_folder(argv[i]);
        if (count <= 0) {
            (void)fprintf(stderr, "%s: %s\n", argv[i], count < 0 ? "cannot be read" : "is empty");
            return 1;
        }
    }
    return 0;
}
