#include "support/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <escqrs/base.h>

#include "base/utf8.h"

typedef struct seen {
    int count;
    escqrs_log_level level;
    char text[4096];
} seen;

static void remember(void *context, escqrs_log_level level, const char *text)
{
    seen *log = context;
    log->count++;
    log->level = level;
    snprintf(log->text, sizeof log->text, "%s", text);
}

static void the_function_gets_every_level(void **state)
{
    (void)state;
    seen context = {0};
    escqrs_log log = {remember, &context};
    escqrs_log_write(&log, ESCQRS_LOG_DEBUG, "%d and %s", 1, "two");
    assert_int_equal(context.count, 1);
    assert_int_equal(context.level, ESCQRS_LOG_DEBUG);
    assert_string_equal(context.text, "1 and two");
}

static void a_long_text_is_cut_between_characters(void **state)
{
    (void)state;
    char text[4001];
    for (size_t i = 0; i + 1 < sizeof text; i += 2) {
        memcpy(text + i, "\xc3\xa4", 2);
    }
    text[sizeof text - 1] = '\0';
    seen context = {0};
    escqrs_log log = {remember, &context};
    escqrs_log_write(&log, ESCQRS_LOG_ERROR, "%s", text);
    assert_true(strlen(context.text) > 2000);
    assert_true(esc_utf8_valid(escqrs_slice_of(context.text)));
}

static void without_a_function_warnings_go_to_stderr(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int before = dup(STDERR_FILENO);
    assert_true(before >= 0);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    escqrs_log_write(NULL, ESCQRS_LOG_INFO, "not this");
    escqrs_log_write(NULL, ESCQRS_LOG_WARNING, "this %d", 1);
    escqrs_log_write(&(escqrs_log){0}, ESCQRS_LOG_ERROR, "and this");
    fflush(stderr);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    rewind(file);
    char text[200] = {0};
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_true(size > 0);
    assert_string_equal(text, "escqrs: warning: this 1\nescqrs: error: and this\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_function_gets_every_level),
        cmocka_unit_test(a_long_text_is_cut_between_characters),
        cmocka_unit_test(without_a_function_warnings_go_to_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
