/* Reading ahead: a thread of the store that reads the next pages of long iterations while their
 * programs work on the pages before.
 *
 * An iteration has a line of pages: planned, being read, or read. The thread reads what is planned,
 * a page of one iteration and then one of the next; an iteration that is faster than the thread
 * reads planned pages of its own line itself, so the two share the work, and without the thread all
 * goes on as it would.
 *
 * Where the pages of an iteration will end is mostly known, for positions and versions have no
 * gaps: then several are planned and read at once. Otherwise, and once a page has ended elsewhere
 * (large or deleted events), each is planned when the one before it has been read.
 *
 * A line is used by one thread at a time, beside the thread here. The mutex is a leaf: `read` and
 * `drop` are called without it. A page that is being read is its reader's, one that was read is
 * the line's user's. */
#ifndef ESC_STORE_AHEAD_H
#define ESC_STORE_AHEAD_H

#include <escqrs/base.h>

#include "base/list.h"
#include "base/thread.h"
#include "store/page.h"

#define ESC_AHEAD_PAGES 4

typedef enum esc_ahead_state {
    ESC_AHEAD_PLANNED,
    ESC_AHEAD_IN_WORK,
    ESC_AHEAD_READ,
} esc_ahead_state;

typedef struct esc_ahead_page {
    esc_ahead_state state; /* mutex */
    escqrs_query query;    /* that it answers */
    escqrs_page page;
    escqrs_status status;
    escqrs_error error;
} esc_ahead_page;

typedef struct esc_ahead_line esc_ahead_line;

struct esc_ahead_line {
    /* Answer a query: on the thread, or for the user of the line on his. */
    escqrs_status (*read)(esc_ahead_line *line, const escqrs_query *query, escqrs_page *page,
                          escqrs_error *error);
    void (*drop)(esc_ahead_line *line); /* on the thread: it was left while that read */
    /* From here on: mutex. */
    esc_list_node node;                    /* in `queue` */
    bool running;                          /* the thread reads a page of it */
    bool left_alone;                       /* its user has gone meanwhile */
    bool in_steps;                         /* it is known where pages end */
    unsigned alone;                        /* pages to come for which the thread is not asked */
    uint64_t served;                       /* pages that the thread began */
    escqrs_query next;                     /* what is behind the pages of the line */
    int64_t room;                          /* events that are wanted of it */
    esc_ahead_page pages[ESC_AHEAD_PAGES]; /* a ring */
    size_t first, count;
};

typedef struct esc_ahead {
    esc_mutex mutex;
    esc_cond asked;    /* the thread waits */
    esc_cond answered; /* users of lines wait */
    esc_list queue;    /* mutex: lines with planned pages, that the thread is to read */
    bool allowed;      /* mutex: there is another processor for the thread, and it could start */
    bool started;      /* mutex */
    bool stopped;      /* mutex */
    esc_thread thread;
} esc_ahead;

void esc_ahead_init(esc_ahead *ahead, bool allowed);
/* Finish what is in work, join the thread; nothing is read ahead any more. Blocks. Twice is once.
 */
void esc_ahead_stop(esc_ahead *ahead);
void esc_ahead_fini(esc_ahead *ahead); /* after stop */

/* For a new iteration; the memory of its pages is kept. `in_steps`: each page will have all it can
 * hold, as far as one can foresee. */
void esc_ahead_begin(esc_ahead_line *line, bool in_steps);
/* Have the pages of `query` read that follow the last one of the line. It is what follows a page
 * just given, so where the line has pages it begins with theirs. `left`: events that are wanted. */
void esc_ahead_plan(esc_ahead *ahead, esc_ahead_line *line, const escqrs_query *query,
                    int64_t left);
/* Exchange `page` for the one that answers `query`; blocks while it is being read. False: it is
 * not in the line, which is empty then. *status: how reading it ended; where not OK, the line is
 * empty, too. */
bool esc_ahead_take(esc_ahead *ahead, esc_ahead_line *line, const escqrs_query *query,
                    escqrs_page *page, escqrs_status *status, escqrs_error *error);
/* The iteration has ended. True: the line is its owner's. False: the thread is reading, and `drop`
 * will end it. Does not block. */
bool esc_ahead_leave(esc_ahead *ahead, esc_ahead_line *line);
/* Their memory: all of it, or what esc_page_trim does not keep. The line's owner, after leave. */
void esc_ahead_free_pages(esc_ahead_line *line);
void esc_ahead_trim_pages(esc_ahead_line *line);

/* What is left of a query behind a page that answers it that far. */
void esc_query_move(escqrs_query *query, int64_t examined);

#endif
