/* See page.h. */
#include "store/page.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

#define ARENA_BLOCK 65536 /* kept: enough for a page of small events */

void esc_page_fini(escqrs_page *page)
{
    escqrs_free(page->items);
    esc_arena_fini(&page->arena);
    memset(page, 0, sizeof *page);
}

void esc_page_trim(escqrs_page *page)
{
    if (esc_arena_capacity(&page->arena) > ARENA_BLOCK) {
        esc_page_fini(page);
    }
}

escqrs_status esc_page_reset(escqrs_page *page, size_t count)
{
    if (page->arena.block_size == 0) {
        esc_arena_init(&page->arena, ARENA_BLOCK);
    }
    esc_arena_reset(&page->arena);
    page->count = page->bytes = 0;
    page->examined = 0;
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

/* ---- for providers ---------------------------------------------------------------------------- */

escqrs_status escqrs_page_begin(escqrs_page *page, const escqrs_query *query, escqrs_error *error)
{
    int64_t left = query->upto - query->after;
    size_t room = left < (int64_t)query->count_max ? (size_t)left : query->count_max;
    if (esc_page_reset(page, room < ESC_PAGE_EVENTS_MAX ? room : ESC_PAGE_EVENTS_MAX) !=
        ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a page of events");
    }
    page->examined = query->reverse ? query->upto + 1 : query->after;
    return ESCQRS_OK;
}

void escqrs_page_skip(escqrs_page *page, const escqrs_query *query, int64_t upto)
{
    if (query->reverse && upto < page->examined) {
        page->examined = upto > query->after ? upto : query->after + 1;
    } else if (!query->reverse && upto > page->examined) {
        page->examined = upto < query->upto ? upto : query->upto;
    }
}

static bool is_full(const escqrs_page *page, const escqrs_query *query)
{
    int64_t examined =
        query->reverse ? query->upto + 1 - page->examined : page->examined - query->after;
    return page->count == page->capacity || page->count >= query->count_max ||
           page->bytes >= ESC_PAGE_BYTES_MAX || examined >= ESC_PAGE_EXAMINED_MAX;
}

static escqrs_status say_gap(const escqrs_query *query, int64_t expected, escqrs_error *error)
{
    (void)escqrs_error_set(error, ESCQRS_CORRUPT,
                           "the provider does not give the event at %s %" PRId64 " where it should",
                           query->stream.size > 0 ? "version" : "position", expected);
    if (error != NULL) {
        esc_error_subject(error, query->stream);
        *(query->stream.size > 0 ? &error->version : &error->position) = expected;
    }
    return ESCQRS_CORRUPT;
}

/* Into the page's memory. */
static bool keep(escqrs_page *page, escqrs_slice *slice)
{
    char *copy = esc_arena_strdup(&page->arena, *slice);
    page->bytes += slice->size;
    slice->data = copy;
    return copy != NULL;
}

static bool keep_lists(escqrs_page *page, escqrs_recorded *recorded)
{
    escqrs_slice *tags = esc_arena_alloc(&page->arena, (recorded->tag_count + 1) * sizeof *tags);
    escqrs_pair *pairs =
        esc_arena_alloc(&page->arena, (recorded->metadata_count + 1) * sizeof *pairs);
    bool kept = tags != NULL && pairs != NULL;
    for (size_t i = 0; kept && i < recorded->tag_count; i++) {
        tags[i] = recorded->tags[i];
        kept = keep(page, &tags[i]);
    }
    for (size_t i = 0; kept && i < recorded->metadata_count; i++) {
        pairs[i] = recorded->metadata[i];
        kept = keep(page, &pairs[i].key) && keep(page, &pairs[i].value);
    }
    recorded->tags = tags;
    recorded->metadata = pairs;
    return kept;
}

escqrs_status escqrs_page_add(escqrs_page *page, const escqrs_query *query,
                              const escqrs_recorded *recorded, escqrs_error *error)
{
    int64_t expected = page->examined + (query->reverse ? -1 : 1);
    if (expected <= query->after || expected > query->upto || is_full(page, query)) {
        return ESCQRS_DONE;
    }
    if ((query->stream.size > 0 ? recorded->version : recorded->position) != expected) {
        return say_gap(query, expected, error);
    }
    if (escqrs_query_matches(query, recorded)) {
        escqrs_recorded *item = &page->items[page->count];
        *item = *recorded;
        if (!keep(page, &item->stream) || !keep(page, &item->data) || !keep(page, &item->id_text) ||
            !keep(page, &item->correlation_text) || !keep(page, &item->causation_text) ||
            !keep_lists(page, item)) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a page of events");
        }
        page->count++;
    }
    page->examined = expected;
    return ESCQRS_OK;
}

escqrs_status esc_page_check(const escqrs_page *page, const escqrs_query *query,
                             escqrs_error *error)
{
    if (query->reverse ? page->examined <= query->upto : page->examined > query->after) {
        return ESCQRS_OK;
    }
    return say_gap(query, query->reverse ? query->upto : query->after + 1, error);
}
