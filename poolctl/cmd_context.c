/* cmd_context.c: poolctl context add|ls|use|rm. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "poolctl/commands.h"
#include "poolctl/context.h"
#include "poolctl/view.h"

static int run_add(struct invocation *call, struct error *err)
{
    struct context context = {.name = ""};
    char current[CONTEXT_NAME_MAX + 2];
    const char *name = invocation_argument(call, 0);
    const char *file = invocation_argument(call, 1);
    int result = context_read(file, &context, err);
    if (result == 0)
        result = context_save(name, &context, err);
    explicit_bzero(&context.keys, sizeof context.keys);
    context_current(current, sizeof current);
    if (result < 0 || current[0])
        return result;
    if (!invocation_has(call, "quiet"))
        (void)fprintf(call->terminal.err, "%s is the current context now.\n", name);
    return context_set_current(name, err);
}

static const struct command context_add = {
    .name = "add",
    .summary = "keep a controller's address and key under a name",
    .details = "FILE is the admin.context that pool-controller makes in its state folder. It is "
               "copied; the first context becomes the current one.",
    .arguments =
        (const struct argument[]){
            {.name = "NAME", .help = "what to call it"},
            {.name = "FILE", .help = "the controller's admin.context", .complete = COMPLETE_FILE},
            {0}},
    .examples = (const struct example[]){{"poolctl context add lab ./admin.context",
                                          "After copying it from the controller's host"},
                                         {0}},
    .run = run_add,
};

static json_t *describe(const char *name, const char *current)
{
    char file[PATH_MAX] = "";
    struct context context = {.name = ""};
    struct error ignored = ERROR_INIT;
    if (context_path(name, file, sizeof file, &ignored) == 0)
        (void)context_read(file, &context, &ignored);
    explicit_bzero(&context.keys, sizeof context.keys);
    return json_pack("{s:b, s:s, s:s, s:s}", "current", strcmp(name, current) == 0, "name", name,
                     "address", context.address, "file", file);
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_ls(struct invocation *call, struct error *err)
{
    char folder[PATH_MAX];
    char current[CONTEXT_NAME_MAX + 2];
    struct dirent **names = NULL;
    struct view_style style = view_style_of(call);
    if (context_folder(folder, sizeof folder, err) < 0)
        return -1;
    context_current(current, sizeof current);
    int count = scandir(folder, &names, not_hidden, alphasort);
    if (count < 0 && errno != ENOENT)
        return error_errno(err, errno, "cannot read %s", folder);
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        (void)json_array_append_new(list, describe(names[i]->d_name, current));
        free(names[i]);
    }
    free(names);
    return view_list(&style, &view_contexts, list, err);
}

static const struct command context_ls = {
    .name = "ls",
    .summary = "list the contexts; one of them is the current one",
    .run = run_ls,
};

static int check_exists(const char *name, struct error *err)
{
    char file[PATH_MAX];
    if (context_path(name, file, sizeof file, err) < 0)
        return -1;
    if (access(file, F_OK) < 0)
        return error_set(err, ERROR_NOT_FOUND, "no context '%s': see poolctl context ls", name);
    return 0;
}

static int run_use(struct invocation *call, struct error *err)
{
    const char *name = invocation_argument(call, 0);
    return check_exists(name, err) < 0 ? -1 : context_set_current(name, err);
}

static const struct command context_use = {
    .name = "use",
    .summary = "make a context the current one",
    .arguments = ONE_ARGUMENT("NAME", "the context's name", COMPLETE_CONTEXT),
    .run = run_use,
};

static int run_rm(struct invocation *call, struct error *err)
{
    char file[PATH_MAX];
    char current[CONTEXT_NAME_MAX + 2];
    const char *name = invocation_argument(call, 0);
    if (check_exists(name, err) < 0 || context_path(name, file, sizeof file, err) < 0)
        return -1;
    if (unlink(file) < 0)
        return error_errno(err, errno, "cannot remove %s", file);
    context_current(current, sizeof current);
    return strcmp(current, name) == 0 ? context_set_current("", err) : 0;
}

static const struct command context_rm = {
    .name = "rm",
    .summary = "forget a context",
    .arguments = ONE_ARGUMENT("NAME", "the context's name", COMPLETE_CONTEXT),
    .run = run_rm,
};

const struct command command_context = {
    .name = "context",
    .summary = "the controllers poolctl knows",
    .children =
        (const struct command *const[]){&context_add, &context_ls, &context_use, &context_rm, NULL},
};
