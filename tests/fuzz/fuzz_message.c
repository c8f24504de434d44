/* libFuzzer target: bytes from outside against a message type with everything in it.
 *
 * What passes the check must unpack; what is unpacked must pack, pass the check again and then be
 * stable; and protobuf-c's own unpacking must find the same message, unless occurrences had to be
 * merged, which it does otherwise. JSON must not crash on it. The first byte chooses limits. */
#include "../c/schema/rich.h"

#include "base/assert.h"
#include "schema/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rich types;

typedef struct packed {
    uint8_t *data;
    size_t size;
} packed;

static packed pack(const ProtobufCMessage *message)
{
    packed p = {.size = protobuf_c_message_get_packed_size(message)};
    p.data = malloc(p.size + 1);
    ESC_ASSERT(p.data != NULL);
    ESC_ASSERT(protobuf_c_message_pack(message, p.data) == p.size);
    return p;
}

static void assert_equal(const packed *a, const packed *b)
{
    ESC_ASSERT(a->size == b->size);
    ESC_ASSERT(a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static bool count(void *context, const char *text, size_t size)
{
    (void)text;
    *(size_t *)context += size;
    return true;
}

/* Unpacks data that passed the check, and packs it again. */
static packed repack(escqrs_slice data, const escqrs_limits *limits)
{
    ProtobufCMessage *message = NULL;
    escqrs_status status = escqrs_message_unpack(types.root, data, limits, &message, NULL);
    ESC_ASSERT(status == ESCQRS_OK);
    packed p = pack(message);
    size_t json = 0;
    status = escqrs_message_to_json(types.root, message, count, &json, NULL);
    ESC_ASSERT(status == ESCQRS_INVALID || (status == ESCQRS_OK && json >= 2));
    escqrs_message_free(message);
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (types.root == NULL) {
        ESC_ASSERT(rich_create(&types, NULL) == ESCQRS_OK);
    }
    if (size == 0) {
        return 0;
    }
    escqrs_limits limits = {.depth_max = data[0] % 32 * 4, .memory_max = 64 * 1024 * 1024};
    escqrs_limits resolved = esc_limits_resolve(&limits);
    escqrs_slice input = {data + 1, size - 1};
    escqrs_error error = {0};
    esc_check_result result;
    if (esc_check(&types.root->plan, input, &resolved, &result, &error) != ESCQRS_OK) {
        ESC_ASSERT(error.status == ESCQRS_CORRUPT || error.status == ESCQRS_TOO_LARGE);
        ESC_ASSERT(error.message[0] != '\0');
        return 0;
    }
    packed once = repack(input, &limits);
    if (!result.duplicates) {
        ProtobufCMessage *theirs = protobuf_c_message_unpack(escqrs_schema_descriptor(types.root),
                                                             NULL, input.size, input.data);
        ESC_ASSERT(theirs != NULL);
        packed other = pack(theirs);
        assert_equal(&once, &other);
        free(other.data);
        protobuf_c_message_free_unpacked(theirs, NULL);
    }
    packed twice = repack((escqrs_slice){once.data, once.size}, &limits);
    assert_equal(&once, &twice);
    free(once.data);
    free(twice.data);
    return 0;
}
