/* view_field.c: one value as people read it. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/units.h"
#include "poolctl/message.h"
#include "poolctl/view.h"

#define MIB (1ull << 20)

static const char *format_time(int64_t wall_ms, char *out, size_t size)
{
    struct tm local = {0};
    time_t seconds = (time_t)(wall_ms / 1000);
    if (!localtime_r(&seconds, &local) || !strftime(out, size, "%F %T", &local))
        (void)snprintf(out, size, "-");
    return out;
}

static const char *format_us(uint64_t us, char *out, size_t size)
{
    if (us < 1000)
        (void)snprintf(out, size, "%" PRIu64 " µs", us);
    else if (us < 100000)
        (void)snprintf(out, size, "%.1f ms", (double)us / 1000);
    else
        units_format_ms(us / 1000, out, size);
    return out;
}

static const char *format_labels(const json_t *labels, char *out, size_t size)
{
    json_t *object = json_incref((json_t *)(uintptr_t)labels);
    const char *key = NULL;
    json_t *value = NULL;
    size_t used = 0;
    out[0] = '\0';
    json_object_foreach(object, key, value) if (used < size) used += (size_t)snprintf(
        out + used, size - used, "%s%s=%s", used ? "," : "", key, json_string_value(value));
    json_decref(object);
    return out;
}

static const char *format_list(const json_t *list, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(list) && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "; " : "",
                                 json_string_value(json_array_get(list, i)));
    return out;
}

static const char *format_number(enum field_format format, uint64_t number, int64_t now_ms,
                                 char *out, size_t size)
{
    int64_t age_ms = now_ms - (int64_t)number;
    switch (format) {
    case FIELD_MIB:
        return units_format_bytes(number > UINT64_MAX / MIB ? UINT64_MAX : number * MIB, out, size);
    case FIELD_BYTES:
        return units_format_bytes(number, out, size);
    case FIELD_BPS:
        return units_format_bps(number, out, size);
    case FIELD_PERMILLE:
        (void)snprintf(out, size, "%.1f%%", (double)number / 10);
        return out;
    case FIELD_AGE:
        if (number && age_ms >= 60000)
            return units_format_ms((uint64_t)age_ms, out, size);
        if (number) {
            (void)snprintf(out, size, "%" PRId64 " s", age_ms > 0 ? age_ms / 1000 : 0);
            return out;
        }
        break;
    case FIELD_TIME:
        if (number)
            return format_time((int64_t)number, out, size);
        break;
    case FIELD_US:
        return format_us(number, out, size);
    default:
        (void)snprintf(out, size, "%" PRIu64, number);
        return out;
    }
    (void)snprintf(out, size, "-");
    return out;
}

static const char *format_value(enum field_format format, const json_t *value, int64_t now_ms,
                                char *out, size_t size)
{
    if (format == FIELD_YES_NO)
        (void)snprintf(out, size, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_object(value))
        format_labels(value, out, size);
    else if (json_is_array(value))
        format_list(value, out, size);
    else if (json_is_real(value))
        (void)snprintf(out, size, "%.2f", json_real_value(value));
    else if (json_is_integer(value))
        format_number(format, (uint64_t)json_integer_value(value), now_ms, out, size);
    else
        (void)snprintf(out, size, "%s", json_is_string(value) ? json_string_value(value) : "");
    if (!out[0])
        (void)snprintf(out, size, "-");
    return out;
}

const char *view_field(const struct view_style *style, const struct field *field,
                       const json_t *thing, char *out, size_t size)
{
    const json_t *value = message_at(thing, field->path);
    format_value(field->format, value, style->now_ms, out, size);
    if ((field->flags & FIELD_DASH) && json_is_number(value) && !(json_number_value(value) > 0))
        (void)snprintf(out, size, "-");
    if (!field->of)
        return out;
    char whole[64];
    size_t used = strlen(out);
    format_value(field->format, message_at(thing, field->of), style->now_ms, whole, sizeof whole);
    (void)snprintf(out + used, size - used, field->format == FIELD_BPS ? " of %s" : "/%s", whole);
    return out;
}
