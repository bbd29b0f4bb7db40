#include "poolctl/text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Test(text, widths_are_columns_of_a_terminal)
{
    cr_expect_eq(text_width(""), 0);
    cr_expect_eq(text_width("vm1"), 3);
    cr_expect_eq(text_width("Zürich"), 6);
    cr_expect_eq(text_width("日本"), 4);
    cr_expect_eq(text_width("e\xcc\x81"), 1, "a combining accent takes no column");
    cr_expect_eq(text_width("\xff\xfe"), 2, "broken bytes count one each");
}

Test(text, fit_never_cuts_a_character)
{
    cr_expect_eq(text_fit("abc", 2), 2);
    cr_expect_eq(text_fit("日本", 3), 3, "the second takes two columns");
    cr_expect_eq(text_fit("ü", 1), 2);
    cr_expect_eq(text_fit("", 5), 0);
}

static char *printed(const char *text, bool lines)
{
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);
    text_print_safe(file, text, lines);
    cr_assert_eq(fclose(file), 0);
    return out;
}

Test(text, nothing_from_outside_steers_the_terminal)
{
    const char *const bad[][2] = {
        {"a\033[2Jb", "a?[2Jb"}, /* escape sequence */
        {"a\xc2\x9b"
         "2Jb",
         "a?2Jb"},            /* C1 CSI */
        {"a\x7f\rb", "a??b"}, /* DEL, carriage return */
        {"a\xe2\x80\xae"
         "b",
         "a?b"},                   /* right-to-left override */
        {"a\xc0\xafz", "a??z"},    /* overlong */
        {"a\xed\xa0\x80", "a???"}, /* surrogate */
        {"a\nb\tc", "a b c"},      /* one line */
        {"grün 日本", "grün 日本"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *out = printed(bad[i][0], false);
        cr_expect_str_eq(out, bad[i][1]);
        free(out);
    }
    char *out = printed("a\nb", true);
    cr_expect_str_eq(out, "a\nb");
    free(out);
}

Test(text, distance_counts_slips)
{
    cr_expect_eq(text_distance("create", "create"), 0);
    cr_expect_eq(text_distance("create", "crate"), 1);
    cr_expect_eq(text_distance("drain", "drian"), 1, "two letters swapped are one slip");
    cr_expect_eq(text_distance("ls", "rm"), 2);
    cr_expect_gt(text_distance("a", "0123456789012345678901234567890123456789"), 100);
}

Test(text, wrapping_keeps_words_and_paragraphs)
{
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);
    text_print_wrapped(file, "one two three\n\nfour", 2, 10);
    cr_assert_eq(fclose(file), 0);
    cr_expect_str_eq(out, "one two\n  three\n\n  four\n");
    free(out);
}
