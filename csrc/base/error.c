/* Filling an escqrs_error. A text is made in a local array first, so that an argument may point
 * into the very error that is filled ("while opening x: %s", error->message). */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

#define TEXT_SIZE sizeof(((escqrs_error *)NULL)->message)

/* `text` has TEXT_SIZE + 4 bytes: room to see whether the last character would be split. */
typedef struct text_buffer {
    char text[TEXT_SIZE + 4];
} text_buffer;

static void text_format(text_buffer *buffer, const char *format, va_list arguments)
{
    if (vsnprintf(buffer->text, sizeof buffer->text, format, arguments) < 0) {
        buffer->text[0] = '\0';
    }
}

static void text_append(text_buffer *buffer, const char *text)
{
    size_t used = strlen(buffer->text);
    snprintf(buffer->text + used, sizeof buffer->text - used, "%s", text);
}

static void copy_cut(char *target, size_t target_size, escqrs_slice text)
{
    size_t size = esc_utf8_cut(text, target_size - 1);
    if (size > 0) {
        memcpy(target, text.data, size);
    }
    target[size] = '\0';
}

static void error_fill(escqrs_error *error, escqrs_status status, int system_error,
                       const text_buffer *buffer)
{
    *error = (escqrs_error){.status = status, .system_error = system_error};
    copy_cut(error->message, sizeof error->message, escqrs_slice_of(buffer->text));
}

escqrs_status escqrs_error_set(escqrs_error *error, escqrs_status status, const char *format, ...)
{
    if (error != NULL) {
        text_buffer buffer;
        va_list arguments;
        va_start(arguments, format);
        text_format(&buffer, format, arguments);
        va_end(arguments);
        error_fill(error, status, 0, &buffer);
    }
    return status;
}

/* strerror_r comes in two kinds: GNU answers with the text, POSIX with a status. */
static const char *system_text(int system_error, char *scratch, size_t size)
{
#if defined(_GNU_SOURCE) && defined(__GLIBC__)
    return strerror_r(system_error, scratch, size);
#else
    return strerror_r(system_error, scratch, size) == 0 ? scratch : "unknown error";
#endif
}

escqrs_status esc_error_system(escqrs_error *error, escqrs_status status, int system_error,
                               const char *format, ...)
{
    if (error != NULL) {
        text_buffer buffer;
        char scratch[128];
        va_list arguments;
        va_start(arguments, format);
        text_format(&buffer, format, arguments);
        va_end(arguments);
        text_append(&buffer, ": ");
        text_append(&buffer, system_text(system_error, scratch, sizeof scratch));
        error_fill(error, status, system_error, &buffer);
    }
    return status;
}

void esc_error_subject(escqrs_error *error, escqrs_slice subject)
{
    if (error != NULL) {
        copy_cut(error->subject, sizeof error->subject, subject);
    }
}

void esc_error_prefix(escqrs_error *error, const char *format, ...)
{
    if (error != NULL) {
        text_buffer buffer;
        va_list arguments;
        va_start(arguments, format);
        text_format(&buffer, format, arguments);
        va_end(arguments);
        text_append(&buffer, error->message);
        copy_cut(error->message, sizeof error->message, escqrs_slice_of(buffer.text));
    }
}
