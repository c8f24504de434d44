#include "support/test.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

static void setting_fills_status_and_message_and_clears_the_rest(void **state)
{
    (void)state;
    escqrs_error error = {.version = 7, .position = 8, .subject = "old", .system_error = 3};
    assert_int_equal(escqrs_error_set(&error, ESCQRS_IO, "%s is %d", "x", 5), ESCQRS_IO);
    assert_int_equal(error.status, ESCQRS_IO);
    assert_string_equal(error.message, "x is 5");
    assert_string_equal(error.subject, "");
    assert_int_equal(error.version, 0);
    assert_int_equal(error.position, 0);
    assert_int_equal(error.system_error, 0);
}

static void without_an_error_the_status_alone_comes_back(void **state)
{
    (void)state;
    assert_int_equal(escqrs_error_set(NULL, ESCQRS_FULL, "x"), ESCQRS_FULL);
    assert_int_equal(esc_error_system(NULL, ESCQRS_IO, EIO, "x"), ESCQRS_IO);
    esc_error_subject(NULL, escqrs_slice_of("x"));
    esc_error_prefix(NULL, "x");
}

static void a_message_may_quote_the_error_it_replaces(void **state)
{
    (void)state;
    escqrs_error error = {0};
    assert_int_equal(escqrs_error_set(&error, ESCQRS_IO, "disk"), ESCQRS_IO);
    assert_int_equal(escqrs_error_set(&error, ESCQRS_CORRUPT, "open: %s", error.message),
                     ESCQRS_CORRUPT);
    assert_string_equal(error.message, "open: disk");
}

static void long_texts_are_cut_between_characters(void **state)
{
    (void)state;
    char text[2000];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', shift);
        size_t size = shift;
        while (size + 4 < sizeof text) {
            memcpy(text + size, "\xf0\x9f\x98\x80", 4);
            size += 4;
        }
        text[size] = '\0';
        escqrs_error error = {0};
        assert_int_equal(escqrs_error_set(&error, ESCQRS_IO, "%s", text), ESCQRS_IO);
        assert_true(strlen(error.message) >= sizeof error.message - 4);
        assert_true(esc_utf8_valid(escqrs_slice_of(error.message)));
        esc_error_subject(&error, escqrs_slice_of(text));
        assert_true(strlen(error.subject) >= sizeof error.subject - 4);
        assert_true(esc_utf8_valid(escqrs_slice_of(error.subject)));
        esc_error_prefix(&error, "%s", "b\xc3\xa4");
        assert_true(esc_utf8_valid(escqrs_slice_of(error.message)));
    }
}

static void a_system_error_brings_its_text(void **state)
{
    (void)state;
    escqrs_error error = {0};
    assert_int_equal(esc_error_system(&error, ESCQRS_IO, ENOENT, "cannot open %s", "f"), ESCQRS_IO);
    assert_int_equal(error.system_error, ENOENT);
    assert_string_equal(error.message, "cannot open f: No such file or directory");
}

static void a_prefix_keeps_all_other_fields(void **state)
{
    (void)state;
    escqrs_error error = {0};
    assert_int_equal(escqrs_error_set(&error, ESCQRS_CORRUPT, "bad"), ESCQRS_CORRUPT);
    error.version = 4;
    esc_error_subject(&error, escqrs_slice_of("Cart/1"));
    esc_error_prefix(&error, "stream %s: ", "Cart/1");
    assert_string_equal(error.message, "stream Cart/1: bad");
    assert_string_equal(error.subject, "Cart/1");
    assert_int_equal(error.version, 4);
    assert_int_equal(error.status, ESCQRS_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setting_fills_status_and_message_and_clears_the_rest),
        cmocka_unit_test(without_an_error_the_status_alone_comes_back),
        cmocka_unit_test(a_message_may_quote_the_error_it_replaces),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(a_system_error_brings_its_text),
        cmocka_unit_test(a_prefix_keeps_all_other_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
