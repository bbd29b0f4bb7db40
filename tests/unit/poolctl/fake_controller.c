#include "fake_controller.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/link.h"
#include "fake_pool.h"
#include "poolctl/poolctl.h"

#define REQUESTS_MAX  256
#define ARGUMENTS_MAX 64

struct fake {
    pthread_t thread;
    pthread_mutex_t lock; /* over the requests */
    int stop_fd;
    char address[256];
    char context_path[64];
    struct link_keys server_keys;
    struct link_keys admin_keys;
    struct link_server *server;
    struct loop *loop;
    struct link_peer peer; /* of the request being answered */
    const char *request_id;
    fake_answer_fn answer;
    Vmpool__AdminRequest *requests[REQUESTS_MAX];
    size_t request_count;
    size_t piece_bytes;
};

/* ---- the server's thread -------------------------------------------------------------------- */

static bool on_authorise(void *context, const uint8_t key[32], const char *address, char *user)
{
    struct fake *fake = context;
    (void)address;
    (void)snprintf(user, LINK_USER_MAX, "admin:test");
    return memcmp(key, fake->admin_keys.public_key, 32) == 0;
}

void fake_send(struct fake *fake, const Vmpool__AdminReply *reply)
{
    struct error err = ERROR_INIT;
    Vmpool__AdminReply copy = *reply;
    copy.request_id = (char *)(uintptr_t)fake->request_id;
    size_t size = vmpool__admin_reply__get_packed_size(&copy);
    uint8_t *packed = malloc(size ? size : 1);
    (void)vmpool__admin_reply__pack(&copy, packed);
    (void)link_server_send(fake->server, &fake->peer, packed, size, &err);
    free(packed);
}

static void remember(struct fake *fake, Vmpool__AdminRequest *request)
{
    (void)pthread_mutex_lock(&fake->lock);
    if (request->body_case == VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE)
        fake->piece_bytes += request->image_piece->data.len;
    if (fake->request_count < REQUESTS_MAX)
        fake->requests[fake->request_count++] = request;
    (void)pthread_mutex_unlock(&fake->lock);
}

static void on_message(void *context, const struct link_peer *peer, const uint8_t *data,
                       size_t size)
{
    struct fake *fake = context;
    Vmpool__AdminReply reply = VMPOOL__ADMIN_REPLY__INIT;
    Vmpool__AdminRequest *request = vmpool__admin_request__unpack(NULL, size, data);
    if (!request)
        return;
    remember(fake, request);
    fake->peer = *peer;
    fake->request_id = request->request_id;
    reply.done = true;
    if (!fake->answer || !fake->answer(fake, request, &reply))
        fake_pool_answer(request, &reply);
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_CONSOLE_INPUT)
        fake_send(fake, &reply);
}

static void on_refused(void *context, const char *address, const char *reason)
{
    (void)context;
    (void)address;
    (void)reason;
}

static void on_stop(void *context, int fd, uint32_t events)
{
    struct fake *fake = context;
    (void)fd;
    (void)events;
    loop_stop(fake->loop);
}

static void *serve(void *context)
{
    struct fake *fake = context;
    struct error err = ERROR_INIT;
    (void)loop_run(fake->loop, &err);
    return NULL;
}

/* ---- starting and stopping ------------------------------------------------------------------ */

void fake_come_back(struct fake *fake)
{
    static const struct link_server_events events = {
        .authorise = on_authorise, .message = on_message, .refused = on_refused};
    struct error err = ERROR_INIT;
    sigset_t all;
    sigset_t before;
    fake->loop = loop_new(&err);
    fake->server =
        link_server_open(fake->loop, fake->address, &fake->server_keys, &events, fake, &err);
    cr_assert(fake->server, "%s", err.text);
    (void)snprintf(fake->address, sizeof fake->address, "%s", link_server_address(fake->server));
    fake->stop_fd = eventfd(0, EFD_CLOEXEC);
    cr_assert(loop_add_fd(fake->loop, fake->stop_fd, EPOLLIN, on_stop, fake, &err));
    (void)sigfillset(&all); /* signals are poolctl's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    cr_assert_eq(pthread_create(&fake->thread, NULL, serve, fake), 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void fake_go_away(struct fake *fake)
{
    uint64_t one = 1;
    cr_assert_eq(write(fake->stop_fd, &one, sizeof one), sizeof one);
    (void)pthread_join(fake->thread, NULL);
    link_server_close(fake->server);
    loop_free(fake->loop);
    (void)close(fake->stop_fd);
}

static void write_context(struct fake *fake)
{
    char hex[LINK_HEX_SIZE];
    (void)snprintf(fake->context_path, sizeof fake->context_path, "/tmp/vmpool-context-XXXXXX");
    int fd = mkstemp(fake->context_path);
    cr_assert_geq(fd, 0);
    FILE *file = fdopen(fd, "w");
    (void)fprintf(file, "address %s\n", fake->address);
    link_key_format(fake->server_keys.public_key, hex);
    (void)fprintf(file, "server %s\n", hex);
    link_key_format(fake->admin_keys.public_key, hex);
    (void)fprintf(file, "public %s\n", hex);
    link_key_format(fake->admin_keys.secret_key, hex);
    (void)fprintf(file, "secret %s\n", hex);
    cr_assert_eq(fclose(file), 0);
    (void)setenv("VMPOOL_CONTEXT", fake->context_path, 1);
}

struct fake *fake_start(fake_answer_fn answer)
{
    struct error err = ERROR_INIT;
    struct fake *fake = calloc(1, sizeof *fake);
    cr_assert(fake);
    (void)setenv("TZ", "UTC", 1);
    fake_pool_make();
    fake->answer = answer;
    (void)pthread_mutex_init(&fake->lock, NULL);
    (void)snprintf(fake->address, sizeof fake->address, "127.0.0.1:0");
    cr_assert_eq(link_keys_generate(&fake->server_keys, &err), 0);
    cr_assert_eq(link_keys_generate(&fake->admin_keys, &err), 0);
    fake_come_back(fake);
    write_context(fake);
    return fake;
}

void fake_stop(struct fake *fake)
{
    fake_go_away(fake);
    for (size_t i = 0; i < fake->request_count; i++)
        vmpool__admin_request__free_unpacked(fake->requests[i], NULL);
    (void)unlink(fake->context_path);
    (void)pthread_mutex_destroy(&fake->lock);
    free(fake);
}

/* ---- what came ------------------------------------------------------------------------------ */

size_t fake_count(struct fake *fake, Vmpool__AdminRequest__BodyCase kind)
{
    size_t count = 0;
    (void)pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->request_count; i++)
        count +=
            kind == VMPOOL__ADMIN_REQUEST__BODY__NOT_SET || fake->requests[i]->body_case == kind;
    (void)pthread_mutex_unlock(&fake->lock);
    return count;
}

const Vmpool__AdminRequest *fake_last(struct fake *fake, Vmpool__AdminRequest__BodyCase kind)
{
    const Vmpool__AdminRequest *found = NULL;
    (void)pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->request_count; i++)
        if (fake->requests[i]->body_case == kind)
            found = fake->requests[i];
    (void)pthread_mutex_unlock(&fake->lock);
    return found;
}

size_t fake_piece_bytes(struct fake *fake)
{
    (void)pthread_mutex_lock(&fake->lock);
    size_t bytes = fake->piece_bytes;
    (void)pthread_mutex_unlock(&fake->lock);
    return bytes;
}

/* ---- running poolctl ------------------------------------------------------------------------ */

/* Splits @line in place; a word in single quotes may hold spaces. */
static int split(char *line, char **argv)
{
    int argc = 0;
    while (*line && argc < ARGUMENTS_MAX) {
        char end = *line == '\'' ? '\'' : ' ';
        line += end == '\'';
        argv[argc++] = line;
        line += strcspn(line, (char[]){end, '\0'});
        if (*line)
            *line++ = '\0';
        line += strspn(line, " ");
    }
    return argc;
}

struct run run_poolctl_with_input(const char *line, int in_fd)
{
    struct run run = {0};
    char words[1024];
    char *argv[ARGUMENTS_MAX];
    size_t out_size = 0;
    size_t err_size = 0;
    (void)snprintf(words, sizeof words, "poolctl %s", line);
    int argc = split(words, argv);
    struct terminal terminal = {.out = open_memstream(&run.out, &out_size),
                                .err = open_memstream(&run.err, &err_size),
                                .in_fd = in_fd,
                                .utf8 = true,
                                .now_ms = FAKE_NOW_MS};
    run.status = poolctl_run(argc, argv, &terminal);
    cr_assert_eq(fclose(terminal.out), 0);
    cr_assert_eq(fclose(terminal.err), 0);
    return run;
}

struct run run_poolctl(const char *line)
{
    return run_poolctl_with_input(line, -1);
}

void run_free(struct run *run)
{
    free(run->out);
    free(run->err);
}

void expect_golden(const char *name, const char *text)
{
    char path[512];
    char *want = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/%s", GOLDEN_FOLDER, name);
    FILE *file = fopen(path, getenv("VMPOOL_GOLDEN_UPDATE") ? "w" : "r");
    cr_assert(file, "%s: %s", path, strerror(errno));
    if (getenv("VMPOOL_GOLDEN_UPDATE")) {
        (void)fputs(text, file);
    } else {
        ssize_t length = getdelim(&want, &size, '\0', file);
        cr_expect_str_eq(text, length < 0 ? "" : want, "golden %s:\n%s", name, text);
    }
    free(want);
    (void)fclose(file);
}
