/* Helpers around escqrs_error for code that has more to say than a text. */
#ifndef ESC_BASE_ERROR_H
#define ESC_BASE_ERROR_H

#include <escqrs/base.h>

/* All functions accept error == NULL and then do nothing but return their status. Any thread. */

/* No error, empty texts: what an error says before it is set. Where events pass by it is used for
 * `= {0}`, which clears more than a thousand bytes each time. Not for NULL. */
static inline void esc_error_init(escqrs_error *error)
{
    error->status = ESCQRS_OK;
    error->version = error->position = error->expected = error->actual = 0;
    error->system_error = 0;
    error->subject[0] = error->message[0] = '\0';
}

/* As escqrs_error_set, and remembers `system_error` (an errno) and appends ": " and its text. */
escqrs_status esc_error_system(escqrs_error *error, escqrs_status status, int system_error,
                               const char *format, ...) ESCQRS_PRINTF(4, 5);

/* What the error is about: a stream, file or checkpoint. Cut at a character's boundary. Call it
 * after the error was set, for setting one clears the subject. */
void esc_error_subject(escqrs_error *error, escqrs_slice subject);

/* Put a text before the message of an error that is set; all other fields stay. */
void esc_error_prefix(escqrs_error *error, const char *format, ...) ESCQRS_PRINTF(2, 3);

#endif
