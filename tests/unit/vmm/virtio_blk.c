#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "node-agent/vmm/devices/devices.h"
#include "proto/devices.pb-c.h"
#include "tests/unit/vmm/virtio_driver.h"

#define SECTORS 2048u
#define HEADER  0x200000u
#define DATA    0x210000u
#define STATUS  0x2f0000u
#define CONFIG  0x2000u

struct disk {
    struct machine machine;
    struct driver driver;
    struct virtio_blk *blk;
    int fd; /* of our own */
};

static int temporary_file(off_t size)
{
    char path[] = "/tmp/vmpool-disk-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    (void)unlink(path);
    cr_assert_eq(ftruncate(fd, size), 0);
    return fd;
}

static void disk_open(struct disk *disk, int fd, bool read_only)
{
    struct error err = ERROR_INIT;
    machine_init(&disk->machine);
    disk->fd = fd;
    disk->blk = virtio_blk_new(disk->machine.pci, dup(fd), read_only, "root-disk", &err);
    cr_assert_not_null(disk->blk, "%s", err.text);
}

static struct disk *disk_new(bool read_only)
{
    struct disk *disk = calloc(1, sizeof *disk);
    disk_open(disk, temporary_file(SECTORS * 512), read_only);
    driver_start(&disk->driver, &disk->machine, 1,
                 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                     1ull << VIRTIO_BLK_F_FLUSH,
                 1, 64);
    return disk;
}

static void disk_free(struct disk *disk)
{
    machine_destroy(&disk->machine);
    (void)close(disk->fd);
    free(disk);
}

static void set_header(struct disk *disk, uint64_t at, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    memcpy(disk->machine.memory.base + at, &header, sizeof header);
}

/* One request with @bytes of data; returns the status. */
static uint8_t request(struct disk *disk, uint32_t type, uint64_t sector, uint32_t bytes,
                       bool device_writes)
{
    uint32_t head, length;
    set_header(disk, HEADER, type, sector);
    disk->machine.memory.base[STATUS] = 0xaa;
    const struct segment chain[] = {
        {HEADER, 16, false}, {DATA, bytes, device_writes}, {STATUS, 1, true}};
    uint16_t added = driver_add(&disk->driver, 0, chain, 3);
    driver_kick(&disk->driver, 0);
    cr_assert(driver_used(&disk->driver, 0, &head, &length));
    cr_assert_eq(head, added);
    return disk->machine.memory.base[STATUS];
}

Test(virtio_blk, what_is_written_is_in_the_file_and_reads_back)
{
    struct disk *disk = disk_new(false);
    uint8_t *data = disk->machine.memory.base + DATA;
    uint8_t expected[4096], in_file[4096];
    for (unsigned i = 0; i < sizeof expected; i++)
        expected[i] = (uint8_t)(i * 7 + i / 256);
    memcpy(data, expected, sizeof expected);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, 8, 4096, false), VIRTIO_BLK_S_OK);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    cr_assert_eq(pread(disk->fd, in_file, 4096, 8 * 512), 4096);
    cr_assert_arr_eq(in_file, expected, 4096);
    memset(data, 0, 4096);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 8, 4096, true), VIRTIO_BLK_S_OK);
    cr_assert_arr_eq(data, expected, 4096);
    struct device_counters counters;
    virtio_blk_counters(disk->blk, &counters);
    cr_assert_eq(counters.in_bytes, 4096);
    cr_assert_eq(counters.out_bytes, 4096);
    disk_free(disk);
}

Test(virtio_blk, segments_may_be_cut_anywhere)
{
    struct disk *disk = disk_new(false);
    uint8_t *ram = disk->machine.memory.base;
    uint32_t head, length;
    /* Header in three pieces, the last of them with data behind it. */
    set_header(disk, HEADER, VIRTIO_BLK_T_OUT, 3);
    for (unsigned i = 0; i < 512; i++)
        ram[HEADER + 16 + i] = (uint8_t)i;
    const struct segment write_chain[] = {{HEADER, 1, false},
                                          {HEADER + 1, 14, false},
                                          {HEADER + 15, 101, false},
                                          {HEADER + 116, 412, false},
                                          {STATUS, 1, true}};
    (void)driver_add(&disk->driver, 0, write_chain, 5);
    driver_kick(&disk->driver, 0);
    cr_assert(driver_used(&disk->driver, 0, &head, &length));
    cr_assert_eq(ram[STATUS], VIRTIO_BLK_S_OK);
    /* Data and status in one segment. */
    set_header(disk, HEADER, VIRTIO_BLK_T_IN, 3);
    const struct segment read_chain[] = {
        {HEADER, 16, false}, {DATA, 100, true}, {DATA + 100, 413, true}};
    (void)driver_add(&disk->driver, 0, read_chain, 3);
    driver_kick(&disk->driver, 0);
    cr_assert(driver_used(&disk->driver, 0, &head, &length));
    cr_assert_eq(length, 513);
    cr_assert_eq(ram[DATA + 512], VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 512; i++)
        cr_assert_eq(ram[DATA + i], (uint8_t)i);
    disk_free(disk);
}

Test(virtio_blk, many_requests_in_flight_all_come_back)
{
    struct disk *disk = disk_new(false);
    uint8_t *ram = disk->machine.memory.base;
    bool seen[16] = {false};
    uint32_t head, length;
    for (unsigned round = 0; round < 50; round++) {
        uint16_t heads[16];
        for (unsigned i = 0; i < 16; i++) {
            uint64_t data = DATA + 0x2000ull * i;
            set_header(disk, HEADER + 16 * i, VIRTIO_BLK_T_OUT, 16 * i);
            memset(ram + data, (int)(i + round), 8192);
            ram[STATUS + i] = 0xaa;
            const struct segment chain[] = {
                {HEADER + 16 * i, 16, false}, {data, 8192, false}, {STATUS + i, 1, true}};
            heads[i] = driver_add(&disk->driver, 0, chain, 3);
            seen[i] = false;
        }
        driver_kick(&disk->driver, 0);
        for (unsigned i = 0; i < 16; i++) {
            cr_assert(driver_used(&disk->driver, 0, &head, &length));
            for (unsigned j = 0; j < 16; j++)
                if (heads[j] == head)
                    seen[j] = true;
        }
        for (unsigned i = 0; i < 16; i++) {
            uint8_t byte;
            cr_assert(seen[i]);
            cr_assert_eq(ram[STATUS + i], VIRTIO_BLK_S_OK);
            cr_assert_eq(pread(disk->fd, &byte, 1, (16 * i + 15) * 512), 1);
            cr_assert_eq(byte, (uint8_t)(i + round));
        }
    }
    disk_free(disk);
}

Test(virtio_blk, requests_off_the_disk_or_of_odd_size_fail)
{
    struct disk *disk = disk_new(false);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, SECTORS, 512, true), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, SECTORS - 1, 1024, true), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, 512, false), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 0, 100, true), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 0, 0, true), VIRTIO_BLK_S_OK);
    cr_assert_eq(request(disk, 77, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, SECTORS - 1, 512, true), VIRTIO_BLK_S_OK);
    struct stat status;
    cr_assert_eq(fstat(disk->fd, &status), 0);
    cr_assert_eq(status.st_size, SECTORS * 512);
    disk_free(disk);
}

Test(virtio_blk, a_file_cut_short_is_an_io_error)
{
    struct disk *disk = disk_new(false);
    cr_assert_eq(ftruncate(disk->fd, 4096), 0);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 7, 1024, true), VIRTIO_BLK_S_IOERR);
    disk_free(disk);
}

Test(virtio_blk, a_read_only_disk_is_never_written)
{
    struct disk *disk = disk_new(true);
    cr_assert(driver_read(&disk->driver, 4, 4) & 1u << VIRTIO_BLK_F_RO);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_DISCARD, 0, 16, false), VIRTIO_BLK_S_IOERR);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    disk_free(disk);
}

Test(virtio_blk, discard_and_write_zeroes_clear_a_range)
{
    struct disk *disk = disk_new(false);
    uint8_t *ram = disk->machine.memory.base;
    uint8_t byte = 1;
    const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
    for (unsigned i = 0; i < 2; i++) {
        memset(ram + DATA, 0x55, 65536);
        cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, 0, 65536, false), VIRTIO_BLK_S_OK);
        struct virtio_blk_discard_write_zeroes range = {.sector = 8, .num_sectors = 8};
        memcpy(ram + DATA, &range, sizeof range);
        cr_assert_eq(request(disk, types[i], 0, sizeof range, false), VIRTIO_BLK_S_OK);
        cr_assert_eq(pread(disk->fd, &byte, 1, 8 * 512), 1);
        cr_assert_eq(byte, 0);
        cr_assert_eq(pread(disk->fd, &byte, 1, 8 * 512 - 1), 1);
        cr_assert_eq(byte, 0x55);
        range.sector = SECTORS - 7;
        memcpy(ram + DATA, &range, sizeof range);
        cr_assert_eq(request(disk, types[i], 0, sizeof range, false), VIRTIO_BLK_S_IOERR);
        range = (struct virtio_blk_discard_write_zeroes){.num_sectors = 1, .flags = 4};
        memcpy(ram + DATA, &range, sizeof range);
        cr_assert_eq(request(disk, types[i], 0, sizeof range, false), VIRTIO_BLK_S_UNSUPP);
    }
    disk_free(disk);
}

Test(virtio_blk, the_serial_is_told)
{
    struct disk *disk = disk_new(false);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
    cr_assert_str_eq((char *)disk->machine.memory.base + DATA, "root-disk");
    disk_free(disk);
}

Test(virtio_blk, a_request_without_header_needs_a_reset_which_mends_it)
{
    struct disk *disk = disk_new(false);
    uint32_t head, length;
    const struct segment chain[] = {{HEADER, 15, false}, {STATUS, 1, true}};
    (void)driver_add(&disk->driver, 0, chain, 2);
    driver_kick(&disk->driver, 0);
    cr_assert(driver_used(&disk->driver, 0, &head, &length));
    struct error err = ERROR_INIT;
    const struct device *device = machine_device(&disk->machine, 1);
    cr_assert_eq(device->ops->pause(device->self, &err), 0);
    device->ops->resume(device->self, false);
    cr_assert_eq(driver_status(&disk->driver), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
    driver_write(&disk->driver, 20, 15, 1);
    cr_assert_eq(driver_status(&disk->driver), 15 | VIRTIO_CONFIG_S_NEEDS_RESET);
    driver_write(&disk->driver, 20, 0, 1);
    cr_assert_eq(driver_status(&disk->driver), 0);
    driver_start(&disk->driver, &disk->machine, 1, 0, 1, 8);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    disk_free(disk);
}

Test(virtio_blk, sizes_of_zero_and_odd_bytes)
{
    struct disk *disk = calloc(1, sizeof *disk);
    disk_open(disk, temporary_file(0), false);
    driver_start(&disk->driver, &disk->machine, 1, 0, 1, 8);
    cr_assert_eq(driver_read(&disk->driver, CONFIG, 4), 0);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_IOERR);
    disk_free(disk);
    disk = calloc(1, sizeof *disk);
    disk_open(disk, temporary_file(1535), false);
    driver_start(&disk->driver, &disk->machine, 1, 0, 1, 8);
    cr_assert_eq(driver_read(&disk->driver, CONFIG, 4), 2);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_IN, 1, 1024, true), VIRTIO_BLK_S_IOERR);
    disk_free(disk);
}

Test(virtio_blk, a_pipe_is_no_disk)
{
    struct error err = ERROR_INIT;
    struct machine machine;
    int ends[2];
    machine_init(&machine);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_null(virtio_blk_new(machine.pci, ends[0], false, NULL, &err));
    cr_assert_eq(err.kind, ERROR_USAGE);
    cr_assert_eq(fcntl(ends[0], F_GETFD), -1, "taken over and closed");
    (void)close(ends[1]);
    machine_destroy(&machine);
}

Test(virtio_blk, a_paused_disk_rests_and_a_moved_one_goes_on)
{
    struct disk *disk = disk_new(false);
    struct machine target;
    struct error err = ERROR_INIT;
    machine_init(&target);
    cr_assert_not_null(virtio_blk_new(target.pci, dup(disk->fd), false, "root-disk", &err));
    memset(disk->machine.memory.base + DATA, 0x42, 512);
    cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, 5, 512, false), VIRTIO_BLK_S_OK);
    const struct device *device = machine_device(&disk->machine, 1);
    cr_assert_eq(device->ops->pause(device->self, &err), 0);

    /* A request the driver made while the disk was paused: served on the target, not here. */
    set_header(disk, HEADER, VIRTIO_BLK_T_IN, 5);
    const struct segment chain[] = {{HEADER, 16, false}, {DATA, 512, true}, {STATUS, 1, true}};
    uint16_t added = driver_add(&disk->driver, 0, chain, 3);
    disk->machine.memory.base[STATUS] = 0xaa;
    driver_kick(&disk->driver, 0);
    memset(disk->machine.memory.base + DATA, 0, 512);
    machine_migrate(&disk->machine, &target);
    cr_assert_eq(disk->machine.memory.base[STATUS], 0xaa);
    cr_assert_eq(target.memory.base[STATUS], 0xaa);
    const struct device *there = machine_device(&target, 1);
    there->ops->resume(there->self, true);
    struct driver driver = disk->driver;
    driver.machine = &target;
    uint32_t head, length;
    cr_assert(driver_used(&driver, 0, &head, &length));
    cr_assert_eq(head, added);
    cr_assert_eq(target.memory.base[STATUS], VIRTIO_BLK_S_OK);
    cr_assert_eq(target.memory.base[DATA + 511], 0x42);
    machine_destroy(&target);
    disk_free(disk);
}

Test(virtio_blk, settling_while_it_writes_disturbs_nothing)
{
    struct disk *disk = disk_new(false);
    struct error err = ERROR_INIT;
    const struct device *device = machine_device(&disk->machine, 1);
    for (unsigned round = 0; round < 200; round++) {
        device->ops->settle(device->self);
        cr_assert_eq(request(disk, VIRTIO_BLK_T_OUT, round, 512, false), VIRTIO_BLK_S_OK);
        device->ops->settle(device->self);
        if (round % 20 == 19) {
            cr_assert_eq(device->ops->pause(device->self, &err), 0);
            device->ops->settle(device->self);
            device->ops->resume(device->self, false);
        }
    }
    disk_free(disk);
}

/* The page at DATA is never supplied until told, so a read into it hangs as on dead storage. */
static int hang_data_page(struct disk *disk)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {
        .range = {.start = (uintptr_t)disk->machine.memory.base + DATA, .len = 4096},
        .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &area) < 0)
        cr_skip_test("no userfaultfd");
    return fd;
}

Test(virtio_blk, a_pause_does_not_wait_for_dead_storage)
{
    struct disk *disk = disk_new(false);
    struct error err = ERROR_INIT;
    uint32_t head, length;
    int uffd = hang_data_page(disk);
    set_header(disk, HEADER, VIRTIO_BLK_T_IN, 0);
    const struct segment chain[] = {{HEADER, 16, false}, {DATA, 512, true}, {STATUS, 1, true}};
    (void)driver_add(&disk->driver, 0, chain, 3);
    driver_kick(&disk->driver, 0);
    struct pollfd fault = {.fd = uffd, .events = POLLIN};
    cr_assert_eq(poll(&fault, 1, 5000), 1, "the read has begun");
    const struct device *device = machine_device(&disk->machine, 1);
    int64_t start_ms = clock_monotonic_ms();
    cr_assert_eq(device->ops->pause(device->self, &err), -1);
    cr_assert_eq(err.kind, ERROR_TIMEOUT);
    cr_assert_lt(clock_monotonic_ms() - start_ms, 8000);
    device->ops->resume(device->self, false);

    struct uffdio_zeropage page = {
        .range = {.start = (uintptr_t)disk->machine.memory.base + DATA, .len = 4096}};
    cr_assert_eq(ioctl(uffd, UFFDIO_ZEROPAGE, &page), 0);
    cr_assert(driver_used(&disk->driver, 0, &head, &length), "it goes on");
    cr_assert_eq(disk->machine.memory.base[STATUS], VIRTIO_BLK_S_OK);
    (void)close(uffd);
    disk_free(disk);
}

/* Loads @message into a fresh disk and expects a refusal that names the reason. */
static void expect_refusal(const Vmpool__Device__VirtioPci *message, const char *reason)
{
    struct disk disk;
    struct error err = ERROR_INIT;
    struct device_state state = {.version = 1};
    disk_open(&disk, temporary_file(SECTORS * 512), false);
    state.size = vmpool__device__virtio_pci__get_packed_size(message);
    state.data = malloc(state.size);
    vmpool__device__virtio_pci__pack(message, state.data);
    const struct device *device = machine_device(&disk.machine, 1);
    cr_assert_eq(device->ops->load(device->self, &state, &err), -1, "no refusal: %s", reason);
    cr_assert_not_null(strstr(err.text, reason), "%s, not %s", err.text, reason);
    free(state.data);
    machine_destroy(&disk.machine);
    (void)close(disk.fd);
}

Test(virtio_blk, a_hostile_state_is_refused)
{
    struct disk *disk = disk_new(false);
    struct error err = ERROR_INIT;
    struct device_state state = {0};
    const struct device *device = machine_device(&disk->machine, 1);
    cr_assert_eq(device->ops->pause(device->self, &err), 0);
    cr_assert_eq(device->ops->save(device->self, &state, &err), 0);
    Vmpool__Device__VirtioPci *message =
        vmpool__device__virtio_pci__unpack(NULL, state.size, state.data);
    Vmpool__Device__Virtqueue *queue = message->virtio->queues[0];

    message->config.data[0] ^= 1;
    expect_refusal(message, "another kind of device");
    message->config.data[0] ^= 1;
    message->config.len = 255;
    expect_refusal(message, "255 bytes");
    message->config.len = 256;
    message->msix->n_words--;
    expect_refusal(message, "MSI-X");
    message->msix->n_words++;
    message->virtio->features |= 1ull << 63;
    expect_refusal(message, "features");
    message->virtio->features &= ~(1ull << 63);
    message->virtio->status = 0x100;
    expect_refusal(message, "out of range");
    message->virtio->status = 4;
    expect_refusal(message, "impossible");
    message->virtio->status = 15;
    message->virtio->n_queues = 0;
    expect_refusal(message, "queues");
    message->virtio->n_queues = 1;
    queue->size = 257;
    expect_refusal(message, "out of range");
    queue->size = 3;
    expect_refusal(message, "power of two");
    queue->size = 64;
    queue->last_avail += 0x10000;
    expect_refusal(message, "out of range");
    queue->last_avail -= 0x10000;
    queue->device_area = 1ull << 40;
    expect_refusal(message, "not in RAM");
    queue->device_area = 0;
    message->virtio->own.len = 0;
    expect_refusal(message, "not the same");

    vmpool__device__virtio_pci__free_unpacked(message, NULL);
    state.size--;
    struct machine target;
    machine_init(&target);
    cr_assert_not_null(virtio_blk_new(target.pci, dup(disk->fd), false, NULL, &err));
    device = machine_device(&target, 1);
    cr_assert_eq(device->ops->load(device->self, &state, &err), -1);
    state.version = 2;
    cr_assert_eq(device->ops->load(device->self, &state, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    machine_destroy(&target);
    free(state.data);
    disk_free(disk);
}
