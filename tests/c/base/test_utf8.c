#include "support/test.h"

#include <string.h>

#include "base/utf8.h"

static void well_formed_text_is_valid(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "plain ASCII that is longer than a word",
        "\xc2\x80",         /* U+0080, the first of two bytes */
        "\xdf\xbf",         /* U+07FF */
        "\xe0\xa0\x80",     /* U+0800, the first of three */
        "\xed\x9f\xbf",     /* U+D7FF, before the surrogates */
        "\xee\x80\x80",     /* U+E000, after them */
        "\xef\xbf\xbf",     /* U+FFFF */
        "\xf0\x90\x80\x80", /* U+10000, the first of four */
        "\xf4\x8f\xbf\xbf", /* U+10FFFF, the last */
        "12345678\xc3\xa4z2345678",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_true(esc_utf8_valid(escqrs_slice_of(texts[i])));
    }
    assert_true(esc_utf8_valid((escqrs_slice){"a\0b", 3}));
}

static void malformed_text_is_not(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\x80",             /* a following byte first */
        "\xc0\x80",         /* overlong */
        "\xc1\xbf",         /* overlong */
        "\xe0\x9f\xbf",     /* overlong */
        "\xf0\x8f\xbf\xbf", /* overlong */
        "\xed\xa0\x80",     /* a surrogate */
        "\xf4\x90\x80\x80", /* beyond U+10FFFF */
        "\xf5\x80\x80\x80",
        "\xff",
        "\xc3",         /* cut off */
        "\xe2\x82",     /* cut off */
        "\xf0\x9f\x98", /* cut off */
        "\xe2\x28\xa1", /* no following byte */
        "12345678\xc3",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_false(esc_utf8_valid(escqrs_slice_of(texts[i])));
    }
}

static void cutting_splits_no_character(void **state)
{
    (void)state;
    escqrs_slice text = escqrs_slice_of("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    static const size_t cuts[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
    for (size_t limit = 0; limit < sizeof cuts / sizeof cuts[0]; limit++) {
        assert_int_equal(esc_utf8_cut(text, limit), cuts[limit]);
    }
    assert_int_equal(esc_utf8_cut((escqrs_slice){"\x80\x80\x80\x80\x80\x80", 6}, 5), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_text_is_valid),
        cmocka_unit_test(malformed_text_is_not),
        cmocka_unit_test(cutting_splits_no_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
