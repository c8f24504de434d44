/* The platform's files, opened so that a process whose threads are inside SQLite may fork, and its
 * child may use SQLite: for stores of its own and for others', the parent's file included.
 *
 * Without it the child may wait for ever for a mutex of SQLite that a thread of the parent held,
 * and takes the parent's locks on a file that both use for its own. */
#ifndef ESC_STORE_FORK_VFS_H
#define ESC_STORE_FORK_VFS_H

#include <escqrs/base.h>

/* The name of the VFS, registered with the first call. NULL: SQLite does not start. Any thread. */
const char *esc_fork_vfs_name(void);

#endif
