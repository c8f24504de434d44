/* A failure is remembered and asked for once, at the end, so that printing reads as a list of what
 * is printed. */
#include "schema/writer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

void esc_writer_init(esc_writer *writer, escqrs_write_function write, void *context)
{
    writer->write = write;
    writer->context = context;
    writer->used = 0;
    writer->failed = false;
}

static void flush(esc_writer *writer)
{
    if (writer->used > 0 && !writer->failed) {
        writer->failed = !writer->write(writer->context, writer->buffer, writer->used);
    }
    writer->used = 0;
}

void esc_writer_put(esc_writer *writer, const char *text, size_t size)
{
    if (size > ESC_WRITER_BUFFER_SIZE - writer->used) {
        flush(writer);
    }
    if (size > ESC_WRITER_BUFFER_SIZE) {
        writer->failed = writer->failed || !writer->write(writer->context, text, size);
    } else if (size > 0) {
        memcpy(writer->buffer + writer->used, text, size);
        writer->used += size;
    }
}

void esc_writer_text(esc_writer *writer, const char *text)
{
    esc_writer_put(writer, text, strlen(text));
}

void esc_writer_format(esc_writer *writer, const char *format, ...)
{
    char text[ESC_WRITER_BUFFER_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    ESC_ASSERT(size >= 0 && (size_t)size < sizeof text);
    esc_writer_put(writer, text, (size_t)size);
}

bool esc_writer_finish(esc_writer *writer)
{
    flush(writer);
    return !writer->failed;
}
