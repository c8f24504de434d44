/* The forms are those of Python's isoformat() and str(), so that whatever passes here is a value of
 * the Python type; fractions of a second may have fewer digits than Python writes. */
#include "schema/form.h"

#define DATE_SIZE 10
#define SECONDS_SIZE 8 /* "23:59:59" */
#define FRACTION_DIGITS_MAX 6
#define UUID_SIZE 36
#define EXPONENT_DIGITS_MAX 6

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* The number that `count` digits are, or -1. */
static int number_of(const uint8_t *text, size_t count)
{
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(text[i])) {
            return -1;
        }
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static bool is_date(const uint8_t *text, size_t size)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (size != DATE_SIZE || text[4] != '-' || text[7] != '-') {
        return false;
    }
    int year = number_of(text, 4);
    int month = number_of(text + 5, 2);
    int day = number_of(text + 8, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1) {
        return false;
    }
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && leap ? 1 : 0);
}

static bool is_clock(const uint8_t *text, size_t size)
{
    if (size < SECONDS_SIZE || text[2] != ':' || text[5] != ':') {
        return false;
    }
    int hour = number_of(text, 2);
    int minute = number_of(text + 3, 2);
    int second = number_of(text + 6, 2);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) {
        return false;
    }
    if (size == SECONDS_SIZE) {
        return true;
    }
    size_t digits = size - SECONDS_SIZE - 1;
    return text[SECONDS_SIZE] == '.' && digits >= 1 && digits <= FRACTION_DIGITS_MAX &&
           number_of(text + SECONDS_SIZE + 1, digits) >= 0;
}

static bool is_local(const uint8_t *text, size_t size)
{
    return size > DATE_SIZE && is_date(text, DATE_SIZE) && text[DATE_SIZE] == 'T' &&
           is_clock(text + DATE_SIZE + 1, size - DATE_SIZE - 1);
}

static size_t count_digits(const uint8_t *text, size_t size)
{
    size_t count = 0;
    while (count < size && is_digit(text[count])) {
        count++;
    }
    return count;
}

/* [sign] digits [. digits] [E [sign] digits], with a digit before the exponent. */
static bool is_decimal(const uint8_t *text, size_t size)
{
    if (size > ESCQRS_DECIMAL_SIZE_MAX) {
        return false;
    }
    size_t at = size > 0 && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    size_t digits = count_digits(text + at, size - at);
    at += digits;
    if (at < size && text[at] == '.') {
        at++;
        size_t fraction = count_digits(text + at, size - at);
        digits += fraction;
        at += fraction;
    }
    if (digits == 0 || at == size) {
        return digits > 0;
    }
    if (text[at] != 'E' && text[at] != 'e') {
        return false;
    }
    at++;
    if (at < size && (text[at] == '-' || text[at] == '+')) {
        at++;
    }
    size_t exponent = count_digits(text + at, size - at);
    return exponent > 0 && exponent <= EXPONENT_DIGITS_MAX && at + exponent == size;
}

static bool is_uuid(const uint8_t *text, size_t size)
{
    if (size != UUID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < UUID_SIZE; i++) {
        uint8_t c = text[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (dash ? c != '-' : !hex) {
            return false;
        }
    }
    return true;
}

bool esc_form_valid(escqrs_kind kind, const uint8_t *text, size_t size)
{
    switch (kind) {
    case ESCQRS_KIND_DATE:
        return is_date(text, size);
    case ESCQRS_KIND_CLOCK:
        return is_clock(text, size);
    case ESCQRS_KIND_LOCAL:
        return is_local(text, size);
    case ESCQRS_KIND_DECIMAL:
        return is_decimal(text, size);
    case ESCQRS_KIND_UUID:
        return is_uuid(text, size);
    default:
        return true;
    }
}

const char *esc_form_fault(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_DATE:
        return "text that is not a date like 2024-02-29";
    case ESCQRS_KIND_CLOCK:
        return "text that is not a time like 23:59:59";
    case ESCQRS_KIND_LOCAL:
        return "text that is not a date and time like 2024-02-29T23:59:59";
    case ESCQRS_KIND_DECIMAL:
        return "text that is not a finite decimal number of an allowed size";
    default:
        return "text that is not a UUID";
    }
}
