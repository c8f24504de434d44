/* Supervision: what each directive does to the failing message, the mailbox, the stash, the timers
 * and the children; limits, backoff, all for one, escalation; failures in every hook. */
#include "runtime/actors.h"

/* ---- a parent with two children, told what to do ---------------------------------------------- */

#define FAIL 100 /* a note of at least that value fails */
#define STASH 50 /* one of these is put aside */
#define SPAWN 51 /* makes a child of its own */
#define TIMER 52 /* sets one */
#define UNSTASH 53

typedef struct scene {
    escqrs_actor_system *system;
    script log; /* of the system */
    script parent, one, two, grandchild;
    escqrs_ref *parent_ref, *one_ref, *two_ref, *grandchild_ref;
    escqrs_supervisor supervisor;
    escqrs_directive directive;
    int decided;
    int published;
    escqrs_directive published_directive;
    char published_path[64];
    char published_message[64];
    char published_text[64];
    int dead;
    bool fail_in_create;
    const escqrs_message_type *fail_in;
} scene;

static escqrs_directive decide(void *context, escqrs_ref *child, const escqrs_failure *failure)
{
    scene *all = context;
    assert_int_equal(escqrs_ref_kind_of(child), ESCQRS_REF_ACTOR);
    assert_non_null(failure->text);
    all->decided++;
    return all->directive;
}

static escqrs_turn_end one_create(script *self, escqrs_context *context)
{
    scene *all = self->data;
    if (all->fail_in_create) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "no instance");
    }
    return ESCQRS_TURN_NEXT;
}

static void one_note(scene *all, escqrs_context *context, int64_t value)
{
    escqrs_error error = {0};
    switch (value) {
    case STASH:
        assert_int_equal(escqrs_context_stash(context, &error), ESCQRS_OK);
        break;
    case SPAWN:
        all->grandchild_ref = spawn_child(context, &all->grandchild, "grandchild");
        break;
    case TIMER:
        assert_int_equal(escqrs_context_schedule(context, NULL, note_new(9), 1000, 0, NULL, &error),
                         ESCQRS_OK);
        break;
    case UNSTASH:
        escqrs_context_unstash_all(context);
        break;
    default:
        break;
    }
}

static escqrs_turn_end one_handle(script *self, escqrs_context *context, escqrs_envelope *message)
{
    scene *all = self->data;
    if (message->type == all->fail_in) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "no %s", message->type->name);
    }
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    int64_t value = note_value(message);
    if (value >= FAIL) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "not %lld", (long long)value);
    }
    one_note(all, context, value);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end parent_handle(script *self, escqrs_context *context,
                                     escqrs_envelope *message)
{
    scene *all = self->data;
    if (message->type == &escqrs_started) {
        escqrs_ref_release(all->one_ref);
        escqrs_ref_release(all->two_ref);
        all->one_ref = spawn_child(context, &all->one, "one");
        all->two_ref = spawn_child(context, &all->two, "two");
    }
    return ESCQRS_TURN_NEXT;
}

static void on_event(void *data, const escqrs_envelope *event)
{
    scene *all = data;
    if (event->type == &escqrs_dead_letter) {
        all->dead++;
    }
    if (event->type == &escqrs_failure_event) {
        const escqrs_failure_message *failed = (const escqrs_failure_message *)event;
        all->published++;
        all->published_directive = failed->directive;
        snprintf(all->published_path, 64, "%s", failed->failure->path);
        snprintf(all->published_message, 64, "%s", failed->failure->message);
        snprintf(all->published_text, 64, "%s", failed->failure->text);
    }
}

static scene *scene_new(escqrs_supervisor supervisor, escqrs_directive directive)
{
    scene *all = calloc(1, sizeof *all);
    assert_non_null(all);
    all->system = system_make(&(escqrs_actor_system_options){
        .own = {.manual = true}, .virtual_time = true, .log = {log_quietly, &all->log}});
    all->directive = directive;
    supervisor.decide = decide;
    supervisor.context = all;
    all->parent = (script){.handle = parent_handle, .data = all};
    all->one = (script){.handle = one_handle, .create = one_create, .data = all};
    all->two = (script){.handle = one_handle, .data = all};
    escqrs_error error = {0};
    assert_int_equal(escqrs_subscribe(all->system, NULL, on_event, all, NULL, NULL, &error),
                     ESCQRS_OK);
    all->parent_ref = spawn_props(all->system,
                                  props_make(&(escqrs_props_options){.actor_class = &SCRIPT,
                                                                     .user_data = &all->parent,
                                                                     .supervisor = &supervisor}),
                                  "parent");
    settle(all->system);
    return all;
}

static void scene_end(scene *all)
{
    escqrs_ref_release(all->parent_ref);
    escqrs_ref_release(all->one_ref);
    escqrs_ref_release(all->two_ref);
    escqrs_ref_release(all->grandchild_ref);
    system_end(all->system);
    free(all);
    assert_int_equal(notes_alive, 0);
}

/* A child with a stashed message, a child of its own and a timer fails with two messages behind. */
static void fail_in_the_middle(scene *all)
{
    tell(all->one_ref, 1);
    tell(all->one_ref, STASH);
    tell(all->one_ref, SPAWN);
    tell(all->one_ref, TIMER);
    tell(all->one_ref, FAIL);
    tell(all->one_ref, 2);
    tell(all->one_ref, UNSTASH);
    settle(all->system);
    assert_int_equal(all->decided, 1);
    assert_int_equal(all->published, 1);
    assert_int_equal(all->published_directive, all->directive);
    assert_string_equal(all->published_path, "parent/one");
    assert_string_equal(all->published_message, "Note");
    assert_string_equal(all->published_text, "not 100");
    assert_non_null(strstr(all->log.log, "actor parent/one failed in Note ("));
    assert_non_null(strstr(all->log.log, "): not 100"));
}

/* ---- one directive each ----------------------------------------------------------------------- */

static void test_resume_goes_on_with_the_next_message(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_RESUME);
    fail_in_the_middle(all);
    escqrs_actor_system_advance(all->system, 1000);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 1 50 51 52 100 2 53 50 9 ");
    assert_string_equal(all->grandchild.log, "Started ");
    assert_int_equal(all->one.created, 1);
    assert_string_equal(all->two.log, "Started ");
    assert_int_equal(all->dead, 0);
    scene_end(all);
}

static void test_restart_makes_a_new_instance(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_RESTART);
    fail_in_the_middle(all);
    escqrs_actor_system_advance(all->system, 1000);
    settle(all->system);
    /* the failing message is gone; what was stashed comes back first; children and timers are gone
     */
    assert_string_equal(all->one.log, "Started 1 50 51 52 100 Restarting Started 50 2 53 50 ");
    assert_string_equal(all->grandchild.log, "Started Stopping Stopped ");
    assert_int_equal(all->one.created, 2);
    assert_int_equal(all->one.destroyed, 1);
    assert_string_equal(all->two.log, "Started ");
    assert_int_equal(all->dead, 0);
    scene_end(all);
}

static void test_stop_makes_dead_letters_of_what_waits(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_STOP);
    fail_in_the_middle(all);
    assert_string_equal(all->one.log, "Started 1 50 51 52 100 Stopping Stopped ");
    assert_string_equal(all->grandchild.log, "Started Stopping Stopped ");
    assert_int_equal(all->one.destroyed, 1);
    assert_string_equal(all->two.log, "Started ");
    assert_int_equal(all->dead, 3); /* the stashed one and two of the mailbox */
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

static void test_escalate_is_a_failure_of_the_parent(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_ESCALATE);
    tell(all->one_ref, FAIL);
    settle(all->system);
    /* the system restarts the parent, whose children stop; the new one spawns new ones */
    assert_string_equal(all->parent.log, "Started Restarting Started ");
    assert_string_equal(all->one.log, "Started 100 Stopping Stopped Started ");
    assert_string_equal(all->two.log, "Started Stopping Stopped Started ");
    assert_int_equal(all->published, 2);
    assert_string_equal(all->published_path, "parent/one"); /* who failed first */
    scene_end(all);
}

static escqrs_turn_end top_handle(script *self, escqrs_context *context, escqrs_envelope *message)
{
    scene *all = self->data;
    if (message->type == &escqrs_started) {
        escqrs_supervisor supervisor = {.decide = decide, .context = all};
        escqrs_props *props = props_make(&(escqrs_props_options){
            .actor_class = &SCRIPT, .user_data = &all->parent, .supervisor = &supervisor});
        escqrs_error error = {0};
        assert_int_equal(escqrs_context_spawn(context, props, escqrs_slice_of("parent"),
                                              &all->parent_ref, &error),
                         ESCQRS_OK);
        escqrs_props_release(props);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_directive always_resume(void *context, escqrs_ref *child,
                                      const escqrs_failure *failure)
{
    (void)context;
    (void)child;
    (void)failure;
    return ESCQRS_DIRECTIVE_RESUME;
}

static void test_a_resumed_parent_resumes_the_child_that_it_escalated(void **state)
{
    (void)state;
    scene *all = calloc(1, sizeof *all);
    assert_non_null(all);
    all->system = manual_system();
    all->directive = ESCQRS_DIRECTIVE_ESCALATE;
    all->parent = (script){.handle = parent_handle, .data = all};
    all->one = (script){.handle = one_handle, .data = all};
    all->two = (script){.handle = one_handle, .data = all};
    script top = {.handle = top_handle, .data = all};
    escqrs_supervisor resumes = {.decide = always_resume};
    escqrs_ref *top_ref =
        spawn_props(all->system,
                    props_make(&(escqrs_props_options){
                        .actor_class = &SCRIPT, .user_data = &top, .supervisor = &resumes}),
                    "top");
    settle(all->system);
    tell(all->one_ref, FAIL);
    tell(all->one_ref, 1);
    tell(all->parent_ref, 2);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 100 1 ");
    assert_string_equal(all->parent.log, "Started 2 ");
    escqrs_ref_release(top_ref);
    scene_end(all);
}

/* ---- all for one, limits, backoff ------------------------------------------------------------- */

static void test_all_for_one_restarts_and_stops_the_others_too(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){.all_for_one = true}, ESCQRS_DIRECTIVE_RESTART);
    tell(all->two_ref, STASH);
    tell(all->one_ref, FAIL);
    settle(all->system);
    tell(all->two_ref, 1);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 100 Restarting Started ");
    assert_string_equal(all->two.log, "Started 50 Restarting Started 50 1 ");
    all->directive = ESCQRS_DIRECTIVE_RESUME;
    tell(all->one_ref, FAIL + 1);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 100 Restarting Started 101 ");
    all->directive = ESCQRS_DIRECTIVE_STOP;
    tell(all->one_ref, FAIL + 2);
    settle(all->system);
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    assert_int_equal(escqrs_ref_state_of(all->two_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

static void test_too_many_restarts_within_a_time_stop_the_child(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){.max_restarts = 2, .within_ns = 1000},
                           ESCQRS_DIRECTIVE_RESTART);
    tell(all->one_ref, FAIL);
    tell(all->one_ref, FAIL);
    settle(all->system);
    assert_int_equal(all->one.created, 3);
    escqrs_actor_system_advance(all->system, 1000); /* those two are forgotten */
    tell(all->one_ref, FAIL);
    settle(all->system);
    escqrs_actor_system_advance(all->system, 1500);
    tell(all->one_ref, FAIL);
    settle(all->system);
    assert_int_equal(all->one.created, 5);
    assert_int_equal(all->published_directive, ESCQRS_DIRECTIVE_RESTART);
    tell(all->one_ref, FAIL);
    settle(all->system);
    assert_int_equal(all->published_directive, ESCQRS_DIRECTIVE_STOP);
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

static void test_never_restart(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){.never_restart = true}, ESCQRS_DIRECTIVE_RESTART);
    tell(all->one_ref, FAIL);
    settle(all->system);
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

static void test_restarts_back_off(void **state)
{
    (void)state;
    seed numbers = {7};
    scene *all = scene_new((escqrs_supervisor){.backoff_first_ns = 100,
                                               .backoff_max_ns = 300,
                                               .within_ns = 10000,
                                               .backoff_jitter = 0.1,
                                               .backoff_random = {seed_fill, &numbers}},
                           ESCQRS_DIRECTIVE_RESTART);
    static const int64_t waits[] = {100, 200, 300, 300};
    for (int i = 0; i < 4; i++) {
        int64_t now_ns = escqrs_actor_system_now(all->system);
        tell(all->one_ref, FAIL);
        settle(all->system);
        assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_FAILED);
        int64_t wait_ns = escqrs_actor_system_next_due(all->system) - now_ns;
        assert_in_range(wait_ns, waits[i] * 9 / 10, waits[i] * 11 / 10);
        escqrs_actor_system_advance(all->system, now_ns + wait_ns);
        settle(all->system);
        assert_int_equal(all->one.created, i + 2);
    }
    /* stopping does not wait for the backoff */
    tell(all->one_ref, FAIL);
    settle(all->system);
    escqrs_stop(all->one_ref);
    settle(all->system);
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

/* ---- failures elsewhere ----------------------------------------------------------------------- */

static void test_a_failing_create_is_a_failure_of_the_actor(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){.max_restarts = 3}, ESCQRS_DIRECTIVE_RESTART);
    all->fail_in_create = true;
    tell(all->one_ref, FAIL);
    tell(all->one_ref, 1);
    settle(all->system);
    assert_int_equal(all->decided, 4); /* the message, and three times create */
    assert_string_equal(all->published_text, "no instance");
    assert_string_equal(all->published_message, "");
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    assert_int_equal(all->one.created, all->one.destroyed);
    assert_int_equal(all->dead, 1);
    scene_end(all);
}

static void test_resume_without_an_instance_stops(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_RESTART);
    all->fail_in_create = true;
    tell(all->one_ref, FAIL);
    escqrs_runtime_step(escqrs_actor_system_runtime(all->system)); /* it fails */
    escqrs_runtime_step(escqrs_actor_system_runtime(all->system)); /* it is to be restarted */
    all->directive = ESCQRS_DIRECTIVE_RESUME;
    settle(all->system);
    assert_int_equal(escqrs_ref_state_of(all->one_ref), ESCQRS_REF_STOPPED);
    scene_end(all);
}

static void test_a_failing_started_is_a_failure_and_the_other_hooks_go_on(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){.max_restarts = 1}, ESCQRS_DIRECTIVE_RESTART);
    all->fail_in = &escqrs_restarting;
    tell(all->one_ref, FAIL);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 100 Restarting Started ");
    assert_int_equal(all->decided, 1);
    assert_int_equal(all->published, 2);
    assert_string_equal(all->published_message, "Restarting");

    all->fail_in = &escqrs_stopping;
    escqrs_stop(all->one_ref);
    settle(all->system);
    assert_string_equal(all->one.log, "Started 100 Restarting Started Stopping Stopped ");
    assert_string_equal(all->published_message, "Stopping");

    all->fail_in = &escqrs_stopped;
    escqrs_stop(all->two_ref);
    settle(all->system);
    assert_string_equal(all->published_message, "Stopped");
    assert_int_equal(escqrs_ref_state_of(all->two_ref), ESCQRS_REF_STOPPED);

    all->fail_in = &escqrs_started;
    escqrs_ref *other = spawn_script(all->system, &all->one, "other");
    settle(all->system);
    assert_string_equal(all->published_path, "other");
    assert_int_equal(escqrs_ref_state_of(other), ESCQRS_REF_STOPPED); /* after ten restarts */
    escqrs_ref_release(other);
    scene_end(all);
}

static void test_the_asker_gets_the_failure(void **state)
{
    (void)state;
    scene *all = scene_new((escqrs_supervisor){0}, ESCQRS_DIRECTIVE_RESTART);
    escqrs_envelope *answer;
    escqrs_error error = {0};
    assert_int_equal(escqrs_ask(all->one_ref, note_new(FAIL), INT64_MAX, &answer, &error),
                     ESCQRS_IO);
    assert_string_equal(error.message, "not 100");
    assert_string_equal(error.subject, "parent/one");
    scene_end(all);
}

/* ---- the opaque detail ------------------------------------------------------------------------ */

static int details_alive;

static void detail_release(void *detail)
{
    assert_ptr_equal(detail, &details_alive);
    details_alive--;
}

static escqrs_turn_end fail_with_detail(escqrs_context *context, void *instance,
                                        escqrs_envelope *message)
{
    (void)instance;
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    details_alive++;
    return escqrs_context_fail(context, ESCQRS_REJECTED, &details_alive, "with a detail");
}

static const escqrs_actor_class DETAILED = {
    .name = "Detailed", .receive = fail_with_detail, .failure_release = detail_release};

static void see_detail(void *data, const escqrs_envelope *event)
{
    const escqrs_failure_message *failed = (const escqrs_failure_message *)event;
    assert_ptr_equal(failed->failure->detail, &details_alive);
    assert_int_equal(details_alive, 1);
    *(int *)data += 1;
}

static void test_a_detail_is_released_once(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    int seen = 0;
    escqrs_error error = {0};
    script subscriber = {0};
    escqrs_ref *events = spawn_script(system, &subscriber, "events");
    assert_int_equal(
        escqrs_subscribe(system, &escqrs_failure_event, see_detail, &seen, NULL, NULL, &error),
        ESCQRS_OK);
    assert_int_equal(escqrs_subscribe_ref(system, &escqrs_failure_event, events, NULL, &error),
                     ESCQRS_OK);
    escqrs_ref *ref = spawn_props(
        system, props_make(&(escqrs_props_options){.actor_class = &DETAILED}), "detailed");
    tell(ref, 1);
    settle(system);
    assert_int_equal(seen, 1);
    assert_int_equal(details_alive, 0);
    assert_string_equal(subscriber.log, "Started Failure ");
    escqrs_ref_release(ref);
    escqrs_ref_release(events);
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_goes_on_with_the_next_message),
        cmocka_unit_test(test_restart_makes_a_new_instance),
        cmocka_unit_test(test_stop_makes_dead_letters_of_what_waits),
        cmocka_unit_test(test_escalate_is_a_failure_of_the_parent),
        cmocka_unit_test(test_a_resumed_parent_resumes_the_child_that_it_escalated),
        cmocka_unit_test(test_all_for_one_restarts_and_stops_the_others_too),
        cmocka_unit_test(test_too_many_restarts_within_a_time_stop_the_child),
        cmocka_unit_test(test_never_restart),
        cmocka_unit_test(test_restarts_back_off),
        cmocka_unit_test(test_a_failing_create_is_a_failure_of_the_actor),
        cmocka_unit_test(test_resume_without_an_instance_stops),
        cmocka_unit_test(test_a_failing_started_is_a_failure_and_the_other_hooks_go_on),
        cmocka_unit_test(test_the_asker_gets_the_failure),
        cmocka_unit_test(test_a_detail_is_released_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
