/* A page: a run of stored events in memory, read in one go and handed out by a cursor.
 *
 * The provider fills it from a query, the cursor owns it. Its memory is reused from page to page.
 * Names of streams are kept across pages (and across cursors, for cursors are pooled), as they
 * never change. Not thread-safe: whoever holds the cursor. */
#ifndef ESC_STORE_PAGE_H
#define ESC_STORE_PAGE_H

#include <escqrs/store.h>

#include "base/arena.h"
#include "base/vector.h"

#define ESC_PAGE_EVENTS_MAX 512
#define ESC_PAGE_BYTES_MAX (1u << 20) /* of data and headers; at least one event all the same */
#define ESC_PAGE_EXAMINED_MAX 16384   /* events looked at for a filter in one go */
#define ESC_PAGE_NAMES_BYTES_MAX (8u << 20) /* of names kept */

/* What is still to be read: versions of a stream, or positions of the store. Both bounds lie inside
 * what is durable. */
typedef struct esc_query {
    escqrs_slice stream; /* empty: by position */
    int64_t hint;        /* of the stream, see `version` of the provider; 0: none */
    int64_t after;       /* exclusive */
    int64_t upto;        /* inclusive */
    bool reverse;        /* from upto downwards */
    bool skip_deleted;   /* else what was deleted is DELETED */
    const escqrs_match *matches;
    size_t match_count;
    size_t count_max; /* 1 to ESC_PAGE_EVENTS_MAX */
} esc_query;

typedef struct esc_stream_name {
    int64_t id;
    escqrs_slice text;
    uint64_t hash; /* as in the checksum */
} esc_stream_name;

typedef struct esc_page {
    escqrs_recorded *items;
    size_t count;
    size_t capacity;
    size_t bytes;
    int64_t examined; /* result: how far the query was answered, a version or position (in its
                         direction) */
    int64_t hint;     /* result: for the next query of the stream */
    esc_arena arena;  /* data, headers and lists of the items */

    esc_arena name_arena;
    esc_stream_name *names; /* open addressing by id; id 0 is free */
    size_t name_capacity;   /* a power of two, or 0 */
    size_t name_count;
    size_t name_bytes;
} esc_page;

void esc_page_fini(esc_page *page); /* all zero is an empty one */
/* Forget the events, not the names, unless these are too many; room for `count` events. NO_MEMORY.
 */
escqrs_status esc_page_reset(esc_page *page, size_t count) ESCQRS_MUST_USE;

/* The name of that id if it is known, or NULL. Valid until the next name is kept. */
const esc_stream_name *esc_page_name(const esc_page *page, int64_t id);
/* Keep a name (copied). NULL when out of memory. */
const esc_stream_name *esc_page_keep_name(esc_page *page, int64_t id, escqrs_slice text,
                                          uint64_t hash);

/* Does the event (type and tags filled in) match the query? */
bool esc_query_matches(const esc_query *query, const escqrs_recorded *recorded);

#endif
