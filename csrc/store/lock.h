/* The lock that one writer holds: flock on a file of its own beside the store's, "<path>-lock".
 *
 * A file of its own, because POSIX locks on the store's file are lost as soon as any code of the
 * process closes a descriptor of it, and flock, because it belongs to the open file: a second open
 * in the same process is refused like one in another, and the kernel lets go when the holder dies,
 * however it dies. The file stays; the holder's process is written in it, for the message of who is
 * refused. */
#ifndef ESC_STORE_LOCK_H
#define ESC_STORE_LOCK_H

#include <escqrs/base.h>

typedef struct esc_lock esc_lock;

/* The name of the lock file of the store at `path`, for escqrs_free; NULL without memory. */
char *esc_lock_path(const char *path);
/* Take the lock of the store at `path` without waiting. LOCKED names the holder; READ_ONLY (no
 * permission to make the file), FULL, IO, NO_MEMORY. */
escqrs_status esc_lock_acquire(const char *path, esc_lock **lock,
                               escqrs_error *error) ESCQRS_MUST_USE;
/* Tell the watches of other processes (store/watch.h) that something was committed; NULL is fine.
 * It costs a system call that leaves nothing to be written. */
void esc_lock_announce(const esc_lock *lock);
/* Has the file at `path` several names (hard links)? Each has a lock and a WAL of its own, so what
 * is written by two of them would not be one store. LOCKED: somebody has it open, in this process
 * or another; who only reads may go on where others have it open by this name. IO: nobody has, but
 * it is to be written. A file that is not there is fine. */
escqrs_status esc_lock_check_names(const char *path, bool writes,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* The same once it is open for writing, as it may have got its second name meanwhile: IO. */
escqrs_status esc_lock_check_one_name(const char *path, escqrs_error *error) ESCQRS_MUST_USE;
/* Whether the file of that name is still the one that is locked. */
bool esc_lock_is_held(const esc_lock *lock);
/* Let go; NULL is fine. With `discard`, a lock file that this lock created is removed again. In a
 * child of fork nothing is touched: its copies of the descriptors were closed there already. */
void esc_lock_release(esc_lock *lock, bool discard);

#endif
