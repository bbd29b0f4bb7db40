#include "node-agent/agent/names.h"

#include <string.h>

static bool is_lower_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool is_lower_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
}

static bool is_alnum(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

bool name_is_uuid(const char *text)
{
    if (strnlen(text, VM_ID_LENGTH + 1) != VM_ID_LENGTH)
        return false;
    for (size_t i = 0; i < VM_ID_LENGTH; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !is_lower_hex(text[i]))
            return false;
    }
    return true;
}

bool name_is_node(const char *text)
{
    size_t length = strnlen(text, 64);
    if (length == 0 || length > 63 || !is_lower_alnum(text[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!is_lower_alnum(text[i]) && text[i] != '-')
            return false;
    return true;
}

bool name_is_vm(const char *text)
{
    size_t length = strnlen(text, 64);
    if (length == 0 || length > 63 || !is_alnum(text[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!is_alnum(text[i]) && !strchr("._-", text[i]))
            return false;
    return true;
}

bool name_is_sha256(const char *text)
{
    if (strnlen(text, SHA256_HEX_LENGTH + 1) != SHA256_HEX_LENGTH)
        return false;
    for (size_t i = 0; i < SHA256_HEX_LENGTH; i++)
        if (!is_lower_hex(text[i]))
            return false;
    return true;
}

bool name_is_interface(const char *text)
{
    size_t length = strnlen(text, 16);
    if (length == 0 || length > 15 || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_alnum(text[i]) && !strchr("._-", text[i]))
            return false;
    return text[0] != '-';
}

static unsigned hex_value(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

bool name_is_mac(const char *text, unsigned char *mac)
{
    unsigned char bytes[6];
    if (strnlen(text, 18) != 17)
        return false;
    for (size_t i = 0; i < 6; i++) {
        const char *pair = text + i * 3;
        if (!is_lower_hex(pair[0]) || !is_lower_hex(pair[1]) || (i < 5 && pair[2] != ':'))
            return false;
        bytes[i] = (unsigned char)(hex_value(pair[0]) * 16 + hex_value(pair[1]));
    }
    if (bytes[0] & 1)
        return false; /* a group address is no station's own */
    if (mac)
        memcpy(mac, bytes, sizeof bytes);
    return true;
}

bool text_is_printable(const char *text, size_t max)
{
    size_t length = strnlen(text, max + 1);
    if (length > max)
        return false;
    for (size_t i = 0; i < length; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    return true;
}
