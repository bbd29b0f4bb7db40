/* The conversation with the controller, and how it fails. */
#include "poolctl/session.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "fake_controller.h"

static bool refuse_all(struct fake *fake, const Vmpool__AdminRequest *request,
                       Vmpool__AdminReply *reply)
{
    static Vmpool__Failure failure = VMPOOL__FAILURE__INIT;
    (void)fake;
    failure.kind = request->body_case == VMPOOL__ADMIN_REQUEST__BODY_VM_CREATE ? ERROR_NO_CAPACITY
                                                                               : ERROR_CONFLICT;
    failure.text = (char *)(uintptr_t) "no host fits: 2 lack memory (closest: n1, 1.5G short)";
    reply->failure = &failure;
    return true;
}

Test(session, the_controllers_failure_is_the_exit_status)
{
    struct fake *fake = fake_start(refuse_all);
    struct run run = run_poolctl("vm create web --image debian --memory 64G");
    cr_expect_eq(run.status, ERROR_NO_CAPACITY);
    cr_expect_str_eq(run.err, "poolctl: no host fits: 2 lack memory (closest: n1, 1.5G short)\n");
    run_free(&run);
    run = run_poolctl("vm start web");
    cr_expect_eq(run.status, ERROR_CONFLICT);
    run_free(&run);
    fake_stop(fake);
}

Test(session, a_controller_that_is_away_is_named_in_bounded_time)
{
    struct fake *fake = fake_start(NULL);
    int64_t begin_ms = clock_monotonic_ms();
    fake_go_away(fake);
    struct run run = run_poolctl("vm ls --connect-timeout 300ms");
    cr_expect_eq(run.status, ERROR_UNREACHABLE);
    cr_expect_lt(clock_monotonic_ms() - begin_ms, 3000);
    cr_expect_not_null(strstr(run.err, "the controller at 127.0.0.1:"), "%s", run.err);
    cr_expect_not_null(strstr(run.err, getenv("VMPOOL_CONTEXT")), "%s", run.err);
    cr_expect_str_empty(run.out);
    run_free(&run);
    fake_come_back(fake);
    fake_stop(fake);
}

/* A controller that does not know the key answers nothing and learns nothing. */
Test(session, an_unknown_key_is_refused)
{
    struct fake *fake = fake_start(NULL);
    struct fake *other = fake_start(NULL); /* whose context is the one in use now */
    char line[256];
    FILE *in = fopen(getenv("VMPOOL_CONTEXT"), "r");
    char *text = NULL;
    size_t size = 0;
    cr_assert_gt(getdelim(&text, &size, '\0', in), 0);
    (void)fclose(in);
    /* The right server, somebody else's key pair. */
    char path[] = "/tmp/vmpool-context-XXXXXX";
    int fd = mkstemp(path);
    FILE *out = fdopen(fd, "w");
    char *pair = strstr(text, "public ");
    (void)fwrite(text, 1, (size_t)(pair - text), out);
    (void)fprintf(out, "public %064d\nsecret %064d\n", 1, 2);
    (void)fclose(out);
    (void)snprintf(line, sizeof line, "vm ls --context %s --connect-timeout 3s", path);
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, ERROR_UNREACHABLE, "%s", run.err);
    cr_expect_eq(fake_count(other, VMPOOL__ADMIN_REQUEST__BODY__NOT_SET), 0);
    run_free(&run);
    (void)unlink(path);
    free(text);
    fake_stop(fake);
    fake_stop(other);
}

static bool go_silent_once(struct fake *fake, const Vmpool__AdminRequest *request,
                           Vmpool__AdminReply *reply)
{
    (void)fake;
    (void)request;
    reply->request_id = NULL;
    reply->done = false;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY__NOT_SET;
    return true;
}

/* Runs the session by hand: the answer does not come, the connection goes and comes back, and the
 * very same request is sent again. */
Test(session, a_request_is_sent_again_as_it_was)
{
    struct fake *fake = fake_start(NULL);
    struct invocation call = {.path = {&command_root}, .depth = 1, .command = &command_root};
    struct error err = ERROR_INIT;
    Vmpool__AdminReply *reply = NULL;
    Vmpool__VmChange body = VMPOOL__VM_CHANGE__INIT;
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    body.name = (char *)(uintptr_t) "web";
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE;
    request.vm_change = &body;
    struct session *session = session_open(&call, &err);
    cr_assert(session, "%s", err.text);
    fake_go_away(fake);
    while (session_connected(session))
        cr_assert_eq(loop_run_once(session_loop(session), 1000, &err), 0);
    struct session_request *made = session_begin(session, &request, &err);
    cr_assert(made);
    fake_come_back(fake);
    int got = 0;
    while (got == 0)
        got = session_next(session, made, 5000, &reply, &err);
    cr_expect_eq(got, 1, "%s", err.text);
    cr_expect_str_eq(reply->request_id, session_request_id(made));
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE), 1);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    session_end(session, made);
    session_close(session);
    fake_stop(fake);
}

Test(session, a_request_that_got_no_answer_keeps_its_id)
{
    struct fake *fake = fake_start(go_silent_once);
    struct invocation call = {.path = {&command_root}, .depth = 1, .command = &command_root};
    struct error err = ERROR_INIT;
    Vmpool__AdminReply *reply = NULL;
    Vmpool__StatusGet body = VMPOOL__STATUS_GET__INIT;
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_STATUS;
    request.status = &body;
    struct session *session = session_open(&call, &err);
    cr_assert(session, "%s", err.text);
    session_set_patience(session, 20000);
    struct session_request *made = session_begin(session, &request, &err);
    cr_assert(made);
    /* Wait for the empty answer, lose the connection, get it again. */
    cr_assert_eq(session_next(session, made, 5000, &reply, &err), 1, "%s", err.text);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    fake_go_away(fake);
    while (session_connected(session))
        cr_assert_eq(loop_run_once(session_loop(session), 1000, &err), 0);
    fake_come_back(fake);
    int got = 0;
    while (got == 0)
        got = session_next(session, made, 5000, &reply, &err);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_STATUS), 2);
    cr_expect_str_eq(fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_STATUS)->request_id,
                     session_request_id(made));
    session_end(session, made);
    session_close(session);
    fake_stop(fake);
}

Test(session, a_controller_that_dies_in_between_leaves_a_doubt)
{
    struct fake *fake = fake_start(go_silent_once);
    struct invocation call = {.path = {&command_root}, .depth = 1, .command = &command_root};
    struct error err = ERROR_INIT;
    Vmpool__AdminReply *reply = NULL;
    Vmpool__VmChange body = VMPOOL__VM_CHANGE__INIT;
    Vmpool__AdminRequest request = VMPOOL__ADMIN_REQUEST__INIT;
    request.body_case = VMPOOL__ADMIN_REQUEST__BODY_VM_CHANGE;
    request.vm_change = &body;
    struct session *session = session_open(&call, &err);
    cr_assert(session, "%s", err.text);
    struct session_request *made = session_begin(session, &request, &err);
    cr_assert_eq(session_next(session, made, 5000, &reply, &err), 1, "%s", err.text);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    fake_go_away(fake);
    while (session_connected(session))
        cr_assert_eq(loop_run_once(session_loop(session), 1000, &err), 0);
    session_set_patience(session, 200);
    int got = 0;
    while (got == 0)
        got = session_next(session, made, 5000, &reply, &err);
    cr_expect_eq(err.kind, ERROR_UNREACHABLE);
    cr_expect_not_null(strstr(err.text, "whether it did what was asked"), "%s", err.text);
    session_end(session, made);
    session_close(session);
    fake_come_back(fake);
    fake_stop(fake);
}

/* ---- contexts ------------------------------------------------------------------------------- */

static void expect_status(const char *line, int status, const char *said)
{
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, status, "%s: %d %s", line, run.status, run.err);
    if (said)
        cr_expect(strstr(run.err, said) || strstr(run.out, said), "%s: %s%s", line, run.out,
                  run.err);
    run_free(&run);
}

Test(session, contexts_are_kept_used_and_removed)
{
    struct fake *fake = fake_start(NULL);
    char home[] = "/tmp/vmpool-home-XXXXXX";
    char file[64];
    char line[256];
    cr_assert_not_null(mkdtemp(home));
    (void)setenv("XDG_CONFIG_HOME", home, 1);
    (void)snprintf(file, sizeof file, "%s", getenv("VMPOOL_CONTEXT"));
    (void)unsetenv("VMPOOL_CONTEXT");
    expect_status("context ls", 0, "no contexts");
    (void)snprintf(line, sizeof line, "context add lab %s", file);
    expect_status(line, 0, "lab is the current context now.");
    expect_status("vm ls -o name", 0, "web");
    expect_status(line, ERROR_CONFLICT, "there is a context 'lab' already");
    expect_status("context ls -o name", 0, "lab");
    expect_status("vm ls --context nosuch", ERROR_USAGE, "no context 'nosuch'");
    expect_status("context use nosuch", ERROR_NOT_FOUND, NULL);
    expect_status("context add ../x /dev/null", ERROR_USAGE, "/dev/null is not a context file");
    (void)chmod(file, 0644);
    expect_status("context add other /tmp/none", ERROR_USAGE, "cannot read the context");
    (void)snprintf(line, sizeof line, "context add other %s", file);
    expect_status(line, ERROR_FAILED, "chmod 600");
    expect_status("context rm lab", 0, NULL);
    expect_status("context ls -o json", 0, "\"contexts\": []");
    char folder[128];
    (void)snprintf(folder, sizeof folder, "%s/vmpool/contexts", home);
    (void)rmdir(folder);
    (void)snprintf(folder, sizeof folder, "%s/vmpool", home);
    (void)rmdir(folder);
    (void)rmdir(home);
    fake_stop(fake);
}
