#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "poolctl/commands.h"
#include "poolctl/help.h"
#include "poolctl/poolctl.h"

static char *read_whole(const char *folder, const char *name)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;
    if (!file)
        return NULL;
    if (getdelim(&text, &size, '\0', file) < 0)
        text[0] = '\0';
    (void)fclose(file);
    return text;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void remove_folder(const char *folder)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, visible, NULL);
    for (int i = 0; i < count; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        (void)unlink(path);
        free(names[i]);
    }
    free(names);
    (void)rmdir(folder);
}

Test(pages, docs_commands_are_what_the_tree_says)
{
    struct error err = ERROR_INIT;
    struct dirent **names = NULL;
    char folder[] = "/tmp/vmpool-pages-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(help_write_pages(folder, HELP_MARKDOWN, &err), 0, "%s", err.text);
    int made = scandir(folder, &names, visible, alphasort);
    cr_expect_gt(made, 30);
    for (int i = 0; i < made; i++) {
        char *want = read_whole(folder, names[i]->d_name);
        char *have = read_whole(DOCS_COMMANDS, names[i]->d_name);
        cr_expect(have && strcmp(want, have) == 0,
                  "docs/commands/%s is stale: build the target poolctl_docs", names[i]->d_name);
        free(want);
        free(have);
        free(names[i]);
    }
    free(names);
    int checked_in = scandir(DOCS_COMMANDS, &names, visible, NULL);
    cr_expect_eq(checked_in, made, "docs/commands has a page of a command that is no more");
    for (int i = 0; i < checked_in; i++)
        free(names[i]);
    free(names);
    remove_folder(folder);
}

/* Runs "poolctl <path> --help" for each command there is. */
static void check_help(const struct command **path, size_t depth, int *count)
{
    char *argv[COMMAND_DEPTH_MAX + 2];
    char *out = NULL;
    size_t size = 0;
    int argc = 0;
    for (size_t i = 0; i < depth; i++)
        argv[argc++] = (char *)(uintptr_t)path[i]->name;
    argv[argc++] = (char *)(uintptr_t) "--help";
    struct terminal terminal = {.out = open_memstream(&out, &size), .err = stderr, .in_fd = -1};
    cr_expect_eq(poolctl_run(argc, argv, &terminal), 0, "%s --help", path[depth - 1]->name);
    cr_assert_eq(fclose(terminal.out), 0);
    cr_expect_not_null(strstr(out, "Usage: poolctl"), "%s", path[depth - 1]->name);
    cr_expect_not_null(strstr(out, path[depth - 1]->summary), "%s", path[depth - 1]->name);
    for (const struct option *option = path[depth - 1]->options; option && option->name; option++)
        cr_expect_not_null(strstr(out, option->name), "%s --%s", path[depth - 1]->name,
                           option->name);
    free(out);
    ++*count;
    for (const struct command *const *child = path[depth - 1]->children; child && *child; child++)
        if (!(*child)->hidden) {
            path[depth] = *child;
            check_help(path, depth + 1, count);
        }
}

Test(pages, every_command_has_help)
{
    const struct command *path[COMMAND_DEPTH_MAX + 1] = {&command_root};
    int count = 0;
    check_help(path, 1, &count);
    cr_expect_gt(count, 30);
}

/* A summary is one line without a full stop, and what it names exists. */
static void check_rules(const struct command *command)
{
    cr_expect(command->summary[0] && command->summary[strlen(command->summary) - 1] != '.',
              "summary of %s", command->name);
    cr_expect((command->run != NULL) != (command->children != NULL) || command == &command_root,
              "%s must either run or have commands below it", command->name);
    for (const struct option *option = command->options; option && option->name; option++)
        for (const struct option *other = option + 1; other->name; other++)
            cr_expect_str_neq(option->name, other->name, "%s", command->name);
    for (const struct command *const *child = command->children; child && *child; child++)
        check_rules(*child);
}

Test(pages, the_tree_keeps_its_rules)
{
    check_rules(&command_root);
}
