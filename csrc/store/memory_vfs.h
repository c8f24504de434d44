/* Files in memory for SQLite, shared by all connections of one store: ":memory:" is the same
 * provider with WAL, one writer and many readers, and nothing of it touches a disk.
 *
 * Each store has a VFS of its own, registered under a name of its own, so two stores never meet. */
#ifndef ESC_STORE_MEMORY_VFS_H
#define ESC_STORE_MEMORY_VFS_H

#include <escqrs/base.h>
#include <sqlite3.h>

typedef struct esc_memory_vfs esc_memory_vfs;

/* Made and registered with SQLite. NO_MEMORY, IO. */
escqrs_status esc_memory_vfs_create(esc_memory_vfs **vfs, escqrs_error *error) ESCQRS_MUST_USE;
void esc_memory_vfs_destroy(esc_memory_vfs *vfs); /* no connection may be left; NULL is fine */
const char *esc_memory_vfs_name(const esc_memory_vfs *vfs); /* lives as long as it */
/* Does such a VFS hold the connection's database? Its path then names no file. */
bool esc_memory_vfs_holds(sqlite3 *db);

#endif
