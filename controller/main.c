/* pool-controller: see options.c for its command line and controller.h for its work. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "common/log.h"
#include "controller/controller.h"
#include "controller/options.h"

/* How long we wait before we try a store again that could not be written. */
#define RETRY_MS 2000

static void on_signal(void *context, int number)
{
    (void)number;
    bool *ended = context;
    *ended = true;
}

static void on_flag(void *context)
{
    *(bool *)context = true;
}

/* Each agent is a connection, and the default of 1024 descriptors would be the pool's limit. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run_until(struct loop *loop, const bool *ended, const bool *other, struct error *err)
{
    while (!*ended && !*other)
        if (loop_run_once(loop, -1, err) < 0)
            return -1;
    return 0;
}

/* The controller, and after a store that could not be written, the next one. */
static int run(struct loop *loop, const struct config *config, const bool *ended, struct error *err)
{
    struct controller *controller = controller_open(config, loop, err);
    if (!controller)
        return -1;
    int status = 0;
    while (!*ended && status == 0) {
        bool waited = false;
        if (controller) {
            status = run_until(loop, ended, &controller->store_failed, err);
            controller_close(controller);
        }
        if (*ended || status < 0)
            break;
        if (!loop_add_timer(loop, RETRY_MS, 0, on_flag, &waited))
            return error_errno(err, ENOMEM, "event loop");
        status = run_until(loop, ended, &waited, err);
        struct error failed = ERROR_INIT;
        controller = *ended ? NULL : controller_open(config, loop, &failed);
        if (!controller && !*ended)
            log_error("%s; trying again", failed.text);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct options options;
    bool ended = false;
    if (options_parse(argc, argv, &options, &err) < 0) {
        (void)fprintf(stderr, "pool-controller: %s\n", err.text);
        return (int)err.kind;
    }
    if (options.help) {
        options_help();
        return 0;
    }
    if (options.version) {
        (void)puts("pool-controller " VMPOOL_VERSION);
        return 0;
    }
    log_init("pool-controller", options.log_level);
    raise_descriptor_limit();
    struct loop *loop = loop_new(&err);
    if (!loop || loop_add_signal(loop, SIGTERM, on_signal, &ended, &err) < 0 ||
        loop_add_signal(loop, SIGINT, on_signal, &ended, &err) < 0 ||
        run(loop, &options.config, &ended, &err) < 0)
        log_error("%s", err.text);
    loop_free(loop);
    return (int)err.kind;
}
