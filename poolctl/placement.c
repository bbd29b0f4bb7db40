#include "poolctl/placement.h"

#include <string.h>

#include "common/units.h"
#include "poolctl/message.h"
#include "poolctl/text.h"
#include "poolctl/view.h"

/* A plan for the VMs of a node names no single node; it holds where each VM has one. */
static bool all_fit(const Vmpool__Placement *placement)
{
    for (size_t i = 0; i < placement->n_verdicts; i++)
        if (!placement->verdicts[i]->fits)
            return false;
    return true;
}

static void print_forecast(FILE *out, const Vmpool__MigrationForecast *forecast)
{
    char time[32], pause[32], bytes[24];
    (void)fprintf(out, "Predicted: %s in all, a pause of %s, %s sent%s\n",
                  units_format_ms(forecast->duration_us / 1000, time, sizeof time),
                  units_format_ms(forecast->pause_us / 1000, pause, sizeof pause),
                  units_format_bytes(forecast->bytes, bytes, sizeof bytes),
                  forecast->dirty_rate_known
                      ? " (by what the guest wrote in its last migration)"
                      : " (its writing is not known yet: a tenth of the link is assumed)");
}

int placement_print(const struct invocation *call, const Vmpool__Placement *placement,
                    struct error *err)
{
    struct view_style style = view_style_of(call);
    bool drain = strcmp(call->command->name, "drain") == 0;
    const struct view *view = drain ? &view_moves : &view_verdicts;
    json_t *json = message_to_json(&placement->base, err);
    int result = -1;
    if (!json)
        return -1;
    json_t *verdicts = json_object_get(json, "verdicts");
    switch (style.format) {
    case OUTPUT_JSON:
    case OUTPUT_YAML:
        result = view_document(&style, message_document("placement", json_incref(json), err), err);
        break;
    case OUTPUT_CSV:
        result = view_list(&style, view, json_incref(verdicts), err);
        break;
    case OUTPUT_NAME:
        if (placement->node[0])
            (void)fprintf(style.terminal.out, "%s\n", placement->node);
        result = 0;
        break;
    case OUTPUT_TABLE:
        result = view_list(&style, view, json_incref(verdicts), err);
        if ((drain ? all_fit(placement) : placement->node[0]) && placement->summary[0]) {
            if (placement->n_verdicts > 0)
                (void)fputc('\n', style.terminal.out);
            text_print_safe(style.terminal.out, placement->summary, true);
            (void)fputc('\n', style.terminal.out);
        }
        if (placement->forecast)
            print_forecast(style.terminal.out, placement->forecast);
        break;
    }
    json_decref(json);
    if (result == 0 && (drain ? !all_fit(placement) : !placement->node[0]))
        return error_set(err, ERROR_NO_CAPACITY, "%s",
                         placement->summary[0] ? placement->summary : "no node fits");
    return result;
}
