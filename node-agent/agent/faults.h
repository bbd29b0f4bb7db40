/*
 * faults.h: where a test may make the agent die, freeze or lose what it says (common/fault.h). Each
 * may be told to "drop" or to "repeat".
 *
 *   agent.command.NAME   a command came, before it is carried out; NAME is one of
 *                        start, prepare, migrate-out, cancel, run, discard, other
 *   agent.answer         a command was carried out, before its answer is sent
 *   agent.event          a VM changed, before the controller is told
 *   agent.report         before the regular report is sent
 */
#pragma once

#include "common/fault.h"
