/* VMs from start to end, with a controller over the real link and VMM processes that misbehave on
 * demand (test_vmm.c). */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/unix_socket.h"
#include "node-agent/agent/vm.h"
#include "tests/unit/agent/harness.h"

#define ACTION(name) VMPOOL__NODE_VM_COMMAND__ACTION__##name
#define STATE(name)  VMPOOL__VM_STATE__VM_##name

static const char id[] = "01234567-89ab-4def-8123-456789abcdef";
static struct harness harness;

static void setup(void)
{
    struct error err = ERROR_INIT;
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        cr_skip_test("no usable /dev/kvm");
    if (!harness_enter_network())
        cr_skip_test("network namespaces are not permitted here");
    harness_open(&harness);
    cr_assert_eq(harness_start_agent(&harness, harness.token, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, 0, VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT), 0);
}

static bool no_process(struct harness *at)
{
    for (const struct vm *vm = at->agent.vms; vm; vm = vm->next)
        if (vm_has_process(vm))
            return false;
    return true;
}

/* No test leaves a process behind, however it ended. */
static void teardown(void)
{
    if (!harness.loop)
        return;
    if (harness.agent_runs)
        for (struct vm *vm = harness.agent.vms; vm; vm = vm->next)
            if (vm_has_process(vm))
                kill(vm->record.pid, SIGKILL);
    if (harness.agent_runs)
        cr_assert(harness_until(&harness, 5000, no_process));
    harness_close(&harness);
}

TestSuite(vms, .init = setup, .fini = teardown, .timeout = 60);

static bool folder_exists(const char *below, const char *name)
{
    char path[256];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s/%s/%s", harness.root, below, name);
    return stat(path, &info) == 0;
}

static const Vmpool__NodeVm *start_ok(uint64_t request_id, const char *name, uint64_t epoch)
{
    harness_send_start(&harness, request_id, harness_spec(&harness, id, name), epoch);
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, request_id);
    cr_assert_null(answer->failure, "%s", answer->failure ? answer->failure->text : "");
    cr_assert(answer->vm);
    cr_assert_eq(answer->vm->state, STATE(RUNNING));
    return answer->vm;
}

/* A start that must be refused, leaving nothing; its reason. */
static const char *start_refused(uint64_t request_id, Vmpool__VmSpec *spec, uint64_t epoch)
{
    harness_send_start(&harness, request_id, spec, epoch);
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, request_id);
    cr_assert(answer->failure);
    return answer->failure->text;
}

static void restart_agent(void)
{
    struct error err = ERROR_INIT;
    size_t before = harness.inbox_count;
    harness_stop_agent(&harness);
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0, "%s", err.text);
    cr_assert_geq(harness_wait(&harness, before, VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO), 0);
}

static void type(uint64_t session, const char *text)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeConsole body = VMPOOL__NODE_CONSOLE__INIT;
    char vm_id[40], input[64];
    (void)snprintf(vm_id, sizeof vm_id, "%s", id);
    (void)snprintf(input, sizeof input, "%s", text);
    body.vm_id = vm_id;
    body.session = session;
    body.open = true;
    body.input.data = (uint8_t *)input;
    body.input.len = strlen(input);
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_CONSOLE;
    message.console = &body;
    harness_send(&harness, &message);
}

/* Waits until the session's output, from message @from on, contains @text. */
static bool console_says(size_t from, uint64_t session, const char *text)
{
    char seen[16384] = "";
    size_t used = 0;
    for (int at = (int)from - 1;;) {
        at = harness_wait(&harness, (size_t)(at + 1), VMPOOL__NODE_TO_CONTROLLER__BODY_CONSOLE);
        if (at < 0)
            return false;
        const Vmpool__NodeConsoleData *data = harness.inbox[at]->console;
        if (data->session != session)
            continue;
        used += (size_t)snprintf(seen + used, sizeof seen - used, "%.*s", (int)data->output.len,
                                 (const char *)data->output.data);
        cr_assert_lt(used, sizeof seen);
        if (strstr(seen, text) || (data->closed && strstr(data->text, text)))
            return true;
    }
}

Test(vms, a_start_fetches_the_image_and_runs_the_vmm)
{
    const Vmpool__NodeVm *vm = start_ok(100, "web", 3);
    cr_assert_eq(vm->epoch, 3);
    cr_assert_gt(harness.pieces_asked, 0);
    vm = harness_wait_state(&harness, 0, id, STATE(RUNNING));
    cr_assert(vm);
    cr_assert(vm->usage && vm->usage->memory_mib == 7);
    size_t from = harness.inbox_count;
    type(1, "x");
    cr_assert(console_says(from, 1, "--kernel\nfd:"));
    cr_assert(console_says(from, 1, "--cmdline\nconsole=ttyS0\n"));
}

Test(vms, a_repeated_start_gets_the_same_answer_and_starts_nothing)
{
    (void)start_ok(100, "web", 1);
    pid_t pid = harness.agent.vms->record.pid;
    size_t from = harness.inbox_count;
    harness_send_start(&harness, 100, harness_spec(&harness, id, "web"), 1);
    cr_assert_geq(harness_wait(&harness, from, VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER), 0);
    cr_assert_eq(harness.agent.vms->record.pid, pid);
    restart_agent();
    from = harness.inbox_count;
    harness_send_start(&harness, 100, harness_spec(&harness, id, "web"), 1);
    int at = harness_wait(&harness, from, VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER);
    cr_assert_geq(at, 0, "also by the next agent");
    cr_assert_null(harness.inbox[at]->answer->failure);
    cr_assert_eq(harness.agent.vms->record.pid, pid);
}

Test(vms, another_start_of_a_running_vm_is_refused)
{
    (void)start_ok(100, "web", 1);
    cr_assert(strstr(start_refused(101, harness_spec(&harness, id, "web"), 2), "already"));
    cr_assert(vm_has_process(harness.agent.vms));
}

Test(vms, an_epoch_lower_than_seen_is_refused_even_after_the_vm_left)
{
    (void)start_ok(100, "web", 5);
    harness_send_action(&harness, 101, id, 4, ACTION(KILL));
    cr_assert(strstr(harness_answer(&harness, 101)->failure->text, "stale"));
    harness_send_action(&harness, 102, id, 6, ACTION(DISCARD));
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, 102);
    cr_assert_null(answer->failure);
    cr_assert(answer->discarded);
    cr_assert_not(folder_exists("run/vms", id));
    cr_assert(strstr(start_refused(103, harness_spec(&harness, id, "web"), 5), "stale"));
    cr_assert(strstr(start_refused(104, harness_spec(&harness, id, "web"), 6), "thrown away"));
    restart_agent();
    cr_assert(strstr(start_refused(105, harness_spec(&harness, id, "web"), 6), "thrown away"));
    (void)start_ok(106, "web", 7);
}

Test(vms, a_discard_of_an_older_epoch_leaves_the_owner_alone)
{
    (void)start_ok(100, "web", 5);
    harness_send_action(&harness, 101, id, 4, ACTION(DISCARD));
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, 101);
    cr_assert(answer->failure);
    cr_assert_not(answer->discarded);
    cr_assert(vm_has_process(harness.agent.vms));
}

Test(vms, what_is_not_here_can_be_discarded_and_killed)
{
    harness_send_action(&harness, 100, id, 4, ACTION(DISCARD));
    cr_assert(harness_answer(&harness, 100)->discarded);
    harness_send_action(&harness, 101, id, 4, ACTION(KILL));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    harness_send_action(&harness, 102, "../../etc", 4, ACTION(REMOVE));
    cr_assert(harness_answer(&harness, 102)->failure);
}

Test(vms, an_agent_that_starts_again_adopts_what_runs)
{
    (void)start_ok(100, "web", 2);
    pid_t pid = harness.agent.vms->record.pid;
    size_t before = harness.inbox_count;
    restart_agent();
    cr_assert_eq(kill(pid, 0), 0, "the VMM lives on");
    int hello = harness_wait(&harness, before, VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO);
    cr_assert_eq(harness.inbox[hello]->hello->n_vms, 1);
    const Vmpool__NodeVm *vm = harness.inbox[hello]->hello->vms[0];
    cr_assert_eq(vm->state, STATE(RUNNING), "known before the first word to the controller");
    cr_assert_eq(vm->epoch, 2);
    cr_assert_eq(harness.agent.vms->record.pid, pid);
    harness_send_action(&harness, 101, id, 2, ACTION(KILL));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    cr_assert_neq(kill(pid, 0), 0);
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, a_vmm_that_died_while_no_agent_ran_is_reported)
{
    (void)start_ok(100, "web", 2);
    pid_t pid = harness.agent.vms->record.pid;
    harness_stop_agent(&harness);
    siginfo_t info;
    kill(pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    struct error err = ERROR_INIT;
    size_t before = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0);
    const Vmpool__NodeVm *vm = harness_wait_state(&harness, before, id, STATE(FAILED));
    cr_assert(vm);
    cr_assert(strstr(vm->text, "while no agent ran"));
    (void)start_ok(101, "web", 3);
}

Test(vms, a_death_is_noticed_at_once)
{
    (void)start_ok(100, "web", 2);
    size_t from = harness.inbox_count;
    harness.agent.report_interval_ms = 60000; /* no report would tell it in time */
    kill(harness.agent.vms->record.pid, SIGKILL);
    int at = harness_wait(&harness, from, VMPOOL__NODE_TO_CONTROLLER__BODY_VM_EVENT);
    cr_assert_geq(at, 0);
    cr_assert_str_eq(harness.inbox[at]->vm_event->what, "lost");
    cr_assert_eq(harness.inbox[at]->vm_event->vm->state, STATE(FAILED));
    cr_assert(strstr(harness.inbox[at]->vm_event->vm->text, "signal 9"));
}

Test(vms, a_guest_that_powers_off_is_stopped_not_failed)
{
    (void)start_ok(100, "web", 2);
    size_t from = harness.inbox_count;
    type(1, "off");
    cr_assert(harness_wait_state(&harness, from, id, STATE(STOPPED)));
    cr_assert(harness_until(&harness, 5000, no_process));
    from = harness.inbox_count;
    restart_agent();
    cr_assert(harness_wait_state(&harness, from, id, STATE(STOPPED)), "the next agent knows too");
    (void)start_ok(101, "web", 3);
}

Test(vms, a_panic_is_told_as_such)
{
    (void)start_ok(100, "web", 2);
    size_t from = harness.inbox_count;
    type(1, "panic");
    const Vmpool__NodeVm *vm = harness_wait_state(&harness, from, id, STATE(PANICKED));
    cr_assert(vm);
    cr_assert_str_eq(vm->text, "guest panicked");
}

Test(vms, a_vmm_cannot_speak_for_another_vm)
{
    (void)start_ok(100, "web", 2);
    size_t from = harness.inbox_count;
    type(1, "steal");
    int at = harness_wait(&harness, from + 1, VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT);
    at = harness_wait(&harness, (size_t)at + 1, VMPOOL__NODE_TO_CONTROLLER__BODY_REPORT);
    cr_assert_geq(at, 0);
    cr_assert_eq(harness.inbox[at]->report->n_vms, 1);
    cr_assert_eq(harness.inbox[at]->report->vms[0]->state, STATE(RUNNING));
}

Test(vms, a_vmm_that_dies_at_once_leaves_its_reason_and_nothing_else)
{
    const char *text = start_refused(100, harness_spec(&harness, id, "dies"), 1);
    cr_assert(strstr(text, "the kernel is no kernel"), "%s", text);
    cr_assert_not(folder_exists("run/vms", id));
    cr_assert_not(folder_exists("storage", id));
    cr_assert_null(harness.agent.vms);
    (void)start_ok(101, "web", 2);
}

Test(vms, a_vmm_that_refuses_to_run_is_ended)
{
    cr_assert(strstr(start_refused(100, harness_spec(&harness, id, "refuses"), 1), "does not run"));
    cr_assert_null(harness.agent.vms);
}

Test(vms, a_vmm_that_answers_garbage_is_ended)
{
    (void)start_refused(100, harness_spec(&harness, id, "garbage"), 1);
    cr_assert_null(harness.agent.vms);
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, a_vmm_that_does_not_quit_is_killed)
{
    (void)start_ok(100, "stubborn", 1);
    harness_send_action(&harness, 101, id, 1, ACTION(KILL));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    cr_assert_null(harness.agent.vms);
}

Test(vms, a_start_that_is_not_over_can_be_killed)
{
    harness_send_start(&harness, 100, harness_spec(&harness, id, "mute"), 1);
    size_t from = harness.inbox_count;
    cr_assert(harness_wait_state(&harness, from, id, STATE(PREPARING)));
    harness_send_action(&harness, 101, id, 1, ACTION(REMOVE));
    cr_assert(strstr(harness_answer(&harness, 100)->failure->text, "cancelled"));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    cr_assert_null(harness.agent.vms);
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, local_disks_are_made_kept_by_a_kill_and_removed_with_the_vm)
{
    Vmpool__DiskSpec disk = VMPOOL__DISK_SPEC__INIT, *disks[] = {&disk};
    Vmpool__VmSpec *spec = harness_spec(&harness, id, "web");
    struct stat info;
    char path[256];
    disk.size_mib = 3;
    spec->disks = disks;
    spec->n_disks = 1;
    harness_send_start(&harness, 100, spec, 1);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    (void)snprintf(path, sizeof path, "%s/storage/%s/disk-0.raw", harness.root, id);
    cr_assert_eq(stat(path, &info), 0);
    cr_assert_eq(info.st_size, 3 << 20);
    harness_send_action(&harness, 101, id, 1, ACTION(KILL));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    cr_assert_eq(stat(path, &info), 0);
    harness_send_start(&harness, 102, spec, 2);
    cr_assert_null(harness_answer(&harness, 102)->failure);
    harness_send_action(&harness, 103, id, 2, ACTION(REMOVE));
    cr_assert_null(harness_answer(&harness, 103)->failure);
    cr_assert_not(folder_exists("storage", id));
}

Test(vms, a_disk_larger_than_the_host_is_refused_and_leaves_nothing)
{
    Vmpool__DiskSpec small = VMPOOL__DISK_SPEC__INIT, huge = VMPOOL__DISK_SPEC__INIT;
    Vmpool__DiskSpec *disks[] = {&small, &huge};
    Vmpool__VmSpec *spec = harness_spec(&harness, id, "web");
    small.size_mib = 1;
    huge.size_mib = 60u << 20;
    spec->disks = disks;
    spec->n_disks = 2;
    const char *text = start_refused(100, spec, 1);
    cr_assert(strstr(text, "no space"), "%s", text);
    cr_assert_not(folder_exists("storage", id));
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, the_image_disk_is_copied_for_each_vm)
{
    Vmpool__VmSpec *spec = harness_spec(&harness, id, "web");
    char path[256];
    auto_free char *copy = NULL;
    size_t size;
    struct error err = ERROR_INIT;
    spec->image->disk_sha256 = harness.image_sha256;
    spec->image->disk_bytes = harness.image_bytes;
    harness_send_start(&harness, 100, spec, 1);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    (void)snprintf(path, sizeof path, "%s/storage/%s/image.raw", harness.root, id);
    cr_assert_eq(files_read(AT_FDCWD, path, 1 << 20, &copy, &size, &err), 0, "%s", err.text);
    cr_assert_eq(size, harness.image_bytes);
    cr_assert_arr_eq(copy, harness.image, size);
}

Test(vms, a_half_started_vm_is_cleaned_up_by_the_next_agent)
{
    char path[256];
    struct error err = ERROR_INIT;
    struct vm_record record = {.request_id = 100, .epoch = 1};
    struct vm *vm = vm_new(&harness.agent, harness_spec(&harness, id, "web"), &record, &err);
    cr_assert(vm, "%s", err.text);
    (void)snprintf(path, sizeof path, "%s/storage/%s", harness.root, id);
    cr_assert_eq(mkdir(path, 0700), 0);
    strcat(path, "/disk-0.raw.part");
    cr_assert_geq(creat(path, 0600), 0);
    restart_agent();
    cr_assert_null(harness.agent.vms);
    cr_assert_not(folder_exists("run/vms", id));
    cr_assert_not(folder_exists("storage", id));
    (void)start_ok(100, "web", 1);
}

Test(vms, several_console_sessions_see_the_same)
{
    (void)start_ok(100, "web", 1);
    size_t from = harness.inbox_count;
    type(1, "first");
    cr_assert(console_says(from, 1, "first"));
    type(2, "second");
    cr_assert(console_says(from, 1, "second"));
    cr_assert(console_says(from, 2, "second"));
    harness_send_action(&harness, 101, id, 1, ACTION(LOG));
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, 101);
    cr_assert(strstr(answer->console_tail, "second"), "%s", answer->console_tail);
    harness_send_action(&harness, 102, id, 1, ACTION(KILL));
    cr_assert_null(harness_answer(&harness, 102)->failure);
    cr_assert(console_says(from, 1, "the VM ended"));
}

Test(vms, a_console_of_a_vm_that_is_not_here_closes_with_a_reason)
{
    harness_make_image(&harness, 10);
    size_t from = harness.inbox_count;
    type(9, "x");
    cr_assert(console_says(from, 9, "does not run on this node"));
}

Test(vms, specs_that_reach_too_far_are_refused)
{
    Vmpool__VmSpec *spec = harness_spec(&harness, "../../../../etc/passwd", "web");
    cr_assert(strstr(start_refused(100, spec, 1), "UUID"));
    spec = harness_spec(&harness, id, "--evil");
    cr_assert(strstr(start_refused(101, spec, 1), "name"));
    spec = harness_spec(&harness, id, "web");
    static char escape[] = "console=\033]0;x";
    spec->image->cmdline = escape;
    cr_assert(strstr(start_refused(102, spec, 1), "command line"));
    spec = harness_spec(&harness, id, "web");
    cr_assert(strstr(start_refused(103, spec, 0), "epoch"));
    static char hash[] = "../../../../../../../../../../../../etc/shadow-0123456789abcdef01";
    spec->image->kernel_sha256 = hash;
    cr_assert(strstr(start_refused(104, spec, 1), "SHA-256"));
    cr_assert_null(harness.agent.vms);
}

Test(vms, a_host_restart_ends_what_a_record_says)
{
    (void)start_ok(100, "web", 1);
    pid_t pid = harness.agent.vms->record.pid;
    struct error err = ERROR_INIT;
    (void)snprintf(harness.agent.vms->record.boot_id, 40, "another-boot");
    cr_assert_eq(record_save(harness.agent.vms->dir_fd, &harness.agent.vms->record, &err), 0);
    size_t from = harness.inbox_count;
    restart_agent();
    const Vmpool__NodeVm *vm = harness_wait_state(&harness, from, id, STATE(FAILED));
    cr_assert(vm && strstr(vm->text, "restarted"));
    kill(pid, SIGKILL);
}

/* Types at the VM's console past the agent, which does not run. */
static void type_past_the_agent(const char *text)
{
    char path[128];
    struct error err = ERROR_INIT;
    (void)snprintf(path, sizeof path, "%s/run/vms/%s", harness.root, id);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    int fd = unix_socket_connect(dir, "console.sock", SOCK_STREAM, &err);
    cr_assert_geq(fd, 0, "%s", err.text);
    cr_assert_eq(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
    close(fd);
    close(dir);
}

Test(vms, a_guest_that_powers_off_while_no_agent_runs_is_stopped)
{
    (void)start_ok(100, "web", 2);
    pid_t pid = harness.agent.vms->record.pid;
    struct error err = ERROR_INIT;
    siginfo_t info;
    harness_stop_agent(&harness);
    type_past_the_agent("off");
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    size_t from = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0, "%s", err.text);
    cr_assert(harness_wait_state(&harness, from, id, STATE(STOPPED)));
}

static void send_prepare(uint64_t request_id, Vmpool__VmSpec *spec, uint64_t next_epoch,
                         size_t key_bytes)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeMigratePrepare prepare = VMPOOL__NODE_MIGRATE_PREPARE__INIT;
    static char migration[] = "m-1";
    static uint8_t key[64];
    prepare.migration_id = migration;
    prepare.spec = spec;
    prepare.next_epoch = next_epoch;
    prepare.key.data = key;
    prepare.key.len = key_bytes;
    message.request_id = request_id;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_PREPARE;
    message.migrate_prepare = &prepare;
    harness_send(&harness, &message);
}

static int bind_port(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 1), 0);
    return fd;
}

Test(vms, a_prepared_target_waits_on_the_first_free_port)
{
    int taken = bind_port(7420);
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, 100);
    cr_assert_null(answer->failure, "%s", answer->failure ? answer->failure->text : "");
    cr_assert_str_eq(answer->address, "127.0.0.1");
    cr_assert_eq(answer->port, 7421);
    cr_assert_eq(answer->vm->state, STATE(INCOMING));
    cr_assert_eq(answer->vm->epoch, 4);
    close(taken);
    size_t from = harness.inbox_count;
    restart_agent();
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    int at = harness_wait(&harness, from, VMPOOL__NODE_TO_CONTROLLER__BODY_ANSWER);
    cr_assert_eq(harness.inbox[at]->answer->port, 7421, "a repeat to the next agent too");
    cr_assert_str_eq(harness.inbox[at]->answer->address, "127.0.0.1");
    harness_send_action(&harness, 101, id, 3, ACTION(DISCARD));
    cr_assert(harness_answer(&harness, 101)->discarded, "a copy that does not run");
    cr_assert_null(harness.agent.vms);
}

Test(vms, a_target_that_dies_before_it_ran_is_no_copy_any_more)
{
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    size_t from = harness.inbox_count;
    kill(harness.agent.vms->record.pid, SIGKILL);
    cr_assert(harness_wait_state(&harness, from, id, STATE(FAILED)));
    cr_assert_null(harness.agent.vms);
    cr_assert_not(folder_exists("run/vms", id));
}

static const Vmpool__NodeHello *kill_while_no_agent_runs(void)
{
    pid_t pid = harness.agent.vms->record.pid;
    struct error err = ERROR_INIT;
    siginfo_t info;
    harness_stop_agent(&harness);
    kill(pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    size_t from = harness.inbox_count;
    cr_assert_eq(harness_start_agent(&harness, NULL, &err), 0, "%s", err.text);
    int hello = harness_wait(&harness, from, VMPOOL__NODE_TO_CONTROLLER__BODY_HELLO);
    cr_assert_geq(hello, 0);
    return harness.inbox[hello]->hello;
}

Test(vms, a_target_that_dies_unseen_before_it_ran_is_no_copy)
{
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    cr_assert_eq(kill_while_no_agent_runs()->n_vms, 0);
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, a_target_that_ran_and_dies_unseen_has_completed_its_migration)
{
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    harness_send_action(&harness, 101, id, 4, ACTION(RUN));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    const Vmpool__NodeHello *hello = kill_while_no_agent_runs();
    cr_assert_eq(hello->n_vms, 1);
    cr_assert_eq(hello->vms[0]->state, STATE(FAILED));
    cr_assert(hello->vms[0]->migration);
    cr_assert_str_eq(hello->vms[0]->migration->migration_id, "m-1");
    cr_assert_eq(hello->vms[0]->migration->phase, VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED);
}

/* Else the source could be let run on from before that. */
Test(vms, a_target_that_ran_before_it_died_is_not_said_to_have_been_no_copy)
{
    send_prepare(100, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert_null(harness_answer(&harness, 100)->failure);
    harness_send_action(&harness, 101, id, 4, ACTION(RUN));
    cr_assert_null(harness_answer(&harness, 101)->failure);
    (void)kill_while_no_agent_runs();
    harness_send_action(&harness, 102, id, 3, ACTION(DISCARD));
    cr_assert(harness_answer(&harness, 102)->failure);
    cr_assert_not(harness_answer(&harness, 102)->discarded);
    harness_send_action(&harness, 103, id, 4, ACTION(DISCARD));
    cr_assert(harness_answer(&harness, 103)->discarded);
}

Test(vms, what_cannot_be_received_is_refused)
{
    Vmpool__DiskSpec disk = VMPOOL__DISK_SPEC__INIT, *disks[] = {&disk};
    Vmpool__VmSpec *spec = harness_spec(&harness, id, "web");
    send_prepare(100, spec, 4, 31);
    cr_assert(strstr(harness_answer(&harness, 100)->failure->text, "key"));
    disk.size_mib = 1;
    spec->disks = disks;
    spec->n_disks = 1;
    send_prepare(101, spec, 4, 32);
    cr_assert(strstr(harness_answer(&harness, 101)->failure->text, "cannot migrate"));
    harness.options.port_first = harness.options.port_last = 7420;
    int taken = bind_port(7420);
    send_prepare(102, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert(strstr(harness_answer(&harness, 102)->failure->text, "--migration-ports"));
    close(taken);
    cr_assert_null(harness.agent.vms);
    cr_assert_not(folder_exists("run/vms", id));
}

Test(vms, a_node_that_runs_the_vm_does_not_receive_it)
{
    (void)start_ok(100, "web", 3);
    send_prepare(101, harness_spec(&harness, id, "web"), 4, 32);
    cr_assert(strstr(harness_answer(&harness, 101)->failure->text, "already"));
    cr_assert(vm_has_process(harness.agent.vms));
}

Test(vms, a_panicked_copy_makes_way_for_a_new_start)
{
    (void)start_ok(100, "web", 2);
    pid_t pid = harness.agent.vms->record.pid;
    size_t from = harness.inbox_count;
    type(1, "panic");
    cr_assert(harness_wait_state(&harness, from, id, STATE(PANICKED)));
    (void)start_ok(101, "web", 3);
    cr_assert_neq(harness.agent.vms->record.pid, pid);
}

Test(vms, a_migration_out_needs_all_it_needs)
{
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeMigrateOut out = VMPOOL__NODE_MIGRATE_OUT__INIT;
    static char migration[] = "m-1", vm_id[40], address[] = "127.0.0.1";
    uint8_t key[32] = {0};
    (void)start_ok(100, "web", 3);
    (void)snprintf(vm_id, sizeof vm_id, "%s", id);
    out.migration_id = migration;
    out.vm_id = vm_id;
    out.epoch = 3;
    out.next_epoch = 4;
    out.address = address;
    out.port = 7420;
    out.key.data = key;
    out.key.len = 31;
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_OUT;
    message.migrate_out = &out;
    message.request_id = 101;
    harness_send(&harness, &message);
    cr_assert(harness_answer(&harness, 101)->failure);
    out.key.len = 32;
    out.epoch = 2;
    message.request_id = 102;
    harness_send(&harness, &message);
    cr_assert(strstr(harness_answer(&harness, 102)->failure->text, "stale"));
    out.epoch = 3;
    message.request_id = 103;
    harness_send(&harness, &message);
    const Vmpool__NodeAnswer *answer = harness_answer(&harness, 103);
    cr_assert_null(answer->failure);
    cr_assert_eq(answer->vm->state, STATE(MIGRATING));
}
