#include "poolctl/invocation.h"

#include <criterion/criterion.h>
#include <string.h>

#define ARGUMENTS_MAX 16

/* Splits a line at spaces and parses it; the words live in @line. */
static int parse(struct invocation *call, char *line, struct error *err)
{
    char *argv[ARGUMENTS_MAX];
    int argc = 0;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    *call = (struct invocation){0};
    return invocation_parse(call, argc, argv, err);
}

Test(invocation, options_stand_anywhere)
{
    const char *const lines[] = {
        "poolctl vm create web --image deb --cpus 2 -o json",
        "poolctl -o json vm create --cpus=2 web --image=deb",
        "poolctl --output json vm --image deb create web --cpus 2",
        "poolctl vm create --image deb --cpus 7 --cpus 2 -ojson -- web",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct invocation call;
        struct error err = ERROR_INIT;
        uint64_t cpus = 0;
        char line[128];
        (void)snprintf(line, sizeof line, "%s", lines[i]);
        int result = parse(&call, line, &err);
        if (i == 2) { /* an option of a command before the command is known */
            cr_expect_eq(result, -1);
            invocation_free(&call);
            continue;
        }
        cr_assert_eq(result, 0, "%s: %s", lines[i], err.text);
        cr_expect_str_eq(call.command->name, "create");
        cr_expect_str_eq(invocation_argument(&call, 0), "web");
        cr_expect_str_eq(invocation_option(&call, "image"), "deb");
        cr_expect_eq(invocation_format(&call), OUTPUT_JSON);
        cr_expect_eq(invocation_number(&call, "cpus", 1, 16, &cpus, &err), 0);
        cr_expect_eq(cpus, 2, "the last one counts");
        invocation_free(&call);
    }
}

Test(invocation, repeated_options_keep_their_order)
{
    struct invocation call;
    struct error err = ERROR_INIT;
    size_t at = 0;
    char line[] = "poolctl vm create web --image d --disk /a --label k=v --disk 10G";
    cr_assert_eq(parse(&call, line, &err), 0, "%s", err.text);
    cr_expect_str_eq(invocation_next(&call, "disk", &at), "/a");
    cr_expect_str_eq(invocation_next(&call, "disk", &at), "10G");
    cr_expect_null(invocation_next(&call, "disk", &at));
    invocation_free(&call);
}

Test(invocation, mistakes_are_named_with_the_way_out)
{
    const char *const mistakes[][2] = {
        {"poolctl vn ls", "unknown command 'vn': did you mean 'vm'?"},
        {"poolctl vm crate web", "unknown command 'vm crate': did you mean 'vm create'?"},
        {"poolctl vm frobnicate", "unknown command 'vm frobnicate': see 'poolctl vm --help'"},
        {"poolctl vm", "vm: say which command: create"},
        {"poolctl vm ls --wid", "unknown option --wid: did you mean --wide?"},
        {"poolctl vm ls --frobnicate", "unknown option --frobnicate: see 'poolctl vm ls --help'"},
        {"poolctl vm ls -z", "unknown option -z"},
        {"poolctl vm ls extra", "'extra' is one argument too many"},
        {"poolctl vm show", "vm show needs VM"},
        {"poolctl vm create web", "vm create needs --image IMAGE"},
        {"poolctl vm ls -o", "--output needs a value: --output FORMAT"},
        {"poolctl vm ls -o xml", "--output: 'xml' is not one of: table json yaml csv name"},
        {"poolctl vm ls --wide=yes", "--wide takes no value"},
        {"poolctl completion fish", "'fish' is not one of bash|zsh"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct invocation call;
        struct error err = ERROR_INIT;
        char line[128];
        (void)snprintf(line, sizeof line, "%s", mistakes[i][0]);
        cr_expect_eq(parse(&call, line, &err), -1, "%s was taken", mistakes[i][0]);
        cr_expect_eq(err.kind, ERROR_USAGE);
        cr_expect_not_null(strstr(err.text, mistakes[i][1]), "%s: %s", mistakes[i][0], err.text);
        invocation_free(&call);
    }
}

Test(invocation, help_needs_nothing_else)
{
    struct invocation call;
    struct error err = ERROR_INIT;
    static const char *const lines[] = {"poolctl vm create --help", "poolctl help vm create",
                                        "poolctl vm -h create"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "%s", lines[i]);
        cr_assert_eq(parse(&call, line, &err), 0, "%s", err.text);
        cr_expect(call.help);
        cr_expect_str_eq(call.command->name, "create");
        invocation_free(&call);
    }
}

Test(invocation, values_keep_their_bounds)
{
    struct invocation call;
    struct error err = ERROR_INIT;
    uint64_t value = 7;
    char line[] =
        "poolctl vm create w --image d --cpus 0 --memory 12X --bandwidth -5 --timeout 0x1";
    cr_assert_eq(parse(&call, line, &err), 0, "%s", err.text);
    cr_expect_eq(invocation_number(&call, "cpus", 1, 16, &value, &err), -1);
    cr_expect_str_eq(err.text, "--cpus: '0' is not a whole number from 1 to 16");
    cr_expect_eq(invocation_mib(&call, "memory", &value, &err), -1);
    cr_expect_eq(invocation_bps(&call, "bandwidth", &value, &err), -1);
    cr_expect_eq(invocation_ms(&call, "timeout", &value, &err), -1);
    cr_expect_eq(err.kind, ERROR_USAGE);
    cr_expect_eq(value, 7, "a refused value changes nothing");
    invocation_free(&call);
    char small[] = "poolctl vm create w --image d --memory 1023K";
    cr_assert_eq(parse(&call, small, &err), 0);
    cr_expect_eq(invocation_mib(&call, "memory", &value, &err), -1);
    invocation_free(&call);
    char uneven[] = "poolctl vm create w --image d --memory 1025K";
    cr_assert_eq(parse(&call, uneven, &err), 0);
    cr_expect_eq(invocation_mib(&call, "memory", &value, &err), 0);
    cr_expect_eq(value, 2, "rounded up to whole MiB");
    invocation_free(&call);
}
