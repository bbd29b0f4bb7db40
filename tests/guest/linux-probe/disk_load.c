#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "probe.h"

#define BLOCK_BYTES 16384
#define BLOCK_WORDS (BLOCK_BYTES / 8)
#define MOST_BLOCKS 2048 // 32 MiB of the disk are used
#define FLUSH_EVERY 8

static struct {
    pthread_mutex_t lock;
    struct disk_report report;
    bool started;
    int fd;
    uint64_t blocks;
    uint64_t *buffer;
    uint64_t generation[MOST_BLOCKS]; // what was last written to each block; 0: nothing yet
} load = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void count(uint64_t *counter)
{
    pthread_mutex_lock(&load.lock);
    (*counter)++;
    pthread_mutex_unlock(&load.lock);
}

static void wrong(const char *what, uint64_t block)
{
    int error = errno;
    pthread_mutex_lock(&load.lock);
    load.report.errors++;
    snprintf(load.report.text, sizeof(load.report.text), "%s block %llu: %s", what,
             (unsigned long long)block, error == 0 ? "holds something else" : strerror(error));
    pthread_mutex_unlock(&load.lock);
}

static void write_block(uint64_t block, uint64_t generation)
{
    for (uint64_t i = 0; i < BLOCK_WORDS; i++) {
        load.buffer[i] = pattern_word(block * BLOCK_WORDS + i, generation);
    }
    errno = 0;
    if (pwrite(load.fd, load.buffer, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES) {
        wrong("write", block);
        return;
    }
    load.generation[block] = generation;
    count(&load.report.blocks_written);
}

static void verify_block(uint64_t block)
{
    if (load.generation[block] == 0) {
        return;
    }
    errno = 0;
    if (pread(load.fd, load.buffer, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES) {
        wrong("read", block);
        return;
    }
    for (uint64_t i = 0; i < BLOCK_WORDS; i++) {
        if (load.buffer[i] != pattern_word(block * BLOCK_WORDS + i, load.generation[block])) {
            wrong("verify", block);
            return;
        }
    }
    count(&load.report.blocks_verified);
}

// Writes the blocks in order again and again; after each, reads one back that was written a while
// ago.
static void *run(void *unused)
{
    (void)unused;
    for (uint64_t turn = 0;; turn++) {
        write_block(turn % load.blocks, turn / load.blocks + 1);
        if (turn % FLUSH_EVERY == FLUSH_EVERY - 1 && fsync(load.fd) != 0) {
            wrong("flush", turn % load.blocks);
        }
        verify_block(pattern_word(turn, 1) % load.blocks);
    }
    return NULL;
}

int disk_load_start(const char *device)
{
    uint64_t bytes = 0;
    if (load.started) {
        errno = EBUSY;
        return -1;
    }
    load.fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (load.fd < 0) {
        return -1;
    }
    if (ioctl(load.fd, BLKGETSIZE64, &bytes) != 0 || bytes < BLOCK_BYTES) {
        errno = ENOSPC;
        goto fail;
    }
    load.blocks = bytes / BLOCK_BYTES < MOST_BLOCKS ? bytes / BLOCK_BYTES : MOST_BLOCKS;
    errno = posix_memalign((void **)&load.buffer, 4096, BLOCK_BYTES);
    if (errno != 0) {
        goto fail;
    }
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, NULL);
    if (errno != 0) {
        free(load.buffer);
        goto fail;
    }
    load.started = true;
    return 0;
fail:
    close(load.fd);
    return -1;
}

void disk_load_report(struct disk_report *out)
{
    pthread_mutex_lock(&load.lock);
    *out = load.report;
    pthread_mutex_unlock(&load.lock);
}
