/* Bytes to a message in one block of memory.
 *
 * check.c proves the bytes and adds up what protobuf-c will allocate; a block of that size is taken, and
 * protobuf-c's allocator hands out pieces of it one behind the other. In front of the message stands the
 * block's header, so freeing it is freeing the block: no walk, no recursion.
 *
 *     | header | struct | strings, lists, nested structs, unknown fields ... |
 *              ^ the message
 *
 * For a message of more than 16 fields protobuf-c also takes scratch memory that it gives back at the end.
 * Such pieces, and whatever does not fit, come from blocks of their own that are freed when protobuf-c frees
 * them, or else with the message. */
#include <string.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "schema/check.h"
#include "schema/merge.h"

#define ALIGNMENT ((size_t)8)
#define SCRATCH_SIZE_MIN ((size_t)1024) /* protobuf-c's scratch: 1 KiB, 2 KiB, 4 KiB, ... */

/* A block beside the main one; in a list, so that it can be freed alone. */
typedef struct extra {
    struct extra *previous;
    struct extra *next;
    size_t size; /* with this header; the memory behind it is aligned to 8 */
} extra;

typedef struct header {
    size_t size; /* of the main block with this header */
    extra *extras;
} header;

typedef struct unpacking {
    uint8_t *start; /* of the main block's pieces */
    uint8_t *next;
    uint8_t *end;
    extra *extras;
    bool out_of_memory;
} unpacking;

static void *alloc_extra(unpacking *u, size_t size)
{
    extra *made = escqrs_alloc(sizeof *made + size);
    if (made == NULL) {
        u->out_of_memory = true;
        return NULL;
    }
    made->previous = NULL;
    made->next = u->extras;
    made->size = sizeof *made + size;
    if (u->extras != NULL) {
        u->extras->previous = made;
    }
    u->extras = made;
    return made + 1;
}

static void *allocate(void *data, size_t size)
{
    unpacking *u = data;
    size_t rounded = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    bool scratch = size >= SCRATCH_SIZE_MIN && (size & (size - 1)) == 0 && u->next != u->start;
    if (scratch || rounded > (size_t)(u->end - u->next)) {
        return alloc_extra(u, rounded);
    }
    uint8_t *piece = u->next;
    u->next += rounded;
    return piece;
}

static void release(void *data, void *memory)
{
    unpacking *u = data;
    uint8_t *piece = memory;
    if (piece == NULL || (piece >= u->start && piece < u->end)) {
        return; /* freed with the block */
    }
    extra *freed = (extra *)memory - 1;
    if (freed->previous != NULL) {
        freed->previous->next = freed->next;
    } else {
        u->extras = freed->next;
    }
    if (freed->next != NULL) {
        freed->next->previous = freed->previous;
    }
    escqrs_free(freed);
}

static void free_extras(extra *first)
{
    while (first != NULL) {
        extra *next = first->next;
        escqrs_free(first);
        first = next;
    }
}

/* `data` has passed the check, which found `memory`. */
static escqrs_status unpack_checked(const escqrs_schema *schema, escqrs_slice data, size_t memory,
                                    ProtobufCMessage **message, escqrs_error *error)
{
    header *block = escqrs_alloc(sizeof *block + memory);
    if (block == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "%s: out of memory for a message",
                                schema->descriptor.name);
    }
    unpacking u = {.start = (uint8_t *)(block + 1)};
    u.next = u.start;
    u.end = u.start + memory;
    ProtobufCAllocator allocator = {allocate, release, &u};
    ProtobufCMessage *made =
        protobuf_c_message_unpack(&schema->descriptor, &allocator, data.size, data.data);
    if (made == NULL) {
        free_extras(u.extras);
        escqrs_free(block);
        if (u.out_of_memory) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "%s: out of memory for a message",
                                    schema->descriptor.name);
        }
        return escqrs_error_set(error, ESCQRS_CORRUPT, "%s: protobuf-c does not decode the message",
                                schema->descriptor.name);
    }
    ESC_ASSERT((uint8_t *)made == u.start); /* protobuf-c allocates the struct first */
    block->size = sizeof *block + memory;
    block->extras = u.extras;
    *message = made;
    return ESCQRS_OK;
}

escqrs_status escqrs_message_unpack(const escqrs_schema *schema, escqrs_slice data,
                                    const escqrs_limits *limits, ProtobufCMessage **message,
                                    escqrs_error *error)
{
    ESC_ASSERT(schema->sealed);
    *message = NULL;
    escqrs_limits resolved = esc_limits_resolve(limits);
    esc_check_result result;
    escqrs_status status = esc_check(&schema->plan, data, &resolved, &result, error);
    if (status != ESCQRS_OK || !result.duplicates) {
        return status != ESCQRS_OK ? status
                                   : unpack_checked(schema, data, result.memory, message, error);
    }
    esc_buffer merged = {0};
    status = esc_merge(&schema->plan, data, resolved.memory_max, &merged, error);
    if (status == ESCQRS_OK) {
        /* Merging only makes structs fewer, so the memory found before is enough. */
        status = unpack_checked(schema, esc_buffer_slice(&merged), result.memory, message, error);
    }
    esc_buffer_fini(&merged);
    return status;
}

void escqrs_message_free(ProtobufCMessage *message)
{
    if (message == NULL) {
        return;
    }
    header *block = (header *)message - 1;
    free_extras(block->extras);
    escqrs_free(block);
}

size_t escqrs_message_memory(const ProtobufCMessage *message)
{
    const header *block = (const header *)message - 1;
    size_t size = block->size;
    for (const extra *e = block->extras; e != NULL; e = e->next) {
        size += e->size;
    }
    return size;
}

void escqrs_message_init(const escqrs_schema *schema, ProtobufCMessage *message)
{
    ESC_ASSERT(schema->sealed);
    memset(message, 0, schema->descriptor.sizeof_message);
    message->descriptor = &schema->descriptor;
}

/* ---- measuring -------------------------------------------------------------------------------- */

typedef struct measure {
    size_t left; /* nested messages that may still be visited: each takes two bytes at least */
    unsigned depth_max;
    bool too_deep;
} measure;

static const void *member(const ProtobufCMessage *message, unsigned offset)
{
    return (const uint8_t *)message + offset;
}

static bool measure_nested(measure *m, const ProtobufCMessage *message, unsigned depth)
{
    if (depth > m->depth_max) {
        m->too_deep = true;
        return false;
    }
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
            continue;
        }
        ProtobufCMessage *const *items = member(message, field->offset);
        size_t count = *items != NULL ? 1 : 0;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            count = *(const size_t *)member(message, field->quantifier_offset);
            items = *(ProtobufCMessage *const *const *)member(message, field->offset);
        }
        if (count > m->left) {
            return false;
        }
        m->left -= count;
        for (size_t j = 0; j < count; j++) {
            if (!measure_nested(m, items[j], depth + 1)) {
                return false;
            }
        }
    }
    return true;
}

escqrs_status escqrs_message_measure(const ProtobufCMessage *message, const escqrs_limits *limits,
                                     size_t *packed_size, escqrs_error *error)
{
    escqrs_limits resolved = esc_limits_resolve(limits);
    measure m = {.left = resolved.bytes_max / 2, .depth_max = resolved.depth_max};
    const char *name = message->descriptor->name;
    *packed_size = 0;
    if (!measure_nested(&m, message, 0)) {
        if (m.too_deep) {
            return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                    "%s: messages nested deeper than the %u levels that are allowed",
                                    name, resolved.depth_max);
        }
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "%s: so many nested messages that it would be larger than the %zu bytes "
                                "that are allowed",
                                name, resolved.bytes_max);
    }
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > resolved.bytes_max) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "%s: a message of %zu bytes, more than the %zu that are allowed", name,
                                size, resolved.bytes_max);
    }
    *packed_size = size;
    return ESCQRS_OK;
}
