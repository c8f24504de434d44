/* The life of an actor of the system: spawning, names, messages, stopping, what is left after it.
 */
#include "runtime/actors.h"

/* ---- spawning and messages -------------------------------------------------------------------- */

static void test_an_actor_lives_from_started_to_stopped(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {0};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_STARTING);
    tell(ref, 1);
    tell(ref, 2);
    settle(system);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_RUNNING);
    assert_string_equal(one.log, "Started 1 2 ");
    assert_int_equal(escqrs_actor_system_actor_count(system), 1);

    escqrs_stop(ref);
    settle(system);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_STOPPED);
    assert_string_equal(one.log, "Started 1 2 Stopping Stopped ");
    assert_int_equal(one.created, 1);
    assert_int_equal(one.destroyed, 1);
    assert_int_equal(escqrs_actor_system_actor_count(system), 0);
    escqrs_ref_release(ref);
    assert_int_equal(one.released, 1);
    system_end(system);
}

static void test_stop_goes_before_messages_and_poison_after(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script stopped = {0};
    script poisoned = {0};
    escqrs_ref *a = spawn_script(system, &stopped, NULL);
    escqrs_ref *b = spawn_script(system, &poisoned, NULL);
    tell(a, 1);
    escqrs_stop(a);
    tell(b, 1);
    assert_int_equal(escqrs_poison(b), ESCQRS_OK);
    tell(b, 2);
    settle(system);
    assert_string_equal(stopped.log, "Started Stopping Stopped ");
    assert_string_equal(poisoned.log, "Started 1 Stopping Stopped ");
    assert_int_equal(escqrs_poison(b), ESCQRS_CLOSED);
    escqrs_stop(b);
    assert_int_equal(notes_alive, 0);
    escqrs_ref_release(a);
    escqrs_ref_release(b);
    system_end(system);
}

static void test_a_reference_survives_the_actor_and_the_system(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {0};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    settle(system);
    system_end(system);
    assert_int_equal(escqrs_tell(ref, note_new(1), NULL), ESCQRS_CLOSED);
    escqrs_envelope *answer;
    escqrs_error error = {0};
    assert_int_equal(escqrs_ask(ref, note_new(1), INT64_MAX, &answer, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "one has stopped");
    char path[16];
    assert_int_equal(escqrs_ref_path(ref, path, sizeof path), 3);
    assert_string_equal(path, "one");
    escqrs_ref_release(ref);
    assert_int_equal(notes_alive, 0);
}

/* ---- names ------------------------------------------------------------------------------------ */

static void test_a_name_belongs_to_one_actor_until_it_has_stopped(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {0};
    script two = {0};
    escqrs_ref *ref = spawn_script(system, &one, "cart");
    escqrs_props *props =
        props_make(&(escqrs_props_options){.actor_class = &SCRIPT, .user_data = &two});
    escqrs_ref *existing = NULL;
    escqrs_error error = {0};
    assert_int_equal(
        escqrs_actor_system_spawn(system, props, escqrs_slice_of("cart"), &existing, &error),
        ESCQRS_NAME_EXISTS);
    assert_ptr_equal(existing, ref);
    assert_string_equal(error.subject, "cart");
    escqrs_ref_release(existing);

    settle(system);
    escqrs_stop(ref);
    assert_int_equal(escqrs_actor_system_spawn(system, props, escqrs_slice_of("cart"), NULL, NULL),
                     ESCQRS_NAME_EXISTS);
    settle(system);
    assert_int_equal(
        escqrs_actor_system_spawn(system, props, escqrs_slice_of("cart"), &existing, &error),
        ESCQRS_OK);
    assert_ptr_not_equal(existing, ref);
    escqrs_ref_release(existing);
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    system_end(system);
}

static void test_names_that_are_none(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {0};
    escqrs_props *props =
        props_make(&(escqrs_props_options){.actor_class = &SCRIPT, .user_data = &one});
    static const char *const bad[] = {"a/b", "$1", "/"};
    escqrs_error error = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(
            escqrs_actor_system_spawn(system, props, escqrs_slice_of(bad[i]), NULL, &error),
            ESCQRS_INVALID);
    }
    char huge[1026];
    memset(huge, 'x', sizeof huge);
    assert_int_equal(
        escqrs_actor_system_spawn(system, props, (escqrs_slice){huge, 1025}, NULL, &error),
        ESCQRS_TOO_LARGE);
    assert_int_equal(
        escqrs_actor_system_spawn(system, props, (escqrs_slice){huge, 1024}, NULL, &error),
        ESCQRS_OK);
    escqrs_props_release(props);
    system_end(system);
}

/* ---- the tree --------------------------------------------------------------------------------- */

typedef struct family {
    script parent, child, grandchild;
    escqrs_ref *child_ref, *grandchild_ref;
} family;

static escqrs_turn_end child_handle(script *self, escqrs_context *context, escqrs_envelope *message)
{
    family *all = self->data;
    if (message->type == &escqrs_started) {
        all->grandchild_ref = spawn_child(context, &all->grandchild, NULL);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end parent_handle(script *self, escqrs_context *context,
                                     escqrs_envelope *message)
{
    family *all = self->data;
    if (message->type == &escqrs_started) {
        all->child_ref = spawn_child(context, &all->child, "child");
    }
    if (message->type == &escqrs_stopped) { /* the children are gone */
        assert_string_equal(all->child.log, "Started Stopping Stopped ");
        assert_string_equal(all->grandchild.log, "Started Stopping Stopped ");
        assert_null(escqrs_context_child(context, escqrs_slice_of("child")));
        escqrs_error error = {0};
        escqrs_props *props =
            props_make(&(escqrs_props_options){.actor_class = &SCRIPT, .user_data = &all->child});
        assert_int_equal(escqrs_context_spawn(context, props, (escqrs_slice){0}, NULL, &error),
                         ESCQRS_CLOSED);
        escqrs_props_release(props);
    }
    return ESCQRS_TURN_NEXT;
}

static void test_children_stop_before_their_parent(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    family all = {0};
    all.parent = (script){.handle = parent_handle, .data = &all};
    all.child = (script){.handle = child_handle, .data = &all};
    escqrs_ref *ref = spawn_script(system, &all.parent, "parent");
    settle(system);
    assert_ptr_equal(escqrs_ref_parent(all.child_ref), ref);
    assert_null(escqrs_ref_parent(ref));
    char path[64];
    char wanted[64];
    escqrs_ref_path(all.grandchild_ref, path, sizeof path);
    snprintf(wanted, sizeof wanted, "parent/child/$%llx",
             (unsigned long long)escqrs_ref_id(all.grandchild_ref));
    assert_string_equal(path, wanted);
    char cut[8];
    assert_int_equal(escqrs_ref_path(all.grandchild_ref, cut, sizeof cut), strlen(wanted));
    assert_string_equal(cut, "parent/");

    escqrs_ref *found = escqrs_actor_system_find(system, escqrs_slice_of(path));
    assert_ptr_equal(found, all.grandchild_ref);
    escqrs_ref_release(found);
    assert_null(escqrs_actor_system_find(system, escqrs_slice_of("parent/other")));
    escqrs_ref *children[2];
    assert_int_equal(escqrs_actor_system_children(system, NULL, children, 2), 1);
    assert_ptr_equal(children[0], ref);
    escqrs_ref_release(children[0]);

    escqrs_stop(ref);
    settle(system);
    assert_string_equal(all.parent.log, "Started Stopping Stopped ");
    escqrs_ref_release(ref);
    escqrs_ref_release(all.child_ref);
    escqrs_ref_release(all.grandchild_ref);
    system_end(system);
}

static void test_stopping_the_system_stops_the_tree(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    family all = {0};
    all.parent = (script){.handle = parent_handle, .data = &all};
    all.child = (script){.handle = child_handle, .data = &all};
    escqrs_ref *ref = spawn_script(system, &all.parent, "parent");
    settle(system);
    escqrs_ref_release(ref);
    escqrs_ref_release(all.child_ref);
    escqrs_ref_release(all.grandchild_ref);
    system_end(system);
    assert_string_equal(all.parent.log, "Started Stopping Stopped ");
    assert_int_equal(all.parent.released, 1);
    assert_int_equal(all.child.released, 1);
    assert_int_equal(all.grandchild.released, 1);
}

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct stay_point {
    tally entered;
    tally may_leave;
} stay_point;

static escqrs_turn_end stay(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)context;
    stay_point *point = self->data;
    if (message->type == &NOTE) {
        tally_add(&point->entered, 1);
        tally_wait(&point->may_leave, 1);
    }
    return ESCQRS_TURN_NEXT;
}

/* The actor above all is at work at the same time: it is not the one to be named. */
static void stop_while_one_stays(void)
{
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    stay_point point = {TALLY_ZERO, TALLY_ZERO};
    script one = {.handle = stay, .data = &point};
    escqrs_ref *ref = spawn_script(system, &one, "sleeper");
    tell(ref, 1);
    tally_wait(&point.entered, 1);
    escqrs_error error = {0};
    assert_int_equal(escqrs_actor_system_stop(system, 0, &error), ESCQRS_TIMEOUT);
    assert_string_equal(error.subject, "sleeper");
    escqrs_props *props =
        props_make(&(escqrs_props_options){.actor_class = &SCRIPT, .user_data = &one});
    assert_int_equal(escqrs_actor_system_spawn(system, props, (escqrs_slice){0}, NULL, &error),
                     ESCQRS_CLOSED);
    escqrs_props_release(props);
    tally_add(&point.may_leave, 1);
    system_end(system);
    escqrs_ref_release(ref);
    assert_string_equal(one.log, "Started 1 Stopping Stopped ");
}

static void test_stop_names_the_handler_that_does_not_return(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        stop_while_one_stays();
    }
}

static void test_a_thread_waits_for_an_actor_to_stop(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {0}; /* its props may be released after the wait */
    for (int i = 0; i < 200; i++) {
        escqrs_ref *ref = spawn_script(system, &one, "again");
        tell(ref, i);
        assert_int_equal(escqrs_poison(ref), ESCQRS_OK);
        escqrs_error error = {0};
        assert_int_equal(escqrs_ref_wait_stopped(ref, ESC_DEADLINE_NEVER, &error), ESCQRS_OK);
        assert_int_equal(one.destroyed, i + 1);
        one.log[0] = '\0';
        escqrs_ref_release(ref);
    }
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_actor_lives_from_started_to_stopped),
        cmocka_unit_test(test_stop_goes_before_messages_and_poison_after),
        cmocka_unit_test(test_a_reference_survives_the_actor_and_the_system),
        cmocka_unit_test(test_a_name_belongs_to_one_actor_until_it_has_stopped),
        cmocka_unit_test(test_names_that_are_none),
        cmocka_unit_test(test_children_stop_before_their_parent),
        cmocka_unit_test(test_stopping_the_system_stops_the_tree),
        cmocka_unit_test(test_stop_names_the_handler_that_does_not_return),
        cmocka_unit_test(test_a_thread_waits_for_an_actor_to_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
