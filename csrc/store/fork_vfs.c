/* See fork_vfs.h. A layer over the platform's VFS, and handlers of pthread_atfork.
 *
 * SQLite keeps three kinds of locks that a child must not inherit from threads it does not have:
 *
 *   1. Its static mutexes. The handlers hold all of them over fork(), in an order that agrees with
 *      SQLite's own: it never takes one of `static_ids` while it holds a later one.
 *   2. The mutexes of an open file, which all connections of a process to that file share. They are
 *      taken inside a few methods only; those count themselves inside, and fork() waits until none
 *      is, and lets none in.
 *   3. What the process knows of its own locks on a file. The kernel gives the child none of them,
 *      but SQLite's books in the child would still show them, and a connection that the child opens
 *      to the same file would rely on them. So the child closes the parent's files below their
 *      connections, which nobody touches there any more. That lets go of nothing in the parent.
 *
 * Mutexes of connections do not matter: the child uses connections that it has opened itself.
 *
 * Lock order: `gate`, then SQLite's own; `files_mutex` is a leaf. The static mutexes are held for
 * short sections that call nothing of ours, so who forks may wait for them with the GIL; the
 * methods that count themselves lock, map, open and close, and never sync.
 *
 * And it has a file's size without its times. The platform's VFS calls fstat: since Linux 6.13 the
 * write after that gives the file a time of its own, and a WAL whose size is looked at before each
 * commit takes 60 us more to be synced. */
#include "store/fork_vfs.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/list.h"

#define FORK_LOOK_NS 20000 /* how often who forks looks whether the others have come out */

typedef struct layered_file { /* the platform's file is behind it */
    sqlite3_file base;
    esc_list_node node; /* files_mutex */
    const char *name;   /* SQLite's; NULL: the platform alone knows the size */
    struct statx opened;
} layered_file;

/* As SQLite wants memory to be aligned. */
#define REAL_OFFSET ((sizeof(layered_file) + 7) & ~(size_t)7)

/* Outermost first: opening under a shared cache, randomness, the list of VFSs and what
 * SQLite calls the main mutex, the VFS's, the page cache's two, memory. Those of applications
 * (APP1 to 3) are theirs. */
static const int static_ids[] = {
    SQLITE_MUTEX_STATIC_OPEN, SQLITE_MUTEX_STATIC_PRNG, SQLITE_MUTEX_STATIC_MAIN,
    SQLITE_MUTEX_STATIC_VFS1, SQLITE_MUTEX_STATIC_VFS2, SQLITE_MUTEX_STATIC_VFS3,
    SQLITE_MUTEX_STATIC_LRU,  SQLITE_MUTEX_STATIC_PMEM, SQLITE_MUTEX_STATIC_MEM,
};
#define STATIC_COUNT (sizeof static_ids / sizeof *static_ids)

/* Global, since handlers of pthread_atfork have no context, and SQLite finds a VFS by its name. */
static struct {
    pthread_once_t once;
    pthread_mutex_t gate;    /* passed by who goes inside, held over fork() */
    _Atomic unsigned inside; /* raised under `gate` */
    pthread_mutex_t files_mutex;
    esc_list files; /* files_mutex */
    sqlite3_mutex *statics[STATIC_COUNT];
    sqlite3_vfs *platform;
    bool is_unix; /* the platform's files are those of the file system */
    sqlite3_vfs vfs;
    char name[40];
    bool registered;
} layer = {
    .once = PTHREAD_ONCE_INIT,
    .gate = PTHREAD_MUTEX_INITIALIZER,
    .files_mutex = PTHREAD_MUTEX_INITIALIZER,
};

static void enter(void)
{
    pthread_mutex_lock(&layer.gate);
    /* relaxed: before_fork reads it under `gate` */
    atomic_fetch_add_explicit(&layer.inside, 1, memory_order_relaxed);
    pthread_mutex_unlock(&layer.gate);
}

static void leave(void)
{
    /* release: pairs with the load in before_fork */
    atomic_fetch_sub_explicit(&layer.inside, 1, memory_order_release);
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return (sqlite3_file *)((char *)file + REAL_OFFSET);
}

/* ---- fork ------------------------------------------------------------------------------------- */

static void before_fork(void)
{
    const struct timespec pause = {.tv_nsec = FORK_LOOK_NS};
    pthread_mutex_lock(&layer.gate);
    /* acquire: pairs with the release in leave */
    while (atomic_load_explicit(&layer.inside, memory_order_acquire) != 0) {
        nanosleep(&pause, NULL);
    }
    for (size_t i = 0; i < STATIC_COUNT; i++) {
        sqlite3_mutex_enter(layer.statics[i]);
    }
}

static void leave_statics(void)
{
    for (size_t i = STATIC_COUNT; i > 0; i--) {
        sqlite3_mutex_leave(layer.statics[i - 1]);
    }
}

static void after_fork_parent(void)
{
    leave_statics();
    pthread_mutex_unlock(&layer.gate);
}

static void after_fork_child(void)
{
    esc_list_node *node;
    leave_statics();
    while ((node = esc_list_pop_front(&layer.files)) != NULL) {
        layered_file *file = ESC_CONTAINER_OF(node, layered_file, node);
        sqlite3_file *real = real_of(&file->base);
        if (real->pMethods->iVersion >= 2 && real->pMethods->xShmUnmap != NULL) {
            (void)real->pMethods->xShmUnmap(real, 0);
        }
        (void)real->pMethods->xClose(real);
        file->base.pMethods = NULL;
    }
    pthread_mutex_unlock(&layer.gate);
}

/* ---- files ------------------------------------------------------------------------------------ */

static int layered_close(sqlite3_file *file)
{
    layered_file *self = (layered_file *)file;
    enter();
    pthread_mutex_lock(&layer.files_mutex);
    esc_list_remove(&self->node);
    pthread_mutex_unlock(&layer.files_mutex);
    int code = real_of(file)->pMethods->xClose(real_of(file));
    leave();
    return code;
}

static int layered_read(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), buffer, size, offset);
}

static int layered_write(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xWrite(real_of(file), buffer, size, offset);
}

static int layered_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int layered_sync(sqlite3_file *file, int flags)
{
    return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static bool is_file(const struct statx *a, const struct statx *b)
{
    return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major &&
           a->stx_dev_minor == b->stx_dev_minor;
}

/* A file that is open keeps its number, whatever happens to its name. One byte is what SQLite takes
 * for none in places. */
static int layered_size(sqlite3_file *file, sqlite3_int64 *size)
{
    const layered_file *self = (const layered_file *)file;
    struct statx now;
    if (self->name != NULL && statx(AT_FDCWD, self->name, 0, STATX_INO | STATX_SIZE, &now) == 0 &&
        is_file(&now, &self->opened) && now.stx_size > 1) {
        *size = (sqlite3_int64)now.stx_size;
        return SQLITE_OK;
    }
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int layered_lock(sqlite3_file *file, int level)
{
    enter();
    int code = real_of(file)->pMethods->xLock(real_of(file), level);
    leave();
    return code;
}

static int layered_unlock(sqlite3_file *file, int level)
{
    enter();
    int code = real_of(file)->pMethods->xUnlock(real_of(file), level);
    leave();
    return code;
}

static int layered_reserved(sqlite3_file *file, int *result)
{
    enter();
    int code = real_of(file)->pMethods->xCheckReservedLock(real_of(file), result);
    leave();
    return code;
}

static int layered_control(sqlite3_file *file, int operation, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), operation, argument);
}

static int layered_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int layered_device(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int layered_shm_map(sqlite3_file *file, int region, int size, int extend,
                           void volatile **memory)
{
    enter();
    int code = real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, memory);
    leave();
    return code;
}

static int layered_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
    enter();
    int code = real_of(file)->pMethods->xShmLock(real_of(file), first, count, flags);
    leave();
    return code;
}

static void layered_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int layered_shm_unmap(sqlite3_file *file, int delete)
{
    enter();
    int code = real_of(file)->pMethods->xShmUnmap(real_of(file), delete);
    leave();
    return code;
}

#define METHODS_COMMON                                                                             \
    .xClose = layered_close, .xRead = layered_read, .xWrite = layered_write,                       \
    .xTruncate = layered_truncate, .xSync = layered_sync, .xFileSize = layered_size,               \
    .xLock = layered_lock, .xUnlock = layered_unlock, .xCheckReservedLock = layered_reserved,      \
    .xFileControl = layered_control, .xSectorSize = layered_sector,                                \
    .xDeviceCharacteristics = layered_device

/* A file offers shared memory where the platform's does, and never a mapping of itself (version 3):
 * whoever truncates a mapped file kills the process that reads it. */
static const sqlite3_io_methods methods_shared = {
    METHODS_COMMON,
    .iVersion = 2,
    .xShmMap = layered_shm_map,
    .xShmLock = layered_shm_lock,
    .xShmBarrier = layered_shm_barrier,
    .xShmUnmap = layered_shm_unmap,
};
static const sqlite3_io_methods methods_private = {METHODS_COMMON, .iVersion = 1};

static const sqlite3_io_methods *methods_over(const sqlite3_io_methods *real)
{
    return real->iVersion >= 2 && real->xShmMap != NULL ? &methods_shared : &methods_private;
}

/* ---- the file system -------------------------------------------------------------------------- */

static int layered_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                        int *out_flags)
{
    (void)vfs;
    layered_file *self = (layered_file *)file;
    sqlite3_file *real = real_of(file);
    memset(file, 0, REAL_OFFSET + (size_t)layer.platform->szOsFile);
    enter();
    int code = layer.platform->xOpen(layer.platform, name, real, flags, out_flags);
    if (real->pMethods != NULL) {
        file->pMethods = methods_over(real->pMethods);
        pthread_mutex_lock(&layer.files_mutex);
        esc_list_push_back(&layer.files, &self->node);
        pthread_mutex_unlock(&layer.files_mutex);
    }
    leave();
    if (code == SQLITE_OK && layer.is_unix && name != NULL &&
        statx(AT_FDCWD, name, 0, STATX_INO, &self->opened) == 0) {
        self->name = name;
    }
    return code;
}

static int layered_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    return layer.platform->xDelete(layer.platform, name, sync);
}

static int layered_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    return layer.platform->xAccess(layer.platform, name, flags, result);
}

static int layered_full_name(sqlite3_vfs *vfs, const char *name, int size, char *full)
{
    (void)vfs;
    return layer.platform->xFullPathname(layer.platform, name, size, full);
}

static int layered_randomness(sqlite3_vfs *vfs, int size, char *bytes)
{
    (void)vfs;
    return layer.platform->xRandomness(layer.platform, size, bytes);
}

static int layered_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return layer.platform->xSleep(layer.platform, microseconds);
}

static int layered_time(sqlite3_vfs *vfs, double *days)
{
    (void)vfs;
    return layer.platform->xCurrentTime(layer.platform, days);
}

static int layered_time_millis(sqlite3_vfs *vfs, sqlite3_int64 *millis)
{
    (void)vfs;
    return layer.platform->xCurrentTimeInt64(layer.platform, millis);
}

static int layered_last_error(sqlite3_vfs *vfs, int size, char *text)
{
    (void)vfs;
    return layer.platform->xGetLastError(layer.platform, size, text);
}

static void start(void)
{
    esc_list_init(&layer.files);
    if (sqlite3_initialize() != SQLITE_OK || (layer.platform = sqlite3_vfs_find(NULL)) == NULL) {
        return;
    }
    for (size_t i = 0; i < STATIC_COUNT; i++) {
        layer.statics[i] = sqlite3_mutex_alloc(static_ids[i]);
    }
    layer.is_unix = strcmp(layer.platform->zName, "unix") == 0;
    /* The address: two copies of this library may share one SQLite. */
    snprintf(layer.name, sizeof layer.name, "escqrs-%p", (void *)&layer);
    layer.vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)REAL_OFFSET + layer.platform->szOsFile,
        .mxPathname = layer.platform->mxPathname,
        .zName = layer.name,
        .xOpen = layered_open,
        .xDelete = layered_delete,
        .xAccess = layered_access,
        .xFullPathname = layered_full_name,
        .xRandomness = layered_randomness,
        .xSleep = layered_sleep,
        .xCurrentTime = layered_time,
        .xGetLastError = layered_last_error,
        .xCurrentTimeInt64 = layered_time_millis,
    };
    layer.registered = sqlite3_vfs_register(&layer.vfs, 0) == SQLITE_OK &&
                       pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
}

const char *esc_fork_vfs_name(void)
{
    pthread_once(&layer.once, start);
    return layer.registered ? layer.name : NULL;
}
