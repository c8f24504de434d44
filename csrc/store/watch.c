/* See watch.h. The thread arms the watches, looks, and sleeps until one of them tells or until
 * somebody else begins to wait: whatever was committed before the watches were armed is seen by the
 * look after it. While nobody waits it sleeps on `kick` alone, and what happens adds up to a few
 * entries in the kernel's queue. There is no lock. */
#include "store/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/error.h"
#include "base/thread.h"

struct esc_watch {
    esc_thread thread;
    const escqrs_log *log;
    bool (*look)(void *context);
    void *context;
    int inotify; /* -1: cannot be had */
    int kick;    /* eventfd: somebody began to wait, or the end */
    bool blind;  /* the thread's: it was said in the log */
    _Atomic uint32_t waiting;
    _Atomic bool ends;
    char *lock_path;
    char folder[]; /* of the store */
};

static void kick(esc_watch *watch)
{
    uint64_t one = 1;
    (void)!write(watch->kick, &one, sizeof one); /* can only fail when it is kicked already */
}

/* Watch the folder, for a lock file that is made anew, and the lock file. */
static bool arm(esc_watch *watch)
{
    if (watch->inotify < 0) {
        return false;
    }
    bool folder =
        inotify_add_watch(watch->inotify, watch->folder, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) >= 0;
    bool lock =
        inotify_add_watch(watch->inotify, watch->lock_path, IN_ACCESS | IN_MODIFY | IN_ATTRIB) >= 0;
    return lock || (folder && errno == ENOENT); /* not there: nobody has written yet */
}

static void drain(int descriptor)
{
    char events[4096];
    while (descriptor >= 0 && read(descriptor, events, sizeof events) > 0) {
    }
}

static void run(void *context)
{
    esc_watch *watch = context;
    /* acquire: pairs with the release in stop */
    while (!atomic_load_explicit(&watch->ends, memory_order_acquire)) {
        /* acquire: pairs with the release in enter, whose kick comes after it */
        bool wanted = atomic_load_explicit(&watch->waiting, memory_order_acquire) > 0;
        bool armed = wanted && arm(watch);
        bool seen = true;
        if (wanted) {
            if (!armed && !watch->blind) {
                watch->blind = true;
                escqrs_log_write(watch->log, ESCQRS_LOG_INFO,
                                 "%s cannot be watched: commits of its writer are seen up to %d ms "
                                 "later",
                                 watch->lock_path, ESC_WATCH_BLIND_MS);
            }
            seen = watch->look(watch->context);
        }
        struct pollfd sources[2] = {{.fd = watch->kick, .events = POLLIN},
                                    {.fd = armed ? watch->inotify : -1, .events = POLLIN}};
        (void)!poll(sources, 2, wanted && !(armed && seen) ? ESC_WATCH_BLIND_MS : -1);
        drain(watch->kick);
        if (armed) {
            drain(watch->inotify);
        }
    }
}

static void destroy(esc_watch *watch)
{
    if (watch->inotify >= 0) {
        close(watch->inotify);
    }
    if (watch->kick >= 0) {
        close(watch->kick);
    }
    escqrs_free(watch->lock_path);
    escqrs_free(watch);
}

escqrs_status esc_watch_start(const char *path, const escqrs_log *log, bool (*look)(void *context),
                              void *context, esc_watch **result, escqrs_error *error)
{
    size_t folder_size = (size_t)(strrchr(path, '/') - path) + 1;
    esc_watch *watch = escqrs_alloc_zero(sizeof *watch + folder_size + 1);
    if (watch == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to wait for a store");
    }
    watch->log = log;
    watch->look = look;
    watch->context = context;
    memcpy(watch->folder, path, folder_size);
    watch->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    watch->lock_path = escqrs_strdup(escqrs_slice_of(path));
    escqrs_status status;
    if (watch->lock_path == NULL) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to wait for a store");
    } else if (watch->kick < 0) {
        status = esc_error_system(error, ESCQRS_IO, errno, "cannot wait for %s", path);
    } else {
        status = esc_thread_create(&watch->thread, "escqrs-watch", 0, run, watch, error);
    }
    if (status != ESCQRS_OK) {
        destroy(watch);
        return status;
    }
    *result = watch;
    return ESCQRS_OK;
}

void esc_watch_stop(esc_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    /* release: pairs with the acquire in run */
    atomic_store_explicit(&watch->ends, true, memory_order_release);
    kick(watch);
    esc_thread_join(&watch->thread);
    destroy(watch);
}

void esc_watch_enter(esc_watch *watch)
{
    /* release: pairs with the acquire in run */
    atomic_fetch_add_explicit(&watch->waiting, 1, memory_order_release);
    kick(watch);
}

void esc_watch_leave(esc_watch *watch)
{
    /* relaxed: the thread may look once in vain */
    atomic_fetch_sub_explicit(&watch->waiting, 1, memory_order_relaxed);
}
