/* One text a call, made on the stack and cut at a character's boundary; without a function,
 * warnings and errors go to stderr in one write each. Takes no lock. */
#include <escqrs/base.h>

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

#define TEXT_SIZE 2048

void escqrs_log_write(const escqrs_log *log, escqrs_log_level level, const char *format, ...)
{
    bool to_stderr = log == NULL || log->function == NULL;
    if (to_stderr && level < ESCQRS_LOG_WARNING) {
        return;
    }
    char text[TEXT_SIZE + 4];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0) {
        return;
    }
    text[esc_utf8_cut(escqrs_slice_of(text), TEXT_SIZE - 1)] = '\0';
    if (to_stderr) {
        fprintf(stderr, "escqrs: %s: %s\n", level >= ESCQRS_LOG_ERROR ? "error" : "warning", text);
    } else {
        log->function(log->context, level, text);
    }
}
