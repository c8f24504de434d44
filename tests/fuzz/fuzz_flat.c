/* libFuzzer target: the one-pass decoder of flat messages (schema/flat.h) against the check and the
 * decoder that it spares. What it takes, they take, and find the same message; all else is theirs.
 */
#include "../c/schema/flat_types.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "schema/check.h"
#include "schema/decode.h"
#include "schema/flat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static escqrs_schema *root; /* as long as the program runs */

/* Of its own size, so that AddressSanitizer sees what reads beyond it. */
static void *pack(const ProtobufCMessage *message, size_t *size)
{
    *size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(*size + 1);
    ESC_ASSERT(bytes != NULL);
    ESC_ASSERT(protobuf_c_message_pack(message, bytes) == *size);
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (root == NULL) {
        ESC_ASSERT(flat_create(&root, NULL) == ESCQRS_OK);
    }
    escqrs_slice input = {data, size};
    ESC_ASSERT(root->plan.flat);
    if (!esc_flat_fits(&root->plan, input, NULL)) {
        return 0;
    }
    void *memory = malloc(esc_flat_size(&root->plan, size));
    ESC_ASSERT(memory != NULL);
    if (esc_flat_decode(&root->plan, input, memory)) {
        escqrs_limits limits = esc_limits_resolve(NULL);
        esc_check_result result;
        ESC_ASSERT(esc_check(&root->plan, input, &limits, &result, NULL) == ESCQRS_OK);
        ESC_ASSERT(!result.duplicates && !result.unknown);
        void *other = malloc(result.memory + 1);
        ESC_ASSERT(other != NULL);
        size_t sizes[2];
        void *first = pack(memory, &sizes[0]);
        void *second =
            pack(esc_decode(&root->plan, input, result.unknown, other, result.memory), &sizes[1]);
        ESC_ASSERT(sizes[0] == sizes[1] && memcmp(first, second, sizes[0]) == 0);
        free(first);
        free(second);
        free(other);
    }
    free(memory);
    return 0;
}
