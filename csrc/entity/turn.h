/* A turn: one command being handled. On the stack of the thread that handles it. See turn.c. */
#ifndef ESC_ENTITY_TURN_H
#define ESC_ENTITY_TURN_H

#include "entity/entity.h"
#include "entity/record.h"

struct escqrs_turn {
    escqrs_entity *entity;
    escqrs_command *command;
    esc_record *record;     /* taken when first needed */
    escqrs_command *outbox; /* linked by sent_next, in the order sent */
    escqrs_command **outbox_end;
    escqrs_status broken; /* the first emit or reply that failed, or OK: then all of it fails */
    bool spoiled;
};

/* What this thread does in this folder; turns of nested asks save and restore it. */
typedef struct esc_turn_thread {
    escqrs_turn *turn;   /* being handled, or NULL */
    escqrs_command *ask; /* being offered to escqrs_actor_run, or NULL */
} esc_turn_thread;

extern _Thread_local esc_turn_thread esc_turn_here;

/* The turn's record, taken when first needed. NULL: NO_MEMORY, and `error` says so. */
esc_record *esc_turn_record(escqrs_turn *turn, escqrs_error *error);

#endif
