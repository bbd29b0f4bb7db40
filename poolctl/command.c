#include "poolctl/command.h"

#include <string.h>

#include "poolctl/text.h"

const char *command_path_text(const struct command *const *path, size_t depth, char *out,
                              size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < depth; i++) {
        size_t used = strlen(out);
        (void)snprintf(out + used, size - used, "%s%s", i ? " " : "", path[i]->name);
    }
    return out;
}

const struct command *command_child(const struct command *command, const char *name)
{
    for (const struct command *const *child = command->children; child && *child; child++)
        if (strcmp((*child)->name, name) == 0)
            return *child;
    return NULL;
}

static const struct option *find_option(const struct option *options, const char *name, bool letter)
{
    for (const struct option *option = options; option && option->name; option++)
        if (letter ? option->letter && option->letter == name[0] : strcmp(option->name, name) == 0)
            return option;
    return NULL;
}

const struct option *command_option(const struct command *command, const char *name, bool letter)
{
    const struct option *own = find_option(command->options, name, letter);
    return own ? own : find_option(command_global_options, name, letter);
}

bool command_word_allowed(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; at;) {
        size_t here = strcspn(at, "|");
        if (here == length && memcmp(at, word, length) == 0)
            return true;
        at = at[here] ? at + here + 1 : NULL;
    }
    return words == NULL;
}

/* Keeps @name in @best where it is nearer to @typed than @distance, and near enough to be meant:
 * at most one slip in three letters. */
static void keep_nearer(const char *name, const char *typed, unsigned *distance, const char **best)
{
    unsigned here = text_distance(name, typed);
    if (here < *distance && here <= (strlen(typed) + 2) / 3) {
        *distance = here;
        *best = name;
    }
}

const char *command_suggest_child(const struct command *command, const char *typed)
{
    unsigned distance = ~0u;
    const char *best = NULL;
    for (const struct command *const *child = command->children; child && *child; child++)
        if (!(*child)->hidden)
            keep_nearer((*child)->name, typed, &distance, &best);
    return best;
}

const char *command_suggest_option(const struct command *command, const char *typed)
{
    unsigned distance = ~0u;
    const char *best = NULL;
    for (const struct option *option = command->options; option && option->name; option++)
        keep_nearer(option->name, typed, &distance, &best);
    for (const struct option *option = command_global_options; option->name; option++)
        keep_nearer(option->name, typed, &distance, &best);
    return best;
}
