/* tree.c: the root of the command tree and the options every command has. */
#include "poolctl/commands.h"

const struct option command_global_options[] = {
    {.name = "output",
     .letter = 'o',
     .value = "FORMAT",
     .words = "table|json|yaml|csv|name",
     .help = "table (default), json, yaml, csv or name; json and yaml carry a schema_version"},
    {.name = "wide", .help = "more columns, none of them cut"},
    {.name = "quiet", .letter = 'q', .help = "no progress and no remarks, errors only"},
    {.name = "yes", .letter = 'y', .help = "don't ask before something is destroyed"},
    {.name = "context",
     .value = "NAME",
     .complete = COMPLETE_CONTEXT,
     .help = "the controller to talk to: a context's name, or a context file's path; default: "
             "$VMPOOL_CONTEXT, the current context, then the controller of this host"},
    {.name = "connect-timeout",
     .value = "TIME",
     .help = "give up after this time without a connection (default 5s)"},
    {.name = "color",
     .value = "WHEN",
     .words = "auto|always|never",
     .help = "auto (default: on a terminal unless NO_COLOR is set), always or never"},
    {.name = "help", .letter = 'h', .help = "show the help of this command"},
    {0}};

static const struct command *const children[] = {&command_status,
                                                 &command_node,
                                                 &command_vm,
                                                 &command_image,
                                                 &command_job,
                                                 &command_events,
                                                 &command_plan,
                                                 &command_apply,
                                                 &command_capacity,
                                                 &command_rebalance,
                                                 &command_simulate,
                                                 &command_context,
                                                 &command_version,
                                                 &command_completion,
                                                 &command_complete,
                                                 &command_docs,
                                                 NULL};

const struct command command_root = {
    .name = "poolctl",
    .summary = "see and run a vmpool cluster",
    .details =
        "'poolctl help COMMAND...' and 'poolctl COMMAND... --help' tell all about a command.\n\n"
        "Commands that change something wait for it and show how far it is; Ctrl-C stops the "
        "waiting, not the work. What goes to stdout is the answer, in the format -o asks for; "
        "progress, remarks and errors go to stderr.\n\n"
        "Sizes are numbers with K, M, G or T (powers of 1024), rates are bits a second with k, M "
        "or G (powers of 1000), times are numbers with ms, s, m, h or d.",
    .children = children,
};
