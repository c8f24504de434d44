/* Commands: how they come in, go from one entity to another, and are answered.
 *
 * An accepted command is counted (drain.c) and holds its entity until `done` was called: once,
 * whatever happens. */
#include <string.h>

#include "entity/aggregate.h"
#include "entity/system.h"
#include "entity/turn.h"

void esc_command_answer(escqrs_command *command, escqrs_status status, const escqrs_error *error)
{
    escqrs_entity *entity = command->entity;
    escqrs_system *system = esc_entity_system(entity);
    uint8_t epoch = command->epoch;
    if (command->position == 0 && status == ESCQRS_OK) {
        command->position = escqrs_store_head(system->store);
    }
    command->ops->done(command, status, error); /* the owner's from here on */
    if (esc_live_is_over(system) && escqrs_system_in_flight(system) == 1) {
        esc_aggregate_sweep(
            entity->aggregate); /* before uncounting: the runtime is there until then */
    }
    esc_system_uncount(system, epoch);
}

void esc_command_complete(escqrs_command *command, escqrs_status status, const escqrs_error *error)
{
    escqrs_entity *entity = command->entity;
    esc_command_answer(command, status, error);
    escqrs_entity_release(entity);
}

static void complete_closed(escqrs_command *command)
{
    escqrs_error error;
    escqrs_status status = escqrs_error_set(&error, ESCQRS_CLOSED,
                                            "the system was closed before %s came to this command",
                                            command->entity->stream);
    esc_command_complete(command, status, &error);
}

void esc_entity_drop(escqrs_entity *entity)
{
    if (entity->held != NULL) {
        escqrs_command *held = entity->held;
        entity->held = NULL;
        complete_closed(held);
    }
    escqrs_message *message;
    while ((message = escqrs_actor_take(&entity->actor)) != NULL) {
        complete_closed(ESC_CONTAINER_OF(message, escqrs_command, message));
    }
}

void esc_command_deliver(escqrs_command *command)
{
    /* Counted before, then looked: as in esc_system_accept, so close finds it in the mailbox or we
     * see that it is late. */
    if (esc_system_phase_now(esc_entity_system(command->entity)) >= ESC_SYSTEM_DROPPING) {
        complete_closed(command);
    } else {
        escqrs_actor_send(&command->entity->actor, &command->message);
    }
}

void esc_command_inherit(escqrs_command *command, escqrs_command *parent)
{
    if (!escqrs_uuid_is_nil(&command->correlation_id) || command->correlation_size > 0) {
        return;
    }
    if (parent->correlation_size > 0) {
        command->correlation_size = parent->correlation_size;
        memcpy(command->correlation_text, parent->correlation_text, parent->correlation_size);
        return;
    }
    if (escqrs_uuid_is_nil(&parent->correlation_id)) {
        if (escqrs_uuid_is_nil(&parent->id)) {
            escqrs_system *system = esc_entity_system(parent->entity);
            parent->id = escqrs_uuid_new(&system->clock, &system->random);
        }
        command->correlation_id = parent->id;
    } else {
        command->correlation_id = parent->correlation_id;
    }
}

/* ---- outbox --------------------------------------------------------------------------------- */

void esc_outbox_deliver(escqrs_command *first, uint8_t epoch)
{
    while (first != NULL) {
        escqrs_command *command = first;
        first = command->sent_next;
        command->epoch = epoch;
        esc_system_count(esc_entity_system(command->entity), epoch);
        esc_command_deliver(command);
    }
}

void esc_outbox_drop(escqrs_command *first)
{
    if (first == NULL) {
        return;
    }
    escqrs_error error;
    escqrs_status status =
        escqrs_error_set(&error, ESCQRS_ABORTED, "the command whose handler sent this one failed");
    while (first != NULL) {
        escqrs_command *command = first;
        escqrs_entity *entity = command->entity;
        first = command->sent_next;
        command->withheld = true;
        command->ops->done(command, status, &error); /* never counted */
        escqrs_entity_release(entity);
    }
}

/* ---- from outside, and from handlers that ask ----------------------------------------------- */

/* The command being handled, where it is one of this system: a handler of another system is
 * outside, and its epoch means nothing here. */
static const escqrs_command *parent_in(const escqrs_system *system, const escqrs_turn *turn)
{
    return turn != NULL && esc_entity_system(turn->entity) == system ? turn->command : NULL;
}

escqrs_status escqrs_entity_send(escqrs_entity *entity, escqrs_command *command,
                                 escqrs_error *error)
{
    escqrs_system *system = esc_entity_system(entity);
    escqrs_turn *turn = esc_turn_here.turn;
    escqrs_status status = esc_system_accept(system, command, parent_in(system, turn), error);
    if (status == ESCQRS_OK) {
        if (turn != NULL) {
            esc_command_inherit(command, turn->command);
        }
        command->entity = entity;
        escqrs_entity_hold(entity);
        esc_command_deliver(command);
    }
    return status;
}

/* What the asking entity has decided before must be durable before others act on it. */
static escqrs_status settle(escqrs_entity *asking, escqrs_error *error)
{
    if (esc_entity_flights(asking) > 0) {
        escqrs_host *host = asking->aggregate->host;
        void *token = escqrs_host_detach(host);
        (void)escqrs_runtime_block(); /* commits need no worker */
        esc_entity_wait_landed(asking);
        escqrs_runtime_unblock();
        escqrs_host_attach(host, token);
    }
    return esc_entity_is_stale(asking) ? esc_entity_explain(asking, error) : ESCQRS_OK;
}

static void ask_run(escqrs_entity *entity, escqrs_command *command)
{
    command->entity = entity;
    escqrs_entity_hold(entity);
    esc_turn_here.ask = command;
    bool ran = escqrs_actor_run(&entity->actor, &command->message);
    esc_turn_here.ask = NULL;
    if (!ran) {
        esc_command_deliver(command);
    }
}

/* With the wait edge in place. */
static escqrs_status ask_accepted(escqrs_entity *entity, escqrs_command *command,
                                  escqrs_error *error)
{
    escqrs_system *system = esc_entity_system(entity);
    escqrs_turn *turn = esc_turn_here.turn;
    escqrs_status status = ESCQRS_OK;
    if (turn != NULL) {
        status = settle(turn->entity, error);
        esc_command_inherit(command, turn->command);
    }
    /* seq_cst: pairs with the load in escqrs_system_close; counted before the phase is looked at */
    atomic_fetch_add_explicit(&system->asks, 1, memory_order_seq_cst);
    if (status == ESCQRS_OK) {
        status = esc_system_accept(system, command, parent_in(system, turn), error);
    }
    if (status == ESCQRS_OK) {
        ask_run(entity, command);
    }
    /* seq_cst: what the thread did to actors is seen by a close that finds nobody here */
    atomic_fetch_sub_explicit(&system->asks, 1, memory_order_seq_cst);
    return status;
}

escqrs_status escqrs_entity_ask(escqrs_entity *entity, escqrs_command *command, escqrs_error *error)
{
    escqrs_status status = esc_system_check(esc_entity_system(entity), error);
    escqrs_actor *waiter = escqrs_actor_current();
    if (status == ESCQRS_OK && waiter != NULL) {
        status = escqrs_actor_wait_begin(waiter, &entity->actor, error);
    }
    if (status == ESCQRS_OK) {
        status = ask_accepted(entity, command, error);
        if (waiter != NULL) {
            escqrs_actor_wait_end(waiter);
        }
    }
    return status;
}
