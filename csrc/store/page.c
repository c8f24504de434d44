/* See page.h. Names are found by the low bits of the id with linear probing: ids count from 1, so
 * they do not collide while the table is larger than they are many, and neighbours share cache
 * lines. */
#include "store/page.h"

#include <string.h>

#include "base/assert.h"

#define NAME_CAPACITY_MIN 64

void esc_page_fini(esc_page *page)
{
    escqrs_free(page->items);
    esc_arena_fini(&page->arena);
    esc_arena_fini(&page->name_arena);
    escqrs_free(page->names);
    memset(page, 0, sizeof *page);
}

static void forget_names(esc_page *page)
{
    esc_arena_reset(&page->name_arena);
    escqrs_free(page->names);
    page->names = NULL;
    page->name_capacity = page->name_count = page->name_bytes = 0;
}

escqrs_status esc_page_reset(esc_page *page, size_t count)
{
    if (page->arena.block_size == 0) {
        esc_arena_init(&page->arena, 32768);
        esc_arena_init(&page->name_arena, 4096);
    }
    esc_arena_reset(&page->arena);
    page->count = page->bytes = 0;
    page->examined = 0;
    if (page->name_bytes > ESC_PAGE_NAMES_BYTES_MAX) {
        forget_names(page);
    }
    if (count > page->capacity) {
        escqrs_recorded *items = escqrs_alloc_array(count, sizeof *items);
        if (items == NULL) {
            return ESCQRS_NO_MEMORY;
        }
        escqrs_free(page->items);
        page->items = items;
        page->capacity = count;
    }
    return ESCQRS_OK;
}

static size_t name_slot(int64_t id, size_t capacity)
{
    return (size_t)id & (capacity - 1);
}

const esc_stream_name *esc_page_name(const esc_page *page, int64_t id)
{
    if (page->name_capacity == 0) {
        return NULL;
    }
    size_t slot = name_slot(id, page->name_capacity);
    while (page->names[slot].id != 0) {
        if (page->names[slot].id == id) {
            return &page->names[slot];
        }
        slot = (slot + 1) & (page->name_capacity - 1);
    }
    return NULL;
}

static bool grow_names(esc_page *page)
{
    size_t capacity = page->name_capacity == 0 ? NAME_CAPACITY_MIN : page->name_capacity * 2;
    esc_stream_name *names = escqrs_alloc_zero(capacity * sizeof *names);
    if (names == NULL) {
        return false;
    }
    for (size_t i = 0; i < page->name_capacity; i++) {
        if (page->names[i].id != 0) {
            size_t slot = name_slot(page->names[i].id, capacity);
            while (names[slot].id != 0) {
                slot = (slot + 1) & (capacity - 1);
            }
            names[slot] = page->names[i];
        }
    }
    escqrs_free(page->names);
    page->names = names;
    page->name_capacity = capacity;
    return true;
}

const esc_stream_name *esc_page_keep_name(esc_page *page, int64_t id, escqrs_slice text,
                                          uint64_t hash)
{
    ESC_ASSERT(id > 0 && esc_page_name(page, id) == NULL);
    if (page->name_count * 2 >= page->name_capacity && !grow_names(page)) {
        return NULL;
    }
    char *copy = esc_arena_strdup(&page->name_arena, text);
    if (copy == NULL) {
        return NULL;
    }
    size_t slot = name_slot(id, page->name_capacity);
    while (page->names[slot].id != 0) {
        slot = (slot + 1) & (page->name_capacity - 1);
    }
    page->names[slot] = (esc_stream_name){id, {copy, text.size}, hash};
    page->name_count++;
    page->name_bytes += text.size + 2 * sizeof(esc_stream_name);
    return &page->names[slot];
}

static bool bears_tag(const escqrs_recorded *recorded, escqrs_slice tag)
{
    for (size_t i = 0; i < recorded->tag_count; i++) {
        if (escqrs_slice_equal(recorded->tags[i], tag)) {
            return true;
        }
    }
    return false;
}

static bool matches_one(const escqrs_match *match, const escqrs_recorded *recorded)
{
    bool type_fits = match->type_count == 0;
    escqrs_slice name = escqrs_type_name(recorded->type);
    for (size_t i = 0; i < match->type_count && !type_fits; i++) {
        type_fits = escqrs_slice_equal(match->types[i], name);
    }
    if (!type_fits) {
        return false;
    }
    for (size_t i = 0; i < match->tag_count; i++) {
        if (!bears_tag(recorded, match->tags[i])) {
            return false;
        }
    }
    return true;
}

bool esc_query_matches(const esc_query *query, const escqrs_recorded *recorded)
{
    for (size_t i = 0; i < query->match_count; i++) {
        if (matches_one(&query->matches[i], recorded)) {
            return true;
        }
    }
    return query->match_count == 0;
}
