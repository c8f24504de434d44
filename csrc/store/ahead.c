/* See ahead.h. */
#include "store/ahead.h"

#include <sched.h>

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

/* Run the oldest request; the mutex is held before and after. */
static void run_next(esc_ahead *ahead, esc_ahead_request *request)
{
    request->running = true;
    esc_mutex_unlock(&ahead->mutex);
    request->run(request);
    esc_mutex_lock(&ahead->mutex);
    request->running = false;
    request->done = true;
    if (!request->given_up) {
        esc_cond_broadcast(&ahead->answered);
        return;
    }
    esc_mutex_unlock(&ahead->mutex);
    request->drop(request);
    esc_mutex_lock(&ahead->mutex);
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
            run_next(ahead, ESC_CONTAINER_OF(node, esc_ahead_request, node));
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

bool esc_ahead_submit(esc_ahead *ahead, esc_ahead_request *request)
{
    esc_mutex_lock(&ahead->mutex);
    if (ahead->allowed && !ahead->started && !ahead->stopped) {
        ahead->started = esc_thread_create(&ahead->thread, "escqrs-ahead", 0, run_thread, ahead,
                                           NULL) == ESCQRS_OK;
        ahead->allowed = ahead->started;
    }
    bool accepted = ahead->allowed && !ahead->stopped;
    if (accepted) {
        request->running = request->done = request->given_up = false;
        esc_list_push_back(&ahead->queue, &request->node);
        esc_cond_signal(&ahead->asked);
    }
    esc_mutex_unlock(&ahead->mutex);
    return accepted;
}

bool esc_ahead_is_running(esc_ahead *ahead, const esc_ahead_request *request)
{
    esc_mutex_lock(&ahead->mutex);
    bool running = request->running;
    esc_mutex_unlock(&ahead->mutex);
    return running;
}

bool esc_ahead_take(esc_ahead *ahead, esc_ahead_request *request, int64_t *waited_ns)
{
    *waited_ns = 0;
    esc_mutex_lock(&ahead->mutex);
    if (request->running) {
        int64_t since = escqrs_clock_monotonic_ns(NULL);
        while (request->running) {
            esc_cond_wait(&ahead->answered, &ahead->mutex);
        }
        *waited_ns = escqrs_clock_monotonic_ns(NULL) - since;
    }
    bool done = request->done;
    if (!done) {
        esc_list_remove(&request->node);
    }
    esc_mutex_unlock(&ahead->mutex);
    return done;
}

bool esc_ahead_give_up(esc_ahead *ahead, esc_ahead_request *request)
{
    esc_mutex_lock(&ahead->mutex);
    bool mine = !request->running;
    request->given_up = !mine;
    if (esc_list_contains_node(&request->node)) {
        esc_list_remove(&request->node);
    }
    esc_mutex_unlock(&ahead->mutex);
    return mine;
}
