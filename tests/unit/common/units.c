#include "common/units.h"

#include <criterion/criterion.h>

Test(units, sizes)
{
    struct error err = ERROR_INIT;
    uint64_t bytes = 0;
    cr_assert_eq(units_parse_bytes("512M", 1, &bytes, &err), 0);
    cr_assert_eq(bytes, 512ull << 20);
    cr_assert_eq(units_parse_bytes("1.5GiB", 1, &bytes, &err), 0);
    cr_assert_eq(bytes, 1536ull << 20);
    cr_assert_eq(units_parse_bytes("64", 1 << 20, &bytes, &err), 0);
    cr_assert_eq(bytes, 64ull << 20);
    const char *const bad[] = {"",   "-1",  "1X",           "G",   "0x10", "1e9",
                               " 1", "1 G", "99999999999T", "1..5"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(units_parse_bytes(bad[i], 1, &bytes, &err), -1, "'%s' was taken", bad[i]);
        cr_expect_eq(err.kind, ERROR_USAGE);
    }
}

Test(units, rates_and_durations)
{
    struct error err = ERROR_INIT;
    uint64_t value = 0;
    cr_assert_eq(units_parse_bps("200M", &value, &err), 0);
    cr_assert_eq(value, 200000000);
    cr_assert_eq(units_parse_bps("25Gbps", &value, &err), 0);
    cr_assert_eq(value, 25000000000);
    cr_assert_eq(units_parse_ms("100ms", &value, &err), 0);
    cr_assert_eq(value, 100);
    cr_assert_eq(units_parse_ms("2m", &value, &err), 0);
    cr_assert_eq(value, 120000);
}

Test(units, numbers_keep_their_bounds)
{
    struct error err = ERROR_INIT;
    uint64_t value = 0;
    cr_assert_eq(units_parse_number("16", "--cpus", 1, 16, &value, &err), 0);
    cr_assert_eq(units_parse_number("0", "--cpus", 1, 16, &value, &err), -1);
    cr_assert_str_eq(err.text, "--cpus: '0' is not a whole number from 1 to 16");
    cr_assert_eq(units_parse_number("+3", "--cpus", 1, 16, &value, &err), -1);
    cr_assert_eq(units_parse_number("3x", "--cpus", 1, 16, &value, &err), -1);
    cr_assert_eq(units_parse_number("99999999999999999999999", "--cpus", 1, 16, &value, &err), -1);
}

Test(units, people_read_short_texts)
{
    char out[32];
    cr_assert_str_eq(units_format_bytes(1536ull << 20, out, sizeof out), "1.5G");
    cr_assert_str_eq(units_format_bytes(0, out, sizeof out), "0");
    cr_assert_str_eq(units_format_bps(200000000, out, sizeof out), "200 Mbit/s");
    cr_assert_str_eq(units_format_ms(2100, out, sizeof out), "2.1 s");
    cr_assert_str_eq(units_format_ms(185000, out, sizeof out), "3m 05s");
}
