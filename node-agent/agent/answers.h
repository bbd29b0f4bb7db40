/*
 * answers.h: what was answered to the controller's last commands, so that a repeat gets the same
 * answer and does nothing twice.
 *
 * The last ANSWERS_MAX commands are remembered. The memory is lost with the agent; what must hold
 * beyond that is in the VM's record (record.h) and the ledger (ledger.h).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ANSWERS_MAX 512

struct answers;

enum answer_state {
    ANSWER_NEW,     /* never seen: now noted as under way */
    ANSWER_RUNNING, /* under way: its answer will come */
    ANSWER_KNOWN,   /* done: the bytes are what was answered */
    ANSWER_BUSY,    /* all places are taken by commands under way */
};

struct answers *answers_new(void);
void answers_free(struct answers *answers);

/* Looks @request_id up and notes it where it is new. With ANSWER_KNOWN, @data and @size are the
 * packed answer, valid until the next call. */
enum answer_state answers_begin(struct answers *answers, uint64_t request_id, const uint8_t **data,
                                size_t *size);

/* Notes the packed answer to a command under way; NULL forgets the command, so that a repeat is
 * carried out anew. */
void answers_finish(struct answers *answers, uint64_t request_id, const uint8_t *data, size_t size);
