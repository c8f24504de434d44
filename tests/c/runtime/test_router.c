/* Routers; bounded and priority mailboxes; middleware. */
#include "runtime/actors.h"

/* ---- routers ---------------------------------------------------------------------------------- */

#define ROUTEES 4

typedef struct ring {
    escqrs_actor_system *system;
    script routees[ROUTEES];
    escqrs_ref *refs[ROUTEES];
    escqrs_ref *router;
    int released;
} ring;

static uint64_t note_key(void *context, const escqrs_envelope *envelope)
{
    (void)context;
    return (uint64_t)note_value(envelope);
}

static void ring_released(void *context)
{
    ((ring *)context)->released++;
}

static void ring_begin(ring *all, escqrs_routing routing)
{
    memset(all, 0, sizeof *all);
    all->system = manual_system();
    for (int i = 0; i < ROUTEES; i++) {
        all->refs[i] = spawn_script(all->system, &all->routees[i], NULL);
    }
    settle(all->system);
    for (int i = 0; i < ROUTEES; i++) {
        all->routees[i].log[0] = '\0';
    }
    escqrs_error error = {0};
    escqrs_props *props;
    assert_int_equal(escqrs_router_props(&(escqrs_router_options){.routing = routing,
                                                                  .key = note_key,
                                                                  .context = all,
                                                                  .release = ring_released,
                                                                  .group = all->refs,
                                                                  .group_size = ROUTEES - 1},
                                         &props, &error),
                     ESCQRS_OK);
    all->router = spawn_props(all->system, props, "router");
    settle(all->system);
}

static int handled(const script *self)
{
    int count = 0;
    for (const char *at = self->log; *at != '\0'; at++) {
        count += *at == ' ';
    }
    return count;
}

static void ring_end(ring *all)
{
    for (int i = 0; i < ROUTEES; i++) {
        escqrs_ref_release(all->refs[i]);
    }
    escqrs_ref_release(all->router);
    system_end(all->system);
    assert_int_equal(all->released, 1);
    assert_int_equal(notes_alive, 0);
}

static void test_round_robin_while_routees_come_and_go(void **state)
{
    (void)state;
    ring all;
    escqrs_error error = {0};
    ring_begin(&all, ESCQRS_ROUTING_ROUND_ROBIN);
    for (int i = 0; i < 6; i++) {
        tell(all.router, i);
    }
    settle(all.system);
    assert_string_equal(all.routees[0].log, "0 3 ");
    assert_string_equal(all.routees[1].log, "1 4 ");
    assert_string_equal(all.routees[2].log, "2 5 ");
    assert_int_equal(escqrs_router_add(all.router, all.refs[3], &error), ESCQRS_OK);
    assert_int_equal(escqrs_router_add(all.router, all.refs[3], &error), ESCQRS_OK);
    assert_int_equal(escqrs_router_remove(all.router, all.refs[0], &error), ESCQRS_OK);
    escqrs_stop(all.refs[1]); /* one that stops is dropped */
    settle(all.system);
    escqrs_ref *refs[ROUTEES];
    assert_int_equal(escqrs_router_routees(all.router, refs, ROUTEES), 2);
    assert_ptr_equal(refs[0], all.refs[2]);
    assert_ptr_equal(refs[1], all.refs[3]);
    escqrs_ref_release(refs[0]);
    escqrs_ref_release(refs[1]);
    for (int i = 10; i < 14; i++) {
        tell(all.router, i);
    }
    settle(all.system);
    assert_int_equal(handled(&all.routees[0]), 2);
    assert_int_equal(handled(&all.routees[2]), 4);
    assert_int_equal(handled(&all.routees[3]), 2);
    assert_int_equal(escqrs_router_add(all.refs[2], all.refs[3], &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_router_add(all.router, NULL, &error), ESCQRS_INVALID);
    ring_end(&all);
}

static void report_complete(escqrs_future *future, escqrs_envelope *answer,
                            const escqrs_failure *failure)
{
    (void)future;
    assert_null(answer);
    assert_int_equal(failure->status, ESCQRS_CLOSED);
}

static void report_released(escqrs_future *future)
{
    (void)future;
}

static const escqrs_future_ops REPORT_OPS = {report_complete, report_released};

static escqrs_status report(escqrs_ref *router, escqrs_future *asker)
{
    escqrs_error error = {0};
    escqrs_future_init(asker, &REPORT_OPS, NULL);
    escqrs_status status = escqrs_router_report(router, asker, &error);
    escqrs_ref_release(&asker->ref);
    return status;
}

static void test_a_report_ends_when_what_was_ordered_before_is_done(void **state)
{
    (void)state;
    ring all;
    escqrs_error error = {0};
    escqrs_future asker;
    ring_begin(&all, ESCQRS_ROUTING_ROUND_ROBIN);
    settle(all.system);
    assert_int_equal(escqrs_router_add(all.router, all.refs[3], &error), ESCQRS_OK);
    size_t before = escqrs_router_routees(all.router, NULL, 0);
    assert_int_equal(report(all.router, &asker), ESCQRS_OK);
    assert_false(escqrs_future_is_complete(&asker));
    settle(all.system);
    assert_true(escqrs_future_is_complete(&asker));
    assert_int_equal(escqrs_router_routees(all.router, NULL, 0), before + 1);
    assert_int_equal(report(all.refs[0], &asker), ESCQRS_INVALID);
    assert_true(escqrs_future_is_complete(&asker));
    assert_int_equal(report(all.router, &asker), ESCQRS_OK);
    escqrs_stop(all.router); /* the order is not carried out any more */
    settle(all.system);
    assert_true(escqrs_future_is_complete(&asker));
    assert_int_equal(report(all.router, &asker), ESCQRS_CLOSED);
    assert_true(escqrs_future_is_complete(&asker));
    ring_end(&all);
}

static void test_broadcast_goes_to_all_and_without_routees_to_none(void **state)
{
    (void)state;
    ring all;
    escqrs_error error = {0};
    ring_begin(&all, ESCQRS_ROUTING_BROADCAST);
    tell(all.router, 1);
    settle(all.system);
    for (int i = 0; i < ROUTEES; i++) {
        assert_string_equal(all.routees[i].log, i < 3 ? "1 " : "");
        assert_int_equal(escqrs_router_remove(all.router, all.refs[i], &error), ESCQRS_OK);
    }
    settle(all.system);
    tell(all.router, 2);
    settle(all.system);
    assert_int_equal(notes_alive, 0);
    ring_end(&all);
}

static void test_consistent_hash_keeps_a_key_where_it_was(void **state)
{
    (void)state;
    ring all;
    escqrs_error error = {0};
    ring_begin(&all, ESCQRS_ROUTING_CONSISTENT_HASH);
    for (int round = 0; round < 2; round++) {
        for (int key = 0; key < 60; key++) {
            tell(all.router, key);
        }
        settle(all.system);
    }
    int before[ROUTEES];
    for (int i = 0; i < 3; i++) {
        before[i] = handled(&all.routees[i]);
        assert_int_equal(before[i] % 2, 0);
        assert_true(before[i] > 0);
    }
    assert_int_equal(escqrs_router_remove(all.router, all.refs[0], &error), ESCQRS_OK);
    for (int key = 0; key < 60; key++) {
        tell(all.router, key);
    }
    settle(all.system);
    /* the others kept theirs, and share those of the one that went */
    int after = handled(&all.routees[1]) + handled(&all.routees[2]);
    assert_int_equal(after - before[1] - before[2], 60);
    assert_true(handled(&all.routees[1]) - before[1] >= before[1] / 2);
    assert_true(handled(&all.routees[2]) - before[2] >= before[2] / 2);
    ring_end(&all);
}

static void test_random_reaches_everybody(void **state)
{
    (void)state;
    ring all;
    ring_begin(&all, ESCQRS_ROUTING_RANDOM);
    for (int i = 0; i < 300; i++) {
        tell(all.router, i);
    }
    settle(all.system);
    for (int i = 0; i < 3; i++) {
        assert_in_range(handled(&all.routees[i]), 40, 200);
    }
    ring_end(&all);
}

static escqrs_turn_end sleep_on_minus_one(script *self, escqrs_context *context,
                                          escqrs_envelope *message)
{
    (void)self;
    (void)context;
    return message->type == &NOTE && note_value(message) == -1 ? ESCQRS_TURN_SUSPEND
                                                               : ESCQRS_TURN_NEXT;
}

static void test_a_pool_spawns_and_poisons_its_routees(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script worker = {.handle = sleep_on_minus_one};
    escqrs_error error = {0};
    escqrs_props *worker_props = props_make(&(escqrs_props_options){
        .actor_class = &SCRIPT, .user_data = &worker, .release = script_release});
    escqrs_props *props;
    assert_int_equal(
        escqrs_router_props(&(escqrs_router_options){.routing = ESCQRS_ROUTING_SMALLEST_MAILBOX,
                                                     .pool = worker_props,
                                                     .pool_size = 2},
                            &props, &error),
        ESCQRS_OK);
    escqrs_props_release(worker_props);
    escqrs_ref *router = spawn_props(system, props, "pool");
    settle(system);
    escqrs_ref *refs[4];
    assert_int_equal(escqrs_router_routees(router, refs, 4), 2);
    assert_ptr_equal(escqrs_ref_parent(refs[0]), router);
    tell(router, -1); /* to one of them, which is busy from now on */
    settle(system);
    for (int i = 0; i < 3; i++) {
        tell(router, i);
        settle(system);
    }
    assert_string_equal(worker.log, "Started Started -1 0 1 2 "); /* all by the other one */
    assert_int_equal(escqrs_router_add(router, NULL, &error), ESCQRS_OK);
    assert_int_equal(escqrs_router_add(router, refs[0], &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_router_remove(router, refs[1], &error), ESCQRS_OK);
    escqrs_ref_resume(refs[0]);
    escqrs_ref_resume(refs[1]);
    settle(system);
    assert_int_equal(escqrs_router_routees(router, NULL, 0), 2);
    assert_int_equal(escqrs_ref_state_of(refs[1]), ESCQRS_REF_STOPPED);
    escqrs_ref_release(refs[0]);
    escqrs_ref_release(refs[1]);
    escqrs_ref_release(router);
    system_end(system);
    assert_int_equal(worker.created, 3);
    assert_int_equal(worker.destroyed, 3);
    assert_int_equal(worker.released, 1);
}

static int keys_failed; /* details that were released */

static void key_failure_release(void *detail)
{
    assert_string_equal(detail, "odd");
    keys_failed++;
}

/* Odd ones have none. */
static uint64_t even_key(void *context, const escqrs_envelope *envelope)
{
    if (note_value(envelope) % 2 != 0) {
        escqrs_context_fail(escqrs_context_current(), ESCQRS_INVALID, context, "an odd note");
    }
    return (uint64_t)note_value(envelope);
}

static void count_failure(void *data, const escqrs_envelope *event)
{
    const escqrs_failure_message *message = (const escqrs_failure_message *)event;
    script_say(data, message->failure->path);
    script_say(data, message->failure->message);
    script_say(data, message->failure->text);
}

static void test_a_key_that_fails_is_a_failure_of_the_router(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    escqrs_error error = {0};
    script worker = {0};
    script failures = {0};
    assert_int_equal(escqrs_subscribe(system, &escqrs_failure_event, count_failure, &failures, NULL,
                                      NULL, &error),
                     ESCQRS_OK);
    escqrs_ref *routee = spawn_script(system, &worker, NULL);
    escqrs_props *props;
    assert_int_equal(
        escqrs_router_props(&(escqrs_router_options){.routing = ESCQRS_ROUTING_CONSISTENT_HASH,
                                                     .key = even_key,
                                                     .context = "odd",
                                                     .failure_release = key_failure_release,
                                                     .group = &routee,
                                                     .group_size = 1},
                            &props, &error),
        ESCQRS_OK);
    escqrs_ref *router = spawn_props(system, props, "router");
    keys_failed = 0;
    for (int i = 2; i < 6; i++) {
        tell(router, i);
    }
    settle(system);
    assert_string_equal(worker.log, "Started 2 4 ");
    assert_string_equal(failures.log, "router Note an odd note router Note an odd note ");
    assert_int_equal(keys_failed, 2);
    assert_int_equal(escqrs_ref_state_of(router), ESCQRS_REF_RUNNING);
    assert_int_equal(escqrs_router_add(router, router, &error), ESCQRS_INVALID);
    escqrs_ref_release(router);
    escqrs_ref_release(routee);
    system_end(system);
}

static void test_router_props_that_cannot_be(void **state)
{
    (void)state;
    escqrs_props *props;
    escqrs_error error = {0};
    assert_int_equal(
        escqrs_router_props(&(escqrs_router_options){.routing = ESCQRS_ROUTING_CONSISTENT_HASH},
                            &props, &error),
        ESCQRS_INVALID);
    assert_int_equal(escqrs_router_props(&(escqrs_router_options){.routing = 99}, &props, &error),
                     ESCQRS_INVALID);
}

/* ---- mailboxes -------------------------------------------------------------------------------- */

static int64_t note_priority(void *context, const escqrs_envelope *envelope)
{
    (void)context;
    return note_value(envelope) / 10;
}

static escqrs_ref *spawn_boxed(escqrs_actor_system *system, script *self,
                               escqrs_mailbox_options mailbox)
{
    return spawn_props(system,
                       props_make(&(escqrs_props_options){
                           .actor_class = &SCRIPT, .user_data = self, .mailbox = mailbox}),
                       "boxed");
}

static void count_dead(void *data, const escqrs_envelope *event)
{
    script_say_message(data, ((const escqrs_dead_letter_event *)event)->letter);
}

static void test_the_answers_to_a_full_mailbox(void **state)
{
    (void)state;
    static const struct {
        escqrs_on_full on_full;
        escqrs_status third;
        const char *log;
        const char *dead;
    } cases[] = {
        {ESCQRS_ON_FULL_DROP_NEW, ESCQRS_OK, "Started 1 2 ", "3 "},
        {ESCQRS_ON_FULL_DROP_OLD, ESCQRS_OK, "Started 2 3 ", "1 "},
        {ESCQRS_ON_FULL_FAIL, ESCQRS_MAILBOX_FULL, "Started 1 2 ", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        escqrs_actor_system *system = manual_system();
        escqrs_error error = {0};
        script one = {0};
        script dead = {0};
        assert_int_equal(
            escqrs_subscribe(system, &escqrs_dead_letter, count_dead, &dead, NULL, NULL, &error),
            ESCQRS_OK);
        escqrs_ref *ref =
            spawn_boxed(system, &one,
                        (escqrs_mailbox_options){
                            .capacity = 2, .on_full = cases[i].on_full, .statistics = true});
        tell(ref, 1);
        tell(ref, 2);
        assert_int_equal(escqrs_tell(ref, note_new(3), NULL), cases[i].third);
        escqrs_mailbox_stats stats;
        assert_true(escqrs_ref_mailbox_stats(ref, &stats));
        assert_int_equal(stats.length, 2);
        escqrs_actor_system_advance(system, 70);
        settle(system);
        assert_string_equal(one.log, cases[i].log);
        assert_string_equal(dead.log, cases[i].dead);
        assert_true(escqrs_ref_mailbox_stats(ref, &stats));
        assert_int_equal(stats.length, 0);
        assert_int_equal(stats.length_max, 2);
        assert_int_equal(stats.handled, 2);
        assert_int_equal(stats.waited_ns, 140);
        assert_int_equal(stats.waited_max_ns, 70);
        assert_int_equal(stats.dropped, i < 2 ? 1 : 0);

        /* a poison has room, and what waits for a stopped actor is a dead letter */
        dead.log[0] = '\0';
        tell(ref, 4);
        tell(ref, 5);
        assert_int_equal(escqrs_poison(ref), ESCQRS_OK);
        assert_int_equal(escqrs_tell(ref, note_new(6), NULL), ESCQRS_CLOSED);
        escqrs_stop(ref);
        settle(system);
        assert_string_equal(dead.log, "6 4 5 ");
        escqrs_ref_release(ref);
        system_end(system);
    }
}

static void test_what_finds_no_room_behind_a_router_is_a_dead_letter(void **state)
{
    (void)state;
    static const escqrs_routing ways[] = {ESCQRS_ROUTING_ROUND_ROBIN, ESCQRS_ROUTING_BROADCAST};
    static const escqrs_on_full answers[] = {ESCQRS_ON_FULL_FAIL, ESCQRS_ON_FULL_BLOCK};
    for (size_t i = 0; i < 4; i++) {
        escqrs_actor_system *system = manual_system();
        escqrs_error error = {0};
        script dead = {0};
        script worker = {.handle = sleep_on_minus_one};
        assert_int_equal(
            escqrs_subscribe(system, &escqrs_dead_letter, count_dead, &dead, NULL, NULL, &error),
            ESCQRS_OK);
        escqrs_ref *routee = spawn_boxed(
            system, &worker, (escqrs_mailbox_options){.capacity = 1, .on_full = answers[i / 2]});
        escqrs_props *props;
        assert_int_equal(
            escqrs_router_props(
                &(escqrs_router_options){.routing = ways[i % 2], .group = &routee, .group_size = 1},
                &props, &error),
            ESCQRS_OK);
        escqrs_ref *router = spawn_props(system, props, "router");
        tell(router, -1);
        settle(system);
        for (int value = 1; value < 4; value++) {
            tell(router, value);
        }
        settle(system);
        assert_string_equal(dead.log, "2 3 ");
        escqrs_ref_resume(routee);
        settle(system);
        assert_string_equal(worker.log, "Started -1 1 ");
        escqrs_ref_release(router);
        escqrs_ref_release(routee);
        system_end(system);
    }
}

static void test_tell_now_leaves_what_has_no_room_with_the_caller(void **state)
{
    (void)state;
    static const escqrs_on_full ways[] = {ESCQRS_ON_FULL_FAIL, ESCQRS_ON_FULL_BLOCK};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        escqrs_actor_system *system = manual_system();
        escqrs_error error = {0};
        script one = {0};
        script dead = {0};
        assert_int_equal(
            escqrs_subscribe(system, &escqrs_dead_letter, count_dead, &dead, NULL, NULL, &error),
            ESCQRS_OK);
        escqrs_ref *ref =
            spawn_boxed(system, &one, (escqrs_mailbox_options){.capacity = 1, .on_full = ways[i]});
        tell(ref, 1);
        escqrs_envelope *second = note_new(2), *third = note_new(3);
        assert_int_equal(escqrs_tell_now(ref, second, NULL), ESCQRS_MAILBOX_FULL);
        assert_int_equal(escqrs_tell_now(ref, third, NULL), ESCQRS_MAILBOX_FULL);
        assert_int_equal(notes_alive, 3);
        escqrs_untold_destroy(ref, second);
        assert_int_equal(notes_alive, 2);
        escqrs_untold_publish(ref, third);
        assert_string_equal(dead.log, "3 ");
        settle(system);
        assert_string_equal(one.log, "Started 1 ");
        escqrs_ref_release(ref);
        system_end(system);
    }
}

static void test_priorities(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {0};
    escqrs_ref *ref =
        spawn_boxed(system, &one, (escqrs_mailbox_options){.priority = note_priority});
    assert_false(escqrs_ref_mailbox_stats(ref, &(escqrs_mailbox_stats){0}));
    static const int values[] = {11, 31, 1, 12, 32, 2, 33, 13};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        tell(ref, values[i]);
    }
    assert_int_equal(escqrs_poison(ref), ESCQRS_OK);
    settle(system);
    assert_string_equal(one.log, "Started 31 32 33 11 12 13 1 2 Stopping Stopped ");
    escqrs_ref_release(ref);
    system_end(system);
}

static escqrs_turn_end tell_data(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type == &NOTE) {
        escqrs_status status = ESCQRS_OK;
        for (int i = 0; i < 3; i++) {
            status = escqrs_context_tell(context, self->data, note_new(i));
        }
        script_say(self, escqrs_status_name(status));
    }
    return ESCQRS_TURN_NEXT;
}

static void test_an_actor_never_waits_for_a_mailbox(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = sleep_on_minus_one};
    escqrs_ref *ref = spawn_boxed(system, &one, (escqrs_mailbox_options){.capacity = 2});
    assert_true(escqrs_ref_may_block(ref));
    script other = {.handle = tell_data, .data = ref};
    escqrs_ref *other_ref = spawn_script(system, &other, "other");
    tell(ref, -1);
    settle(system);
    tell(other_ref, 1);
    settle(system);
    assert_string_equal(other.log, "Started 1 MAILBOX_FULL ");
    escqrs_envelope *left = note_new(9);
    assert_int_equal(escqrs_tell_now(ref, left, NULL), ESCQRS_MAILBOX_FULL);
    escqrs_envelope_destroy(left);
    escqrs_error error = {0};
    assert_int_equal(escqrs_ref_wait_room(ref, 0, &error), ESCQRS_TIMEOUT);
    escqrs_ref_resume(ref);
    settle(system);
    assert_int_equal(escqrs_ref_wait_room(ref, 0, &error), ESCQRS_OK);
    assert_string_equal(one.log, "Started -1 0 1 ");
    escqrs_ref_release(ref);
    escqrs_ref_release(other_ref);
    system_end(system);
}

static tally got = TALLY_ZERO;

static escqrs_turn_end count_notes(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)context;
    self->log[0] = '\0';
    if (message->type == &NOTE) {
        tally_add(&got, 1);
    }
    return ESCQRS_TURN_NEXT;
}

static void test_senders_outside_wait_for_room(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {.handle = count_notes};
    escqrs_ref *ref = spawn_boxed(system, &one, (escqrs_mailbox_options){.capacity = 3});
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(escqrs_tell(ref, note_new(i), NULL), ESCQRS_OK);
    }
    tally_wait(&got, 1000);
    escqrs_ref_release(ref);
    system_end(system);
}

/* ---- middleware ------------------------------------------------------------------------------- */

static escqrs_turn_end around_receive(void *data, escqrs_context *context, escqrs_envelope *message,
                                      const escqrs_next *next)
{
    script *self = escqrs_context_state(context);
    script_say(self, data);
    if (message->type == &NOTE && note_value(message) == 13) {
        return ESCQRS_TURN_NEXT; /* not handed on */
    }
    escqrs_turn_end turn = escqrs_next_receive(next, context, message);
    script_say(self, "/");
    return turn;
}

static escqrs_status around_send(void *data, escqrs_context *context, escqrs_ref *to,
                                 escqrs_envelope *envelope, escqrs_ref *sender,
                                 const escqrs_next *next)
{
    script_say(data, "send");
    if (note_value(envelope) == 2) {
        escqrs_envelope_destroy(envelope);
        return ESCQRS_REJECTED;
    }
    return escqrs_next_send(next, context, to, envelope, sender);
}

static escqrs_status around_spawn(void *data, escqrs_context *context, escqrs_props *props,
                                  escqrs_slice name, escqrs_ref **ref, escqrs_error *error,
                                  const escqrs_next *next)
{
    script_say(data, context == NULL ? "top" : "child");
    if (escqrs_slice_equal(name, escqrs_slice_of("bad"))) {
        return escqrs_error_set(error, ESCQRS_REJECTED, "a bad name");
    }
    return escqrs_next_spawn(next, context, props, name, ref, error);
}

static escqrs_turn_end spawn_and_tell(script *self, escqrs_context *context,
                                      escqrs_envelope *message)
{
    if (message->type == &escqrs_started) {
        escqrs_ref_release(spawn_child(context, self->data, "child"));
    }
    if (message->type == &NOTE && note_value(message) == 1) {
        escqrs_ref *child = escqrs_context_child(context, escqrs_slice_of("child"));
        assert_non_null(child);
        assert_int_equal(escqrs_context_tell(context, child, note_new(2)), ESCQRS_REJECTED);
        assert_int_equal(escqrs_context_request(context, child, note_new(3), NULL), ESCQRS_OK);
        escqrs_ref_release(child);
    }
    return ESCQRS_TURN_NEXT;
}

static void test_middleware_around_everything(void **state)
{
    (void)state;
    script seen = {0};
    escqrs_spawn_middleware spawn = {around_spawn, &seen};
    escqrs_actor_system *system =
        system_make(&(escqrs_actor_system_options){.own = {.manual = true},
                                                   .virtual_time = true,
                                                   .spawn_middleware = &spawn,
                                                   .spawn_middleware_count = 1});
    script child = {0};
    script one = {.handle = spawn_and_tell, .data = &child};
    escqrs_timing timing = {0};
    escqrs_log log = {log_quietly, NULL};
    escqrs_receive_middleware receive[] = {{around_receive, "a"},
                                           {escqrs_timing_middleware, &timing},
                                           {escqrs_logging_middleware, &log},
                                           {around_receive, "b"}};
    escqrs_send_middleware send = {around_send, &seen};
    escqrs_props_options options = {.actor_class = &SCRIPT,
                                    .user_data = &one,
                                    .receive_middleware = receive,
                                    .receive_middleware_count = 4,
                                    .send_middleware = &send,
                                    .send_middleware_count = 1,
                                    .spawn_middleware = &spawn,
                                    .spawn_middleware_count = 1};
    escqrs_ref *ref = spawn_props(system, props_make(&options), "one");
    settle(system);
    tell(ref, 1);
    tell(ref, 13);
    settle(system);
    assert_string_equal(one.log, "a b Started / / a b 1 / / a ");
    assert_string_equal(child.log, "Started 3 ");
    assert_string_equal(seen.log, "top child send send ");
    assert_int_equal(timing.count, 2);
    assert_int_equal(timing.failed, 0);
    assert_true(timing.total_ns >= timing.max_ns);
    escqrs_props *props = props_make(&options);
    escqrs_error error = {0};
    assert_int_equal(escqrs_actor_system_spawn(system, props, escqrs_slice_of("bad"), NULL, &error),
                     ESCQRS_REJECTED);
    escqrs_props_release(props);
    escqrs_ref_release(ref);
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin_while_routees_come_and_go),
        cmocka_unit_test(test_a_report_ends_when_what_was_ordered_before_is_done),
        cmocka_unit_test(test_broadcast_goes_to_all_and_without_routees_to_none),
        cmocka_unit_test(test_consistent_hash_keeps_a_key_where_it_was),
        cmocka_unit_test(test_random_reaches_everybody),
        cmocka_unit_test(test_a_pool_spawns_and_poisons_its_routees),
        cmocka_unit_test(test_a_key_that_fails_is_a_failure_of_the_router),
        cmocka_unit_test(test_router_props_that_cannot_be),
        cmocka_unit_test(test_the_answers_to_a_full_mailbox),
        cmocka_unit_test(test_what_finds_no_room_behind_a_router_is_a_dead_letter),
        cmocka_unit_test(test_tell_now_leaves_what_has_no_room_with_the_caller),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_an_actor_never_waits_for_a_mailbox),
        cmocka_unit_test(test_senders_outside_wait_for_room),
        cmocka_unit_test(test_middleware_around_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
