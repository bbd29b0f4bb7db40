#include "node-agent/agent/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/address.h"
#include "node-agent/agent/faults.h"
#include "node-agent/agent/vm_report.h"

/* What is found out only now, as the controller's address and the bridge may have changed. */
static void refresh(struct agent *agent)
{
    struct error err = ERROR_INIT;
    const struct agent_options *options = agent->options;
    if (options->migration_address)
        (void)snprintf(agent->migration_address, sizeof agent->migration_address, "%s",
                       options->migration_address);
    else if (address_towards(agent->identity.address, agent->migration_address,
                             sizeof agent->migration_address, &err) < 0)
        log_warn("cannot tell this node's address for migrations (%s); use --migration-address",
                 err.text);
}

/* Fills a NodeFacts; @labels and @label_table are the storage of its labels. */
static void fill_facts(struct agent *agent, Vmpool__NodeFacts *facts, Vmpool__Label *labels,
                       Vmpool__Label **label_table)
{
    const struct agent_options *options = agent->options;
    refresh(agent);
    facts_fill(&agent->facts, facts);
    facts->bandwidth_bps =
        options->bandwidth_bps ? options->bandwidth_bps : meter_uplink_bps(&agent->meter);
    facts->reserved_memory_mib = options->reserve_memory_mib;
    facts->migration_address = agent->migration_address;
    facts->cgroup_v2 = agent->cgroup.root_fd >= 0;
    for (unsigned i = 0; i < options->label_count; i++) {
        labels[i] = (Vmpool__Label)VMPOOL__LABEL__INIT;
        labels[i].key = (char *)(uintptr_t)options->label_keys[i];
        labels[i].value = (char *)(uintptr_t)options->label_values[i];
        label_table[i] = &labels[i];
    }
    facts->labels = label_table;
    facts->n_labels = options->label_count;
}

static void send_join(struct agent *agent, Vmpool__NodeFacts *facts)
{
    Vmpool__NodeJoin join = VMPOOL__NODE_JOIN__INIT;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    join.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    join.name = agent->node_name;
    join.public_key.data = agent->identity.keys.public_key;
    join.public_key.len = sizeof agent->identity.keys.public_key;
    join.facts = facts;
    message.request_id = 1;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN;
    message.join = &join;
    agent_send(agent, &message);
}

static void send_hello(struct agent *agent, Vmpool__NodeFacts *facts)
{
    Vmpool__NodeHello hello = VMPOOL__NODE_HELLO__INIT;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    hello.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    hello.facts = facts;
    hello.boot_id = agent->facts.boot_id;
    hello.vms = vm_describe_all(agent, &hello.n_vms);
    message.request_id = 1;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO;
    message.hello = &hello;
    agent_send(agent, &message);
    vm_describe_free(hello.vms);
}

void report_greet(struct agent *agent, bool joining)
{
    Vmpool__NodeFacts facts = VMPOOL__NODE_FACTS__INIT;
    Vmpool__Label labels[OPTION_LABELS_MAX];
    Vmpool__Label *label_table[OPTION_LABELS_MAX];
    fill_facts(agent, &facts, labels, label_table);
    if (joining)
        send_join(agent, &facts);
    else
        send_hello(agent, &facts);
}

void report_send(struct agent *agent)
{
    Vmpool__NodeReport report = VMPOOL__NODE_REPORT__INIT;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    report.sequence = ++agent->report_sequence;
    meter_sample(&agent->meter, &report);
    report.vms = vm_describe_all(agent, &report.n_vms);
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT;
    message.report = &report;
    for (unsigned copies = fault_message("agent.report"); copies > 0; copies--)
        agent_send(agent, &message);
    vm_describe_free(report.vms);
}
