/* See ahead.h. */
#include "store/ahead.h"

#include <sched.h>

#include "base/assert.h"

/* Waking the thread costs as much as reading a hundred events: it is asked for half a line. */
#define ASKED_PAGES_MIN (ESC_AHEAD_PAGES / 2)
/* When the processors are busy with other work, waiting for the thread to get one costs more than
 * it spares: after a wait so long, it is not asked for so many pages. */
#define WAIT_NS_MAX 1000000
#define PAGES_ALONE 64

static bool has_two_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) > 1;
}

void esc_ahead_init(esc_ahead *ahead, bool allowed)
{
    esc_mutex_init(&ahead->mutex);
    esc_cond_init(&ahead->asked);
    esc_cond_init(&ahead->answered);
    esc_list_init(&ahead->queue);
    ahead->allowed = allowed && has_two_processors();
    ahead->started = ahead->stopped = false;
}

void esc_ahead_fini(esc_ahead *ahead)
{
    esc_cond_fini(&ahead->answered);
    esc_cond_fini(&ahead->asked);
    esc_mutex_fini(&ahead->mutex);
}

/* ---- lines (the mutex is held) ---------------------------------------------------------------- */

void esc_query_move(escqrs_query *query, int64_t examined)
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

static esc_ahead_page *page_at(esc_ahead_line *line, size_t index)
{
    return &line->pages[(line->first + index) % ESC_AHEAD_PAGES];
}

static esc_ahead_page *first_planned(esc_ahead_line *line)
{
    for (size_t i = 0; i < line->count; i++) {
        esc_ahead_page *page = page_at(line, i);
        if (page->state == ESC_AHEAD_PLANNED) {
            return page;
        }
    }
    return NULL;
}

/* Pages that are there, or will be without being asked for. */
static size_t count_begun(esc_ahead_line *line)
{
    size_t count = 0;
    for (size_t i = 0; i < line->count; i++) {
        count += page_at(line, i)->state != ESC_AHEAD_PLANNED;
    }
    return count;
}

static void plan(esc_ahead_line *line)
{
    while (line->count < ESC_AHEAD_PAGES && line->next.upto > line->next.after && line->room > 0 &&
           (line->in_steps || line->count == 0 ||
            page_at(line, line->count - 1)->state == ESC_AHEAD_READ)) {
        esc_ahead_page *page = page_at(line, line->count++);
        escqrs_query *query = &page->query;
        page->state = ESC_AHEAD_PLANNED;
        *query = line->next;
        query->count_max =
            line->room < ESC_PAGE_EVENTS_MAX ? (size_t)line->room : ESC_PAGE_EVENTS_MAX;
        if (line->in_steps) {
            esc_query_move(&line->next, query->reverse ? query->upto - ESC_PAGE_EVENTS_MAX + 1
                                                       : query->after + ESC_PAGE_EVENTS_MAX);
        }
    }
}

static void read_page(esc_ahead *ahead, esc_ahead_line *line, esc_ahead_page *page)
{
    page->state = ESC_AHEAD_IN_WORK;
    esc_mutex_unlock(&ahead->mutex);
    page->error = (escqrs_error){0};
    page->status = line->read(line, &page->query, &page->page, &page->error);
    esc_mutex_lock(&ahead->mutex);
    page->state = ESC_AHEAD_READ;
    if (page->status != ESCQRS_OK) {
        line->room = 0; /* what is behind it is not looked for */
    } else if (!line->in_steps) {
        esc_query_move(&line->next, page->page.examined);
        line->room -= (int64_t)page->page.count;
    }
    plan(line);
}

static void withdraw(esc_ahead_line *line)
{
    if (esc_list_contains_node(&line->node)) {
        esc_list_remove(&line->node);
    }
}

/* Forget the pages; where the last one ends was not foreseen. */
static void clear(esc_ahead *ahead, esc_ahead_line *line)
{
    withdraw(line);
    line->room = 0;
    line->count = 0;
    while (line->running) {
        esc_cond_wait(&ahead->answered, &ahead->mutex);
    }
    line->in_steps = false;
}

/* ---- the thread ------------------------------------------------------------------------------- */

/* The mutex is held before and after. */
static void run_next(esc_ahead *ahead, esc_ahead_line *line)
{
    esc_ahead_page *page = first_planned(line);
    if (page == NULL) { /* its user was faster */
        return;
    }
    line->running = true;
    line->served++;
    read_page(ahead, line, page);
    line->running = false;
    if (line->left_alone) {
        esc_mutex_unlock(&ahead->mutex);
        line->drop(line);
        esc_mutex_lock(&ahead->mutex);
        return;
    }
    esc_cond_broadcast(&ahead->answered);
    if (first_planned(line) != NULL && line->alone == 0) {
        esc_list_push_back(&ahead->queue, &line->node);
    }
}

static void run_thread(void *context)
{
    esc_ahead *ahead = context;
    esc_mutex_lock(&ahead->mutex);
    while (!ahead->stopped) {
        esc_list_node *node = esc_list_pop_front(&ahead->queue);
        if (node == NULL) {
            esc_cond_wait(&ahead->asked, &ahead->mutex);
        } else {
            run_next(ahead, ESC_CONTAINER_OF(node, esc_ahead_line, node));
        }
    }
    esc_mutex_unlock(&ahead->mutex);
}

void esc_ahead_stop(esc_ahead *ahead)
{
    esc_mutex_lock(&ahead->mutex);
    bool join = ahead->started && !ahead->stopped;
    ahead->stopped = true;
    esc_cond_signal(&ahead->asked);
    esc_mutex_unlock(&ahead->mutex);
    if (join) {
        esc_thread_join(&ahead->thread);
    }
}

/* Is there a thread that reads? It is started when there first is something to read. */
static bool has_thread(esc_ahead *ahead)
{
    if (ahead->allowed && !ahead->started && !ahead->stopped) {
        ahead->started = esc_thread_create(&ahead->thread, "escqrs-ahead", 0, run_thread, ahead,
                                           NULL) == ESCQRS_OK;
        ahead->allowed = ahead->started;
    }
    return ahead->allowed && !ahead->stopped;
}

/* ---- for iterations --------------------------------------------------------------------------- */

void esc_ahead_begin(esc_ahead_line *line, bool in_steps)
{
    line->count = line->first = 0;
    line->alone = 0;
    line->running = line->left_alone = false;
    line->in_steps = in_steps;
}

void esc_ahead_free_pages(esc_ahead_line *line)
{
    for (size_t i = 0; i < ESC_AHEAD_PAGES; i++) {
        esc_page_fini(&line->pages[i].page);
    }
}

void esc_ahead_trim_pages(esc_ahead_line *line)
{
    for (size_t i = 0; i < ESC_AHEAD_PAGES; i++) {
        esc_page_trim(&line->pages[i].page);
    }
}

void esc_ahead_plan(esc_ahead *ahead, esc_ahead_line *line, const escqrs_query *query, int64_t left)
{
    esc_mutex_lock(&ahead->mutex);
    if (line->alone > 0) {
        line->alone--;
    } else if (has_thread(ahead)) {
        if (line->count == 0) {
            line->next = *query;
            line->room = left;
        }
        plan(line);
        if (!line->running && !esc_list_contains_node(&line->node) && first_planned(line) != NULL &&
            ESC_AHEAD_PAGES - count_begun(line) >= ASKED_PAGES_MIN) {
            esc_list_push_back(&ahead->queue, &line->node);
            esc_cond_signal(&ahead->asked);
        }
    }
    esc_mutex_unlock(&ahead->mutex);
}

/* The user of a line reads one of its pages. That the thread has not begun with any meanwhile says
 * that it gets no processor, or has too much to do. */
static void read_own(esc_ahead *ahead, esc_ahead_line *line, esc_ahead_page *page)
{
    bool asked = esc_list_contains_node(&line->node);
    uint64_t served = line->served;
    read_page(ahead, line, page);
    if (asked && line->served == served) {
        withdraw(line);
        line->alone = PAGES_ALONE;
    }
}

static void wait_for(esc_ahead *ahead, esc_ahead_line *line, const esc_ahead_page *page)
{
    int64_t since = escqrs_clock_monotonic_ns(NULL);
    while (page->state == ESC_AHEAD_IN_WORK) {
        esc_cond_wait(&ahead->answered, &ahead->mutex);
    }
    if (escqrs_clock_monotonic_ns(NULL) - since > WAIT_NS_MAX) {
        withdraw(line);
        line->alone = PAGES_ALONE;
    }
}

bool esc_ahead_take(esc_ahead *ahead, esc_ahead_line *line, const escqrs_query *query,
                    escqrs_page *page, escqrs_status *status, escqrs_error *error)
{
    esc_mutex_lock(&ahead->mutex);
    esc_ahead_page *wanted = page_at(line, 0);
    if (line->count > 0 && !is_same_place(&wanted->query, query)) {
        clear(ahead, line);
    }
    bool found = line->count > 0;
    while (found && wanted->state != ESC_AHEAD_READ) {
        esc_ahead_page *planned = first_planned(line);
        if (planned != NULL) {
            read_own(ahead, line, planned);
        } else {
            wait_for(ahead, line, wanted);
        }
    }
    if (found) {
        escqrs_page given = *page;
        *page = wanted->page;
        wanted->page = given;
        *status = wanted->status;
        if (wanted->status != ESCQRS_OK && error != NULL) {
            *error = wanted->error;
        }
        line->first = (line->first + 1) % ESC_AHEAD_PAGES;
        line->count--;
        if (wanted->status != ESCQRS_OK) {
            clear(ahead, line);
        }
    }
    esc_mutex_unlock(&ahead->mutex);
    return found;
}

bool esc_ahead_leave(esc_ahead *ahead, esc_ahead_line *line)
{
    esc_mutex_lock(&ahead->mutex);
    withdraw(line);
    line->room = 0;
    line->count = 0;
    line->left_alone = line->running;
    bool mine = !line->running;
    esc_mutex_unlock(&ahead->mutex);
    return mine;
}
