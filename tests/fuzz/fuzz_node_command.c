/*
 * fuzz_node_command.c: what a controller that was taken over may send an agent. The agent is real,
 * on folders of its own, without /dev/kvm and without a controller: commands are checked, refused
 * or carried out as far as that goes, and every path they name must stay in those folders.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "node-agent/agent/commands.h"
#include "node-agent/agent/files.h"
#include "tests/fuzz/fuzz.h"

static struct {
    struct agent agent;
    struct agent_options options;
    struct loop *loop;
    char root[64], state[80], run[80], storage[80];
} fixture;

static void clean_up(void)
{
    struct error err = ERROR_INIT;
    agent_stop(&fixture.agent);
    loop_free(fixture.loop);
    (void)files_remove_tree(AT_FDCWD, fixture.root, &err);
}

static void write_context(void)
{
    static const char text[] = "address 127.0.0.1:1\nserver "
                               "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";
    struct error err = ERROR_INIT;
    int dir = files_make_dirs(fixture.state, 0700, &err) < 0
                  ? -1
                  : files_open_dir(AT_FDCWD, fixture.state, &err);
    if (dir < 0 || files_write(dir, "controller.context", text, sizeof text - 1, 0600, &err) < 0)
        abort();
    (void)close(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static char name[] = "pool-agent";
    char *words[] = {name, NULL};
    struct error err = ERROR_INIT;
    (void)argc, (void)argv;
    log_init("fuzz", LOG_LEVEL_ERROR);
    (void)snprintf(fixture.root, sizeof fixture.root, "/tmp/vmpool-fuzz-XXXXXX");
    if (!mkdtemp(fixture.root) || options_parse(1, words, &fixture.options, &err) != OPTIONS_RUN)
        abort();
    (void)snprintf(fixture.state, sizeof fixture.state, "%s/state", fixture.root);
    (void)snprintf(fixture.run, sizeof fixture.run, "%s/run", fixture.root);
    (void)snprintf(fixture.storage, sizeof fixture.storage, "%s/storage", fixture.root);
    fixture.options.name = "fuzzed";
    fixture.options.bridge = "lo"; /* no bridge: guests get no network, and nothing is made */
    fixture.options.cgroup = "vmpool-fuzz";
    fixture.options.state_dir = fixture.state;
    fixture.options.run_dir = fixture.run;
    fixture.options.storage = fixture.options.disk_dirs[0] = fixture.storage;
    write_context();
    fixture.loop = loop_new(&err);
    if (!fixture.loop || agent_start(&fixture.agent, &fixture.options, fixture.loop, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        abort();
    }
    fixture.agent.facts.kvm = false;
    (void)atexit(clean_up);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    Vmpool__ControllerToNode *command = vmpool__controller_to_node__unpack(NULL, size, data);
    if (!command)
        return 0;
    commands_handle(&fixture.agent, command);
    vmpool__controller_to_node__free_unpacked(command, NULL);
    if (loop_run_once(fixture.loop, 0, &err) < 0 || fixture.agent.vms)
        abort(); /* without KVM no VM can have come to be */
    return 0;
}
