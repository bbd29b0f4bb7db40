#include "common/link.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/vmpool-keys-XXXXXX");
    cr_assert(mkdtemp(folder));
}

static void remove_folder(void)
{
    char path[96];
    (void)snprintf(path, sizeof path, "%s/key", folder);
    (void)unlink(path);
    cr_assert_eq(rmdir(folder), 0, "something was left over in %s", folder);
}

TestSuite(link_keys, .init = make_folder, .fini = remove_folder);

static const char *key_path(char out[96])
{
    (void)snprintf(out, 96, "%s/key", folder);
    return out;
}

Test(link_keys, a_file_is_made_once_private_and_read_back)
{
    struct error err = ERROR_INIT;
    struct link_keys made, read;
    struct stat info;
    char path[96];
    cr_assert_eq(link_keys_load_or_create(key_path(path), &made, &err), 0, "%s", err.text);
    cr_assert_eq(stat(path, &info), 0);
    cr_assert_eq(info.st_mode & 0777, 0600);
    cr_assert_eq(link_keys_load_or_create(path, &read, &err), 0, "%s", err.text);
    cr_assert_eq(memcmp(&made, &read, sizeof made), 0);
}

Test(link_keys, a_file_others_may_read_is_refused_with_the_way_out)
{
    struct error err = ERROR_INIT;
    struct link_keys keys;
    char path[96];
    cr_assert_eq(link_keys_load_or_create(key_path(path), &keys, &err), 0);
    cr_assert_eq(chmod(path, 0640), 0);
    cr_assert_eq(link_keys_load(path, &keys, &err), -1);
    cr_assert(strstr(err.text, "chmod 600"), "%s", err.text);
}

Test(link_keys, a_damaged_file_is_refused_and_kept)
{
    struct error err = ERROR_INIT;
    struct link_keys keys;
    char path[96];
    int fd = open(key_path(path), O_WRONLY | O_CREAT, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "public 00\n", 10), 10);
    (void)close(fd);
    cr_assert_eq(link_keys_load_or_create(path, &keys, &err), -1);
    cr_assert(strstr(err.text, "no key pair"), "%s", err.text);
    cr_assert_eq(access(path, F_OK), 0);
}

Test(link_keys, a_pair_whose_halves_do_not_match_is_refused)
{
    struct error err = ERROR_INIT;
    struct link_keys keys;
    char path[96];
    cr_assert_eq(link_keys_generate(&keys, &err), 0);
    keys.public_key[0] ^= 1;
    cr_assert_eq(link_keys_save(key_path(path), &keys, &err), 0, "%s", err.text);
    cr_assert_eq(link_keys_load(path, &keys, &err), -1);
}

static void make_token(struct link_token *token, char *text, size_t size)
{
    struct error err = ERROR_INIT;
    struct link_keys server;
    memset(token, 0, sizeof *token);
    (void)snprintf(token->address, sizeof token->address, "pool.example:7400");
    cr_assert_eq(link_keys_generate(&server, &err), 0);
    cr_assert_eq(link_keys_generate(&token->join_keys, &err), 0);
    memcpy(token->server_key, server.public_key, 32);
    cr_assert_eq(link_token_format(token, text, size, &err), 0, "%s", err.text);
}

Test(link_token, what_is_written_is_read)
{
    struct error err = ERROR_INIT;
    struct link_token token, read;
    char text[600];
    make_token(&token, text, sizeof text);
    cr_assert_eq(strncmp(text, "vmpool1.", 8), 0);
    cr_assert_eq(link_token_parse(text, &read, &err), 0, "%s", err.text);
    cr_assert_eq(memcmp(&token, &read, sizeof token), 0);
}

Test(link_token, every_truncation_and_every_changed_letter_is_refused)
{
    struct error err = ERROR_INIT;
    struct link_token token, read;
    char text[600], bad[600];
    make_token(&token, text, sizeof text);
    for (size_t i = 0; i < strlen(text); i++) {
        memcpy(bad, text, sizeof bad);
        bad[i] = '\0';
        cr_assert_eq(link_token_parse(bad, &read, &err), -1, "cut at %zu", i);
        cr_assert_eq(err.kind, ERROR_USAGE);
        memcpy(bad, text, sizeof bad);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        cr_assert_eq(link_token_parse(bad, &read, &err), -1, "changed at %zu", i);
    }
    cr_assert_eq(link_token_parse("", &read, &err), -1);
    memset(bad, 'A', sizeof bad - 1);
    memcpy(bad, "vmpool1.", 8);
    bad[sizeof bad - 1] = '\0';
    cr_assert_eq(link_token_parse(bad, &read, &err), -1);
}

Test(link_token, a_key_is_64_hex_digits_and_nothing_else)
{
    struct error err = ERROR_INIT;
    uint8_t key[32], back[32];
    char text[LINK_HEX_SIZE];
    for (unsigned i = 0; i < 32; i++)
        key[i] = (uint8_t)(i * 7);
    link_key_format(key, text);
    cr_assert_eq(link_key_parse(text, "the key", back, &err), 0);
    cr_assert_eq(memcmp(key, back, 32), 0);
    cr_assert_eq(link_key_parse("00", "the key", back, &err), -1);
    text[63] = 'g';
    cr_assert_eq(link_key_parse(text, "the key", back, &err), -1);
    cr_assert(strstr(err.text, "the key must be 64 hex digits"));
}
