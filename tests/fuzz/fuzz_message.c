/* libFuzzer target: bytes from outside against two message types that have everything between them.
 *
 * What passes the check must unpack; what is unpacked must pack, pass the check again and then be
 * stable; and protobuf-c's own unpacking must find the same message, unless occurrences had to be
 * merged, which it does otherwise. JSON must not crash on it. The first byte chooses
 * the type (its top bit) and limits. */
#include "../c/schema/forms.h"
#include "../c/schema/rich.h"

#include "base/assert.h"
#include "schema/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const escqrs_schema *roots[2];

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
static packed repack(const escqrs_schema *root, escqrs_slice data, const escqrs_limits *limits)
{
    ProtobufCMessage *message = NULL;
    escqrs_status status = escqrs_message_unpack(root, data, limits, &message, NULL);
    ESC_ASSERT(status == ESCQRS_OK);
    packed p = pack(message);
    size_t json = 0;
    status = escqrs_message_to_json(root, message, count, &json, NULL);
    ESC_ASSERT(status == ESCQRS_INVALID || (status == ESCQRS_OK && json >= 2));
    escqrs_message_free(message);
    return p;
}

static void make_types(void)
{
    static rich first; /* as long as the program runs */
    static forms second;
    if (roots[0] == NULL) {
        ESC_ASSERT(rich_create(&first, NULL) == ESCQRS_OK);
        ESC_ASSERT(forms_create(&second, NULL) == ESCQRS_OK);
        roots[0] = first.root;
        roots[1] = second.root;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    make_types();
    if (size == 0) {
        return 0;
    }
    const escqrs_schema *root = roots[data[0] >> 7];
    escqrs_limits limits = {.depth_max = data[0] % 32 * 4, .memory_max = 64 * 1024 * 1024};
    escqrs_limits resolved = esc_limits_resolve(&limits);
    escqrs_slice input = {data + 1, size - 1};
    escqrs_error error = {0};
    esc_check_result result;
    if (esc_check(&root->plan, input, &resolved, &result, &error) != ESCQRS_OK) {
        ESC_ASSERT(error.status == ESCQRS_CORRUPT || error.status == ESCQRS_TOO_LARGE);
        ESC_ASSERT(error.message[0] != '\0');
        return 0;
    }
    packed once = repack(root, input, &limits);
    if (!result.duplicates) {
        ProtobufCMessage *theirs =
            protobuf_c_message_unpack(escqrs_schema_descriptor(root), NULL, input.size, input.data);
        ESC_ASSERT(theirs != NULL);
        packed other = pack(theirs);
        assert_equal(&once, &other);
        free(other.data);
        protobuf_c_message_free_unpacked(theirs, NULL);
    }
    packed twice = repack(root, (escqrs_slice){once.data, once.size}, &limits);
    assert_equal(&once, &twice);
    free(once.data);
    free(twice.data);
    return 0;
}
