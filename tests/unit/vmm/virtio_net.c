#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "node-agent/vmm/devices/devices.h"
#include "tests/unit/vmm/virtio_driver.h"

#define RX      0
#define TX      1
#define CONTROL 2
#define BUFFERS 0x400000u
#define FRAME   0x600000u
#define CONFIG  0x2000u
#define HEADER  12u

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

/* A card whose tap is one end of a socket pair; the other end is the network. */
struct card {
    struct machine machine;
    struct driver driver;
    struct virtio_net *net;
    int network;
};

static void card_open(struct card *card)
{
    struct error err = ERROR_INIT;
    int ends[2];
    machine_init(&card->machine);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    card->network = ends[1];
    card->net = virtio_net_new(card->machine.pci, card->machine.loop, ends[0], mac, &err);
    cr_assert_not_null(card->net, "%s", err.text);
}

static struct card *card_new(uint64_t features)
{
    struct card *card = calloc(1, sizeof *card);
    card_open(card);
    driver_start(&card->driver, &card->machine, 1,
                 features | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_NET_F_CTRL_VQ |
                     1ull << VIRTIO_NET_F_GUEST_ANNOUNCE | 1ull << VIRTIO_NET_F_STATUS,
                 3, 64);
    return card;
}

static void card_free(struct card *card)
{
    machine_destroy(&card->machine);
    (void)close(card->network);
    free(card);
}

static void add_buffers(struct card *card, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        const struct segment buffer = {BUFFERS + 0x1000ull * i, size, true};
        memset(card->machine.memory.base + buffer.gpa, 0xee, size);
        (void)driver_add(&card->driver, RX, &buffer, 1);
    }
    driver_kick(&card->driver, RX);
    machine_settle(&card->machine);
}

static void send_to_guest(struct card *card, size_t bytes, uint8_t fill)
{
    uint8_t packet[70000] = {0};
    memset(packet + HEADER, fill, bytes);
    cr_assert_eq(send(card->network, packet, HEADER + bytes, 0), (ssize_t)(HEADER + bytes));
    machine_settle(&card->machine);
}

/* Waits for a packet at the network's end. */
static ssize_t receive_from_guest(struct card *card, uint8_t *packet, size_t size)
{
    struct error err = ERROR_INIT;
    int64_t give_up_ms = clock_monotonic_ms() + 5000;
    ssize_t got = -1;
    while (got < 0 && clock_monotonic_ms() < give_up_ms) {
        cr_assert_eq(loop_run_once(card->machine.loop, 1, &err), 0);
        got = recv(card->network, packet, size, MSG_DONTWAIT);
    }
    return got;
}

static uint16_t config_status(const struct card *card)
{
    return (uint16_t)driver_read(&card->driver, CONFIG + 6, 2);
}

Test(virtio_net, it_has_its_mac_and_a_link)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MAC);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(driver_read(&card->driver, CONFIG + i, 1), mac[i]);
    cr_assert_eq(config_status(card), VIRTIO_NET_S_LINK_UP);
    card_free(card);
}

Test(virtio_net, a_frame_fills_as_many_buffers_as_it_needs)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    uint8_t *ram = card->machine.memory.base;
    uint32_t head, length;
    add_buffers(card, 8, 500);
    send_to_guest(card, 1200, 0x11);
    send_to_guest(card, 60, 0x22);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(length, 500);
    cr_assert_eq(ram[BUFFERS + 10], 3, "num_buffers");
    cr_assert_eq(ram[BUFFERS + 11], 0);
    cr_assert_eq(ram[BUFFERS + 12], 0x11);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(length, 500);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(length, 212);
    cr_assert_eq(ram[BUFFERS + 0x2000 + 211], 0x11);
    cr_assert_eq(ram[BUFFERS + 0x2000 + 212], 0xee);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(length, 72);
    cr_assert_eq(ram[BUFFERS + 0x3000 + 10], 1);
    cr_assert_eq(ram[BUFFERS + 0x3000 + 12], 0x22);
    struct device_counters counters;
    virtio_net_counters(card->net, &counters);
    cr_assert_eq(counters.in_bytes, 1260);
    card_free(card);
}

Test(virtio_net, without_merging_a_frame_too_long_is_dropped)
{
    struct card *card = card_new(0);
    uint32_t head, length;
    add_buffers(card, 4, 200);
    send_to_guest(card, 300, 0x11);
    send_to_guest(card, 188, 0x22);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(head, 0);
    cr_assert_eq(length, 200);
    cr_assert_eq(card->machine.memory.base[BUFFERS + 10], 1);
    cr_assert_eq(card->machine.memory.base[BUFFERS + 12], 0x22);
    card_free(card);
}

Test(virtio_net, frames_wait_in_the_tap_until_there_is_a_buffer)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    uint32_t head, length;
    send_to_guest(card, 64, 0x33);
    send_to_guest(card, 64, 0x34);
    add_buffers(card, 1, 1526);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(card->machine.memory.base[BUFFERS + 12], 0x33);
    add_buffers(card, 1, 1526);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(card->machine.memory.base[BUFFERS + 12], 0x34);
    card_free(card);
}

Test(virtio_net, thousands_of_frames_in_both_directions)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    uint8_t *ram = card->machine.memory.base;
    uint8_t packet[2048];
    uint32_t head, length;
    for (unsigned i = 0; i < 3000; i++) {
        add_buffers(card, 3, 100);
        send_to_guest(card, 250, (uint8_t)i);
        for (unsigned part = 0; part < 3; part++)
            cr_assert(driver_used(&card->driver, RX, &head, &length));
        const struct segment frame[] = {{FRAME, HEADER, false}, {FRAME + 100, 64, false}};
        memset(ram + FRAME, 0, HEADER);
        memset(ram + FRAME + 100, (int)i, 64);
        (void)driver_add(&card->driver, TX, frame, 2);
        driver_kick(&card->driver, TX);
        cr_assert(driver_used(&card->driver, TX, &head, &length));
        cr_assert_eq(recv(card->network, packet, sizeof packet, 0), HEADER + 64);
        cr_assert_eq(packet[HEADER + 63], (uint8_t)i);
    }
    card_free(card);
}

Test(virtio_net, a_frame_without_header_needs_a_reset)
{
    struct card *card = card_new(0);
    const struct segment frame = {FRAME, HEADER - 1, false};
    (void)driver_add(&card->driver, TX, &frame, 1);
    driver_kick(&card->driver, TX);
    machine_settle(&card->machine);
    cr_assert(driver_status(&card->driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    card_free(card);
}

Test(virtio_net, a_receive_buffer_too_small_needs_a_reset)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    add_buffers(card, 1, HEADER - 1);
    cr_assert(driver_status(&card->driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    send_to_guest(card, 64, 1);
    card_free(card);
}

Test(virtio_net, a_peer_that_leaves_costs_no_loop)
{
    struct card *card = card_new(0);
    add_buffers(card, 1, 1526);
    (void)close(card->network);
    card->network = -1;
    machine_settle(&card->machine);
    struct error err = ERROR_INIT;
    int64_t start_ms = clock_monotonic_ms();
    cr_assert_eq(loop_run_once(card->machine.loop, 200, &err), 0);
    cr_assert_geq(clock_monotonic_ms() - start_ms, 190, "the loop must sleep");
    card_free(card);
}

static uint8_t acknowledge(struct card *card, uint8_t class, uint8_t command)
{
    uint8_t *ram = card->machine.memory.base;
    uint32_t head, length;
    ram[FRAME] = class;
    ram[FRAME + 1] = command;
    ram[FRAME + 2] = 0xaa;
    const struct segment chain[] = {{FRAME, 2, false}, {FRAME + 2, 1, true}};
    (void)driver_add(&card->driver, CONTROL, chain, 2);
    driver_kick(&card->driver, CONTROL);
    cr_assert(driver_used(&card->driver, CONTROL, &head, &length));
    cr_assert_eq(length, 1);
    return ram[FRAME + 2];
}

Test(virtio_net, a_moved_guest_is_announced_five_times)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    struct card *target = calloc(1, sizeof *target);
    uint8_t packet[2048];
    card_open(target);
    add_buffers(card, 2, 1526);
    machine_migrate(&card->machine, &target->machine);
    send_to_guest(target, 64, 0x44); /* the target holds still */
    cr_assert_eq(recv(target->network, packet, sizeof packet, 0), -1);
    target->driver = card->driver;
    target->driver.machine = &target->machine;
    cr_assert_eq(config_status(target), VIRTIO_NET_S_LINK_UP);
    uint32_t generation = driver_read(&target->driver, 21, 1);

    const struct device *device = machine_device(&target->machine, 1);
    int64_t start_ms = clock_monotonic_ms();
    device->ops->resume(device->self, true);
    cr_assert_eq(recv(target->network, packet, sizeof packet, 0), HEADER + 60, "at once");
    cr_assert_arr_eq(packet + HEADER, "\xff\xff\xff\xff\xff\xff\x52\x54\0\1\2\3\x80\x35", 14);
    cr_assert_eq(config_status(target), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    cr_assert_neq(driver_read(&target->driver, 21, 1), generation);
    cr_assert_geq(fake_irq_take(target->machine.irqs, 0), 1);
    uint32_t head, length;
    cr_assert(driver_used(&target->driver, RX, &head, &length), "now it hears");
    cr_assert_eq(acknowledge(target, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK),
                 VIRTIO_NET_OK);
    cr_assert_eq(config_status(target), VIRTIO_NET_S_LINK_UP);
    for (unsigned round = 1; round < 5; round++) {
        cr_assert_eq(receive_from_guest(target, packet, sizeof packet), HEADER + 60);
        cr_assert_eq(config_status(target), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    }
    cr_assert_geq(clock_monotonic_ms() - start_ms, 1100);
    struct error err = ERROR_INIT;
    cr_assert_eq(loop_run_once(target->machine.loop, 700, &err), 0);
    cr_assert_eq(recv(target->network, packet, sizeof packet, 0), -1, "five, not six");
    card_free(target);
    card_free(card);
}

Test(virtio_net, a_source_that_runs_on_does_not_announce)
{
    struct card *card = card_new(1ull << VIRTIO_NET_F_MRG_RXBUF);
    struct error err = ERROR_INIT;
    uint8_t packet[2048];
    uint32_t head, length;
    add_buffers(card, 2, 1526);
    const struct device *device = machine_device(&card->machine, 1);
    cr_assert_eq(device->ops->pause(device->self, &err), 0);
    send_to_guest(card, 64, 0x44);
    const struct vring_used *used =
        (const struct vring_used *)(card->machine.memory.base + card->driver.queues[RX].used);
    cr_assert_eq(used->idx, 0, "paused");
    device->ops->resume(device->self, false);
    cr_assert(driver_used(&card->driver, RX, &head, &length));
    cr_assert_eq(recv(card->network, packet, sizeof packet, 0), -1);
    card_free(card);
}

Test(virtio_net, unknown_commands_are_refused)
{
    struct card *card = card_new(0);
    cr_assert_eq(acknowledge(card, VIRTIO_NET_CTRL_MAC, 0), VIRTIO_NET_ERR);
    cr_assert_eq(acknowledge(card, VIRTIO_NET_CTRL_ANNOUNCE, 9), VIRTIO_NET_ERR);
    card_free(card);
}

Test(virtio_net, another_mac_is_another_card)
{
    struct card *card = card_new(0);
    struct machine target;
    struct error err = ERROR_INIT;
    struct device_state state = {0};
    const uint8_t other[6] = {0x52, 0x54, 0, 1, 2, 4};
    int ends[2];
    machine_init(&target);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    cr_assert_not_null(virtio_net_new(target.pci, target.loop, ends[0], other, &err));
    const struct device *device = machine_device(&card->machine, 1);
    cr_assert_eq(device->ops->pause(device->self, &err), 0);
    cr_assert_eq(device->ops->save(device->self, &state, &err), 0);
    device = machine_device(&target, 1);
    cr_assert_eq(device->ops->load(device->self, &state, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    free(state.data);
    (void)close(ends[1]);
    machine_destroy(&target);
    card_free(card);
}

Test(virtio_net, a_real_tap_carries_frames)
{
    struct error err = ERROR_INIT;
    struct card *card = calloc(1, sizeof *card);
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
                            .ifr_name = "vmptest%d"};
    /* In a network namespace of its own, so that nobody else sees it. */
    int tap = unshare(CLONE_NEWNET) < 0 ? -1 : open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
        cr_skip_test("a tap can't be made here");
    machine_init(&card->machine);
    card->network = -1;
    card->net = virtio_net_new(card->machine.pci, card->machine.loop, tap, mac, &err);
    cr_assert_not_null(card->net, "%s", err.text);
    driver_start(&card->driver, &card->machine, 1,
                 1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_NET_F_CSUM |
                     1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 |
                     1ull << VIRTIO_NET_F_HOST_TSO4,
                 3, 64);
    int control = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0)
        control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    request.ifr_flags = IFF_UP;
    cr_assert_eq(ioctl(control, SIOCSIFFLAGS, &request), 0);
    (void)close(control);

    uint8_t *ram = card->machine.memory.base;
    uint32_t head, length;
    memset(ram + FRAME, 0, 128);
    memcpy(ram + FRAME + HEADER, "\xff\xff\xff\xff\xff\xff\x52\x54\0\1\2\3\x88\xb5", 14);
    const struct segment frame = {FRAME, HEADER + 60, false};
    (void)driver_add(&card->driver, TX, &frame, 1);
    driver_kick(&card->driver, TX);
    cr_assert(driver_used(&card->driver, TX, &head, &length));
    struct device_counters counters;
    virtio_net_counters(card->net, &counters);
    cr_assert_eq(counters.out_bytes, 60, "the tap took it");
    card_free(card);
}
