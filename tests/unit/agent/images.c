/* The image cache with a controller that is slow, wrong or hostile. */
#include "node-agent/agent/image_cache.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/hash.h"

#define MIB (1u << 20)

struct result {
    unsigned calls;
    bool failed;
    char text[ERROR_TEXT_MAX];
    uint64_t bytes;
};

static char root[] = "/tmp/vmpool-images-XXXXXX";
static struct loop *loop;
static struct image_cache *cache;
static uint8_t *content;
static size_t content_bytes;
static char sha256[65];
static unsigned asked, in_flight, most_in_flight;
static struct {
    uint64_t offset;
    uint32_t length;
} queue[64];
static size_t queued;
static bool connected = true;

static int on_need(void *context, const char *hash, uint64_t offset, uint32_t length)
{
    (void)context;
    cr_assert_str_eq(hash, sha256);
    if (!connected)
        return -1;
    cr_assert_lt(queued, 64);
    queue[queued].offset = offset;
    queue[queued++].length = length;
    asked++;
    if (++in_flight > most_in_flight)
        most_in_flight = in_flight;
    return 0;
}

static void on_done(void *context, int fd, const struct error *err)
{
    struct result *result = context;
    struct stat info;
    result->calls++;
    result->failed = fd < 0;
    if (fd < 0) {
        (void)snprintf(result->text, sizeof result->text, "%s", err->text);
        return;
    }
    cr_assert_eq(fstat(fd, &info), 0);
    result->bytes = (uint64_t)info.st_size;
    uint8_t *data = malloc(content_bytes);
    cr_assert_eq(pread(fd, data, content_bytes, 0), (ssize_t)content_bytes);
    cr_assert_eq(memcmp(data, content, content_bytes), 0);
    free(data);
    close(fd);
}

static void make_content(size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    content = malloc(bytes);
    content_bytes = bytes;
    for (size_t i = 0; i < bytes; i++)
        content[i] = (uint8_t)(i * 2654435761u >> 13);
    /* The cache's own hash would agree with itself; sha256sum(1) is another opinion. */
    char path[64], command[128], line[80];
    (void)snprintf(path, sizeof path, "%s/content", root);
    FILE *file = fopen(path, "w");
    cr_assert_eq(fwrite(content, 1, bytes, file), bytes);
    (void)fclose(file);
    (void)snprintf(command, sizeof command, "sha256sum %s", path);
    FILE *pipe = popen(command, "r"); // NOLINT(cert-env33-c)
    cr_assert(pipe && fgets(line, sizeof line, pipe));
    (void)pclose(pipe);
    memcpy(sha256, line, 64);
    cr_assert_eq(strspn(sha256, digits), 64);
}

static void open_cache(uint64_t limit)
{
    struct error err = ERROR_INIT;
    cache = image_cache_open(loop, root, limit, on_need, NULL, &err);
    cr_assert(cache, "%s", err.text);
}

static void setup(void)
{
    struct error err = ERROR_INIT;
    cr_assert(mkdtemp(root));
    loop = loop_new(&err);
    make_content(6 * MIB + 12345);
    open_cache(100 * MIB);
}

static void teardown(void)
{
    struct error err = ERROR_INIT;
    image_cache_close(cache);
    loop_free(loop);
    free(content);
    cr_assert_eq(files_remove_tree(AT_FDCWD, root, &err), 0, "%s", err.text);
}

TestSuite(images, .init = setup, .fini = teardown, .timeout = 30);

static void run_loop(int rounds)
{
    struct error err = ERROR_INIT;
    for (int i = 0; i < rounds; i++)
        cr_assert_eq(loop_run_once(loop, 20, &err), 0);
}

/* Answers the oldest request, or the newest where @newest. */
static void answer(bool newest, size_t cut, uint64_t total_more, uint8_t flip)
{
    Vmpool__NodeImagePiece piece = VMPOOL__NODE_IMAGE_PIECE__INIT;
    size_t at = newest ? queued - 1 : 0;
    piece.sha256 = sha256;
    piece.offset = queue[at].offset;
    piece.total_bytes = content_bytes + total_more;
    piece.data.len = queue[at].length - cut;
    uint8_t *copy = malloc(piece.data.len);
    memcpy(copy, content + piece.offset, piece.data.len);
    copy[0] ^= flip;
    piece.data.data = copy;
    memmove(queue + at, queue + at + 1, (--queued - at) * sizeof queue[0]);
    in_flight--;
    image_cache_piece(cache, &piece);
    free(copy);
}

static void answer_all(struct result *result)
{
    for (int i = 0; i < 500 && !result->calls; i++) {
        run_loop(1);
        while (queued && !result->calls)
            answer(false, 0, 0, 0);
    }
    cr_assert_eq(result->calls, 1);
}

static struct image_want *get(struct result *result)
{
    struct error err = ERROR_INIT;
    struct image_want *want = image_cache_get(cache, sha256, content_bytes, on_done, result, &err);
    cr_assert(want, "%s", err.text);
    return want;
}

static bool have(const char *suffix)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/images/%s%s", root, sha256, suffix);
    return access(path, F_OK) == 0;
}

Test(images, a_file_comes_in_pieces_several_at_a_time)
{
    struct result result = {0};
    (void)get(&result);
    answer_all(&result);
    cr_assert_not(result.failed, "%s", result.text);
    cr_assert_eq(result.bytes, content_bytes);
    cr_assert_eq(asked, 7);
    cr_assert_eq(most_in_flight, IMAGE_WINDOW);
    cr_assert(have(""));
    cr_assert_not(have(".part"));
}

Test(images, pieces_in_any_order_make_the_file)
{
    struct result result = {0};
    (void)get(&result);
    for (int i = 0; i < 500 && !result.calls; i++) {
        run_loop(1);
        while (queued && !result.calls)
            answer(true, 0, 0, 0);
    }
    cr_assert_eq(result.calls, 1);
    cr_assert_not(result.failed, "%s", result.text);
}

Test(images, those_who_want_the_same_file_share_its_fetch)
{
    struct result first = {0}, second = {0};
    (void)get(&first);
    (void)get(&second);
    answer_all(&first);
    cr_assert_eq(second.calls, 1);
    cr_assert_eq(asked, 7);
    struct result third = {0};
    (void)get(&third);
    answer_all(&third);
    cr_assert_eq(asked, 7, "it is there now");
}

Test(images, one_who_is_called_may_take_back_another_want)
{
    struct result first = {0}, second = {0};
    struct image_want *a = get(&first);
    struct image_want *b = get(&second);
    image_cache_cancel(a);
    answer_all(&second);
    (void)b;
    cr_assert_eq(first.calls, 0);
    cr_assert_not(second.failed);
}

Test(images, content_that_does_not_match_its_hash_is_thrown_away)
{
    struct result result = {0};
    (void)get(&result);
    run_loop(10);
    answer(false, 0, 0, 1);
    answer_all(&result);
    cr_assert(result.failed);
    cr_assert(strstr(result.text, "does not match"), "%s", result.text);
    cr_assert_not(have(""));
    cr_assert_not(have(".part"));
}

Test(images, a_piece_of_the_wrong_size_ends_the_fetch)
{
    struct result result = {0};
    (void)get(&result);
    run_loop(10);
    answer(false, 1, 0, 0);
    cr_assert(result.failed);
    cr_assert(strstr(result.text, "bytes"), "%s", result.text);
}

Test(images, another_total_than_announced_ends_the_fetch)
{
    struct result result = {0};
    (void)get(&result);
    run_loop(10);
    answer(false, 0, 1, 0);
    cr_assert(result.failed);
}

Test(images, pieces_nobody_asked_for_change_nothing)
{
    struct result result = {0};
    Vmpool__NodeImagePiece piece = VMPOOL__NODE_IMAGE_PIECE__INIT;
    static char other[] = "../../../../etc/passwd";
    uint8_t byte = 0;
    (void)get(&result);
    run_loop(10);
    piece.sha256 = sha256;
    piece.total_bytes = content_bytes;
    piece.data.data = &byte;
    piece.data.len = 1;
    piece.offset = UINT64_MAX - 5;
    image_cache_piece(cache, &piece);
    piece.offset = 17;
    image_cache_piece(cache, &piece);
    piece.offset = 100ull * MIB;
    image_cache_piece(cache, &piece);
    piece.sha256 = other;
    image_cache_piece(cache, &piece);
    cr_assert_eq(result.calls, 0);
    answer_all(&result);
    cr_assert_not(result.failed);
}

Test(images, a_fetch_goes_on_where_the_last_agent_stopped)
{
    struct result before = {0}, after = {0};
    (void)get(&before);
    run_loop(10);
    for (int i = 0; i < 3; i++)
        answer(false, 0, 0, 0);
    image_cache_close(cache);
    cr_assert(have(".part"));
    queued = asked = in_flight = 0;
    open_cache(100 * MIB);
    (void)get(&after);
    answer_all(&after);
    cr_assert_not(after.failed, "%s", after.text);
    cr_assert_eq(asked, 4, "three of the seven pieces were there");
}

Test(images, a_damaged_beginning_is_found_and_fetched_anew)
{
    struct result before = {0}, after = {0};
    char path[160];
    (void)get(&before);
    run_loop(10);
    for (int i = 0; i < 3; i++)
        answer(false, 0, 0, 0);
    image_cache_close(cache);
    (void)snprintf(path, sizeof path, "%s/images/%s.part", root, sha256);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "damage", 6, 100), 6);
    close(fd);
    queued = asked = in_flight = 0;
    open_cache(100 * MIB);
    (void)get(&after);
    answer_all(&after);
    cr_assert_not(after.failed, "%s", after.text);
    cr_assert_eq(asked, 4 + 7);
}

Test(images, a_file_changed_on_disk_is_never_used)
{
    struct result before = {0}, after = {0};
    char path[160];
    (void)get(&before);
    answer_all(&before);
    (void)snprintf(path, sizeof path, "%s/images/%s", root, sha256);
    cr_assert_eq(chmod(path, 0600), 0);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "damage", 6, 3 * MIB), 6);
    close(fd);
    (void)get(&after);
    answer_all(&after);
    cr_assert_not(after.failed, "%s", after.text);
    cr_assert_eq(asked, 14);
}

Test(images, a_file_larger_than_the_cache_is_refused)
{
    struct result result = {0};
    image_cache_close(cache);
    open_cache(2 * MIB);
    (void)get(&result);
    run_loop(5);
    cr_assert(result.failed);
    cr_assert(strstr(result.text, "--image-cache"), "%s", result.text);
    cr_assert_eq(asked, 0);
}

Test(images, the_file_used_longest_ago_makes_room)
{
    struct result result = {0};
    struct error err = ERROR_INIT;
    char path[160];
    static const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    (void)get(&result);
    answer_all(&result);
    (void)snprintf(path, sizeof path, "%s/images", root);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    char unused[65];
    memset(unused, 'a', 64);
    unused[64] = '\0';
    cr_assert_eq(files_write(dir, unused, content, 5 * MIB, 0600, &err), 0);
    cr_assert_eq(utimensat(dir, unused, old, 0), 0);
    image_cache_close(cache);
    open_cache(12 * MIB);
    /* Another file of 2 MiB: 6 + 5 + 2 do not fit 12. */
    free(content);
    make_content(2 * MIB);
    struct result second = {0};
    queued = asked = in_flight = 0;
    (void)get(&second);
    answer_all(&second);
    cr_assert_not(second.failed, "%s", second.text);
    cr_assert_neq(faccessat(dir, unused, F_OK, 0), 0);
    close(dir);
}

Test(images, what_could_not_be_asked_for_is_asked_for_once_connected)
{
    struct result result = {0};
    connected = false;
    (void)get(&result);
    run_loop(10);
    cr_assert_eq(asked, 0);
    connected = true;
    image_cache_connected(cache);
    cr_assert_eq(asked, IMAGE_WINDOW);
    answer_all(&result);
    cr_assert_not(result.failed);
}

Test(images, pruning_keeps_what_is_listed)
{
    struct result result = {0};
    char *keep[] = {sha256};
    (void)get(&result);
    answer_all(&result);
    image_cache_prune(cache, keep, 1);
    cr_assert(have(""));
    image_cache_prune(cache, NULL, 0);
    cr_assert_not(have(""));
}
