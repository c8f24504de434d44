/* A growable run of bytes. All zero is an empty one. Not thread-safe; nothing blocks. */
#ifndef ESC_BASE_BUFFER_H
#define ESC_BASE_BUFFER_H

#include <escqrs/base.h>

typedef struct esc_buffer {
    uint8_t *data; /* NULL while capacity is 0 */
    size_t size;
    size_t capacity;
} esc_buffer;

static inline escqrs_slice esc_buffer_slice(const esc_buffer *buffer)
{
    return (escqrs_slice){buffer->data, buffer->size};
}

/* All: NO_MEMORY, and then the buffer is as it was. Growing moves the bytes: pointers into them
 * end. */

escqrs_status esc_buffer_reserve(esc_buffer *buffer,
                                 size_t extra) ESCQRS_MUST_USE; /* beyond size */
escqrs_status esc_buffer_append(esc_buffer *buffer, const void *data, size_t size) ESCQRS_MUST_USE;
escqrs_status esc_buffer_append_slice(esc_buffer *buffer, escqrs_slice slice) ESCQRS_MUST_USE;
escqrs_status esc_buffer_append_byte(esc_buffer *buffer, uint8_t byte) ESCQRS_MUST_USE;
escqrs_status esc_buffer_append_format(esc_buffer *buffer, const char *format, ...)
    ESCQRS_PRINTF(2, 3) ESCQRS_MUST_USE;
/* `size` bytes more at the end, not set; they are the caller's to fill at *bytes. */
escqrs_status esc_buffer_extend(esc_buffer *buffer, size_t size, uint8_t **bytes) ESCQRS_MUST_USE;
/* Put a NUL behind the last byte, not counted in size, so that data reads as a C string. */
escqrs_status esc_buffer_terminate(esc_buffer *buffer) ESCQRS_MUST_USE;

void esc_buffer_reset(esc_buffer *buffer); /* empty, memory kept */
void esc_buffer_fini(esc_buffer *buffer);  /* empty, memory freed; usable again */
/* The bytes become the caller's (escqrs_free); the buffer is empty. NULL if nothing was ever
 * reserved. */
uint8_t *esc_buffer_take(esc_buffer *buffer);

#endif
