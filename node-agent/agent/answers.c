#include "node-agent/agent/answers.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct answer {
    uint64_t request_id;
    uint64_t age; /* when it was noted; 0: the place is free */
    bool done;
    uint8_t *data;
    size_t size;
};

struct answers {
    uint64_t clock;
    struct answer entries[ANSWERS_MAX];
};

struct answers *answers_new(void)
{
    return calloc(1, sizeof(struct answers));
}

static void forget(struct answer *entry)
{
    free(entry->data);
    *entry = (struct answer){0};
}

void answers_free(struct answers *answers)
{
    if (!answers)
        return;
    for (size_t i = 0; i < ANSWERS_MAX; i++)
        forget(&answers->entries[i]);
    free(answers);
}

static struct answer *find(struct answers *answers, uint64_t request_id)
{
    for (size_t i = 0; i < ANSWERS_MAX; i++)
        if (answers->entries[i].age && answers->entries[i].request_id == request_id)
            return &answers->entries[i];
    return NULL;
}

/* A free place, or that of the oldest answer given; NULL where all are under way. */
static struct answer *make_room(struct answers *answers)
{
    struct answer *oldest = NULL;
    for (size_t i = 0; i < ANSWERS_MAX; i++) {
        struct answer *entry = &answers->entries[i];
        if (!entry->age)
            return entry;
        if (entry->done && (!oldest || entry->age < oldest->age))
            oldest = entry;
    }
    if (oldest)
        forget(oldest);
    return oldest;
}

enum answer_state answers_begin(struct answers *answers, uint64_t request_id, const uint8_t **data,
                                size_t *size)
{
    struct answer *entry = find(answers, request_id);
    if (entry && !entry->done)
        return ANSWER_RUNNING;
    if (entry) {
        *data = entry->data;
        *size = entry->size;
        return ANSWER_KNOWN;
    }
    entry = make_room(answers);
    if (!entry)
        return ANSWER_BUSY;
    entry->request_id = request_id;
    entry->age = ++answers->clock;
    return ANSWER_NEW;
}

void answers_finish(struct answers *answers, uint64_t request_id, const uint8_t *data, size_t size)
{
    struct answer *entry = find(answers, request_id);
    if (!entry || entry->done)
        return;
    uint8_t *copy = data ? malloc(size + 1) : NULL;
    if (!copy) {
        forget(entry);
        return;
    }
    memcpy(copy, data, size);
    entry->data = copy;
    entry->size = size;
    entry->done = true;
}
