/* cmd_other.c: poolctl version and the hidden __docs. */
#include <string.h>

#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/help.h"
#include "poolctl/message.h"
#include "poolctl/session.h"

static const struct field version_lines[] = {
    {"poolctl", "poolctl", NULL, FIELD_TEXT, 0},
    {"protocol", "protocol_version", NULL, FIELD_NUMBER, 0},
    {"controller", "controller", NULL, FIELD_TEXT, FIELD_OPTIONAL},
    {0}};
static const struct view view_version = {"versions", "version", "poolctl", NULL, version_lines};

static int run_version(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    Vmpool__StatusGet body = VMPOOL__STATUS_GET__INIT;
    ADMIN_REQUEST(request, STATUS, status, &body);
    Vmpool__AdminReply *reply = NULL;
    const char *controller = "";
    if (invocation_has(call, "controller")) {
        if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_STATUS, &reply, err) < 0)
            return -1;
        controller = reply->status->version;
    }
    json_t *json = json_pack("{s:s, s:i, s:s}", "poolctl", VMPOOL_VERSION, "protocol_version",
                             VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT, "controller", controller);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return view_one(&style, &view_version, version_lines, json, err);
}

const struct command command_version = {
    .name = "version",
    .summary = "the version of poolctl, and of the controller if asked",
    .options =
        (const struct option[]){
            {.name = "controller", .help = "ask the controller for its version, too"}, {0}},
    .run = run_version,
};

static int run_docs(struct invocation *call, struct error *err)
{
    const char *format = invocation_argument(call, 1);
    bool man = format && strcmp(format, "man") == 0;
    return help_write_pages(invocation_argument(call, 0), man ? HELP_MAN : HELP_MARKDOWN, err);
}

const struct command command_docs = {
    .name = "__docs",
    .summary = "write the pages of all commands into a folder",
    .arguments = (const struct argument[]){{.name = "FOLDER", .help = "an existing folder"},
                                           {.name = "FORMAT",
                                            .help = "markdown (default) or man",
                                            .words = "markdown|man",
                                            .optional = true},
                                           {0}},
    .hidden = true,
    .run = run_docs,
};
