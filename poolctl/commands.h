/* commands.h: the commands of the tree, each defined beside its run function. */
#pragma once

#include "poolctl/command.h"

extern const struct command command_status;
extern const struct command command_node;
extern const struct command command_node_top;
extern const struct command command_vm;
extern const struct command command_vm_create;
extern const struct command command_vm_migrate;
extern const struct command command_vm_console;
extern const struct command command_vm_log;
extern const struct command command_image;
extern const struct command command_image_import;
extern const struct command command_job;
extern const struct command command_events;
extern const struct command command_plan;
extern const struct command command_apply;
extern const struct command command_capacity;
extern const struct command command_rebalance;
extern const struct command command_simulate;
extern const struct command command_context;
extern const struct command command_version;
extern const struct command command_completion;
extern const struct command command_complete;
extern const struct command command_docs;

/* One required argument, as most commands have. */
#define ONE_ARGUMENT(name_, help_, complete_)                                                      \
    (const struct argument[])                                                                      \
    {                                                                                              \
        {.name = (name_), .help = (help_), .complete = (complete_)},                               \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
