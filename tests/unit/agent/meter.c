#include "node-agent/agent/meter.h"

#include <criterion/criterion.h>

Test(meter, guest_time_is_taken_out_of_user_time)
{
    struct meter_cpu cpu;
    cr_assert_eq(meter_parse_cpu("cpu  100 10 30 500 5 2 3 7 60 4\n", &cpu), 0);
    cr_assert_eq(cpu.guest, 64);
    cr_assert_eq(cpu.user, 46);
    cr_assert_eq(cpu.system, 35);
    cr_assert_eq(cpu.total, 657);
}

Test(meter, another_line_is_refused)
{
    struct meter_cpu cpu;
    cr_assert_eq(meter_parse_cpu("intr 1 2 3", &cpu), -1);
    cr_assert_eq(meter_parse_cpu("cpu 1 2 3", &cpu), -1);
}

Test(meter, a_counter_that_went_back_has_no_rate)
{
    cr_assert_eq(meter_rate(100, 300, 2000), 100);
    cr_assert_eq(meter_rate(300, 100, 2000), 0);
    cr_assert_eq(meter_rate(100, 300, 0), 0);
}
