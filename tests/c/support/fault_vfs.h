/* A VFS for SQLite over the platform's, whose calls fail when a test says so. One for the program.
 */
#ifndef ESC_TESTS_SUPPORT_FAULT_VFS_H
#define ESC_TESTS_SUPPORT_FAULT_VFS_H

#include <stdbool.h>

typedef enum fault_call {
    FAULT_NONE = 0,
    FAULT_WRITE = 1, /* SQLITE_IOERR_WRITE, nothing written */
    FAULT_SHORT = 2, /* the same, but half of it was written */
    FAULT_FULL = 4,  /* SQLITE_FULL, a part was written */
    FAULT_SYNC = 8,  /* SQLITE_IOERR_FSYNC */
    FAULT_TRUNCATE = 16,
    FAULT_OPEN = 32,
    FAULT_READ = 64,
    FAULT_DELETE = 128,
    FAULT_SHM = 256,  /* mapping the WAL's index */
    FAULT_KILL = 512, /* any call that changes something: kills the process, a write half done */
} fault_call;

#define FAULT_VFS_NAME "escqrs-fault"

/* Registers it with SQLite; again is fine. */
void fault_vfs_register(void);
/* The countdown-th call of the kind from now on fails, with `sticky` all later ones too; 0: none
 * fails. */
void fault_vfs_arm(fault_call call, long countdown, bool sticky);
/* Calls that have failed since it was armed. */
long fault_vfs_failures(void);

#endif
