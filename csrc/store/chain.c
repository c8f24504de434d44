/* See chain.h. SHA-256 is OpenSSL's libcrypto, which Python's hashlib has loaded anyway, and which
 * uses what the processor has for it.
 *
 * All that varies in length has its length before it, so that no two events read alike. */
#include "store/chain.h"

#include <endian.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

void esc_chain_init(esc_chain *chain)
{
    memset(chain, 0, sizeof *chain);
    esc_arena_init(&chain->arena, 4096);
}

void esc_chain_fini(esc_chain *chain)
{
    EVP_MD_CTX_free(chain->digest);
    chain->digest = NULL;
    esc_buffer_fini(&chain->buffer);
    esc_arena_fini(&chain->arena);
}

static escqrs_status no_memory(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a link of the hash chain");
}

/* SHA-256 of two pieces. OpenSSL fails for want of memory alone. */
static escqrs_status hash(esc_chain *chain, escqrs_slice first, escqrs_slice second,
                          uint8_t result[ESCQRS_CHAIN_LINK_SIZE], escqrs_error *error)
{
    bool fresh = chain->digest == NULL;
    if (fresh) {
        chain->digest = EVP_MD_CTX_new();
    }
    /* the kind is given once: looking it up costs more than a small event's hash */
    if (chain->digest != NULL &&
        EVP_DigestInit_ex(chain->digest, fresh ? EVP_sha256() : NULL, NULL) == 1 &&
        EVP_DigestUpdate(chain->digest, first.data, first.size) == 1 &&
        EVP_DigestUpdate(chain->digest, second.size > 0 ? second.data : "", second.size) == 1 &&
        EVP_DigestFinal_ex(chain->digest, result, NULL) == 1) {
        return ESCQRS_OK;
    }
    EVP_MD_CTX_free(chain->digest);
    chain->digest = NULL;
    return no_memory(error);
}

/* ---- what is hashed --------------------------------------------------------------------------- */

static bool put_bytes(esc_buffer *buffer, const void *bytes, size_t size)
{
    return size == 0 || esc_buffer_append(buffer, bytes, size) == ESCQRS_OK;
}

static bool put_number(esc_buffer *buffer, int64_t number)
{
    uint64_t little = htole64((uint64_t)number);
    return put_bytes(buffer, &little, sizeof little);
}

static bool put_text(esc_buffer *buffer, escqrs_slice text)
{
    return put_number(buffer, (int64_t)text.size) && put_bytes(buffer, text.data, text.size);
}

/* An id as people read it: the text, or the UUID's. */
static bool put_id(esc_buffer *buffer, escqrs_slice text, const escqrs_uuid *id)
{
    char formatted[ESCQRS_UUID_TEXT_SIZE];
    if (text.size > 0) {
        return put_text(buffer, text);
    }
    escqrs_uuid_format(id, formatted);
    return put_text(buffer, escqrs_slice_of(formatted));
}

static int compare_slices(escqrs_slice left, escqrs_slice right)
{
    size_t size = left.size < right.size ? left.size : right.size;
    int order = size > 0 ? memcmp(left.data, right.data, size) : 0;
    return order != 0 ? order : (left.size > right.size) - (left.size < right.size);
}

static int compare_pairs(const void *left, const void *right)
{
    const escqrs_pair *one = left, *other = right;
    int order = compare_slices(one->key, other->key);
    return order != 0 ? order : compare_slices(one->value, other->value);
}

/* In the order of their keys: metadata is a mapping. */
static bool put_metadata(esc_chain *chain, const escqrs_recorded *recorded)
{
    size_t count = recorded->metadata_count;
    if (!put_number(&chain->buffer, (int64_t)count)) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    escqrs_pair *sorted = escqrs_alloc_array(count, sizeof *sorted);
    if (sorted == NULL) {
        return false;
    }
    memcpy(sorted, recorded->metadata, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_pairs);
    bool done = true;
    for (size_t i = 0; i < count && done; i++) {
        done = put_text(&chain->buffer, sorted[i].key) && put_text(&chain->buffer, sorted[i].value);
    }
    escqrs_free(sorted);
    return done;
}

static bool put_tags(esc_buffer *buffer, const escqrs_recorded *recorded)
{
    bool done = put_number(buffer, (int64_t)recorded->tag_count);
    for (size_t i = 0; i < recorded->tag_count && done; i++) {
        done = put_text(buffer, recorded->tags[i]);
    }
    return done;
}

escqrs_status esc_chain_type(esc_chain *chain, escqrs_slice name, escqrs_slice record,
                             uint8_t digest[ESCQRS_CHAIN_LINK_SIZE], escqrs_error *error)
{
    esc_buffer *buffer = &chain->buffer;
    esc_buffer_reset(buffer);
    if (!put_text(buffer, name) || !put_text(buffer, record)) {
        return no_memory(error);
    }
    return hash(chain, esc_buffer_slice(buffer), (escqrs_slice){NULL, 0}, digest, error);
}

escqrs_status esc_chain_add(esc_chain *chain, const escqrs_recorded *recorded,
                            const uint8_t type[ESCQRS_CHAIN_LINK_SIZE], escqrs_error *error)
{
    esc_buffer *buffer = &chain->buffer;
    esc_buffer_reset(buffer);
    bool done = put_bytes(buffer, chain->link, sizeof chain->link) &&
                put_number(buffer, recorded->position) && put_number(buffer, recorded->version) &&
                put_number(buffer, recorded->time_us) && put_text(buffer, recorded->stream) &&
                put_bytes(buffer, type, ESCQRS_CHAIN_LINK_SIZE) &&
                put_id(buffer, recorded->id_text, &recorded->id) &&
                put_id(buffer, recorded->correlation_text, &recorded->correlation_id) &&
                put_id(buffer, recorded->causation_text, &recorded->causation_id) &&
                put_metadata(chain, recorded) && put_tags(buffer, recorded) &&
                put_number(buffer, (int64_t)recorded->data.size);
    if (!done) {
        return no_memory(error);
    }
    return hash(chain, esc_buffer_slice(buffer), recorded->data, chain->link, error);
}
