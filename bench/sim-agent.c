#include "bench/sim-agent.h"

#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sim-commands.h"

void sim_net_init(struct sim_net *net, struct loop *loop)
{
    *net = (struct sim_net){.loop = loop, .step_ms = 5, .next_port = 20000};
}

static void free_answers(struct sim_agent *agent)
{
    while (agent->answers) {
        struct sim_answer *answer = agent->answers;
        agent->answers = answer->next;
        free(answer->data);
        free(answer);
    }
}

static void free_vms(struct sim_agent *agent)
{
    while (agent->vms)
        sim_vm_free(agent, agent->vms);
    while (agent->seen) {
        struct sim_seen *seen = agent->seen;
        agent->seen = seen->next;
        free(seen);
    }
}

void sim_net_free(struct sim_net *net)
{
    while (net->agents) {
        struct sim_agent *agent = net->agents;
        net->agents = agent->next;
        sim_agent_stop(agent);
        free_vms(agent);
        free(agent->cpuid);
        free(agent);
    }
}

/* Leaf 0 with a vendor and leaf 1 with a few features: enough for a baseline. */
static void make_cpuid(struct sim_agent *agent)
{
    struct kvm_cpuid_entry2 entries[2] = {
        {.function = 0, .eax = 1, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 1, .eax = 0x800f12, .ecx = 0x80202001, .edx = 0x078bfbff},
    };
    agent->cpuid_size = sizeof entries;
    agent->cpuid = malloc(agent->cpuid_size);
    if (agent->cpuid)
        memcpy(agent->cpuid, entries, sizeof entries);
}

static struct sim_agent *make_agent(struct sim_net *net, const char *name)
{
    struct sim_agent *agent = calloc(1, sizeof *agent);
    if (!agent)
        return NULL;
    agent->net = net;
    (void)snprintf(agent->name, sizeof agent->name, "%s", name);
    (void)snprintf(agent->boot_id, sizeof agent->boot_id, "boot-%s-1", name);
    agent->cpus = 8;
    agent->memory_mib = 16384;
    agent->bandwidth_bps = 10000000000u;
    agent->port = net->next_port++;
    make_cpuid(agent);
    return agent;
}

static void append(struct sim_net *net, struct sim_agent *agent)
{
    struct sim_agent **last = &net->agents;
    while (*last)
        last = &(*last)->next;
    *last = agent;
}

struct sim_agent *sim_agent_known(struct sim_net *net, const char *name, const char *address,
                                  const uint8_t server_key[32], const struct link_keys *keys)
{
    struct sim_agent *agent = make_agent(net, name);
    if (!agent)
        return NULL;
    (void)snprintf(agent->token.address, sizeof agent->token.address, "%s", address);
    memcpy(agent->token.server_key, server_key, sizeof agent->token.server_key);
    agent->keys = *keys;
    agent->joined = true;
    agent->next = net->agents;
    net->agents = agent;
    return agent;
}

struct sim_agent *sim_agent_new(struct sim_net *net, const char *name, const char *token)
{
    struct error err = ERROR_INIT;
    struct sim_agent *agent = make_agent(net, name);
    if (!agent)
        return NULL;
    if (link_keys_generate(&agent->keys, &err) < 0 ||
        link_token_parse(token, &agent->token, &err) < 0) {
        free(agent->cpuid);
        free(agent);
        return NULL;
    }
    append(net, agent);
    sim_agent_start(agent);
    return agent;
}

/* ---- talking ---- */

void sim_send(struct sim_agent *agent, const Vmpool__NodeToController *message)
{
    struct error err = ERROR_INIT;
    size_t size = vmpool__node_to_controller__get_packed_size(message);
    uint8_t *data = malloc(size + 1);
    if (!data || !agent->link)
        goto out;
    vmpool__node_to_controller__pack(message, data);
    (void)link_client_send(agent->link, data, size, &err);
out:
    free(data);
}

void sim_agent_facts(const struct sim_agent *agent, Vmpool__NodeFacts *facts)
{
    static char version[] = "0.1.0", kernel[] = "6.1-sim", address[] = "127.0.0.1";
    *facts = (Vmpool__NodeFacts)VMPOOL__NODE_FACTS__INIT;
    facts->version = version;
    facts->kernel = kernel;
    facts->migration_address = address;
    facts->cpus = agent->cpus;
    facts->memory_mib = agent->memory_mib;
    facts->bandwidth_bps = agent->bandwidth_bps;
    facts->cpuid = (ProtobufCBinaryData){agent->cpuid_size, agent->cpuid};
}

static void send_join(struct sim_agent *agent)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeJoin join = VMPOOL__NODE_JOIN__INIT;
    Vmpool__NodeFacts facts;
    sim_agent_facts(agent, &facts);
    join.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    join.name = agent->name;
    join.public_key = (ProtobufCBinaryData){32, agent->keys.public_key};
    join.facts = &facts;
    message.request_id = 1;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_JOIN;
    message.join = &join;
    sim_send(agent, &message);
}

/* What all VMs are, and the table that messages want. */
struct list {
    struct sim_description *all;
    Vmpool__NodeVm **table;
    size_t count;
};

static struct list describe_all(struct sim_agent *agent)
{
    struct list list = {0};
    for (struct sim_vm *vm = agent->vms; vm; vm = vm->next)
        list.count++;
    list.all = calloc(list.count + 1, sizeof *list.all);
    list.table = calloc(list.count + 1, sizeof(void *));
    if (!list.all || !list.table)
        abort();
    size_t at = 0;
    for (struct sim_vm *vm = agent->vms; vm; vm = vm->next, at++) {
        sim_describe(vm, &list.all[at]);
        list.table[at] = &list.all[at].vm;
    }
    return list;
}

static void free_list(struct list *list)
{
    free(list->all);
    free((void *)list->table);
}

static void send_hello(struct sim_agent *agent)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeHello hello = VMPOOL__NODE_HELLO__INIT;
    Vmpool__NodeFacts facts;
    sim_agent_facts(agent, &facts);
    hello.protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    hello.facts = &facts;
    hello.boot_id = agent->boot_id;
    struct list list = describe_all(agent);
    hello.vms = list.table;
    hello.n_vms = list.count;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO;
    message.hello = &hello;
    agent->hello_count++;
    sim_send(agent, &message);
    free_list(&list);
}

static void send_report(void *context)
{
    struct sim_agent *agent = context;
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeReport report = VMPOOL__NODE_REPORT__INIT;
    report.sequence = ++agent->sequence;
    report.memory_used_mib = 512;
    report.memory_available_mib = agent->memory_mib - 512;
    report.cpu_permille = 50;
    report.cpu_user_permille = 20;
    report.cpu_system_permille = 5;
    report.cpu_guest_permille = 25;
    struct list list = describe_all(agent);
    report.vms = list.table;
    report.n_vms = list.count;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT;
    message.report = &report;
    sim_send(agent, &message);
    free_list(&list);
}

void sim_send_event(struct sim_agent *agent, struct sim_vm *vm, const char *what)
{
    Vmpool__NodeToController message = VMPOOL__NODE_TO_CONTROLLER__INIT;
    Vmpool__NodeVmEvent event = VMPOOL__NODE_VM_EVENT__INIT;
    struct sim_description description;
    char word[16];
    if (agent->no_events)
        return;
    (void)snprintf(word, sizeof word, "%s", what);
    sim_describe(vm, &description);
    event.vm = &description.vm;
    event.what = word;
    message.body_case = VMPOOL__NODE_TO_CONTROLLER__BODY_VM_EVENT;
    message.vm_event = &event;
    sim_send(agent, &message);
}

/* ---- listening ---- */

static void open_link(struct sim_agent *agent);

static void reopen(void *context)
{
    open_link(context);
}

static void on_joined(struct sim_agent *agent)
{
    agent->joined = true;
    link_client_close(agent->link);
    agent->link = NULL;
    (void)loop_add_timer(agent->net->loop, 0, 0, reopen, agent);
}

static void on_welcome(struct sim_agent *agent, const Vmpool__NodeWelcome *welcome)
{
    agent->baseline_bytes = (uint32_t)welcome->cpuid_baseline.len;
    agent->welcomed = true;
    if (agent->report_timer && agent->report_interval_ms == welcome->report_interval_ms)
        return;
    loop_remove(agent->report_timer);
    agent->report_interval_ms = welcome->report_interval_ms;
    agent->report_timer =
        loop_add_timer(agent->net->loop, 0, agent->report_interval_ms, send_report, agent);
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct sim_agent *agent = context;
    Vmpool__ControllerToNode *message = vmpool__controller_to_node__unpack(NULL, size, data);
    if (!message)
        return;
    switch (message->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_JOINED:
        on_joined(agent);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_WELCOME:
        on_welcome(agent, message->welcome);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_REFUSED:
        (void)snprintf(agent->refused, sizeof agent->refused, "%s", message->refused->text);
        break;
    default:
        sim_command(agent, message);
        break;
    }
    vmpool__controller_to_node__free_unpacked(message, NULL);
}

static void on_connected(void *context)
{
    struct sim_agent *agent = context;
    agent->connected = true;
    if (agent->joined)
        send_hello(agent);
    else
        send_join(agent);
}

static void on_disconnected(void *context)
{
    ((struct sim_agent *)context)->connected = false;
}

static void on_refused(void *context, const char *reason)
{
    struct sim_agent *agent = context;
    (void)snprintf(agent->refused, sizeof agent->refused, "%s", reason);
}

static const struct link_client_events events = {on_connected, on_disconnected, on_message,
                                                 on_refused};

static void open_link(struct sim_agent *agent)
{
    struct error err = ERROR_INIT;
    const struct link_keys *keys = agent->joined ? &agent->keys : &agent->token.join_keys;
    agent->link =
        link_client_open_in(agent->net->link_context, agent->net->loop, agent->token.address,
                            agent->token.server_key, keys, &events, agent, &err);
    if (!agent->link)
        (void)snprintf(agent->refused, sizeof agent->refused, "%s", err.text);
}

/* ---- life ---- */

void sim_agent_start(struct sim_agent *agent)
{
    if (!agent->link)
        open_link(agent);
}

void sim_agent_stop(struct sim_agent *agent)
{
    loop_remove(agent->report_timer);
    agent->report_timer = NULL;
    link_client_close(agent->link);
    agent->link = NULL;
    agent->connected = agent->welcomed = false;
    free_answers(agent);
}

void sim_agent_power_off(struct sim_agent *agent)
{
    sim_agent_stop(agent);
    free_vms(agent);
    (void)snprintf(agent->boot_id, sizeof agent->boot_id, "boot-%.20s-%p", agent->name,
                   (void *)((char *)agent + agent->hello_count));
}

struct sim_vm *sim_agent_vm(const struct sim_agent *agent, const char *name)
{
    struct sim_vm *vm = agent->vms;
    while (vm && strcmp(vm->name, name) != 0)
        vm = vm->next;
    return vm;
}

unsigned sim_net_running(const struct sim_net *net, const char *name)
{
    unsigned count = 0;
    for (const struct sim_agent *agent = net->agents; agent; agent = agent->next) {
        const struct sim_vm *vm = sim_agent_vm(agent, name);
        count += vm && sim_runs(vm);
    }
    return count;
}
