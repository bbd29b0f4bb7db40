#include "node-agent/agent/answers.h"

#include <criterion/criterion.h>

Test(answers, a_repeat_gets_the_answer_given)
{
    struct answers *answers = answers_new();
    const uint8_t *data;
    size_t size;
    cr_assert_eq(answers_begin(answers, 7, &data, &size), ANSWER_NEW);
    cr_assert_eq(answers_begin(answers, 7, &data, &size), ANSWER_RUNNING);
    answers_finish(answers, 7, (const uint8_t *)"done", 4);
    cr_assert_eq(answers_begin(answers, 7, &data, &size), ANSWER_KNOWN);
    cr_assert_eq(size, 4);
    cr_assert_arr_eq(data, "done", 4);
    answers_finish(answers, 7, (const uint8_t *)"else", 4);
    cr_assert_eq(answers_begin(answers, 7, &data, &size), ANSWER_KNOWN);
    cr_assert_arr_eq(data, "done", 4);
    answers_free(answers);
}

Test(answers, an_empty_answer_is_an_answer)
{
    struct answers *answers = answers_new();
    const uint8_t *data;
    size_t size = 9;
    cr_assert_eq(answers_begin(answers, 1, &data, &size), ANSWER_NEW);
    answers_finish(answers, 1, (const uint8_t *)"", 0);
    cr_assert_eq(answers_begin(answers, 1, &data, &size), ANSWER_KNOWN);
    cr_assert_eq(size, 0);
    answers_free(answers);
}

Test(answers, a_forgotten_command_is_new_again)
{
    struct answers *answers = answers_new();
    const uint8_t *data;
    size_t size;
    cr_assert_eq(answers_begin(answers, 1, &data, &size), ANSWER_NEW);
    answers_finish(answers, 1, NULL, 0);
    cr_assert_eq(answers_begin(answers, 1, &data, &size), ANSWER_NEW);
    answers_free(answers);
}

Test(answers, the_oldest_answer_makes_room_but_nothing_under_way_does)
{
    struct answers *answers = answers_new();
    const uint8_t *data;
    size_t size;
    for (uint64_t id = 1; id <= ANSWERS_MAX; id++)
        cr_assert_eq(answers_begin(answers, id, &data, &size), ANSWER_NEW);
    cr_assert_eq(answers_begin(answers, 5000, &data, &size), ANSWER_BUSY);
    answers_finish(answers, 10, (const uint8_t *)"a", 1);
    answers_finish(answers, 3, (const uint8_t *)"b", 1);
    cr_assert_eq(answers_begin(answers, 5000, &data, &size), ANSWER_NEW);
    cr_assert_eq(answers_begin(answers, 10, &data, &size), ANSWER_KNOWN);
    cr_assert_eq(answers_begin(answers, 3, &data, &size), ANSWER_NEW, "the older one went");
    answers_free(answers);
}
