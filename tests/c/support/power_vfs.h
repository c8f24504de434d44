/* A VFS for SQLite over the platform's that knows what a disk may hold when the power goes: what
 * was synced, and of what was written since, any part in any order, torn within a page. One for the
 * program; files beneath one folder, as one thread or many use them.
 *
 * What it takes for durable: the content of a file after its sync; the name of a new file, and the
 * end of a deleted one, after the sync of any new journal or WAL of the folder (SQLite syncs the
 * folder with it) or the deletion that asks for it. -shm files are not kept: SQLite makes them
 * anew. */
#ifndef ESC_TESTS_SUPPORT_POWER_VFS_H
#define ESC_TESTS_SUPPORT_POWER_VFS_H

#include <stdbool.h>
#include <stdint.h>

#define POWER_VFS_NAME "escqrs-power"

/* How much of what was not synced the disk holds. */
typedef enum power_loss {
    POWER_KEEPS_NOTHING,
    POWER_KEEPS_ALL,
    POWER_KEEPS_SOME,  /* each write, or not */
    POWER_KEEPS_PARTS, /* each sector of each write, or not */
    POWER_KEEPS_FIRST, /* as they came, up to one of them, torn */
    POWER_KEEPS_LAST,  /* the newest ones, the older ones not */
    POWER_LOSSES
} power_loss;

/* Registers it with SQLite; again is fine. */
void power_vfs_register(void);
/* Forget all files, and call `step` (NULL: nothing) before every write, sync, truncation and
 * deletion from now on, with the thread that does it. */
void power_vfs_begin(void (*step)(void *context), void *context);
/* The next sync of a journal or WAL fails as Linux lets it: who reads goes on finding what was
 * written since the last one, and no later sync writes it. */
void power_vfs_fail_sync(void);
/* Write into `folder` what the disk holds when the power goes now. From `step` too. */
void power_vfs_cut(const char *folder, power_loss loss, uint64_t seed);

#endif
