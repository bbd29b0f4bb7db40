#include "node-agent/agent/names.h"

#include <criterion/criterion.h>
#include <string.h>

Test(names, a_uuid_is_lower_case_with_four_dashes)
{
    cr_assert(name_is_uuid("01234567-89ab-cdef-0123-456789abcdef"));
    cr_assert_not(name_is_uuid("01234567-89AB-cdef-0123-456789abcdef"));
    cr_assert_not(name_is_uuid("01234567-89ab-cdef-0123-456789abcde"));
    cr_assert_not(name_is_uuid("01234567-89ab-cdef-0123-456789abcdef0"));
    cr_assert_not(name_is_uuid("../../../../../etc/passwd-0123456789"));
    cr_assert_not(name_is_uuid(""));
}

Test(names, nothing_that_could_be_an_option_or_a_path_is_a_vm_name)
{
    cr_assert(name_is_vm("web-1.example_org"));
    cr_assert_not(name_is_vm("-web"));
    cr_assert_not(name_is_vm("."));
    cr_assert_not(name_is_vm("a/b"));
    cr_assert_not(name_is_vm("a b"));
    cr_assert_not(name_is_vm("a\nb"));
    cr_assert_not(name_is_vm(""));
}

Test(names, a_node_name_has_at_most_63_characters)
{
    char name[65];
    memset(name, 'a', sizeof name);
    name[63] = '\0';
    cr_assert(name_is_node(name));
    name[63] = 'a';
    name[64] = '\0';
    cr_assert_not(name_is_node(name));
    cr_assert_not(name_is_node("Host"));
    cr_assert_not(name_is_node("-n1"));
}

Test(names, an_interface_name_fits_the_kernel)
{
    cr_assert(name_is_interface("vp-01234567"));
    cr_assert(name_is_interface("exactly15chars_"));
    cr_assert_not(name_is_interface("exactly16chars__"));
    cr_assert_not(name_is_interface(".."));
    cr_assert_not(name_is_interface("a/b"));
    cr_assert_not(name_is_interface("br0 ; x"));
}

Test(names, a_mac_is_read_into_its_bytes)
{
    unsigned char mac[6];
    cr_assert(name_is_mac("52:54:00:0a:ff:01", mac));
    cr_assert_arr_eq(mac, "\x52\x54\x00\x0a\xff\x01", 6);
    cr_assert_not(name_is_mac("53:54:00:0a:ff:01", mac), "a group address");
    cr_assert_not(name_is_mac("52:54:00:0a:ff:0", mac));
    cr_assert_not(name_is_mac("52:54:00:0a:ff:01:", mac));
    cr_assert_not(name_is_mac("52-54-00-0a-ff-01", mac));
}

Test(names, a_sha256_has_64_lower_case_digits)
{
    char hash[66];
    memset(hash, 'f', sizeof hash);
    hash[64] = '\0';
    cr_assert(name_is_sha256(hash));
    hash[0] = 'F';
    cr_assert_not(name_is_sha256(hash));
    hash[0] = '.';
    cr_assert_not(name_is_sha256(hash));
}
