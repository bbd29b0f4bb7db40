#include "controller/metrics.h"

#include "controller/tallies.h"

void metrics_write(const struct controller *controller, struct metric_text *text)
{
    metrics_write_pool(controller, text);
    metrics_write_nodes(controller, text);
    metrics_write_vms(controller, text);
    metrics_write_migrations(controller, text);
}

const char *metrics_outcome_name(unsigned outcome)
{
    static const char *const names[TALLY_OUTCOMES] = {
        [TALLY_DONE] = "done", [TALLY_FAILED] = "failed", [TALLY_CANCELLED] = "cancelled"};
    return names[outcome];
}
