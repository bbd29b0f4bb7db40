#include "node-agent/agent/commands.h"

#include "common/log.h"

void commands_handle(struct agent *agent, const Vmpool__ControllerToNode *command)
{
    struct error err = ERROR_INIT;
    const uint8_t *known;
    size_t size;
    if (answers_begin(agent->answers, command->request_id, &known, &size) != ANSWER_NEW)
        return;
    (void)error_set(&err, ERROR_FAILED, "this version of pool-agent cannot do that yet");
    agent_answer_error(agent, command->request_id, &err);
}
