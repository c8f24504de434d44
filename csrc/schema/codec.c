/* Bytes to a message in one block of memory.
 *
 * check.c proves the bytes and adds up what the message takes; a block of that size holds all of
 * it, so that freeing it is freeing the block: no walk, no recursion.
 *
 *     | header | structs and arrays ... | copy of the data |
 *              ^ the message              ^ text and bytes point here
 *
 * The usual bytes of the commonest messages need no proof of their own: flat.c decodes them at
 * once.
 *
 * Packing is protobuf-c's. Its unpacking would do as well and is what the tests compare with, but
 * costs several times as much: an allocation for each text, a list of what it scanned, defaults
 * field by field. */
#include <string.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "schema/check.h"
#include "schema/decode.h"
#include "schema/flat.h"
#include "schema/merge.h"

typedef struct header {
    size_t size;    /* of the block, this header included */
    size_t padding; /* what follows is aligned to 16, as malloc's memory is */
} header;

/* `data` has passed the check with this result. */
static escqrs_status unpack_checked(const escqrs_schema *schema, escqrs_slice data, size_t memory,
                                    bool unknown, ProtobufCMessage **message, escqrs_error *error)
{
    header *block = escqrs_alloc(sizeof *block + memory);
    if (block == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "%s: out of memory for a message",
                                schema->descriptor.name);
    }
    block->size = sizeof *block + memory;
    *message = esc_decode(&schema->plan, data, unknown, block + 1, memory);
    return ESCQRS_OK;
}

/* OK without a message where the bytes are not the usual ones. */
static escqrs_status unpack_flat(const esc_plan *plan, escqrs_slice data,
                                 ProtobufCMessage **message, escqrs_error *error)
{
    size_t size = sizeof(header) + esc_flat_size(plan, data.size);
    header *block = escqrs_alloc(size);
    if (block == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "%s: out of memory for a message",
                                plan->name);
    }
    if (!esc_flat_decode(plan, data, block + 1)) {
        escqrs_free(block);
        return ESCQRS_OK;
    }
    block->size = size;
    *message = (ProtobufCMessage *)(block + 1);
    return ESCQRS_OK;
}

escqrs_status escqrs_message_unpack(const escqrs_schema *schema, escqrs_slice data,
                                    const escqrs_limits *limits, ProtobufCMessage **message,
                                    escqrs_error *error)
{
    ESC_ASSERT(schema->sealed);
    *message = NULL;
    if (esc_flat_fits(&schema->plan, data, limits)) {
        escqrs_status status = unpack_flat(&schema->plan, data, message, error);
        if (status != ESCQRS_OK || *message != NULL) {
            return status;
        }
    }
    escqrs_limits resolved = esc_limits_resolve(limits);
    esc_check_result result;
    escqrs_status status = esc_check(&schema->plan, data, &resolved, &result, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (!result.duplicates) {
        return unpack_checked(schema, data, result.memory, result.unknown, message, error);
    }
    esc_buffer merged = {0};
    status = esc_merge(&schema->plan, data, resolved.memory_max, &merged, error);
    if (status == ESCQRS_OK) {
        /* Merging makes structs fewer; only lengths that take more bytes can make the copy larger.
         */
        size_t memory = result.memory + merged.size;
        status = unpack_checked(schema, esc_buffer_slice(&merged), memory, result.unknown, message,
                                error);
    }
    esc_buffer_fini(&merged);
    return status;
}

void escqrs_message_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        escqrs_free((header *)message - 1);
    }
}

size_t escqrs_message_memory(const ProtobufCMessage *message)
{
    return ((const header *)message - 1)->size;
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
            return escqrs_error_set(
                error, ESCQRS_TOO_LARGE,
                "%s: messages nested deeper than the %u levels that are allowed", name,
                resolved.depth_max);
        }
        return escqrs_error_set(
            error, ESCQRS_TOO_LARGE,
            "%s: so many nested messages that it would be larger than the %zu bytes "
            "that are allowed",
            name, resolved.bytes_max);
    }
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > resolved.bytes_max) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "%s: a message of %zu bytes, more than the %zu that are allowed",
                                name, size, resolved.bytes_max);
    }
    *packed_size = size;
    return ESCQRS_OK;
}
