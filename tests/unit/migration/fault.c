#include "common/fault.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>

#include "common/clock.h"

Test(fault, does_nothing_unless_named)
{
    unsetenv("VMPOOL_FAULTS");
    cr_assert(!fault_point("a.b"));
    setenv("VMPOOL_FAULTS", "a.bc=drop,xa.b=kill", 1);
    cr_assert(!fault_point("a.b"));
}

Test(fault, drops_and_delays)
{
    setenv("VMPOOL_FAULTS", "one=delay:30,two=drop,three=drop", 1);
    int64_t begin_ms = clock_monotonic_ms();
    cr_assert(!fault_point("one"));
    cr_assert_geq(clock_monotonic_ms() - begin_ms, 29);
    cr_assert(fault_point("two"));
    cr_assert(fault_point("three"));
}

Test(fault, kills, .signal = SIGKILL)
{
    setenv("VMPOOL_FAULTS", "one=kill", 1);
    (void)fault_point("one");
}
