/*
 * vmm_control.h: the agent's connection to one VMM's control socket (proto/vmm.proto).
 *
 * The VMM runs guest-facing code and may have been taken over: every packet is bounded and checked,
 * and one that is not a reply ends the connection. A request not answered in time fails with
 * ERROR_TIMEOUT; it may still have been carried out, which is why repeating one is harmless.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "proto/vmm.pb-c.h"

#define VMM_PACKET_MAX   (256u << 10)
#define VMM_REQUESTS_MAX 64
#define VMM_TEXT_MAX     512

struct vmm_control;

struct vmm_control_events {
    /* A reply or event arrived; vmm_control_status() is already the new one. */
    void (*status)(void *context);
    /* The connection ended: the VMM died, or sent what is no reply. Called once, from the loop; the
     * control is still to be closed by its owner, which this call may do. */
    void (*lost)(void *context, const char *why);
};

/* Called once for each request: @err is NULL where the VMM accepted it, else what it or the
 * connection answered; @reply is NULL unless the VMM answered. Not called after
 * vmm_control_close(). */
typedef void (*vmm_control_done_fn)(void *context, const Vmpool__VmmReply *reply,
                                    const struct error *err);

/* Takes over the connected SOCK_SEQPACKET socket @fd. */
struct vmm_control *vmm_control_open(struct loop *loop, int fd,
                                     const struct vmm_control_events *events, void *context,
                                     struct error *err);
void vmm_control_close(struct vmm_control *control);

/* Sends @request (its request_id is set here) and calls @done within @timeout_ms. @done may be
 * NULL. Fails at once, without calling @done, where the VMM does not take packets. */
int vmm_control_send(struct vmm_control *control, Vmpool__VmmRequest *request, uint64_t timeout_ms,
                     vmm_control_done_fn done, void *context, struct error *err);

/* Nobody waits for the answers to requests sent with @context any more: their @done is not called.
 */
void vmm_control_forget(struct vmm_control *control, const void *context);

/* The last status the VMM sent; NULL before the first. Valid until the next packet is read. */
const Vmpool__VmmStatus *vmm_control_status(const struct vmm_control *control);
/* Reads what has already arrived: before the VMM's death is judged, its last words are heard. */
void vmm_control_drain(struct vmm_control *control);
/* Hands the last reply over to the caller; NULL where there was none. */
Vmpool__VmmReply *vmm_control_take_last(struct vmm_control *control);
