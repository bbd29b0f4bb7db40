/* main.c: pool-vmm, one virtual machine a process. */
#include <stdio.h>

#include "common/log.h"
#include "node-agent/vmm/options.h"
#include "node-agent/vmm/probe.h"
#include "node-agent/vmm/vmm.h"

static int fail(const struct error *err)
{
    (void)fprintf(stderr, "pool-vmm: %s\n", err->text);
    /* A file that is missing or a socket in use is the VM's failure; only what was typed is usage.
     */
    return err->kind == ERROR_USAGE ? ERROR_USAGE : ERROR_FAILED;
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    static struct options options; /* large: it holds paths */
    enum options_action action = OPTIONS_RUN;
    if (options_parse(&options, &action, argc, argv, &err) < 0)
        return fail(&err);
    switch (action) {
    case OPTIONS_HELP:
        options_print_help();
        return 0;
    case OPTIONS_VERSION:
        (void)printf("pool-vmm %s\n", VMPOOL_VERSION);
        return 0;
    case OPTIONS_PROBE:
        return probe_run();
    default:
        break;
    }
    log_init("pool-vmm", options.log_level);
    return vmm_run(&options, &err) == 0 ? 0 : fail(&err);
}
