/* Every folder of tests/scenarios: its scenario must leave its log, to the letter. */
#include "poolctl/scenario.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 512

/* What running @path writes; free it. */
static char *log_of(const char *path, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *log = open_memstream(&text, &size);
    cr_assert(log);
    *err = (struct error)ERROR_INIT;
    (void)scenario_run(path, log, err);
    cr_assert_eq(fclose(log), 0);
    return text;
}

static char *read_whole(const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "r");
    cr_assert(file, "%s is missing", path);
    cr_assert_geq(getdelim(&text, &size, '\0', file), 0, "%s is empty", path);
    (void)fclose(file);
    return text;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

Test(scenarios, each_leaves_its_log)
{
    struct dirent **names = NULL;
    int count = scandir(SCENARIOS, &names, visible, alphasort);
    cr_assert_geq(count, 40, "%d scenarios", count);
    for (int i = 0; i < count; i++) {
        char path[PATH_BYTES];
        struct error err;
        (void)snprintf(path, sizeof path, "%s/%s/log", SCENARIOS, names[i]->d_name);
        char *expected = read_whole(path);
        (void)snprintf(path, sizeof path, "%s/%s/scenario", SCENARIOS, names[i]->d_name);
        char *log = log_of(path, &err);
        cr_expect_eq(err.kind, ERROR_NONE, "%s", err.text);
        cr_expect_str_eq(log, expected, "%s:\n%s", names[i]->d_name, log);
        free(log);
        free(expected);
        free(names[i]);
    }
    free(names);
}

Test(scenarios, what_is_wrong_is_said_with_its_line)
{
    static const char *const wrong[][2] = {
        {"0 vm a 1c,1G,1Gbps\n", "line 1: expected a host first"},
        {"0 host n1 16c\n", "line 1: \"16c\": expected vCPUs, memory and bandwidth"},
        {"0 host n1 16c,64G,1Gbps zone\n", "line 1: \"zone\": expected up to 8 labels"},
        {"5 host n1 16c,64G,1Gbps\n4 rebalance\n", "line 2: expected a second not before 5"},
        {"-1 host n1 16c,64G,1Gbps\n", "line 1: the second: '-1' is not a whole number"},
        {"0 host n1 16c,64G,1Gbps\n# c\n1 explode n1\n", "line 3: \"explode\": expected policy"},
        {"0 host n1 16c,64G,1Gbps\n1 drain n2\n", "line 2: expected a host that there is"},
        {"0 host n1 16c,64G,1Gbps\n1 rm a\n", "line 2: expected a VM that is placed"},
        {"0 host n1 16c,64G,1Gbps\n1 policy pack\n", "line 2: expected before the first host"},
        {"0 host n1 16c,64G,1Gbps\n1 vm a 1c,1G,1Gbps near=b\n", "line 2: rule near: expected"},
        {"0 host n1 16c,64G,1Gbps\n1 vm a 1c,1G,1Gbps with=g apart=g\n",
         "line 2: the rules contradict each other"},
        {"0 host n1 16c,64G,1Gbps\n1 vm a 1c,1G,1Gbps spread=g:zone:0\n",
         "line 2: spread: '0' is not a whole number from 1"},
        {"0 host n1 16c,64G,1Gbps\n1 vm a 0c,1G,1Gbps\n", "line 2: \"0c,1G,1Gbps\""},
        {"0 policy fast\n", "line 1: a policy is pack, spread, balance or best"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char path[] = "/tmp/vmpool-scenario-XXXXXX";
        struct error err;
        int fd = mkstemp(path);
        size_t length = strlen(wrong[i][0]);
        cr_assert_eq(write(fd, wrong[i][0], length), (ssize_t)length);
        (void)close(fd);
        free(log_of(path, &err));
        cr_expect_eq(err.kind, ERROR_USAGE, "%s", wrong[i][0]);
        cr_expect(strstr(err.text, wrong[i][1]), "%s: %s", wrong[i][0], err.text);
        (void)unlink(path);
    }
}
