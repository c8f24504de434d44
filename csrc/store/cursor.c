/* Iterations over events: pages asked from the provider one behind the other.
 *
 * In a long iteration the pages behind are read ahead, on the store's thread for that too
 * (ahead.h). Meanwhile the stream's name and the matches are that thread's to read as well; they
 * change when the line was left.
 *
 * A cursor holds memory and no connection. Closed cursors are kept by the store, a few of them, so
 * that short reads need not allocate. */
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "store/store.h"

#define AHEAD_EVENTS_MIN 256 /* waking the thread costs as much as reading a hundred */
typedef struct pages_ahead {
    esc_ahead_line line;
    escqrs_cursor *cursor;
} pages_ahead;

struct escqrs_cursor {
    escqrs_store *store; /* held while open */
    escqrs_query query;  /* the part still to be read */
    int64_t left;        /* events that the limit still allows */
    bool ended;
    escqrs_page page;
    size_t next;        /* in the page */
    size_t pages;       /* read so far */
    pages_ahead *ahead; /* NULL: never read ahead */
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
        esc_ahead_free_pages(&cursor->ahead->line);
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
    esc_page_trim(&cursor->page);
    if (cursor->ahead != NULL) {
        esc_ahead_trim_pages(&cursor->ahead->line);
    }
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
    if (cursor->ahead != NULL && !esc_ahead_leave(&cursor->store->ahead, &cursor->ahead->line)) {
        return; /* drop_ahead ends it */
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

/* Is it known where its pages will end? */
static bool is_in_steps(const escqrs_cursor *cursor)
{
    return cursor->query.match_count == 0 && cursor->left == INT64_MAX;
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
    if (cursor->ahead != NULL) {
        esc_ahead_begin(&cursor->ahead->line, is_in_steps(cursor));
    }
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

static escqrs_status read_ahead(esc_ahead_line *line, const escqrs_query *query, escqrs_page *page,
                                escqrs_error *error)
{
    escqrs_store *store = ESC_CONTAINER_OF(line, pages_ahead, line)->cursor->store;
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = ask(store, query, page, error);
        esc_store_leave(store);
    }
    return status;
}

static void drop_ahead(esc_ahead_line *line)
{
    end_cursor(ESC_CONTAINER_OF(line, pages_ahead, line)->cursor);
}

/* A stream is mostly read to its end; of the store often no more than a page is looked at. */
static bool is_long(const escqrs_cursor *cursor)
{
    const escqrs_query *query = &cursor->query;
    return query->upto - query->after >= AHEAD_EVENTS_MIN && cursor->left >= AHEAD_EVENTS_MIN &&
           (query->stream.size > 0 || cursor->pages > 1);
}

/* The pages behind the one that is there. Where they cannot be had they are not missed. */
static void plan_ahead(escqrs_cursor *cursor)
{
    if (!is_long(cursor)) {
        return;
    }
    if (cursor->ahead == NULL) {
        pages_ahead *ahead = escqrs_alloc_zero(sizeof *ahead);
        if (ahead == NULL) {
            return;
        }
        ahead->cursor = cursor;
        ahead->line.read = read_ahead;
        ahead->line.drop = drop_ahead;
        esc_ahead_begin(&ahead->line, is_in_steps(cursor));
        cursor->ahead = ahead;
    }
    esc_ahead_plan(&cursor->store->ahead, &cursor->ahead->line, &cursor->query, cursor->left);
}

/* Answer the query into the page: with what was read already, or now. */
static escqrs_status read_page(escqrs_cursor *cursor, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (cursor->ahead != NULL && esc_ahead_take(&cursor->store->ahead, &cursor->ahead->line,
                                                &cursor->query, &cursor->page, &status, error)) {
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
            esc_query_move(query, cursor->page.examined);
            query->hint = query->hint != 0 ? query->hint : cursor->page.hint;
            if (cursor->left != INT64_MAX) {
                cursor->left -= (int64_t)cursor->page.count;
            }
            cursor->pages++;
            plan_ahead(cursor);
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
