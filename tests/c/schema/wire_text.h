/* Writing wire format by hand in tests. */
#ifndef ESC_TESTS_SCHEMA_WIRE_TEXT_H
#define ESC_TESTS_SCHEMA_WIRE_TEXT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <escqrs/base.h>

typedef struct wire {
    uint8_t *data;
    size_t size;
    size_t capacity;
} wire;

static inline void wire_bytes(wire *w, const void *data, size_t size)
{
    if (w->size + size > w->capacity) {
        w->capacity = (w->size + size) * 2 + 64;
        w->data = realloc(w->data, w->capacity);
    }
    if (size > 0) {
        memcpy(w->data + w->size, data, size);
        w->size += size;
    }
}

static inline void wire_varint(wire *w, uint64_t value)
{
    while (value >= 0x80) {
        uint8_t byte = (uint8_t)(value | 0x80);
        wire_bytes(w, &byte, 1);
        value >>= 7;
    }
    uint8_t byte = (uint8_t)value;
    wire_bytes(w, &byte, 1);
}

static inline void wire_tag(wire *w, uint32_t number, unsigned type)
{
    wire_varint(w, (uint64_t)number << 3 | type);
}

static inline void wire_int(wire *w, uint32_t number, int64_t value)
{
    wire_tag(w, number, 0);
    wire_varint(w, (uint64_t)value);
}

static inline void wire_double(wire *w, uint32_t number, double value)
{
    wire_tag(w, number, 1);
    wire_bytes(w, &value, 8);
}

static inline void wire_data(wire *w, uint32_t number, const void *data, size_t size)
{
    wire_tag(w, number, 2);
    wire_varint(w, size);
    wire_bytes(w, data, size);
}

static inline void wire_str(wire *w, uint32_t number, const char *text)
{
    wire_data(w, number, text, strlen(text));
}

/* Appends `nested` as a message and empties it. */
static inline void wire_message(wire *w, uint32_t number, wire *nested)
{
    wire_data(w, number, nested->data, nested->size);
    free(nested->data);
    *nested = (wire){0};
}

static inline escqrs_slice wire_slice(const wire *w)
{
    return (escqrs_slice){w->data, w->size};
}

static inline void wire_fini(wire *w)
{
    free(w->data);
    *w = (wire){0};
}

#endif
