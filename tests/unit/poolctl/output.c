/* Each kind of output against golden files, through a real link to a fake controller. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#include "fake_controller.h"

static void check(const char *line, const char *golden, int status)
{
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, status, "%s: status %d, %s", line, run.status, run.err);
    expect_golden(golden, run.out);
    run_free(&run);
}

Test(output, tables)
{
    struct fake *fake = fake_start(NULL);
    check("status", "status.txt", 0);
    check("node ls", "node-ls.txt", 0);
    check("node ls --wide", "node-ls-wide.txt", 0);
    check("node show n1", "node-show.txt", 0);
    check("node top", "node-top.txt", 0);
    check("vm ls", "vm-ls.txt", 0);
    check("vm ls --wide", "vm-ls-wide.txt", 0);
    check("vm ls --color always", "vm-ls-colour.txt", 0);
    check("vm show web", "vm-show.txt", 0);
    check("vm explain web", "vm-explain.txt", 0);
    check("vm log web", "vm-log.txt", 0);
    check("image ls", "image-ls.txt", 0);
    check("job ls", "job-ls.txt", 0);
    check("job show 42", "job-show.txt", 0);
    check("events", "events.txt", 0);
    check("rebalance", "rebalance.txt", 0);
    check("rebalance on -o json", "rebalance.json", 0);
    struct run run = run_poolctl("rebalance maybe");
    cr_expect_eq(run.status, ERROR_USAGE);
    run_free(&run);
    fake_stop(fake);
}

Test(output, programs)
{
    static const char *const formats[] = {"json", "yaml", "csv", "name"};
    static const char *const commands[][2] = {{"status", "status"},
                                              {"node ls", "node-ls"},
                                              {"vm ls", "vm-ls"},
                                              {"vm show web", "vm-show"},
                                              {"image ls", "image-ls"},
                                              {"job show 42", "job-show"},
                                              {"events --last 2", "events"},
                                              {"vm explain web", "vm-explain"},
                                              {"node token", "node-token"}};
    struct fake *fake = fake_start(NULL);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        for (size_t j = 0; j < sizeof formats / sizeof formats[0]; j++) {
            char line[64];
            char golden[64];
            (void)snprintf(line, sizeof line, "%s -o %s", commands[i][0], formats[j]);
            (void)snprintf(golden, sizeof golden, "%s.%s", commands[i][1], formats[j]);
            check(line, golden, 0);
        }
    fake_stop(fake);
}

/* JSON is parsed back: it is one document with a version, and numbers are numbers. */
Test(output, json_is_json)
{
    struct fake *fake = fake_start(NULL);
    struct run run = run_poolctl("vm ls -o json");
    json_error_t bad;
    json_t *json = json_loads(run.out, 0, &bad);
    cr_assert(json, "%s", bad.text);
    cr_expect_eq(json_integer_value(json_object_get(json, "schema_version")), 1);
    json_t *vm = json_array_get(json_object_get(json, "vms"), 0);
    json_t *spec = json_object_get(vm, "spec");
    cr_expect_eq(json_integer_value(json_object_get(spec, "memory_mib")), 512);
    cr_expect_str_eq(json_string_value(json_object_get(vm, "phase")), "running");
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(spec, "labels"), "app")),
                     "web");
    json_decref(json);
    run_free(&run);
    fake_stop(fake);
}

static bool hostile_name(struct fake *fake, const Vmpool__AdminRequest *request,
                         Vmpool__AdminReply *reply)
{
    static Vmpool__Vm vm = VMPOOL__VM__INIT;
    static Vmpool__Vm *vms[] = {&vm};
    static Vmpool__VmTable table = VMPOOL__VM_TABLE__INIT;
    (void)fake;
    (void)request;
    vm.name = (char *)(uintptr_t) "a\033[2Jb\xff";
    table.n_vms = 1;
    table.vms = vms;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_VMS;
    reply->vms = &table;
    return true;
}

Test(output, what_a_vm_is_called_cannot_steer_the_terminal)
{
    struct fake *fake = fake_start(hostile_name);
    struct run run = run_poolctl("vm ls");
    cr_expect_eq(run.status, 0);
    cr_expect_null(strchr(run.out, '\033'));
    cr_expect_not_null(strstr(run.out, "a?[2Jb"));
    run_free(&run);
    run = run_poolctl("vm ls -o json");
    json_t *json = json_loads(run.out, 0, NULL);
    cr_expect(json, "still valid JSON: %s", run.out);
    json_decref(json);
    run_free(&run);
    fake_stop(fake);
}

/* A long list comes in parts. */
static bool in_parts(struct fake *fake, const Vmpool__AdminRequest *request,
                     Vmpool__AdminReply *reply)
{
    static Vmpool__Vm vm = VMPOOL__VM__INIT;
    static Vmpool__Vm *vms[] = {&vm};
    static Vmpool__VmTable table = VMPOOL__VM_TABLE__INIT;
    (void)request;
    table.n_vms = 1;
    table.vms = vms;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_VMS;
    reply->vms = &table;
    reply->done = false;
    vm.name = (char *)(uintptr_t) "one";
    fake_send(fake, reply);
    vm.name = (char *)(uintptr_t) "two";
    fake_send(fake, reply);
    vm.name = (char *)(uintptr_t) "three";
    reply->done = true;
    return true;
}

Test(output, a_list_in_parts_is_one_list)
{
    struct fake *fake = fake_start(in_parts);
    struct run run = run_poolctl("vm ls -o name");
    cr_expect_str_eq(run.out, "one\ntwo\nthree\n");
    run_free(&run);
    fake_stop(fake);
}

Test(output, an_empty_list_is_said_on_stderr)
{
    struct fake *fake = fake_start(NULL);
    struct run run = run_poolctl("vm show nosuch");
    cr_expect_eq(run.status, ERROR_NOT_FOUND);
    cr_expect_str_eq(run.err, "poolctl: there is no VM 'nosuch': see poolctl vm ls\n");
    cr_expect_str_empty(run.out);
    run_free(&run);
    fake_stop(fake);
}
