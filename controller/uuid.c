#include "controller/uuid.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"

static void random_bytes(uint8_t *out, size_t size)
{
    /* Up to 256 bytes never fail or fall short once the kernel has started (getrandom(2)). */
    if (getrandom(out, size, 0) != (ssize_t)size) {
        log_error("the kernel gives no random bytes");
        abort();
    }
}

const char *uuid_make(char out[UUID_SIZE])
{
    uint8_t r[16];
    random_bytes(r, sizeof r);
    r[6] = (uint8_t)((r[6] & 0x0f) | 0x40); /* RFC 4122, section 4.4 */
    r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
    (void)snprintf(out, UUID_SIZE,
                   "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0],
                   r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13],
                   r[14], r[15]);
    return out;
}

bool uuid_valid(const char *text)
{
    if (strlen(text) != UUID_SIZE - 1)
        return false;
    for (unsigned i = 0; i < UUID_SIZE - 1; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
            return false;
    }
    return true;
}

const char *short_id_make(char out[SHORT_ID_SIZE])
{
    uint8_t r[8];
    random_bytes(r, sizeof r);
    (void)snprintf(out, SHORT_ID_SIZE, "%02x%02x%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3],
                   r[4], r[5], r[6], r[7]);
    return out;
}
