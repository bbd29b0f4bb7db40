#include "node-agent/agent/options.h"

#include <criterion/criterion.h>
#include <string.h>

#define MAX_WORDS 16

/* Parses copies of the words, as the parser may cut them. */
static enum options_outcome parse(struct agent_options *options, struct error *err,
                                  const char *const *words)
{
    static char copies[MAX_WORDS][256];
    static char name[] = "pool-agent";
    char *argv[MAX_WORDS + 2] = {name};
    int argc = 1;
    for (; words[argc - 1]; argc++) {
        strncpy(copies[argc - 1], words[argc - 1], 255);
        argv[argc] = copies[argc - 1];
    }
    return options_parse(argc, argv, options, err);
}
#define PARSE(...) parse(&options, &err, (const char *const[]){__VA_ARGS__, NULL})

#define REFUSED(part, ...)                                                                         \
    do {                                                                                           \
        struct agent_options options;                                                              \
        struct error err = ERROR_INIT;                                                             \
        cr_assert_eq(PARSE(__VA_ARGS__), OPTIONS_BAD);                                             \
        cr_assert_eq(err.kind, ERROR_USAGE);                                                       \
        cr_assert(strstr(err.text, part), "%s", err.text);                                         \
    } while (0)

Test(options, every_option_is_read)
{
    struct agent_options options;
    struct error err = ERROR_INIT;
    cr_assert_eq(PARSE("--name", "n1", "--bandwidth", "10G", "--migration-ports", "100-102",
                       "--reserve-memory", "1G", "--allow-disk-dir", "/srv/a", "--allow-disk-dir",
                       "/srv/b", "--label", "rack=r1", "--image-cache=1G"),
                 OPTIONS_RUN, "%s", err.text);
    cr_assert_str_eq(options.name, "n1");
    cr_assert_eq(options.bandwidth_bps, 10000000000);
    cr_assert_eq(options.port_first, 100);
    cr_assert_eq(options.port_last, 102);
    cr_assert_eq(options.reserve_memory_mib, 1024);
    cr_assert_eq(options.disk_dir_count, 2);
    cr_assert_str_eq(options.disk_dirs[1], "/srv/b");
    cr_assert_str_eq(options.label_keys[0], "rack");
    cr_assert_str_eq(options.label_values[0], "r1");
    cr_assert_eq(options.image_cache_bytes, 1 << 30);
}

Test(options, disks_are_allowed_below_the_storage_folder_by_default)
{
    struct agent_options options;
    struct error err = ERROR_INIT;
    cr_assert_eq(PARSE("--storage", "/srv/x"), OPTIONS_RUN);
    cr_assert_eq(options.disk_dir_count, 1);
    cr_assert_str_eq(options.disk_dirs[0], "/srv/x");
}

Test(options, wrong_words_are_refused_by_name)
{
    REFUSED("--nonsense", "--nonsense");
    REFUSED("--name", "--name");
    REFUSED("stray", "stray");
    REFUSED("--migration-ports", "--migration-ports", "9-1");
    REFUSED("--migration-ports", "--migration-ports", "1-70000");
    REFUSED("--migration-ports", "--migration-ports", "12");
    REFUSED("--migration-address", "--migration-address", "host.example");
    REFUSED("--storage", "--storage", "relative/path");
    REFUSED("--bridge", "--bridge", "sixteen-letters-");
    REFUSED("--name", "--name", "Upper");
    REFUSED("--label", "--label", "novalue");
    REFUSED("--bandwidth", "--bandwidth", "fast");
    REFUSED("--log-level", "--log-level", "loud");
}
