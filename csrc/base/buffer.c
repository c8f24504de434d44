/* See buffer.h. */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

#define CAPACITY_MIN 64

escqrs_status esc_buffer_reserve(esc_buffer *buffer, size_t extra)
{
    size_t needed = 0;
    if (__builtin_add_overflow(buffer->size, extra, &needed)) {
        return ESCQRS_NO_MEMORY;
    }
    if (needed <= buffer->capacity) {
        return ESCQRS_OK;
    }
    size_t capacity = buffer->capacity < CAPACITY_MIN / 2 ? CAPACITY_MIN : buffer->capacity;
    while (capacity < needed) {
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    }
    uint8_t *data = escqrs_realloc(buffer->data, capacity);
    if (data == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return ESCQRS_OK;
}

escqrs_status esc_buffer_extend(esc_buffer *buffer, size_t size, uint8_t **bytes)
{
    escqrs_status status = esc_buffer_reserve(buffer, size);
    if (status != ESCQRS_OK) {
        return status;
    }
    *bytes = size == 0 ? buffer->data : buffer->data + buffer->size;
    buffer->size += size;
    return ESCQRS_OK;
}

escqrs_status esc_buffer_append(esc_buffer *buffer, const void *data, size_t size)
{
    uint8_t *bytes = NULL;
    escqrs_status status = esc_buffer_extend(buffer, size, &bytes);
    if (status == ESCQRS_OK && size > 0) {
        memcpy(bytes, data, size);
    }
    return status;
}

escqrs_status esc_buffer_append_slice(esc_buffer *buffer, escqrs_slice slice)
{
    return esc_buffer_append(buffer, slice.data, slice.size);
}

escqrs_status esc_buffer_append_byte(esc_buffer *buffer, uint8_t byte)
{
    return esc_buffer_append(buffer, &byte, 1);
}

escqrs_status esc_buffer_append_format(esc_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    size_t room = buffer->capacity - buffer->size;
    char *end = buffer->data == NULL ? NULL : (char *)buffer->data + buffer->size;
    int size = vsnprintf(end, room, format, arguments);
    va_end(arguments);
    escqrs_status status = ESCQRS_OK;
    ESC_ASSERT(size >= 0);
    if ((size_t)size >= room) { /* it also wants room for its NUL */
        status = esc_buffer_reserve(buffer, (size_t)size + 1);
        if (status == ESCQRS_OK) {
            vsnprintf((char *)buffer->data + buffer->size, (size_t)size + 1, format, again);
        }
    }
    va_end(again);
    if (status == ESCQRS_OK) {
        buffer->size += (size_t)size;
    }
    return status;
}

escqrs_status esc_buffer_terminate(esc_buffer *buffer)
{
    escqrs_status status = esc_buffer_reserve(buffer, 1);
    if (status == ESCQRS_OK) {
        buffer->data[buffer->size] = 0;
    }
    return status;
}

void esc_buffer_reset(esc_buffer *buffer)
{
    buffer->size = 0;
}

void esc_buffer_fini(esc_buffer *buffer)
{
    escqrs_free(buffer->data);
    *buffer = (esc_buffer){0};
}

uint8_t *esc_buffer_take(esc_buffer *buffer)
{
    uint8_t *data = buffer->data;
    *buffer = (esc_buffer){0};
    return data;
}
