/* Failures, and what supervisors decide.
 *
 * A failure is a record, made by escqrs_context_fail or when a callback answers FAILED. It is at
 * once the signal to the supervisor and the body that its events share; the cell keeps it in
 * extra->failure until the decision has been carried out. The supervisor decides on its own thread;
 * what it decided reaches the child as a request. A child that is not FAILED any more by then (its
 * siblings' failure has restarted it, or it stops) gets no second decision; the failure is
 * published all the same.
 *
 * A failure that cannot be recorded for want of memory stops the actor.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cell.h"
#include "runtime/runtime.h"

/* ---- records ---------------------------------------------------------------------------------- */

static void record_free(esc_failure_record *record)
{
    if (record->detail_release != NULL && record->failure.detail != NULL) {
        record->detail_release(record->failure.detail);
    }
    if (record->origin != NULL) {
        esc_failure_drop(record->origin);
    }
    escqrs_ref_release((escqrs_ref *)record->escalated);
    escqrs_ref_release(record->failure.who);
    escqrs_actor_release(&record->child->actor);
    escqrs_free(record);
}

void esc_failure_drop(esc_failure_record *record)
{
    /* acq_rel: the last one sees what all others did */
    while (record != NULL &&
           atomic_fetch_sub_explicit(&record->references, 1, memory_order_acq_rel) == 1) {
        esc_failure_record *earlier = record->earlier; /* as many as there are children */
        record_free(record);
        record = earlier;
    }
}

static void record_hold(esc_failure_record *record)
{
    /* relaxed: the caller has one */
    atomic_fetch_add_explicit(&record->references, 1, memory_order_relaxed);
}

/* NULL: out of memory. */
static esc_failure_record *record_new(esc_cell *cell)
{
    esc_failure_record *record = escqrs_alloc_zero(sizeof *record);
    if (record == NULL) {
        return NULL;
    }
    atomic_init(&record->references, 1);
    record->signal.kind = ESC_SIGNAL_FAILURE;
    record->failure.status = ESCQRS_REJECTED;
    record->failure.text = record->text;
    record->failure.path = record->path;
    record->failure.message = record->message;
    record->failure.who = esc_cell_ref(cell);
    escqrs_actor_hold(&cell->actor);
    record->child = cell;
    escqrs_actor_hold(&cell->actor);
    escqrs_ref_path(record->failure.who, record->path, sizeof record->path);
    return record;
}

escqrs_turn_end escqrs_context_fail(escqrs_context *context, escqrs_status status, void *detail,
                                    const char *format, ...)
{
    esc_cell *cell = esc_context_cell(context);
    void (*detail_release)(void *detail) = cell->props->failure_release;
    esc_extra *extra = esc_cell_extra(cell);
    esc_failure_record *record = extra == NULL ? NULL : record_new(cell);
    if (record == NULL) {
        if (detail_release != NULL && detail != NULL) {
            detail_release(detail);
        }
        return ESCQRS_TURN_FAILED;
    }
    record->failure.status = status;
    record->failure.detail = detail;
    record->detail_release = detail_release;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(record->text, sizeof record->text, format, arguments);
    va_end(arguments);
    esc_failure_drop(extra->failure); /* said twice: the last one counts */
    extra->failure = record;
    return ESCQRS_TURN_FAILED;
}

/* The record of the callback that has just failed; NULL: out of memory. */
static esc_failure_record *record_of(esc_cell *cell, const escqrs_envelope *message)
{
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return NULL;
    }
    if (extra->failure == NULL) {
        extra->failure = record_new(cell);
        if (extra->failure == NULL) {
            return NULL;
        }
        snprintf(extra->failure->text, sizeof extra->failure->text, "it failed");
    }
    if (message != NULL) {
        escqrs_envelope_describe(message, extra->failure->message, sizeof extra->failure->message);
    }
    return extra->failure;
}

void esc_failure_forget(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        esc_failure_drop(extra->failure);
        extra->failure = NULL;
    }
}

void esc_failure_resume_escalated(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    for (esc_failure_record *record = extra == NULL ? NULL : extra->failure; record != NULL;
         record = record->earlier) {
        if (record->escalated != NULL) {
            esc_cell_request(record->escalated, ESC_REQUEST_RESUME);
        }
    }
}

/* ---- publishing ------------------------------------------------------------------------------- */

static const char *directive_name(escqrs_directive directive)
{
    static const char *const names[] = {"restart", "resume", "stop", "escalate"};
    return (size_t)directive < sizeof names / sizeof names[0] ? names[directive] : "?";
}

static void publish(escqrs_actor_system *system, esc_failure_record *record,
                    escqrs_directive directive)
{
    const escqrs_failure *failure = &record->failure;
    size_t size = record->again ? strcspn(failure->text, "\n") : strlen(failure->text);
    escqrs_log_write(&system->log, ESCQRS_LOG_ERROR, "actor %s failed%s%s%s (%s): %.*s",
                     failure->path, record->again ? " again" : "",
                     failure->message[0] == '\0' ? "" : " in ", failure->message,
                     directive_name(directive), (int)size, failure->text);
    esc_publish_failure(system, record, directive);
}

/* Out of memory: it cannot even be said what failed. */
static void publish_nothing(esc_cell *cell)
{
    char path[ESC_PATH_SIZE];
    escqrs_ref_path(esc_cell_ref(cell), path, sizeof path);
    escqrs_log_write(&cell->system->log, ESCQRS_LOG_ERROR,
                     "actor %s failed, and there is no memory to say why (stop)", path);
}

/* ---- last words: for those who ask an actor that has failed -------------------------------------- */

static void last_words_put(esc_cell *cell, char *words)
{
    esc_extra *extra = esc_cell_has(cell);
    esc_mutex_lock(&cell->system->words_lock);
    char *before = extra->last_words;
    extra->last_words = words;
    esc_mutex_unlock(&cell->system->words_lock);
    escqrs_free(before);
}

static void last_words_keep(esc_cell *cell, const char *text)
{
    size_t size = strcspn(text, "\n");
    char *words = escqrs_alloc(size + 1);
    if (words != NULL) { /* an aid only */
        memcpy(words, text, size);
        words[size] = '\0';
        last_words_put(cell, words);
    }
}

/* It has failed with that text before, and has not run since. The actor's thread, which is the one
 * that writes them. */
static bool last_words_are(const esc_cell *cell, const char *text)
{
    const char *words = esc_cell_has(cell)->last_words;
    size_t size = strcspn(text, "\n");
    return words != NULL && strlen(words) == size && memcmp(words, text, size) == 0;
}

void esc_last_words_forget(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL && extra->last_words != NULL) {
        last_words_put(cell, NULL);
    }
}

size_t escqrs_ref_failure(const escqrs_ref *ref, char *text, size_t size)
{
    esc_cell *cell = esc_ref_is_cell(ref) ? (esc_cell *)ref : NULL;
    esc_extra *extra = cell == NULL ? NULL : esc_cell_has(cell);
    if (extra == NULL) {
        return (size_t)snprintf(text, size, "%s", "");
    }
    esc_mutex_lock(&cell->system->words_lock);
    int length = snprintf(text, size, "%s", extra->last_words == NULL ? "" : extra->last_words);
    esc_mutex_unlock(&cell->system->words_lock);
    return (size_t)length;
}

/* ---- raising ---------------------------------------------------------------------------------- */

static void raise_to_supervisor(esc_cell *cell, esc_failure_record *record)
{
    record->again = last_words_are(cell, record->failure.text);
    last_words_keep(cell, record->failure.text);
    if (cell->parent == NULL) { /* the root does not fail */
        esc_failure_forget(cell);
        return;
    }
    record_hold(record); /* the signal's */
    esc_signal_send(cell->parent, &record->signal);
}

void esc_failure_raise(esc_cell *cell, const escqrs_envelope *message)
{
    esc_failure_record *record = record_of(cell, message);
    if (record == NULL) {
        publish_nothing(cell);
        esc_cell_request(cell, ESC_REQUEST_STOP);
        return;
    }
    esc_question_fail(message, &record->failure);
    raise_to_supervisor(cell, record);
}

void esc_failure_note(esc_cell *cell, const escqrs_envelope *message, escqrs_directive directive)
{
    esc_failure_record *record = record_of(cell, message);
    if (record == NULL) {
        publish_nothing(cell);
        return;
    }
    publish(cell->system, record, directive);
    esc_failure_forget(cell);
}

/* The supervisor fails with its child's failure. */
static void escalate(esc_cell *parent, esc_failure_record *record)
{
    esc_extra *extra = esc_cell_extra(parent);
    esc_failure_record *own = extra == NULL ? NULL : record_new(parent);
    if (own == NULL) {
        publish_nothing(parent);
        esc_cell_request(parent, ESC_REQUEST_STOP);
        return;
    }
    escqrs_ref_release(own->failure.who);
    own->failure = record->failure;
    escqrs_ref_hold(own->failure.who);
    record_hold(record);
    own->origin = record; /* its texts and its detail */
    own->escalated = record->child;
    escqrs_actor_hold(&record->child->actor);
    own->earlier = extra->failure; /* its child goes on or stops with this one's */
    extra->failure = own;
    esc_cell_fail_for_child(parent);
    raise_to_supervisor(parent, own);
}

/* ---- deciding --------------------------------------------------------------------------------- */

static unsigned restarts_max(const escqrs_supervisor *supervisor)
{
    if (supervisor->never_restart) {
        return 0;
    }
    return supervisor->max_restarts == 0 ? ESC_RESTARTS_DEFAULT : supervisor->max_restarts;
}

static int64_t within(const escqrs_supervisor *supervisor)
{
    return supervisor->within_ns == 0 ? ESC_WITHIN_NS_DEFAULT : supervisor->within_ns;
}

static bool is_within(const escqrs_supervisor *supervisor, int64_t then_ns, int64_t now_ns)
{
    int64_t window = within(supervisor);
    return window == INT64_MAX || now_ns - then_ns < window;
}

/* How many restarts lie within the window. */
static unsigned recent_restarts(const esc_extra *extra, const escqrs_supervisor *supervisor,
                                int64_t now_ns)
{
    unsigned count = 0;
    for (unsigned i = 0; i < extra->restart_count; i++) {
        count += is_within(supervisor, extra->restarts[i], now_ns);
    }
    return count;
}

/* Count one more; false: that is too many, or there is no memory to count it. The times are a ring
 * of as many as are allowed. */
static bool count_restart(esc_extra *extra, const escqrs_supervisor *supervisor, int64_t now_ns)
{
    unsigned max = restarts_max(supervisor);
    if (recent_restarts(extra, supervisor, now_ns) >= max) {
        return false;
    }
    if (extra->restart_count == max && extra->restart_next >= max) {
        extra->restart_next = 0;
    }
    if (extra->restart_count < max && extra->restart_count == extra->restart_capacity) {
        unsigned capacity = extra->restart_capacity == 0 ? 4 : extra->restart_capacity * 2;
        int64_t *grown = escqrs_realloc(extra->restarts, capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        extra->restarts = grown;
        extra->restart_capacity = capacity;
    }
    if (extra->restart_count < max) {
        extra->restarts[extra->restart_count++] = now_ns;
        extra->restart_next = extra->restart_count;
    } else {
        extra->restarts[extra->restart_next++] = now_ns;
    }
    return true;
}

/* How long to wait before the restart. */
static int64_t backoff(const escqrs_runtime *runtime, esc_extra *extra,
                       const escqrs_supervisor *supervisor, int64_t now_ns)
{
    if (supervisor->backoff_first_ns <= 0) {
        return 0;
    }
    if (extra->backoff_count > 0 && !is_within(supervisor, extra->failed_last_ns, now_ns)) {
        extra->backoff_count = 0;
    }
    extra->failed_last_ns = now_ns;
    double factor = supervisor->backoff_factor == 0 ? 2 : supervisor->backoff_factor;
    double max = (double)(supervisor->backoff_max_ns == 0 ? ESC_BACKOFF_MAX_NS_DEFAULT
                                                          : supervisor->backoff_max_ns);
    double wait = (double)supervisor->backoff_first_ns;
    for (unsigned i = 0; i < extra->backoff_count && wait < max; i++) {
        wait *= factor;
    }
    wait = wait < max ? wait : max;
    extra->backoff_count++;
    if (supervisor->backoff_jitter > 0) {
        uint32_t number;
        escqrs_random_fill(esc_runtime_random(runtime, &supervisor->backoff_random), &number,
                           sizeof number);
        wait *= 1 + supervisor->backoff_jitter * ((double)number / UINT32_MAX * 2 - 1);
    }
    return (int64_t)wait;
}

static void restart(esc_cell *parent, esc_cell *child, const escqrs_supervisor *supervisor,
                    int64_t wait_ns)
{
    if (supervisor->all_for_one) {
        esc_children_request(parent, ESC_REQUEST_RESTART, child);
    }
    if (wait_ns > 0) {
        if (esc_timer_request(child, ESC_REQUEST_RESTART, wait_ns, NULL, NULL) == ESCQRS_OK) {
            return;
        }
    }
    esc_cell_request(child, ESC_REQUEST_RESTART);
}

static void carry_out(esc_cell *parent, esc_failure_record *record, escqrs_directive directive,
                      int64_t wait_ns)
{
    const escqrs_supervisor *supervisor = &parent->props->supervisor;
    switch (directive) {
    case ESCQRS_DIRECTIVE_RESTART:
        restart(parent, record->child, supervisor, wait_ns);
        break;
    case ESCQRS_DIRECTIVE_RESUME:
        esc_cell_request(record->child, ESC_REQUEST_RESUME);
        break;
    case ESCQRS_DIRECTIVE_STOP:
        if (supervisor->all_for_one) {
            esc_children_request(parent, ESC_REQUEST_STOP, record->child);
        }
        esc_cell_request(record->child, ESC_REQUEST_STOP);
        break;
    case ESCQRS_DIRECTIVE_ESCALATE:
        escalate(parent, record);
        break;
    }
}

static escqrs_directive decide(esc_cell *parent, esc_failure_record *record, int64_t *wait_ns)
{
    const escqrs_supervisor *supervisor = &parent->props->supervisor;
    esc_extra *extra = esc_cell_has(record->child);
    int64_t now_ns = esc_timers_now(&parent->system->timers);
    record->failure.restart_count = recent_restarts(extra, supervisor, now_ns);
    escqrs_directive directive = ESCQRS_DIRECTIVE_RESTART;
    if (supervisor->decide != NULL) {
        directive =
            supervisor->decide(supervisor->context, esc_cell_ref(record->child), &record->failure);
    }
    if (directive == ESCQRS_DIRECTIVE_RESTART) {
        if (!count_restart(extra, supervisor, now_ns)) {
            return ESCQRS_DIRECTIVE_STOP;
        }
        *wait_ns = backoff(parent->system->runtime, extra, supervisor, now_ns);
    }
    /* who is at the top has nobody to turn to */
    return directive == ESCQRS_DIRECTIVE_ESCALATE && parent->parent == NULL ? ESCQRS_DIRECTIVE_STOP
                                                                            : directive;
}

void esc_failure_decide(esc_cell *parent, esc_failure_record *record)
{
    escqrs_ref_state state = esc_cell_state(parent);
    bool stale = esc_cell_state(record->child) != ESCQRS_REF_FAILED;
    bool ending = state == ESCQRS_REF_STOPPING || state == ESCQRS_REF_STOPPED ||
                  state == ESCQRS_REF_RESTARTING;
    if (stale || ending) {
        publish(parent->system, record, ending ? ESCQRS_DIRECTIVE_STOP : ESCQRS_DIRECTIVE_RESTART);
    } else {
        int64_t wait_ns = 0;
        escqrs_directive directive = decide(parent, record, &wait_ns);
        publish(parent->system, record, directive);
        carry_out(parent, record, directive, wait_ns);
    }
    esc_failure_drop(record);
}
