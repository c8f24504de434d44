/* When an entity's state is put down as a snapshot. See snapshot.c. */
#ifndef ESC_ENTITY_SNAPSHOT_H
#define ESC_ENTITY_SNAPSHOT_H

#include "entity/turn.h"

/* The running thread: after the turn, would the policy have a snapshot? `version` is the state's
 * then. */
bool esc_snapshot_is_due(const escqrs_entity *entity, int64_t version);
/* The running thread: put the order for one in the turn's outbox, to be carried out by a turn of
 * its own. Where there is no memory for it, there is none this time. */
void esc_snapshot_order(escqrs_turn *turn);
/* Whether the command is such an order, of the engine's own. */
bool esc_snapshot_is_order(const escqrs_command *command);
/* The state into the turn's record, so that it is stored by the turn's commit. Attached. OK also
 * where there is nothing to put down. */
escqrs_status esc_snapshot_pack(escqrs_turn *turn, escqrs_error *error) ESCQRS_MUST_USE;
/* The entity is about to be unloaded, nothing of it is in flight: submit a snapshot if the policy
 * wants one. Attached; never blocks. */
void esc_snapshot_leave(escqrs_entity *entity);
/* The same for all that are loaded, by turns of their own, when the system closes. */
void esc_snapshot_order_all(escqrs_system *system);

#endif
