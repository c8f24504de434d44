/* Text on its way to an escqrs_write_function, gathered so that it is not called for every
 * character. */
#ifndef ESC_SCHEMA_WRITER_H
#define ESC_SCHEMA_WRITER_H

#include <escqrs/schema.h>

#define ESC_WRITER_BUFFER_SIZE 512

typedef struct esc_writer {
    escqrs_write_function write;
    void *context;
    size_t used;
    bool failed; /* out of memory; nothing more is written */
    char buffer[ESC_WRITER_BUFFER_SIZE];
} esc_writer;

void esc_writer_init(esc_writer *writer, escqrs_write_function write, void *context);
void esc_writer_put(esc_writer *writer, const char *text, size_t size);
void esc_writer_text(esc_writer *writer, const char *text); /* NUL-terminated */
/* At most ESC_WRITER_BUFFER_SIZE - 1 bytes. */
void esc_writer_format(esc_writer *writer, const char *format, ...) ESCQRS_PRINTF(2, 3);
/* Hands on what is left. False if that, or anything before, failed. */
bool esc_writer_finish(esc_writer *writer) ESCQRS_MUST_USE;

#endif
