/*
 * pool-agent: one node of a pool. Reads the command line, runs the loop, turns errors into an exit
 * status. All else is in agent.c and below.
 */
#include <signal.h>
#include <stdio.h>

#include "common/log.h"
#include "node-agent/agent/agent.h"

static void on_stop_signal(void *context, int number)
{
    (void)number;
    loop_stop(context);
}

static int run(const struct agent_options *options, struct loop *loop, struct error *err)
{
    struct agent agent;
    if (loop_add_signal(loop, SIGTERM, on_stop_signal, loop, err) < 0 ||
        loop_add_signal(loop, SIGINT, on_stop_signal, loop, err) < 0)
        return -1;
    int status = agent_start(&agent, options, loop, err);
    if (status == 0) {
        log_info("pool-agent " VMPOOL_VERSION " runs node %s", agent.node_name);
        status = loop_run(loop, err);
        if (status == 0 && agent.fatal.kind != ERROR_NONE) {
            *err = agent.fatal;
            status = -1;
        }
    }
    agent_stop(&agent);
    return status;
}

int main(int argc, char **argv)
{
    struct agent_options options;
    struct error err = ERROR_INIT;
    log_init("pool-agent", LOG_LEVEL_INFO);
    switch (options_parse(argc, argv, &options, &err)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        (void)fprintf(stderr, "pool-agent: %s\n", err.text);
        return ERROR_USAGE;
    case OPTIONS_RUN:
        break;
    }
    log_init("pool-agent", options.log_level);
    (void)signal(SIGPIPE, SIG_IGN);
    struct loop *loop = loop_new(&err);
    int status = loop ? run(&options, loop, &err) : -1;
    loop_free(loop);
    if (status < 0)
        log_error("%s", err.text);
    return status < 0 ? (int)err.kind : 0;
}
