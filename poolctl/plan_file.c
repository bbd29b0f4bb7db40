/* plan_file.c: see plan_file.h. */
#include "poolctl/plan_file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "poolctl/message.h"
#include "scheduler/plan.h"

static char *read_whole(FILE *file, size_t *size, struct error *err)
{
    char *data = malloc(PLAN_FILE_BYTES_MAX + 1);
    if (!data) {
        (void)error_set(err, ERROR_FAILED, "out of memory");
        return NULL;
    }
    *size = fread(data, 1, PLAN_FILE_BYTES_MAX + 1, file);
    if (ferror(file))
        (void)error_errno(err, errno, "cannot read it");
    else if (*size > PLAN_FILE_BYTES_MAX)
        (void)error_set(err, ERROR_USAGE, "larger than %u MiB: no plan is",
                        PLAN_FILE_BYTES_MAX >> 20);
    else if (*size == 0)
        (void)error_set(err, ERROR_USAGE,
                        "is empty: expected what \"poolctl plan ... > FILE\" writes");
    else
        return data;
    free(data);
    return NULL;
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return value ? names[json_typeof(value)] : "nothing";
}

/* A text member of @object, copied into a message's field. */
static int take_text(const json_t *object, const char *where, const char *key, char **field,
                     struct error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return error_set(err, ERROR_USAGE, "%s.%s is %s: expected a text", where, key,
                         type_name(value));
    *field = strdup(json_string_value(value));
    return *field ? 0 : error_set(err, ERROR_FAILED, "out of memory");
}

static int take_move(const json_t *object, size_t number, Vmpool__PlanMove *move, struct error *err)
{
    char where[48];
    (void)snprintf(where, sizeof where, "plan.moves[%zu]", number);
    if (!json_is_object(object))
        return error_set(err, ERROR_USAGE, "%s is %s: expected an object with vm, from and to",
                         where, type_name(object));
    if (take_text(object, where, "vm", &move->vm, err) < 0 ||
        take_text(object, where, "from", &move->from, err) < 0 ||
        take_text(object, where, "to", &move->to, err) < 0 ||
        take_text(object, where, "why", &move->why, err) < 0)
        return -1;
    if (!move->vm[0] || !move->from[0] || !move->to[0])
        return error_set(err, ERROR_USAGE,
                         "%s: vm, from or to is empty: expected the names of a VM and two nodes",
                         where);
    json_int_t memory = message_number(object, "memory_mib");
    json_int_t duration = message_number(object, "duration_us");
    json_int_t pause = message_number(object, "pause_us");
    json_int_t bytes = message_number(object, "bytes");
    if (memory < 0 || duration < 0 || pause < 0 || bytes < 0)
        return error_set(err, ERROR_USAGE, "%s: a figure is negative: expected 0 or more", where);
    move->memory_mib = (uint64_t)memory;
    move->duration_us = (uint64_t)duration;
    move->pause_us = (uint64_t)pause;
    move->bytes = (uint64_t)bytes;
    return 0;
}

static int take_moves(const json_t *json, Vmpool__Plan *plan, struct error *err)
{
    const json_t *moves = json_object_get(json, "moves");
    if (!json_is_array(moves))
        return error_set(err, ERROR_USAGE, "plan.moves is %s: expected a list", type_name(moves));
    size_t count = json_array_size(moves);
    if (count > PLAN_MOVE_MAX)
        return error_set(err, ERROR_USAGE, "plan.moves has %zu moves: expected at most %d", count,
                         PLAN_MOVE_MAX);
    plan->moves = calloc(count + 1, sizeof *plan->moves);
    if (!plan->moves)
        return error_set(err, ERROR_FAILED, "out of memory");
    for (size_t i = 0; i < count; i++) {
        Vmpool__PlanMove *move = malloc(sizeof *move);
        if (!move)
            return error_set(err, ERROR_FAILED, "out of memory");
        vmpool__plan_move__init(move);
        plan->moves[plan->n_moves++] = move;
        if (take_move(json_array_get(moves, i), i, move, err) < 0)
            return -1;
    }
    return 0;
}

static int take_plan(const json_t *document, Vmpool__Plan *plan, struct error *err)
{
    const json_t *version = json_object_get(document, "schema_version");
    const json_t *json = json_object_get(document, "plan");
    if (!json_is_object(json))
        return error_set(
            err, ERROR_USAGE,
            "holds no plan: expected an object \"plan\" as \"poolctl plan\" writes it");
    if (!json_is_integer(version) || json_integer_value(version) != MESSAGE_SCHEMA_VERSION)
        return error_set(err, ERROR_USAGE, "schema_version: expected %d", MESSAGE_SCHEMA_VERSION);
    const json_t *format = json_object_get(json, "format");
    if (!json_is_integer(format) || json_integer_value(format) < 0 ||
        json_integer_value(format) > 1000)
        return error_set(err, ERROR_USAGE, "plan.format is no version: expected 1");
    plan->format = (uint32_t)json_integer_value(format);
    if (take_text(json, "plan", "kind", &plan->kind, err) < 0 ||
        take_text(json, "plan", "node", &plan->node, err) < 0 ||
        take_text(json, "plan", "pool_name", &plan->pool_name, err) < 0 ||
        take_text(json, "plan", "pool_id", &plan->pool_id, err) < 0 ||
        take_text(json, "plan", "fingerprint", &plan->fingerprint, err) < 0 ||
        take_text(json, "plan", "summary", &plan->summary, err) < 0)
        return -1;
    if (strlen(plan->fingerprint) != 16 || strspn(plan->fingerprint, "0123456789abcdef") != 16)
        return error_set(err, ERROR_USAGE, "plan.fingerprint: expected 16 hex digits");
    return take_moves(json, plan, err);
}

static json_t *parse(const char *path, struct error *err)
{
    bool from_stdin = strcmp(path, "-") == 0;
    auto_file FILE *file = from_stdin ? NULL : fopen(path, "r");
    json_error_t wrong;
    size_t size = 0;
    if (!file && !from_stdin) {
        (void)error_errno(err, errno, "cannot open it");
        return NULL;
    }
    auto_free char *data = read_whole(from_stdin ? stdin : file, &size, err);
    if (!data)
        return NULL;
    json_t *document = json_loadb(data, size, JSON_REJECT_DUPLICATES, &wrong);
    if (!document)
        (void)error_set(err, ERROR_USAGE,
                        "line %d, column %d: %.100s: expected JSON as \"poolctl plan\" writes it",
                        wrong.line, wrong.column, wrong.text);
    return document;
}

Vmpool__Plan *plan_file_read(const char *path, struct error *err)
{
    json_t *document = parse(path, err);
    Vmpool__Plan *plan = document ? malloc(sizeof *plan) : NULL;
    if (plan)
        vmpool__plan__init(plan);
    if (plan && take_plan(document, plan, err) < 0) {
        vmpool__plan__free_unpacked(plan, NULL);
        plan = NULL;
    }
    json_decref(document);
    if (!plan)
        (void)error_wrap(err, "%s", strcmp(path, "-") == 0 ? "the plan on stdin" : path);
    return plan;
}
