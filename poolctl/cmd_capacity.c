/* cmd_capacity.c: poolctl capacity. */
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/message.h"
#include "poolctl/spec.h"

static const struct field columns[] = {{"VMS", "count", NULL, FIELD_NUMBER, 0},
                                       {"VCPUS", "vcpus", NULL, FIELD_NUMBER, 0},
                                       {"MEMORY", "memory_mib", NULL, FIELD_MIB, 0},
                                       {"BANDWIDTH", "bandwidth_bps", NULL, FIELD_BPS, FIELD_DASH},
                                       {"WITH N+1", "count_n1", NULL, FIELD_NUMBER, 0},
                                       {"WHY NOT MORE", "why", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
                                       {0}};

#define LINES                                                                                      \
    {"More VMs", "count", NULL, FIELD_NUMBER, 0}, {"  of vCPUs", "vcpus", NULL, FIELD_NUMBER, 0},  \
        {"  of memory", "memory_mib", NULL, FIELD_MIB, 0},                                         \
        {"  of bandwidth", "bandwidth_bps", NULL, FIELD_BPS, FIELD_OPTIONAL},                      \
    {                                                                                              \
        "Not one more", "why", NULL, FIELD_TEXT, FIELD_OPTIONAL                                    \
    }

static const struct field lines[] = {LINES, {0}};
static const struct field lines_n1[] = {LINES,
                                        {"With any node lost", "count_n1", NULL, FIELD_NUMBER, 0},
                                        {"  not more", "why_n1", NULL, FIELD_TEXT, FIELD_OPTIONAL},
                                        {0}};

static const struct view view_capacity = {"capacities", "capacity", "count", NULL, columns};

static int run(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    const char *size = invocation_option(call, "spec");
    struct spec spec;
    Vmpool__CapacityGet body = VMPOOL__CAPACITY_GET__INIT;
    if (spec_parse(size ? size : "1c,1G", &spec, err) < 0)
        return error_wrap(err, "--spec");
    body.vcpus = spec.vcpus;
    body.memory_mib = spec.memory_mib;
    body.bandwidth_bps = spec.bandwidth_bps;
    body.n1 = invocation_has(call, "n1");
    ADMIN_REQUEST(request, CAPACITY_GET, capacity_get, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_CAPACITY, &reply, err) < 0)
        return -1;
    json_t *json = message_to_json(&reply->capacity->base, err);
    int result = view_one(&style, &view_capacity, body.n1 ? lines_n1 : lines, json, err);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return result;
}

const struct command command_capacity = {
    .name = "capacity",
    .summary = "how many more VMs of a size fit",
    .details = "They are placed one after the other as the controller would, and taken back. With "
               "--n1 also how many fit so that the VMs of any one node, these included, could "
               "still start again on the others; VMs with disks on one node only are left out of "
               "that, as no room helps them. A controller started with --keep-n1 refuses more.",
    .options = (const struct option[]){{.name = "spec",
                                        .value = "SIZE",
                                        .help = "of each, as 4c,8G or 4c,8G,1Gbps (default 1c,1G)"},
                                       {.name = "n1", .help = "also with any one node lost"},
                                       {0}},
    .examples = (const struct example[]){{"poolctl capacity --spec 4c,8G,1Gbps --n1",
                                          "How many more of these, and how many safely?"},
                                         {0}},
    .run = run,
};
