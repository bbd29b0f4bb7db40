#include "common/last_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int last_state_write(int fd, const struct last_state *state)
{
    char line[LAST_STATE_BYTES];
    int length =
        snprintf(line, sizeof line, "%d %" PRIu64 " %s", state->state, state->epoch, state->text);
    if (length < 0 || length >= LAST_STATE_BYTES) {
        errno = EINVAL;
        return -1;
    }
    for (int i = 0; i < length; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    memset(line + length, ' ', sizeof line - (size_t)length);
    line[sizeof line - 1] = '\n';
    return pwrite(fd, line, sizeof line, 0) == (ssize_t)sizeof line ? 0 : -1;
}

int last_state_read(int fd, struct last_state *state)
{
    char line[LAST_STATE_BYTES + 1];
    int text_at = 0;
    if (pread(fd, line, LAST_STATE_BYTES, 0) != LAST_STATE_BYTES ||
        line[LAST_STATE_BYTES - 1] != '\n')
        return -1;
    line[LAST_STATE_BYTES - 1] = '\0';
    if (sscanf(line, "%d %" SCNu64 "%n", &state->state, &state->epoch, &text_at) != 2 ||
        state->state < 0 || line[text_at] != ' ')
        return -1;
    const char *text = line + text_at + 1;
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == ' ')
        length--;
    if (length >= sizeof state->text)
        length = sizeof state->text - 1;
    for (size_t i = 0; i < length; i++)
        state->text[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : ' ';
    state->text[length] = '\0';
    return 0;
}
