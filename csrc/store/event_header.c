/* See event_header.h. The codec is written by hand, as the reader runs once an event in the hot
 * path of replay and must neither allocate nor trust what it reads. */
#include "store/event_header.h"

#include <string.h>

#include "base/assert.h"
#include "base/varint.h"

#define TAG_ID ((1 << 3) | 2)
#define TAG_CORRELATION ((2 << 3) | 2)
#define TAG_CAUSATION ((3 << 3) | 2)
#define TAG_METADATA ((4 << 3) | 2)
#define TAG_TAGS ((5 << 3) | 2)
#define TAG_CORRELATION_TEXT ((6 << 3) | 2)
#define TAG_CAUSATION_TEXT ((7 << 3) | 2)
#define TAG_ID_TEXT ((8 << 3) | 2)
#define TAG_KEY ((1 << 3) | 2)
#define TAG_VALUE ((2 << 3) | 2)

/* ---- ids -------------------------------------------------------------------------------------- */

/* 48 bits of milliseconds; version; 12 bits and, behind the variant, 28 bits of the position; 2
 * bits of kind; 32 bits of salt. */
static escqrs_uuid derive(int64_t time_us, int64_t position, uint32_t salt, unsigned kind)
{
    uint64_t millis = (uint64_t)(time_us / 1000);
    uint64_t place = (uint64_t)position & 0xFFFFFFFFFFu;
    uint64_t high = (millis << 16) | 0x7000u | (place >> 28);
    uint64_t low = (2ULL << 62) | ((place & 0xFFFFFFFu) << 34) | ((uint64_t)kind << 32) | salt;
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
    escqrs_uuid uuid;
    memcpy(uuid.bytes, &high, 8);
    memcpy(uuid.bytes + 8, &low, 8);
    return uuid;
}

escqrs_uuid esc_event_id(int64_t time_us, int64_t position, uint32_t salt)
{
    return derive(time_us, position, salt, 1);
}

int64_t esc_event_id_position(const escqrs_uuid *id, uint32_t salt)
{
    uint64_t high, low;
    memcpy(&high, id->bytes, 8);
    memcpy(&low, id->bytes + 8, 8);
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
    if ((high & 0xF000u) != 0x7000u || low >> 62 != 2 || (uint32_t)low != salt ||
        ((low >> 32) & 3) != 1) {
        return 0;
    }
    return (int64_t)((high & 0xFFFu) << 28 | ((low >> 34) & 0xFFFFFFFu));
}

/* The same as esc_event_id of the command whose first event stands at a position. */
static escqrs_uuid cause_id(int64_t time_us, int64_t position, uint32_t salt)
{
    return derive(time_us, position, salt, 0);
}

/* ---- encode ----------------------------------------------------------------------------------- */

static escqrs_status put_size(esc_buffer *buffer, uint8_t tag, size_t size)
{
    uint8_t head[1 + ESC_VARINT_SIZE_MAX];
    head[0] = tag;
    return esc_buffer_append(buffer, head, 1 + esc_varint_encode(size, head + 1));
}

static escqrs_status put_bytes(esc_buffer *buffer, uint8_t tag, const void *data, size_t size)
{
    escqrs_status status = put_size(buffer, tag, size);
    return status != ESCQRS_OK || size == 0 ? status : esc_buffer_append(buffer, data, size);
}

static size_t text_size(escqrs_slice text)
{
    return 1 + esc_varint_size(text.size) + text.size;
}

static escqrs_status put_pair(esc_buffer *buffer, const escqrs_pair *pair)
{
    escqrs_status status =
        put_size(buffer, TAG_METADATA, text_size(pair->key) + text_size(pair->value));
    if (status == ESCQRS_OK) {
        status = put_bytes(buffer, TAG_KEY, pair->key.data, pair->key.size);
    }
    if (status == ESCQRS_OK) {
        status = put_bytes(buffer, TAG_VALUE, pair->value.data, pair->value.size);
    }
    return status;
}

static escqrs_status put_id(esc_buffer *buffer, uint8_t tag, const escqrs_uuid *id)
{
    return id == NULL ? ESCQRS_OK : put_bytes(buffer, tag, id->bytes, sizeof id->bytes);
}

static escqrs_status put_text(esc_buffer *buffer, uint8_t tag, escqrs_slice text)
{
    return text.size == 0 ? ESCQRS_OK : put_bytes(buffer, tag, text.data, text.size);
}

static escqrs_status put_origin(esc_buffer *buffer, const escqrs_origin *origin)
{
    escqrs_status status = put_id(buffer, TAG_CORRELATION, origin->correlation_id);
    if (status == ESCQRS_OK) {
        status = put_id(buffer, TAG_CAUSATION, origin->causation_id);
    }
    for (size_t i = 0; i < origin->metadata_count && status == ESCQRS_OK; i++) {
        status = put_pair(buffer, &origin->metadata[i]);
    }
    return status;
}

escqrs_status esc_event_header_encode(const escqrs_commit *commit, const escqrs_new_event *event,
                                      esc_buffer *buffer)
{
    escqrs_origin common = {.correlation_id = commit->correlation_id,
                            .correlation_text = commit->correlation_text,
                            .causation_id = commit->causation_id,
                            .metadata = commit->metadata,
                            .metadata_count = commit->metadata_count};
    const escqrs_origin *origin = event->origin != NULL ? event->origin : &common;
    escqrs_status status = put_id(buffer, TAG_ID, event->id);
    if (status == ESCQRS_OK) {
        status = put_origin(buffer, origin);
    }
    for (size_t i = 0; i < event->tag_count && status == ESCQRS_OK; i++) {
        status = put_bytes(buffer, TAG_TAGS, event->tags[i].data, event->tags[i].size);
    }
    if (status == ESCQRS_OK) {
        status = put_text(buffer, TAG_CORRELATION_TEXT, origin->correlation_text);
    }
    if (status == ESCQRS_OK) {
        status = put_text(buffer, TAG_CAUSATION_TEXT, origin->causation_text);
    }
    return status == ESCQRS_OK ? put_text(buffer, TAG_ID_TEXT, event->id_text) : status;
}

/* ---- decode ----------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *next;
    const uint8_t *end;
} reader;

/* One length-delimited field; false where the bytes are none. */
static bool take_field(reader *in, uint8_t *tag, escqrs_slice *value)
{
    uint64_t size = 0;
    *tag = *in->next++;
    size_t used = esc_varint_decode(in->next, (size_t)(in->end - in->next), &size);
    if (used == 0 || size > (size_t)(in->end - in->next) - used) {
        return false;
    }
    *value = (escqrs_slice){in->next + used, (size_t)size};
    in->next += used + size;
    return true;
}

static bool take_uuid(escqrs_slice value, escqrs_uuid *uuid)
{
    if (value.size != sizeof uuid->bytes) {
        return false;
    }
    memcpy(uuid->bytes, value.data, sizeof uuid->bytes);
    return true;
}

static bool take_pair(escqrs_slice bytes, escqrs_pair *pair)
{
    reader in = {bytes.data, (const uint8_t *)bytes.data + bytes.size};
    *pair = (escqrs_pair){{"", 0}, {"", 0}};
    while (in.next < in.end) {
        uint8_t tag;
        escqrs_slice value;
        if (!take_field(&in, &tag, &value)) {
            return false;
        }
        if (tag == TAG_KEY) {
            pair->key = value;
        } else if (tag == TAG_VALUE) {
            pair->value = value;
        } else {
            return false;
        }
    }
    return true;
}

/* First pass: ids, and how long the lists are. */
static bool scan(escqrs_slice header, escqrs_recorded *recorded, bool found[3])
{
    reader in = {header.data, (const uint8_t *)header.data + header.size};
    while (in.next < in.end) {
        uint8_t tag;
        escqrs_slice value;
        if (!take_field(&in, &tag, &value)) {
            return false;
        }
        bool fine = true;
        switch (tag) {
        case TAG_ID:
            found[0] = fine = take_uuid(value, &recorded->id);
            break;
        case TAG_CORRELATION:
            found[1] = fine = take_uuid(value, &recorded->correlation_id);
            break;
        case TAG_CAUSATION:
            found[2] = fine = take_uuid(value, &recorded->causation_id);
            break;
        case TAG_CORRELATION_TEXT:
            recorded->correlation_text = value;
            break;
        case TAG_CAUSATION_TEXT:
            recorded->causation_text = value;
            break;
        case TAG_ID_TEXT:
            recorded->id_text = value;
            break;
        case TAG_METADATA:
            recorded->metadata_count++;
            break;
        case TAG_TAGS:
            recorded->tag_count++;
            break;
        default:
            fine = false;
        }
        if (!fine) {
            return false;
        }
    }
    return recorded->metadata_count + recorded->tag_count <= ESC_EVENT_HEADER_ITEMS_MAX;
}

static bool fill_lists(escqrs_slice header, escqrs_pair *pairs, escqrs_slice *tags)
{
    reader in = {header.data, (const uint8_t *)header.data + header.size};
    while (in.next < in.end) {
        uint8_t tag;
        escqrs_slice value;
        if (!take_field(&in, &tag, &value)) {
            return false;
        }
        if (tag == TAG_METADATA) {
            ESC_ASSERT(pairs != NULL); /* there is room for as many as scan has counted */
            if (!take_pair(value, pairs++)) {
                return false;
            }
        }
        if (tag == TAG_TAGS) {
            ESC_ASSERT(tags != NULL);
            *tags++ = value;
        }
    }
    return true;
}

escqrs_status esc_event_header_decode(escqrs_slice header, int64_t ordinal, uint32_t salt,
                                      esc_arena *arena, escqrs_recorded *recorded)
{
    bool found[3] = {false, false, false};
    recorded->metadata = NULL;
    recorded->tags = NULL;
    recorded->id_text = recorded->correlation_text = recorded->causation_text =
        (escqrs_slice){NULL, 0};
    recorded->metadata_count = recorded->tag_count = 0;
    if (header.size > 0) {
        if (!scan(header, recorded, found)) {
            return ESCQRS_CORRUPT;
        }
        escqrs_pair *pairs = NULL;
        escqrs_slice *tags = NULL;
        if (recorded->metadata_count > 0) {
            pairs = esc_arena_alloc(arena, recorded->metadata_count * sizeof *pairs);
        }
        if (recorded->tag_count > 0) {
            tags = esc_arena_alloc(arena, recorded->tag_count * sizeof *tags);
        }
        if ((recorded->metadata_count > 0 && pairs == NULL) ||
            (recorded->tag_count > 0 && tags == NULL)) {
            return ESCQRS_NO_MEMORY;
        }
        if (!fill_lists(header, pairs, tags)) {
            return ESCQRS_CORRUPT;
        }
        recorded->metadata = pairs;
        recorded->tags = tags;
    }
    if (!found[0]) {
        recorded->id = esc_event_id(recorded->time_us, recorded->position, salt);
    }
    if (!found[2]) {
        recorded->causation_id = cause_id(recorded->time_us, recorded->position - ordinal, salt);
    }
    if (!found[1]) {
        recorded->correlation_id = recorded->causation_id;
        if (recorded->correlation_text.size == 0) {
            recorded->correlation_text = recorded->causation_text;
        }
    }
    return ESCQRS_OK;
}
