/* Every folder of tests/scenarios: its scenario must leave its log, to the letter. */
#include "poolctl/scenario.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_controller.h"

#define PATH_BYTES 512

/* What running @path writes; free it. */
static char *log_of(const char *path, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *log = open_memstream(&text, &size);
    cr_assert(log);
    *err = (struct error)ERROR_INIT;
    (void)scenario_run(path, scenario_print, log, err);
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

static const char *text_of(const json_t *event, const char *name)
{
    return json_string_value(json_object_get(event, name));
}

static enum scenario_what what_of(const json_t *event)
{
    int what = SCENARIO_PLACED;
    while (what <= SCENARIO_PLAN &&
           strcmp(scenario_what_name((enum scenario_what)what), text_of(event, "what")) != 0)
        what++;
    cr_assert_leq(what, SCENARIO_PLAN, "%s", text_of(event, "what"));
    return (enum scenario_what)what;
}

/* The log as people see it, from what programs see. */
static char *log_from_json(const char *json)
{
    char *text = NULL;
    size_t size = 0, i;
    json_error_t bad;
    json_t *whole = json_loads(json, 0, &bad), *event;
    FILE *log = open_memstream(&text, &size);
    cr_assert(whole && log, "%s", bad.text);
    cr_assert_eq(json_integer_value(json_object_get(whole, "schema_version")), 1);
    json_array_foreach(json_object_get(whole, "log"), i, event)
    {
        const struct scenario_event told = {
            .second = (uint64_t)json_integer_value(json_object_get(event, "second")),
            .what = what_of(event),
            .vm = text_of(event, "vm"),
            .host = text_of(event, "host"),
            .from = text_of(event, "from"),
            .why = text_of(event, "why"),
            .action = text_of(event, "action"),
        };
        scenario_print(log, &told);
    }
    cr_assert_eq(fclose(log), 0);
    json_decref(whole);
    return text;
}

Test(scenarios, json_says_all_that_the_log_says)
{
    struct dirent **names = NULL;
    int count = scandir(SCENARIOS, &names, visible, alphasort);
    cr_assert_geq(count, 40, "%d scenarios", count);
    for (int i = 0; i < count; i++) {
        char line[PATH_BYTES], path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s/log", SCENARIOS, names[i]->d_name);
        (void)snprintf(line, sizeof line, "simulate --scenario %s/%s -o json", SCENARIOS,
                       names[i]->d_name);
        struct run run = run_poolctl(line);
        cr_assert_eq(run.status, 0, "%s", run.err);
        char *expected = read_whole(path), *log = log_from_json(run.out);
        cr_expect_str_eq(log, expected, "%s:\n%s", names[i]->d_name, log);
        free(expected);
        free(log);
        free(names[i]);
        run_free(&run);
    }
    free(names);
}

Test(scenarios, the_log_is_shown_and_a_folder_without_a_scenario_is_refused)
{
    struct run run = run_poolctl("simulate --scenario " SCENARIOS "/drain-moves");
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.out, "    10  vm a moves from n1 to n2\n"), "%s", run.out);
    run_free(&run);
    run = run_poolctl("simulate --scenario " SCENARIOS "/drain-moves -o csv");
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.out, "second,what,action,vm,from,host,why\r\n"), "%s", run.out);
    cr_expect(strstr(run.out, "10,moves,,a,n1,n2,\r\n"), "%s", run.out);
    run_free(&run);
    run = run_poolctl("simulate --scenario " SCENARIOS " -o json");
    cr_expect_neq(run.status, 0);
    cr_expect_str_eq(run.out, "");
    run_free(&run);
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
