/* Reading ahead: a thread of the store that reads the next page of a long iteration while the
 * program works on the page before it.
 *
 * A request belongs to its owner until it is submitted, and again once it was taken or given up.
 * What the thread has not begun its owner takes back and does himself, so nobody waits for the
 * requests of others, and without the thread all goes on as it did.
 *
 * Any thread may call; one at a time for each request. The mutex is a leaf: `run` and `drop` are
 * called without it. */
#ifndef ESC_STORE_AHEAD_H
#define ESC_STORE_AHEAD_H

#include <escqrs/base.h>

#include "base/list.h"
#include "base/thread.h"

typedef struct esc_ahead_request esc_ahead_request;

struct esc_ahead_request {
    void (*run)(esc_ahead_request *request);  /* on the thread */
    void (*drop)(esc_ahead_request *request); /* on the thread: it was given up while it ran */
    esc_list_node node;                       /* in `queue`; from here on under the mutex */
    bool running;
    bool done;
    bool given_up;
};

typedef struct esc_ahead {
    esc_mutex mutex;
    esc_cond asked;    /* the thread waits */
    esc_cond answered; /* owners wait */
    esc_list queue;    /* mutex: requests not begun */
    bool allowed;      /* mutex: there is another processor for the thread, and it could start */
    bool started;      /* mutex */
    bool stopped;      /* mutex */
    esc_thread thread;
} esc_ahead;

void esc_ahead_init(esc_ahead *ahead, bool allowed);
/* Finish what runs, join the thread; later requests are refused. Blocks. Twice is once. */
void esc_ahead_stop(esc_ahead *ahead);
void esc_ahead_fini(esc_ahead *ahead); /* after stop */

/* False: not accepted, the owner's as before. */
bool esc_ahead_submit(esc_ahead *ahead, esc_ahead_request *request);
/* Has the thread begun it, and not ended? It may end at any moment. */
bool esc_ahead_is_running(esc_ahead *ahead, const esc_ahead_request *request);
/* True: it has run; blocks while it does, for *waited_ns. False: it had not begun, and never will.
 */
bool esc_ahead_take(esc_ahead *ahead, esc_ahead_request *request, int64_t *waited_ns);
/* True: it is the owner's again. False: it runs, and `drop` will end it. Does not block. */
bool esc_ahead_give_up(esc_ahead *ahead, esc_ahead_request *request);

#endif
