/* plan_view.c: see plan_view.h. */
#include "poolctl/plan_view.h"

#include <string.h>

#include "poolctl/message.h"
#include "poolctl/text.h"

static const struct field move_fields[] = {{"VM", "vm", NULL, FIELD_TEXT, 0},
                                           {"FROM", "from", NULL, FIELD_TEXT, 0},
                                           {"TO", "to", NULL, FIELD_TEXT, 0},
                                           {"MEMORY", "memory_mib", NULL, FIELD_MIB, 0},
                                           {"TIME", "duration_us", NULL, FIELD_US, FIELD_DASH},
                                           {"PAUSE", "pause_us", NULL, FIELD_US, FIELD_DASH},
                                           {"BYTES", "bytes", NULL, FIELD_BYTES, FIELD_WIDE},
                                           {"WHY", "why", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
                                           {0}};
const struct view view_plan_moves = {"moves", "move", "vm", "no moves", move_fields};

static const struct field left_fields[] = {
    {"STAYS", "vm", NULL, FIELD_TEXT, 0}, {"WHY", "why", NULL, FIELD_TEXT, FIELD_FLEXIBLE}, {0}};
static const struct view view_left = {"left", "left", "vm", NULL, left_fields};

static const struct field totals[] = {
    {"To send", "bytes", NULL, FIELD_BYTES, FIELD_OPTIONAL},
    {"Time, one after the other", "duration_us", NULL, FIELD_US, FIELD_OPTIONAL},
    {"Longest pause", "pause_us", NULL, FIELD_US, FIELD_OPTIONAL},
    {"Imbalance before", "before.imbalance_permille", NULL, FIELD_PERMILLE, 0},
    {"  after", "after.imbalance_permille", NULL, FIELD_PERMILLE, 0},
    {"Fullest node before", "before.highest_permille", NULL, FIELD_PERMILLE, 0},
    {"  after", "after.highest_permille", NULL, FIELD_PERMILLE, 0},
    {"Stranded before", "before.stranded_permille", NULL, FIELD_PERMILLE, 0},
    {"  after", "after.stranded_permille", NULL, FIELD_PERMILLE, 0},
    {"Empty nodes before", "before.empty", "before.nodes", FIELD_NUMBER, 0},
    {"  after", "after.empty", "after.nodes", FIELD_NUMBER, 0},
    {0}};

void plan_view_print(const struct view_style *style, const json_t *plan)
{
    const json_t *moves = message_at(plan, "moves"), *left = message_at(plan, "left");
    FILE *out = style->terminal.out;
    if (json_array_size(moves) > 0)
        view_table(style, &view_plan_moves, NULL, moves);
    if (json_array_size(left) > 0)
        view_table(style, &view_left, json_array_size(moves) > 0 ? "" : NULL, left);
    /* A plan that was read back has its moves only. */
    if (json_array_size(moves) > 0 && message_number(plan, "bytes") > 0) {
        (void)fputc('\n', out);
        view_page(style, totals, plan);
    }
    if (json_array_size(moves) > 0 || json_array_size(left) > 0)
        (void)fputc('\n', out);
    text_print_safe(out, message_text(plan, "summary"), false);
    (void)fputc('\n', out);
}
