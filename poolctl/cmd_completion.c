/*
 * cmd_completion.c: poolctl completion bash|zsh, and the hidden __complete both scripts call.
 *
 * "__complete WORD..." gets the words after "poolctl" up to the one being typed, which is the last
 * and may be empty, and prints what may stand there: one candidate a line, with a tab before what
 * it is. A first line ":files" asks the shell for file names. Names are the live ones; where the
 * controller does not answer within a second there are none.
 */
#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/context.h"
#include "poolctl/message.h"
#include "poolctl/text.h"

#define CONNECT_MS 600
#define ANSWER_MS  400

static const char bash_script[] =
    "# bash completion for poolctl\n"
    "_poolctl() {\n"
    "    local line cur=\"${COMP_WORDS[COMP_CWORD]}\"\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        if [[ $line == :files ]]; then\n"
    "            compopt -o default 2>/dev/null\n"
    "        else\n"
    "            line=\"${line%%$'\\t'*}\"\n"
    "            [[ $line == \"$cur\"* ]] && COMPREPLY+=(\"$line\")\n"
    "        fi\n"
    "    done < <(\"${COMP_WORDS[0]}\" __complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _poolctl poolctl\n";

static const char zsh_script[] =
    "#compdef poolctl\n"
    "# zsh completion for poolctl\n"
    "_poolctl() {\n"
    "    local line\n"
    "    local -a found\n"
    "    for line in \"${(@f)$(\"${words[1]}\" __complete \"${(@)words[2,CURRENT]}\" "
    "2>/dev/null)}\"; do\n"
    "        if [[ $line == :files ]]; then\n"
    "            _files\n"
    "        elif [[ -n $line ]]; then\n"
    "            found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
    "        fi\n"
    "    done\n"
    "    (( ${#found} )) && _describe poolctl found\n"
    "}\n"
    "if [[ $funcstack[1] == _poolctl ]]; then\n"
    "    _poolctl \"$@\"\n"
    "else\n"
    "    compdef _poolctl poolctl\n"
    "fi\n";

static int run_completion(struct invocation *call, struct error *err)
{
    (void)err;
    bool zsh = strcmp(invocation_argument(call, 0), "zsh") == 0;
    (void)fputs(zsh ? zsh_script : bash_script, call->terminal.out);
    return 0;
}

const struct command command_completion = {
    .name = "completion",
    .summary = "print the completion script for a shell",
    .details = "It completes commands, options and the names of nodes, VMs, images, jobs and "
               "contexts as they are now.",
    .arguments =
        (const struct argument[]){{.name = "SHELL", .help = "bash or zsh", .words = "bash|zsh"},
                                  {0}},
    .examples = (const struct example[]){{"source <(poolctl completion bash)", "In ~/.bashrc"},
                                         {"source <(poolctl completion zsh)", "In ~/.zshrc"},
                                         {0}},
    .run = run_completion,
};

/* ---- live names ----------------------------------------------------------------------------- */

static void print_candidate(FILE *out, const char *word, const char *about)
{
    text_print_safe(out, word, false);
    (void)fputc('\t', out);
    text_print_safe(out, about, false);
    (void)fputc('\n', out);
}

static void print_list(const struct invocation *call, Vmpool__AdminRequest *request,
                       Vmpool__AdminReply__BodyCase expected, const struct view *view,
                       const char *about)
{
    struct error ignored = ERROR_INIT;
    struct session *session = session_open_within(call, CONNECT_MS, ANSWER_MS, &ignored);
    json_t *list = session ? ask_list(session, request, expected, view, &ignored) : NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        char number[32];
        const json_t *thing = json_array_get(list, i);
        const char *name = message_text(thing, view->name);
        (void)snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT,
                       message_number(thing, view->name));
        print_candidate(call->terminal.out, name[0] ? name : number, message_text(thing, about));
    }
    json_decref(list);
    session_close(session);
}

static void print_contexts(const struct invocation *call)
{
    char folder[PATH_MAX];
    struct error ignored = ERROR_INIT;
    struct dirent **names = NULL;
    if (context_folder(folder, sizeof folder, &ignored) < 0)
        return;
    int count = scandir(folder, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.')
            print_candidate(call->terminal.out, names[i]->d_name, "context");
        free(names[i]);
    }
    free(names);
}

static void print_values(const struct invocation *call, enum complete complete, const char *words)
{
    Vmpool__NodeList nodes = VMPOOL__NODE_LIST__INIT;
    Vmpool__VmList vms = VMPOOL__VM_LIST__INIT;
    Vmpool__ImageList images = VMPOOL__IMAGE_LIST__INIT;
    Vmpool__JobList jobs = VMPOOL__JOB_LIST__INIT;
    ADMIN_REQUEST(node_request, NODE_LIST, node_list, &nodes);
    ADMIN_REQUEST(vm_request, VM_LIST, vm_list, &vms);
    ADMIN_REQUEST(image_request, IMAGE_LIST, image_list, &images);
    ADMIN_REQUEST(job_request, JOB_LIST, job_list, &jobs);
    char word[64];
    for (const char *at = words; at && *at; at += strspn(at, "|")) {
        size_t length = strcspn(at, "|");
        (void)snprintf(word, sizeof word, "%.*s", (int)length, at);
        print_candidate(call->terminal.out, word, "");
        at += length;
    }
    switch (complete) {
    case COMPLETE_NODE:
        print_list(call, &node_request, VMPOOL__ADMIN_REPLY__BODY_NODES, &view_nodes, "phase");
        break;
    case COMPLETE_VM:
        print_list(call, &vm_request, VMPOOL__ADMIN_REPLY__BODY_VMS, &view_vms, "phase");
        break;
    case COMPLETE_IMAGE:
        print_list(call, &image_request, VMPOOL__ADMIN_REPLY__BODY_IMAGES, &view_images,
                   "spec.cmdline");
        break;
    case COMPLETE_JOB:
        print_list(call, &job_request, VMPOOL__ADMIN_REPLY__BODY_JOBS, &view_jobs, "subject");
        break;
    case COMPLETE_CONTEXT:
        print_contexts(call);
        break;
    case COMPLETE_FILE:
        (void)fputs(":files\n", call->terminal.out);
        break;
    case COMPLETE_NOTHING:
        break;
    }
}

/* ---- __complete ----------------------------------------------------------------------------- */

static void print_options(FILE *out, const struct option *options)
{
    char word[80];
    for (const struct option *option = options; option && option->name; option++) {
        (void)snprintf(word, sizeof word, "--%s", option->name);
        print_candidate(out, word, option->help);
    }
}

/* The option whose value the word after @word is, or NULL. */
static const struct option *awaits_value(const struct command *command, const char *word)
{
    bool is_long = word[0] == '-' && word[1] == '-';
    if (word[0] != '-' || !word[1] || (is_long && strchr(word, '=')) || (!is_long && word[2]))
        return NULL;
    const struct option *option = command_option(command, word + (is_long ? 2 : 1), !is_long);
    return option && option->value ? option : NULL;
}

static int run_complete(struct invocation *call, struct error *err)
{
    struct invocation typed = {.terminal = call->terminal};
    const struct command *command = &command_root;
    const struct option *waiting = NULL;
    const struct argument *argument = NULL;
    char context[PATH_MAX] = "";
    (void)err;
    for (size_t i = 0; i + 1 < call->argument_count; i++) {
        const char *word = call->arguments[i];
        if (waiting && strcmp(waiting->name, "context") == 0)
            (void)snprintf(context, sizeof context, "%s", word);
        if (waiting) {
            if (strcmp(word, "=") != 0) /* bash makes three words of --name=value */
                waiting = NULL;
            continue;
        }
        waiting = awaits_value(command, word);
        const struct command *child = command_child(command, word);
        if (child) {
            command = child;
            argument = command->arguments;
        } else if (word[0] != '-' && argument && argument->name) {
            argument++;
        }
    }
    /* Live names come from the pool the command line names. */
    struct option_value value = {command_option(&command_root, "context", false), context};
    typed.values = &value;
    typed.value_count = context[0] ? 1 : 0;
    const char *last = call->argument_count ? call->arguments[call->argument_count - 1] : "";
    FILE *out = call->terminal.out;
    if (waiting) {
        print_values(&typed, waiting->complete, waiting->words);
    } else if (last[0] == '-') {
        print_options(out, command->options);
        print_options(out, command_global_options);
    } else if (command->children) {
        for (const struct command *const *child = command->children; *child; child++)
            if (!(*child)->hidden)
                print_candidate(out, (*child)->name, (*child)->summary);
    } else if (argument && argument->name) {
        print_values(&typed, argument->complete, argument->words);
    }
    return 0;
}

const struct command command_complete = {
    .name = "__complete",
    .summary = "what can stand at the end of a command line",
    .hidden = true,
    .raw = true,
    .run = run_complete,
};
