#include "support/test.h"

#include <string.h>

#include "base/buffer.h"

static void bytes_pile_up(void **state)
{
    (void)state;
    esc_buffer buffer = {0};
    assert_int_equal(esc_buffer_append(&buffer, NULL, 0), ESCQRS_OK);
    assert_int_equal(esc_buffer_append(&buffer, "abc", 3), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_byte(&buffer, 'd'), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_slice(&buffer, escqrs_slice_of("ef")), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_format(&buffer, "-%d-%s", 7, "x"), ESCQRS_OK);
    uint8_t *bytes = NULL;
    assert_int_equal(esc_buffer_extend(&buffer, 2, &bytes), ESCQRS_OK);
    memcpy(bytes, "yz", 2);
    assert_int_equal(esc_buffer_terminate(&buffer), ESCQRS_OK);
    assert_string_equal((char *)buffer.data, "abcdef-7-xyz");
    assert_int_equal(buffer.size, 12);
    assert_int_equal(esc_buffer_slice(&buffer).size, 12);
    esc_buffer_reset(&buffer);
    assert_int_equal(buffer.size, 0);
    esc_buffer_fini(&buffer);
    assert_null(esc_buffer_take(&buffer));
}

static void a_format_longer_than_the_room_is_written_whole(void **state)
{
    (void)state;
    esc_buffer buffer = {0};
    char text[1000];
    memset(text, 'q', sizeof text);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 10; i++) {
        assert_int_equal(esc_buffer_append_format(&buffer, "%s", text), ESCQRS_OK);
    }
    assert_int_equal(buffer.size, 9990);
    for (size_t i = 0; i < buffer.size; i++) {
        assert_int_equal(buffer.data[i], 'q');
    }
    /* fits to the last byte but one: the NUL of the format must not write behind it */
    esc_buffer_fini(&buffer);
    assert_int_equal(esc_buffer_append(&buffer, text, 60), ESCQRS_OK);
    assert_int_equal(buffer.capacity, 64);
    assert_int_equal(esc_buffer_append_format(&buffer, "1234"), ESCQRS_OK);
    assert_memory_equal(buffer.data + 60, "1234", 4);
    esc_buffer_fini(&buffer);
}

static void out_of_memory_changes_nothing(void **state)
{
    (void)state;
    esc_buffer buffer = {0};
    assert_int_equal(esc_buffer_append(&buffer, "abc", 3), ESCQRS_OK);
    escqrs_alloc_fail(1, true);
    uint8_t *bytes = NULL;
    assert_int_equal(esc_buffer_reserve(&buffer, 1000), ESCQRS_NO_MEMORY);
    assert_int_equal(esc_buffer_extend(&buffer, 1000, &bytes), ESCQRS_NO_MEMORY);
    assert_int_equal(esc_buffer_append_format(&buffer, "%1000d", 1), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_int_equal(esc_buffer_reserve(&buffer, SIZE_MAX), ESCQRS_NO_MEMORY);
    assert_int_equal(buffer.size, 3);
    assert_memory_equal(buffer.data, "abc", 3);
    uint8_t *taken = esc_buffer_take(&buffer);
    assert_memory_equal(taken, "abc", 3);
    assert_null(buffer.data);
    escqrs_free(taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pile_up),
        cmocka_unit_test(a_format_longer_than_the_room_is_written_whole),
        cmocka_unit_test(out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
