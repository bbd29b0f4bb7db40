#include "poolctl/text.h"

#include <stdint.h>
#include <string.h>

#define DISTANCE_MAX_LENGTH 32
#define DISTANCE_FAR        1000

struct range {
    uint32_t first;
    uint32_t last;
};

/* Unicode 15: general categories Mn and Me that occur in names, and format characters. */
static const struct range zero_width[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x0610, 0x061a}, {0x064b, 0x065f},
    {0x0900, 0x0902}, {0x093c, 0x093c}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200f},
    {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0xfeff, 0xfeff}, {0xe0100, 0xe01ef}};

/* Unicode 15: East Asian Width W and F. */
static const struct range double_width[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},  {0x23e9, 0x23ec}, {0x2e80, 0x303e},   {0x3041, 0x33ff},
    {0x3400, 0x4dbf},   {0x4e00, 0x9fff},  {0xa000, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},
    {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
    {0x1f900, 0x1faff}, {0x20000, 0x3fffd}};

static bool in_ranges(uint32_t code, const struct range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

static int width_of(uint32_t code)
{
    if (in_ranges(code, zero_width, sizeof zero_width / sizeof zero_width[0]))
        return 0;
    return in_ranges(code, double_width, sizeof double_width / sizeof double_width[0]) ? 2 : 1;
}

/* Reads one character into @code and returns its length in bytes; 0 where @text does not begin
 * with valid UTF-8 (RFC 3629: shortest form, no surrogates, at most U+10FFFF). */
static size_t decode(const char *text, uint32_t *code)
{
    const unsigned char *byte = (const unsigned char *)text;
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = byte[0] < 0x80   ? 1
                    : byte[0] < 0xc2 ? 0
                    : byte[0] < 0xe0 ? 2
                    : byte[0] < 0xf0 ? 3
                    : byte[0] < 0xf5 ? 4
                                     : 0;
    if (length == 0)
        return 0;
    *code = length == 1 ? byte[0] : byte[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (byte[i] & 0x3fu);
    }
    if (*code < smallest[length] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
        return 0;
    return length;
}

/* As decode(), but a broken byte is a character of its own. */
static size_t step(const char *text, int *columns)
{
    uint32_t code = 0;
    size_t length = decode(text, &code);
    *columns = length ? width_of(code) : 1;
    return length ? length : 1;
}

int text_width(const char *text)
{
    int total = 0;
    int columns = 0;
    for (size_t i = 0; text[i]; i += step(text + i, &columns), total += columns)
        ;
    return total;
}

size_t text_fit(const char *text, int columns)
{
    size_t bytes = 0;
    int used = 0;
    while (text[bytes]) {
        int width = 0;
        size_t length = step(text + bytes, &width);
        if (used + width > columns)
            break;
        used += width;
        bytes += length;
    }
    return bytes;
}

/* C0, DEL, C1, and the marks that turn the direction of writing (Unicode 9, table 3). */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x202a && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}

void text_print_safe(FILE *out, const char *text, bool lines)
{
    for (size_t i = 0; text[i];) {
        uint32_t code = 0;
        size_t length = decode(text + i, &code);
        if (length == 1 && (code == '\n' || code == '\t') && lines)
            (void)fputc(text[i], out);
        else if (length == 1 && (code == '\n' || code == '\t'))
            (void)fputc(' ', out);
        else if (length == 0 || is_control(code))
            (void)fputc('?', out);
        else
            (void)fwrite(text + i, 1, length, out);
        i += length ? length : 1;
    }
}

void text_print_wrapped(FILE *out, const char *text, int indent, int columns)
{
    int used = 0;
    while (*text) {
        if (text[0] == '\n' && text[1] == '\n') {
            (void)fprintf(out, "\n\n%*s", indent, "");
            used = 0;
            text += 2;
            continue;
        }
        size_t length = strcspn(text, " \n");
        char word[256];
        (void)snprintf(word, sizeof word, "%.*s", (int)length, text);
        int width = text_width(word);
        if (used > 0 && used + 1 + width > columns - indent) {
            (void)fprintf(out, "\n%*s", indent, "");
            used = 0;
        }
        used += fprintf(out, "%s", used > 0 ? " " : "") + width;
        (void)fwrite(text, 1, length, out);
        text += length;
        text += *text == ' ' || (text[0] == '\n' && text[1] != '\n');
    }
    (void)fputc('\n', out);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Damerau-Levenshtein in its restricted form ("optimal string alignment"). */
unsigned text_distance(const char *a, const char *b)
{
    unsigned cost[DISTANCE_MAX_LENGTH + 1][DISTANCE_MAX_LENGTH + 1];
    size_t rows = strlen(a);
    size_t columns = strlen(b);
    if (rows > DISTANCE_MAX_LENGTH || columns > DISTANCE_MAX_LENGTH)
        return DISTANCE_FAR;
    for (size_t i = 0; i <= rows; i++)
        for (size_t j = 0; j <= columns; j++) {
            if (i == 0 || j == 0) {
                cost[i][j] = (unsigned)(i + j);
                continue;
            }
            cost[i][j] = least(least(cost[i - 1][j], cost[i][j - 1]) + 1,
                               cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cost[i][j] = least(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    return cost[rows][columns];
}
