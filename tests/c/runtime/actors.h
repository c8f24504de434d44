/* What the tests of the actor system share: an actor that writes down what it gets and does what a
 * function of the test says, in a manual runtime with virtual time. */
#ifndef TEST_RUNTIME_ACTORS_H
#define TEST_RUNTIME_ACTORS_H

#include "runtime/support.h"

#include <escqrs/actor.h>

/* ---- messages --------------------------------------------------------------------------------- */

typedef struct note {
    escqrs_envelope envelope;
    int64_t value;
} note;

static _Atomic int64_t notes_alive;

static inline void note_destroy(escqrs_envelope *envelope)
{
    atomic_fetch_sub(&notes_alive, 1);
    escqrs_free(envelope);
}

static escqrs_envelope *note_copy(const escqrs_envelope *envelope);
static const escqrs_message_type NOTE = {
    .name = "Note", .destroy = note_destroy, .copy = note_copy};

static inline escqrs_envelope *note_new(int64_t value)
{
    note *made = escqrs_alloc_zero(sizeof *made);
    assert_non_null(made);
    atomic_fetch_add(&notes_alive, 1);
    made->envelope.type = &NOTE;
    made->value = value;
    return &made->envelope;
}

static inline int64_t note_value(const escqrs_envelope *envelope)
{
    assert_ptr_equal(envelope->type, &NOTE);
    return ((const note *)envelope)->value;
}

static escqrs_envelope *note_copy(const escqrs_envelope *envelope)
{
    return note_new(note_value(envelope));
}

/* ---- the script ------------------------------------------------------------------------------- */

typedef struct script script;

/* What the actors of one test do, and what happened to them. */
struct script {
    const char *name;
    /* NULL: nothing but NEXT. Called for every message, lifecycle ones included. */
    escqrs_turn_end (*handle)(script *self, escqrs_context *context, escqrs_envelope *message);
    escqrs_turn_end (*resume)(script *self, escqrs_context *context);
    escqrs_turn_end (*create)(script *self, escqrs_context *context);
    char log[8192]; /* "started 1 2 stopped " and the like */
    int created;
    int destroyed;
    _Atomic int released; /* props */
    void *data;
};

static inline void script_say(script *self, const char *text)
{
    size_t used = strlen(self->log);
    snprintf(self->log + used, sizeof self->log - used, "%s ", text);
}

static inline void script_say_message(script *self, const escqrs_envelope *message)
{
    char text[64];
    if (message->type == &NOTE) {
        snprintf(text, sizeof text, "%lld", (long long)note_value(message));
    } else {
        escqrs_envelope_describe(message, text, sizeof text);
    }
    script_say(self, text);
}

static inline escqrs_turn_end script_create(escqrs_context *context, void *user_data, void **state)
{
    script *self = user_data;
    if (self->create != NULL) {
        escqrs_turn_end turn = self->create(self, context);
        if (turn != ESCQRS_TURN_NEXT) {
            return turn;
        }
    }
    self->created++;
    *state = self;
    return ESCQRS_TURN_NEXT;
}

static inline escqrs_turn_end script_receive(escqrs_context *context, void *state,
                                             escqrs_envelope *message)
{
    script *self = state;
    script_say_message(self, message);
    return self->handle == NULL ? ESCQRS_TURN_NEXT : self->handle(self, context, message);
}

static inline escqrs_turn_end script_resume(escqrs_context *context, void *state)
{
    script *self = state;
    return self->resume == NULL ? ESCQRS_TURN_NEXT : self->resume(self, context);
}

static inline void script_destroy(void *state, void *user_data)
{
    assert_ptr_equal(state, user_data);
    ((script *)state)->destroyed++;
}

static inline void script_release(void *user_data)
{
    atomic_fetch_add(&((script *)user_data)->released, 1);
}

static const escqrs_actor_class SCRIPT = {
    .name = "Script",
    .create = script_create,
    .receive = script_receive,
    .resume = script_resume,
    .destroy = script_destroy,
};

/* ---- systems ---------------------------------------------------------------------------------- */

/* What the system logged is nobody's business unless a test asks. */
static inline void log_quietly(void *context, escqrs_log_level level, const char *text)
{
    (void)level;
    if (context != NULL) {
        script_say(context, text);
    }
}

typedef struct seed {
    uint64_t state;
} seed;

static inline void seed_fill(void *context, void *buffer, size_t size)
{
    seed *self = context;
    uint8_t *bytes = buffer;
    for (size_t i = 0; i < size; i++) {
        self->state = self->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes[i] = (uint8_t)(self->state >> 56);
    }
}

static inline escqrs_actor_system *system_make(const escqrs_actor_system_options *options)
{
    escqrs_actor_system *system = NULL;
    escqrs_error error = {0};
    escqrs_actor_system_options given = *options;
    if (given.log.function == NULL) {
        given.log.function = log_quietly;
    }
    if (escqrs_actor_system_create(&given, &system, &error) != ESCQRS_OK) {
        fail_msg("create: %s", error.message);
    }
    return system;
}

static inline escqrs_actor_system *manual_system(void)
{
    return system_make(
        &(escqrs_actor_system_options){.own = {.manual = true}, .virtual_time = true});
}

/* Until nothing is runnable now; time stands still. */
static inline void settle(escqrs_actor_system *system)
{
    while (escqrs_runtime_step(escqrs_actor_system_runtime(system))) {
    }
}

/* After it every note has been destroyed, once. */
static inline void system_end(escqrs_actor_system *system)
{
    escqrs_error error = {0};
    if (escqrs_actor_system_stop(system, ESC_DEADLINE_NEVER, &error) != ESCQRS_OK) {
        fail_msg("stop: %s", error.message);
    }
    escqrs_actor_system_destroy(system);
    assert_int_equal(notes_alive, 0);
}

static inline escqrs_props *props_make(const escqrs_props_options *options)
{
    escqrs_props *props = NULL;
    escqrs_error error = {0};
    if (escqrs_props_create(options, &props, &error) != ESCQRS_OK) {
        fail_msg("props: %s", error.message);
    }
    return props;
}

static inline escqrs_ref *spawn_props(escqrs_actor_system *system, escqrs_props *props,
                                      const char *name)
{
    escqrs_ref *ref = NULL;
    escqrs_error error = {0};
    escqrs_status status =
        escqrs_actor_system_spawn(system, props, escqrs_slice_of(name), &ref, &error);
    if (status != ESCQRS_OK) {
        fail_msg("spawn: %s", error.message);
    }
    escqrs_props_release(props);
    return ref;
}

static inline escqrs_ref *spawn_script(escqrs_actor_system *system, script *self, const char *name)
{
    return spawn_props(system,
                       props_make(&(escqrs_props_options){
                           .actor_class = &SCRIPT, .user_data = self, .release = script_release}),
                       name);
}

/* From within an actor. */
static inline escqrs_ref *spawn_child(escqrs_context *context, script *self, const char *name)
{
    escqrs_props *props = props_make(&(escqrs_props_options){
        .actor_class = &SCRIPT, .user_data = self, .release = script_release});
    escqrs_ref *ref = NULL;
    escqrs_error error = {0};
    if (escqrs_context_spawn(context, props, escqrs_slice_of(name), &ref, &error) != ESCQRS_OK) {
        fail_msg("spawn: %s", error.message);
    }
    escqrs_props_release(props);
    return ref;
}

static inline void tell(escqrs_ref *ref, int64_t value)
{
    escqrs_tell(ref, note_new(value), NULL);
}

#endif
