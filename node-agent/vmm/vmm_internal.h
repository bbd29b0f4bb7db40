/* vmm_internal.h: the process as vmm.c, requests.c and migrate.c see it. */
#pragma once

#include "common/loop.h"
#include "node-agent/vmm/console.h"
#include "node-agent/vmm/control.h"
#include "node-agent/vmm/lifecycle.h"
#include "node-agent/vmm/machine.h"
#include "node-agent/vmm/options.h"

struct vmm {
    const struct options *options;
    struct loop *loop;
    struct machine_config config;
    struct machine_events machine_events;
    struct kvm_cpuid2 *baseline;
    struct machine *machine;
    struct console *console;
    struct control *control; /* NULL: run by hand */
    struct migrate *migrate;
    int uffd;      /* for a migration coming in by post-copy; -1: this process may have none */
    int status_fd; /* last_state.h; -1: none */
    struct lifecycle life;
    int64_t started_wall_ms;
    int exit_status;
    enum guest_end pending_end; /* to be dealt with once no engine looks at the machine */
    char pending_text[256];
};

/* One request from the control socket. */
void vmm_on_request(void *context, const struct control_ticket *ticket,
                    const Vmpool__VmmRequest *request);

/* Completes @reply with the status and sends it: as the answer to @ticket, or, NULL, as an event to
 * all. */
void vmm_send(struct vmm *vmm, const struct control_ticket *ticket, Vmpool__VmmReply *reply);

/* Keeps the present state for who comes when this process is over. Before a change takes effect
 * that nobody may miss: before the guest of a migration runs, before the source's word is given. */
void vmm_keep_state(const struct vmm *vmm);

/* Keeps the state and tells everybody connected the status. */
void vmm_announce(struct vmm *vmm);

/* No engine looks at the machine any more: what waited for that goes on. */
void vmm_migration_over(struct vmm *vmm);
