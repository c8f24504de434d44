/* A page: a run of stored events in memory, read in one go and handed out by a cursor.
 *
 * The provider fills it from a query, the cursor owns it. Its memory is reused from page to page.
 * Not thread-safe: whoever holds the cursor. */
#ifndef ESC_STORE_PAGE_H
#define ESC_STORE_PAGE_H

#include <escqrs/provider.h>

#include "base/arena.h"
#include "base/vector.h"

#define ESC_PAGE_EVENTS_MAX 512
#define ESC_PAGE_BYTES_MAX (1u << 20) /* of data and headers; at least one event all the same */
#define ESC_PAGE_EXAMINED_MAX 16384   /* events looked at for a filter in one go */

struct escqrs_page {
    escqrs_recorded *items;
    size_t count;
    size_t capacity;
    size_t bytes;
    int64_t examined; /* result: how far the query was answered, a version or position (in its
                         direction) */
    int64_t hint;     /* result: for the next query of the stream */
    esc_arena arena;  /* names, data, headers and lists of the items */
};

void esc_page_fini(escqrs_page *page); /* all zero is an empty one */
/* It may not be filled again soon: free its memory where that is much. */
void esc_page_trim(escqrs_page *page);
/* Forget the events; room for `count` of them. NO_MEMORY. */
escqrs_status esc_page_reset(escqrs_page *page, size_t count) ESCQRS_MUST_USE;

/* After a reading that answered OK: was anything of the query answered? Otherwise the provider has
 * lost events. CORRUPT. */
escqrs_status esc_page_check(const escqrs_page *page, const escqrs_query *query,
                             escqrs_error *error) ESCQRS_MUST_USE;

#endif
