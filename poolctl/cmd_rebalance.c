/* cmd_rebalance.c: poolctl rebalance. */
#include "poolctl/ask.h"
#include "poolctl/commands.h"
#include "poolctl/message.h"

static const struct field lines[] = {{"Rebalancing", "mode", NULL, FIELD_TEXT, 0},
                                     {"Set by", "set_by", NULL, FIELD_TEXT, FIELD_OPTIONAL},
                                     {"Set", "set_wall_ms", NULL, FIELD_TIME, FIELD_OPTIONAL},
                                     {"Started with", "started_with", NULL, FIELD_TEXT, 0},
                                     {"Moves under way", "job", NULL, FIELD_NUMBER, FIELD_OPTIONAL},
                                     {0}};

static const struct view view_rebalance = {"rebalances", "rebalance", "mode", NULL, lines};

static int run(struct invocation *call, struct error *err)
{
    struct view_style style = view_style_of(call);
    Vmpool__RebalanceSet body = VMPOOL__REBALANCE_SET__INIT;
    body.mode = ask_text(invocation_argument(call, 0));
    ADMIN_REQUEST(request, REBALANCE_SET, rebalance_set, &body);
    Vmpool__AdminReply *reply = NULL;
    if (ask(call, &request, VMPOOL__ADMIN_REPLY__BODY_REBALANCE, &reply, err) < 0)
        return -1;
    json_t *mode = message_to_json(&reply->rebalance->base, err);
    vmpool__admin_reply__free_unpacked(reply, NULL);
    return view_one(&style, &view_rebalance, lines, mode, err);
}

const struct command command_rebalance = {
    .name = "rebalance",
    .summary = "whether the controller moves VMs by itself, and set it",
    .details =
        "off: it never looks. recommend: it looks and writes an event, rebalance.recommended, with "
        "the moves. on: it makes them, a batch at a time. The mode is kept over restarts of the "
        "controller, whose option --rebalance is only the first one; default goes back to it. "
        "Moves that are under way go on: 'poolctl job cancel' ends them.",
    .arguments = (const struct argument[]){{.name = "MODE",
                                            .help = "off, recommend, on or default; without it "
                                                    "nothing is changed",
                                            .words = "off|recommend|on|default",
                                            .optional = true},
                                           {0}},
    .examples = (const struct example[]){{"poolctl rebalance", "What is it now?"},
                                         {"poolctl rebalance off", "Before work on the network"},
                                         {0}},
    .run = run,
};
