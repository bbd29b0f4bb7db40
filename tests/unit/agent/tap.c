/* Taps and the bridge in a network namespace of the test's own. */
#include "node-agent/agent/tap.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/agent/harness.h"

static const char vm_a[] = "aaaaaaaa-89ab-4def-8123-456789abcdef";
static const char vm_b[] = "bbbbbbbb-89ab-4def-8123-456789abcdef";
static const unsigned char mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static struct netlink *netlink;
static struct error err;

static void setup(void)
{
    if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) < 0)
        cr_skip_test("needs root and /dev/net/tun");
    if (!harness_enter_network())
        cr_skip_test("network namespaces are not permitted here");
    netlink = netlink_open(&err);
    cr_assert(netlink, "%s", err.text);
}

static void teardown(void)
{
    netlink_close(netlink);
}

TestSuite(tap, .init = setup, .fini = teardown);

static struct netlink_link find(const char *name)
{
    struct netlink_link link;
    cr_assert_eq(netlink_find(netlink, name, &link, &err), 0, "%s", err.text);
    return link;
}

static bool exists(const char *name)
{
    struct netlink_link link;
    struct error ignored = ERROR_INIT;
    return netlink_find(netlink, name, &link, &ignored) == 0;
}

static void need_bridge(void)
{
    bool made = false;
    cr_assert_eq(netlink_ensure_bridge(netlink, "br-test", &made, &err), 0, "%s", err.text);
}

Test(tap, a_missing_bridge_is_made_once_and_is_up)
{
    bool made = false;
    cr_assert_eq(netlink_ensure_bridge(netlink, "br-test", &made, &err), 0, "%s", err.text);
    cr_assert(made);
    struct netlink_link bridge = find("br-test");
    cr_assert_str_eq(bridge.kind, "bridge");
    cr_assert(bridge.up);
    cr_assert_eq(netlink_ensure_bridge(netlink, "br-test", &made, &err), 0);
    cr_assert_not(made);
    cr_assert_eq(netlink_ensure_bridge(netlink, "lo", &made, &err), -1);
    cr_assert(strstr(err.text, "no bridge"), "%s", err.text);
}

Test(tap, a_tap_joins_the_bridge_with_its_mtu_and_ends_with_its_descriptor)
{
    need_bridge();
    cr_assert_eq(system("ip link set br-test mtu 1400"), 0); // NOLINT(cert-env33-c)
    int fd = tap_open(netlink, vm_a, mac, "br-test", &err);
    cr_assert_geq(fd, 0, "%s", err.text);
    struct netlink_link tap = find("vp-aaaaaaaa");
    cr_assert_eq(tap.master, find("br-test").index);
    cr_assert_eq(tap.mtu, 1400);
    cr_assert(tap.up);
    cr_assert_str_eq(tap.alias, "vmpool aaaaaaaa-89ab-4def-8123-456789abcdef");
    int copy = dup(fd);
    close(fd);
    cr_assert(exists("vp-aaaaaaaa"), "somebody still holds it");
    close(copy);
    cr_assert_not(exists("vp-aaaaaaaa"));
}

Test(tap, one_name_is_one_tap)
{
    need_bridge();
    int fd = tap_open(netlink, vm_a, mac, "br-test", &err);
    cr_assert_geq(fd, 0, "%s", err.text);
    cr_assert_lt(tap_open(netlink, vm_a, mac, "br-test", &err), 0);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    close(fd);
}

Test(tap, a_tap_that_cannot_join_leaves_nothing)
{
    cr_assert_lt(tap_open(netlink, vm_a, mac, "no-bridge", &err), 0);
    cr_assert_eq(err.kind, ERROR_NOT_FOUND, "%s", err.text);
    cr_assert_not(exists("vp-aaaaaaaa"));
}

static bool knows_a(void *context, const char *vm_id)
{
    (void)context;
    return strcmp(vm_id, vm_a) == 0;
}

Test(tap, taps_of_vms_that_are_not_here_are_removed_and_no_others)
{
    need_bridge();
    int a = tap_open(netlink, vm_a, mac, "br-test", &err);
    int b = tap_open(netlink, vm_b, mac, "br-test", &err);
    cr_assert(a >= 0 && b >= 0, "%s", err.text);
    cr_assert_eq(system("ip tuntap add vp-foreign mode tap"), 0); // NOLINT(cert-env33-c)
    tap_remove_strays(netlink, knows_a, NULL);
    cr_assert(exists("vp-aaaaaaaa"));
    cr_assert_not(exists("vp-bbbbbbbb"));
    cr_assert(exists("vp-foreign"), "not ours: no alias of ours");
    close(a);
    close(b);
}
