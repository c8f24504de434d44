/* Iterations over events: pages asked from the provider one behind the other.
 *
 * In a long iteration the next page is read ahead, on the store's thread for that (ahead.h), into a
 * page of its own. Meanwhile the stream's name and the matches are that thread's to read; whoever
 * has the cursor takes the request back before anything else is done. A program that is faster than
 * the thread does not wait for it, but reads the page behind that one: where it begins is known,
 * for positions and versions have no gaps, and what is wrong about it is seen when it is its turn.
 *
 * A cursor holds memory and no connection. Closed cursors are kept by the store, a few of them, so
 * that short reads need not allocate and names of streams, which never change, are known already.
 */
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "store/store.h"

#define AHEAD_EVENTS_MIN 256 /* waking the thread costs as much as reading a hundred */
/* When the processors are busy with other work, waiting for the thread to get one costs more than
 * it spares: after a wait so long, so many pages are read without it. */
#define AHEAD_WAIT_NS_MAX 1000000
#define PAGES_ALONE 64

typedef struct next_page_ahead {
    esc_ahead_request request;
    escqrs_cursor *cursor;
    bool asked; /* the request is with the thread */
    escqrs_query query;
    escqrs_page page;
    escqrs_status status;
    escqrs_error error;
    /* The page behind it, read by who waited. */
    bool has_beyond;
    bool alone;                /* it was not the page behind: no more of them */
    escqrs_query beyond_query; /* that it answers */
    escqrs_page beyond;
} next_page_ahead;

struct escqrs_cursor {
    escqrs_store *store; /* held while open */
    escqrs_query query;  /* the part still to be read */
    int64_t left;        /* events that the limit still allows */
    bool ended;
    escqrs_page page;
    size_t next;            /* in the page */
    size_t pages;           /* read so far */
    unsigned pages_alone;   /* to be read before it is asked ahead again */
    next_page_ahead *ahead; /* NULL: never read ahead */
    char *stream;
    size_t stream_capacity;
    escqrs_match *matches; /* one block: matches, lists and texts */
    escqrs_cursor *next_kept;
};

/* ---- memory ----------------------------------------------------------------------------------- */

static void free_cursor(escqrs_cursor *cursor)
{
    esc_page_fini(&cursor->page);
    if (cursor->ahead != NULL) {
        esc_page_fini(&cursor->ahead->page);
        esc_page_fini(&cursor->ahead->beyond);
        escqrs_free(cursor->ahead);
    }
    escqrs_free(cursor->stream);
    escqrs_free(cursor->matches);
    escqrs_free(cursor);
}

void esc_cursors_free(escqrs_store *store)
{
    while (store->kept != NULL) {
        escqrs_cursor *cursor = store->kept;
        store->kept = cursor->next_kept;
        free_cursor(cursor);
    }
    store->kept_count = 0;
}

static escqrs_cursor *take_cursor(escqrs_store *store)
{
    esc_mutex_lock(&store->cursor_mutex);
    escqrs_cursor *cursor = store->kept;
    if (cursor != NULL) {
        store->kept = cursor->next_kept;
        store->kept_count--;
    }
    esc_mutex_unlock(&store->cursor_mutex);
    if (cursor == NULL) {
        cursor = escqrs_alloc_zero(sizeof *cursor);
        if (cursor == NULL) {
            return NULL;
        }
    }
    memset(&cursor->query, 0, sizeof cursor->query);
    cursor->page.count = cursor->next = cursor->pages = 0;
    cursor->pages_alone = 0;
    if (cursor->ahead != NULL) {
        cursor->ahead->has_beyond = cursor->ahead->alone = false;
    }
    cursor->ended = false;
    cursor->store = store;
    esc_store_hold(store);
    return cursor;
}

static void end_cursor(escqrs_cursor *cursor)
{
    escqrs_store *store = cursor->store;
    escqrs_free(cursor->matches);
    cursor->matches = NULL;
    esc_mutex_lock(&store->cursor_mutex);
    bool keep = store->kept_count < ESC_CURSORS_KEPT;
    if (keep) {
        cursor->next_kept = store->kept;
        store->kept = cursor;
        store->kept_count++;
    }
    esc_mutex_unlock(&store->cursor_mutex);
    if (!keep) {
        free_cursor(cursor);
    }
    esc_store_release(store);
}

void escqrs_cursor_close(escqrs_cursor *cursor)
{
    if (cursor == NULL || cursor->store->fork_generation != escqrs_fork_generation()) {
        return; /* in a child of fork the memory goes with it */
    }
    next_page_ahead *ahead = cursor->ahead;
    if (ahead != NULL && ahead->asked) {
        ahead->asked = false;
        if (!esc_ahead_give_up(&cursor->store->ahead, &ahead->request)) {
            return; /* drop_ahead ends it */
        }
    }
    end_cursor(cursor);
}

/* ---- what is asked for ------------------------------------------------------------------------ */

static size_t matches_size(const escqrs_range *range)
{
    size_t size = range->match_count * sizeof(escqrs_match);
    for (size_t i = 0; i < range->match_count; i++) {
        const escqrs_match *match = &range->matches[i];
        size += (match->type_count + match->tag_count) * sizeof(escqrs_slice);
        for (size_t j = 0; j < match->type_count; j++) {
            size += match->types[j].size;
        }
        for (size_t j = 0; j < match->tag_count; j++) {
            size += match->tags[j].size;
        }
    }
    return size;
}

static void copy_texts(escqrs_slice **slices, char **texts, const escqrs_slice *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (from[i].size > 0) {
            memcpy(*texts, from[i].data, from[i].size);
        }
        *(*slices)++ = (escqrs_slice){*texts, from[i].size};
        *texts += from[i].size;
    }
}

static escqrs_status copy_matches(escqrs_cursor *cursor, const escqrs_range *range)
{
    if (range->match_count == 0) {
        return ESCQRS_OK;
    }
    size_t slice_count = 0;
    for (size_t i = 0; i < range->match_count; i++) {
        slice_count += range->matches[i].type_count + range->matches[i].tag_count;
    }
    cursor->matches = escqrs_alloc(matches_size(range));
    if (cursor->matches == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    escqrs_slice *slices = (escqrs_slice *)(cursor->matches + range->match_count);
    char *texts = (char *)(slices + slice_count);
    for (size_t i = 0; i < range->match_count; i++) {
        const escqrs_match *from = &range->matches[i];
        cursor->matches[i] =
            (escqrs_match){slices, from->type_count, slices + from->type_count, from->tag_count};
        copy_texts(&slices, &texts, from->types, from->type_count);
        copy_texts(&slices, &texts, from->tags, from->tag_count);
    }
    cursor->query.matches = cursor->matches;
    cursor->query.match_count = range->match_count;
    return ESCQRS_OK;
}

static escqrs_status copy_stream(escqrs_cursor *cursor, escqrs_slice stream)
{
    if (stream.size > cursor->stream_capacity) {
        char *grown = escqrs_realloc(cursor->stream, stream.size);
        if (grown == NULL) {
            return ESCQRS_NO_MEMORY;
        }
        cursor->stream = grown;
        cursor->stream_capacity = stream.size;
    }
    memcpy(cursor->stream, stream.data, stream.size);
    cursor->query.stream = (escqrs_slice){cursor->stream, stream.size};
    return ESCQRS_OK;
}

static escqrs_status check_range(const escqrs_range *range, escqrs_error *error)
{
    if (range->after < 0 || range->upto < 0 || range->limit < 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "after, upto and limit may not be negative");
    }
    return ESCQRS_OK;
}

/* Read `range` of what ends at `end`. */
static escqrs_status start(escqrs_store *store, escqrs_slice stream, int64_t hint, int64_t end,
                           const escqrs_range *range, escqrs_cursor **result, escqrs_error *error)
{
    escqrs_cursor *cursor = take_cursor(store);
    escqrs_status status = cursor == NULL ? ESCQRS_NO_MEMORY : copy_matches(cursor, range);
    if (status == ESCQRS_OK && stream.size > 0) {
        status = copy_stream(cursor, stream);
    }
    if (status != ESCQRS_OK) {
        escqrs_cursor_close(cursor);
        return escqrs_error_set(error, status, "no memory for a cursor");
    }
    cursor->query.hint = hint;
    cursor->query.after = range->after;
    cursor->query.upto = range->upto > 0 && range->upto < end ? range->upto : end;
    cursor->query.reverse = range->reverse;
    cursor->query.skip_deleted = range->skip_deleted;
    cursor->left = range->limit > 0 ? range->limit : INT64_MAX;
    *result = cursor;
    return ESCQRS_OK;
}

escqrs_status escqrs_store_history(escqrs_store *store, escqrs_slice stream,
                                   const escqrs_range *range, escqrs_cursor **cursor,
                                   escqrs_error *error)
{
    static const escqrs_range all;
    range = range != NULL ? range : &all;
    escqrs_status status = check_range(range, error);
    if (status == ESCQRS_OK && (stream.size == 0 || stream.size > ESCQRS_STREAM_NAME_MAX)) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "the name of a stream has 1 to %d bytes",
                                  ESCQRS_STREAM_NAME_MAX);
    }
    if (status == ESCQRS_OK) {
        status = esc_store_enter(store, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    int64_t version = 0, hint = 0;
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status =
            store->provider->functions->version(store->provider, stream, &version, &hint, error);
    }
    if (status == ESCQRS_OK) {
        status = start(store, stream, hint, version, range, cursor, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_events(escqrs_store *store, const escqrs_range *range,
                                  escqrs_cursor **cursor, escqrs_error *error)
{
    static const escqrs_range all;
    range = range != NULL ? range : &all;
    escqrs_status status = check_range(range, error);
    if (status == ESCQRS_OK) {
        status = esc_store_enter(store, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status = start(store, (escqrs_slice){NULL, 0}, 0, esc_provider_head(store->provider), range,
                       cursor, error);
    }
    esc_store_leave(store);
    return status;
}

int64_t escqrs_cursor_upto(const escqrs_cursor *cursor)
{
    return cursor->query.upto;
}

void escqrs_cursor_skip(escqrs_cursor *cursor, int64_t after)
{
    ESC_ASSERT(!cursor->query.reverse && cursor->page.count == 0);
    if (after > cursor->query.after) {
        cursor->query.after = after;
    }
}

/* ---- what is given ---------------------------------------------------------------------------- */

static bool is_at_end(const escqrs_cursor *cursor)
{
    return cursor->left == 0 || cursor->query.upto <= cursor->query.after;
}

static size_t page_limit(const escqrs_cursor *cursor)
{
    return cursor->left < ESC_PAGE_EVENTS_MAX ? (size_t)cursor->left : ESC_PAGE_EVENTS_MAX;
}

/* Ask the provider for the page. What precedes a bad or deleted event is given first: the next
 * page begins with it. */
static escqrs_status ask(escqrs_store *store, const escqrs_query *query, escqrs_page *page,
                         escqrs_error *error)
{
    escqrs_status status = store->provider->functions->read(store->provider, query, page, error);
    if ((status == ESCQRS_CORRUPT || status == ESCQRS_DELETED) && page->count > 0) {
        status = ESCQRS_OK;
    }
    return status == ESCQRS_OK ? esc_page_check(page, query, error) : status;
}

static void run_ahead(esc_ahead_request *request)
{
    next_page_ahead *ahead = ESC_CONTAINER_OF(request, next_page_ahead, request);
    escqrs_cursor *cursor = ahead->cursor;
    ahead->status = esc_store_enter(cursor->store, &ahead->error);
    if (ahead->status == ESCQRS_OK) {
        ahead->status = ask(cursor->store, &ahead->query, &ahead->page, &ahead->error);
        esc_store_leave(cursor->store);
    }
}

static void drop_ahead(esc_ahead_request *request)
{
    end_cursor(ESC_CONTAINER_OF(request, next_page_ahead, request)->cursor);
}

/* What is left of the query behind a page that answers it that far. */
static void move_query(escqrs_query *query, int64_t examined)
{
    if (query->reverse) {
        query->upto = examined - 1;
    } else {
        query->after = examined;
    }
}

static bool is_same_place(const escqrs_query *a, const escqrs_query *b)
{
    return a->after == b->after && a->upto == b->upto;
}

/* A stream is mostly read to its end; of the store often no more than a page is looked at. */
static bool is_long(const escqrs_cursor *cursor, const escqrs_query *query)
{
    return query->upto - query->after >= AHEAD_EVENTS_MIN && cursor->left >= AHEAD_EVENTS_MIN &&
           (query->stream.size > 0 || cursor->pages > 1);
}

/* The page behind those that are there. Where it cannot be had it is not missed. */
static void ask_ahead(escqrs_cursor *cursor)
{
    next_page_ahead *ahead = cursor->ahead;
    if (ahead != NULL && ahead->asked) {
        return;
    }
    if (cursor->pages_alone > 0) {
        cursor->pages_alone--;
        return;
    }
    escqrs_query query = cursor->query;
    if (ahead != NULL && ahead->has_beyond) {
        move_query(&query, ahead->beyond.examined);
    }
    if (!is_long(cursor, &query)) {
        return;
    }
    if (ahead == NULL) {
        ahead = cursor->ahead = escqrs_alloc_zero(sizeof *ahead);
        if (ahead == NULL) {
            return;
        }
        ahead->cursor = cursor;
        ahead->request.run = run_ahead;
        ahead->request.drop = drop_ahead;
    }
    ahead->query = query;
    ahead->query.count_max = page_limit(cursor);
    ahead->asked = esc_ahead_submit(&cursor->store->ahead, &ahead->request);
}

/* While the thread reads a page: the one behind it. */
static void read_beyond(escqrs_cursor *cursor)
{
    next_page_ahead *ahead = cursor->ahead;
    escqrs_query query = ahead->query;
    if (ahead->alone || ahead->has_beyond || query.match_count > 0 || cursor->left != INT64_MAX ||
        query.upto - query.after < INT64_C(2) * ESC_PAGE_EVENTS_MAX ||
        !esc_ahead_is_running(&cursor->store->ahead, &ahead->request)) {
        return;
    }
    move_query(&query, query.reverse ? query.upto - ESC_PAGE_EVENTS_MAX + 1
                                     : query.after + ESC_PAGE_EVENTS_MAX);
    ahead->beyond_query = query;
    ahead->has_beyond = ask(cursor->store, &query, &ahead->beyond, NULL) == ESCQRS_OK;
}

/* The page that was read beyond is the next one, or none that is wanted. */
static bool take_beyond(escqrs_cursor *cursor)
{
    next_page_ahead *ahead = cursor->ahead;
    if (!ahead->has_beyond) {
        return false;
    }
    ahead->has_beyond = false;
    ahead->alone = !is_same_place(&ahead->beyond_query, &cursor->query);
    if (!ahead->alone) {
        escqrs_page page = cursor->page;
        cursor->page = ahead->beyond;
        ahead->beyond = page;
    }
    return !ahead->alone;
}

/* What was asked of the thread, if it has begun with it and it is what comes next. */
static bool take_ahead(escqrs_cursor *cursor, escqrs_status *status, escqrs_error *error)
{
    next_page_ahead *ahead = cursor->ahead;
    read_beyond(cursor);
    ahead->asked = false;
    int64_t waited_ns;
    bool read = esc_ahead_take(&cursor->store->ahead, &ahead->request, &waited_ns);
    if (!read || waited_ns > AHEAD_WAIT_NS_MAX) {
        cursor->pages_alone = PAGES_ALONE;
    }
    if (!read || !is_same_place(&ahead->query, &cursor->query)) {
        return false;
    }
    escqrs_page page = cursor->page;
    cursor->page = ahead->page;
    ahead->page = page;
    if (ahead->status != ESCQRS_OK) {
        if (error != NULL) {
            *error = ahead->error;
        }
        ahead->error = (escqrs_error){0};
    }
    *status = ahead->status;
    return true;
}

/* Answer the query into the page: with what was read already, or now. */
static escqrs_status read_page(escqrs_cursor *cursor, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (cursor->ahead != NULL && take_beyond(cursor)) {
        return ESCQRS_OK;
    }
    if (cursor->ahead != NULL && cursor->ahead->asked && take_ahead(cursor, &status, error)) {
        return status;
    }
    cursor->query.count_max = page_limit(cursor);
    return ask(cursor->store, &cursor->query, &cursor->page, error);
}

/* The next page that holds an event. DONE at the end. */
static escqrs_status next_page(escqrs_cursor *cursor, escqrs_error *error)
{
    escqrs_query *query = &cursor->query;
    cursor->page.count = cursor->next = 0;
    escqrs_status status = ESCQRS_OK;
    while (status == ESCQRS_OK && cursor->page.count == 0) {
        if (is_at_end(cursor)) {
            return ESCQRS_DONE;
        }
        status = read_page(cursor, error);
        if (status == ESCQRS_OK) {
            move_query(query, cursor->page.examined);
            query->hint = query->hint != 0 ? query->hint : cursor->page.hint;
            if (cursor->left != INT64_MAX) {
                cursor->left -= (int64_t)cursor->page.count;
            }
            cursor->pages++;
            ask_ahead(cursor);
        } else {
            cursor->page.count = 0; /* of a page that failed nothing is given: it is read again */
        }
    }
    return status;
}

escqrs_status escqrs_cursor_read(escqrs_cursor *cursor, size_t max,
                                 const escqrs_recorded **recorded, size_t *count,
                                 escqrs_error *error)
{
    *count = 0;
    escqrs_status status = esc_store_enter(cursor->store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (max == 0) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "a read of no events");
    } else if (cursor->ended) {
        status = ESCQRS_DONE;
    } else if (cursor->next == cursor->page.count) {
        status = next_page(cursor, error);
        cursor->ended = status == ESCQRS_DONE;
    }
    if (status == ESCQRS_OK) {
        size_t there = cursor->page.count - cursor->next;
        *recorded = &cursor->page.items[cursor->next];
        *count = there < max ? there : max;
        cursor->next += *count;
    }
    esc_store_leave(cursor->store);
    return status;
}

escqrs_status escqrs_cursor_next(escqrs_cursor *cursor, const escqrs_recorded **recorded,
                                 escqrs_error *error)
{
    size_t count;
    return escqrs_cursor_read(cursor, 1, recorded, &count, error);
}
