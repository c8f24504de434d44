/* Being told of another process's commits, without asking again and again: inotify on the lock file
 * of the store. The writer touches it after each batch (esc_lock_announce), when the batch can be
 * seen; the WAL itself is written before that, and its index is memory that nobody is told of.
 *
 * Where inotify cannot be had (its limits are reached, the lock file may not be read), the file is
 * looked at every ESC_WATCH_BLIND_MS milliseconds, but only while somebody waits. */
#ifndef ESC_STORE_WATCH_H
#define ESC_STORE_WATCH_H

#include <escqrs/base.h>

#define ESC_WATCH_BLIND_MS 50

typedef struct esc_watch esc_watch;

/* Start the thread for the file at `path` (absolute), which is touched after each commit. While
 * somebody waits it calls look(context) once at the beginning, and after each commit of another
 * process; where that returns false (it could not see), again after ESC_WATCH_BLIND_MS. NO_MEMORY,
 * IO. */
escqrs_status esc_watch_start(const char *path, const escqrs_log *log, bool (*look)(void *context),
                              void *context, esc_watch **watch,
                              escqrs_error *error) ESCQRS_MUST_USE;
/* Nobody waits any more; joins the thread. NULL is fine. */
void esc_watch_stop(esc_watch *watch);

/* Between the two, somebody waits. Any thread; neither blocks. */
void esc_watch_enter(esc_watch *watch);
void esc_watch_leave(esc_watch *watch);

#endif
