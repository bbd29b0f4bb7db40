/*
 * fuzz_state.c: a machine state that came from elsewhere into a machine that was made for it: one
 * vCPU, a disk, a source of random numbers, a balloon. What is taken must be a machine that can be
 * saved again and let run, whatever its guest then does.
 *
 *     input: 0, the whole message          or
 *            1, patches of a right one:    offset (2 bytes, little endian), length, bytes
 *
 * Patches stay within the message's fields where changed bytes seldom would, and what they patch is
 * a state of this kernel and processor.
 */
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "node-agent/vmm/kvm.h"
#include "node-agent/vmm/state.h"
#include "tests/fuzz/fuzz.h"

#define RAM_BYTES  (8ull << 20)
#define DISK_BYTES (1ll << 20)
#define RUN_NS     1000000 /* of a guest whose state was taken */
#define SKIPPED    77      /* as ctest knows it */

static int kvm_fd = -1, disk_fd = -1;
static struct loop *loop;
static uint8_t *right; /* of a machine that has not run */
static size_t right_size;

static void on_ended(void *context, enum guest_end end, const char *text)
{
    (void)context;
    (void)end;
    (void)text;
}

static void on_output(void *context, const uint8_t *data, size_t size)
{
    (void)context;
    (void)data;
    (void)size;
}

static void on_room(void *context)
{
    (void)context;
}

static struct machine *make(void)
{
    struct error err = ERROR_INIT;
    const struct machine_config config = {.kvm_fd = kvm_fd,
                                          .cpus = 1,
                                          .memory_bytes = RAM_BYTES,
                                          .boot = {.kernel_fd = -1, .initrd_fd = -1},
                                          .disks = {{disk_fd, false}},
                                          .disk_count = 1,
                                          .tap_fd = -1,
                                          .rng = true,
                                          .balloon = true};
    const struct machine_events events = {on_ended, on_output, on_room, NULL};
    struct machine *machine = machine_new(&config, &events, loop, &err);
    if (!machine)
        fuzz_fail(err.text);
    return machine;
}

static void save_right_one(void)
{
    struct error err = ERROR_INIT;
    struct machine *machine = make();
    if (state_save(machine, &right, &right_size, &err) < 0)
        fuzz_fail(err.text);
    machine_free(machine);
    machine = make();
    if (state_load(machine, right, right_size, 0, &err) < 0)
        fuzz_fail(err.text); /* or all that comes would be refused for the same */
    machine_free(machine);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct error err = ERROR_INIT;
    log_init("fuzz", LOG_LEVEL_ERROR);
    kvm_fd = kvm_open(&err);
    if (kvm_fd < 0) {
        (void)fprintf(stderr, "skipped: %s\n", err.text);
        exit(SKIPPED);
    }
    disk_fd = memfd_create("disk", MFD_CLOEXEC);
    loop = loop_new(&err);
    if (disk_fd < 0 || ftruncate(disk_fd, DISK_BYTES) < 0 || !loop)
        fuzz_fail("no disk or no loop");
    save_right_one();
    return 0;
}

/* It was taken, so it can be given again; and it runs, if only into its end. */
static void use(struct machine *machine)
{
    struct error err = ERROR_INIT;
    const struct timespec while_it_runs = {.tv_nsec = RUN_NS};
    uint8_t *data;
    size_t size;
    if (state_save(machine, &data, &size, &err) < 0)
        fuzz_fail(err.text);
    free(data);
    if (machine_resume(machine, true, &err) < 0)
        return;
    (void)nanosleep(&while_it_runs, NULL);
    if (machine_pause(machine, &err) < 0)
        fuzz_fail(err.text);
}

/* A copy of the right one with the patches in it. */
static uint8_t *patched(const uint8_t *data, size_t size)
{
    uint8_t *state = malloc(right_size);
    if (!state)
        abort();
    memcpy(state, right, right_size);
    while (size > 3) {
        size_t offset = ((size_t)data[0] | (size_t)data[1] << 8) % right_size;
        size_t length = data[2] < size - 3 ? data[2] : size - 3;
        if (length > right_size - offset)
            length = right_size - offset;
        memcpy(state + offset, data + 3, length);
        data += 3 + length;
        size -= 3 + length;
    }
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    if (size == 0)
        return 0;
    uint8_t *copy = data[0] & 1 ? patched(data + 1, size - 1) : NULL;
    struct machine *machine = make();
    int status = copy ? state_load(machine, copy, right_size, 0, &err)
                      : state_load(machine, data + 1, size - 1, 0, &err);
    if (status == 0)
        use(machine);
    else if (err.kind == ERROR_NONE || !err.text[0])
        fuzz_fail("it refuses and says nothing");
    machine_free(machine);
    free(copy);
    return 0;
}
