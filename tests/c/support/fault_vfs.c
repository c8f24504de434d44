/* See fault_vfs.h. SQLite calls it from several threads, so the countdown is atomic. */
#include "support/fault_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

typedef struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct */
} fault_file;

static sqlite3_vfs fault_vfs;
static sqlite3_vfs *platform;
static _Atomic int armed_call;
static _Atomic long countdown_left, failure_count;
static _Atomic bool armed_sticky;

static bool fails(fault_call call)
{
    if ((atomic_load(&armed_call) & (int)call) == 0) {
        return false;
    }
    long left = atomic_fetch_sub(&countdown_left, 1);
    bool now = left == 1 || (left < 1 && atomic_load(&armed_sticky));
    if (now) {
        atomic_fetch_add(&failure_count, 1);
    }
    return now;
}

static void kill_if_due(void)
{
    if (fails(FAULT_KILL)) {
        (void)kill(getpid(), SIGKILL);
    }
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((fault_file *)file)->real;
}

static int fault_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}

static int fault_read(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    return fails(FAULT_READ) ? SQLITE_IOERR_READ
                             : real_of(file)->pMethods->xRead(real_of(file), buffer, size, offset);
}

static int fault_write(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    sqlite3_file *real = real_of(file);
    if (fails(FAULT_WRITE)) {
        return SQLITE_IOERR_WRITE;
    }
    if (fails(FAULT_SHORT)) {
        (void)real->pMethods->xWrite(real, buffer, size / 2, offset);
        return SQLITE_IOERR_WRITE;
    }
    if (fails(FAULT_KILL)) {
        (void)real->pMethods->xWrite(real, buffer, size / 2, offset);
        (void)kill(getpid(), SIGKILL);
    }
    if (fails(FAULT_FULL)) {
        (void)real->pMethods->xWrite(real, buffer, size / 3, offset);
        return SQLITE_FULL;
    }
    return real->pMethods->xWrite(real, buffer, size, offset);
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    kill_if_due();
    return fails(FAULT_TRUNCATE) ? SQLITE_IOERR_TRUNCATE
                                 : real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int fault_sync(sqlite3_file *file, int flags)
{
    (void)file;
    (void)flags;
    kill_if_due();
    return fails(FAULT_SYNC) ? SQLITE_IOERR_FSYNC : SQLITE_OK; /* no test of it pulls the plug */
}

static int fault_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int fault_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int fault_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int fault_reserved(sqlite3_file *file, int *result)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), result);
}

static int fault_control(sqlite3_file *file, int operation, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), operation, argument);
}

static int fault_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int fault_device(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int fault_shm_map(sqlite3_file *file, int region, int size, int extend,
                         void volatile **memory)
{
    kill_if_due();
    if (fails(FAULT_SHM)) {
        *memory = NULL;
        return SQLITE_IOERR_SHMMAP;
    }
    return real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, memory);
}

static int fault_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), first, count, flags);
}

static void fault_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int fault_shm_unmap(sqlite3_file *file, int delete)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), delete);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* no mapping of the main file */
    .xClose = fault_close,
    .xRead = fault_read,
    .xWrite = fault_write,
    .xTruncate = fault_truncate,
    .xSync = fault_sync,
    .xFileSize = fault_size,
    .xLock = fault_lock,
    .xUnlock = fault_unlock,
    .xCheckReservedLock = fault_reserved,
    .xFileControl = fault_control,
    .xSectorSize = fault_sector,
    .xDeviceCharacteristics = fault_device,
    .xShmMap = fault_shm_map,
    .xShmLock = fault_shm_lock,
    .xShmBarrier = fault_shm_barrier,
    .xShmUnmap = fault_shm_unmap,
};

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                      int *out_flags)
{
    (void)vfs;
    fault_file *self = (fault_file *)file;
    file->pMethods = NULL;
    kill_if_due();
    if (fails(FAULT_OPEN)) {
        return SQLITE_CANTOPEN;
    }
    self->real = (sqlite3_file *)(self + 1);
    memset(self->real, 0, (size_t)platform->szOsFile);
    int code = platform->xOpen(platform, name, self->real, flags, out_flags);
    if (self->real->pMethods != NULL) {
        file->pMethods = &methods;
    }
    return code;
}

static int fault_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    kill_if_due();
    return fails(FAULT_DELETE) ? SQLITE_IOERR_DELETE : platform->xDelete(platform, name, sync);
}

static int fault_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    return platform->xAccess(platform, name, flags, result);
}

static int fault_full_name(sqlite3_vfs *vfs, const char *name, int size, char *full)
{
    (void)vfs;
    return platform->xFullPathname(platform, name, size, full);
}

static int fault_last_error(sqlite3_vfs *vfs, int size, char *text)
{
    (void)vfs;
    (void)size;
    (void)text;
    return 0;
}

void fault_vfs_register(void)
{
    if (platform != NULL) {
        return;
    }
    sqlite3_initialize();
    platform = sqlite3_vfs_find(NULL);
    fault_vfs = *platform;
    fault_vfs.iVersion = 2;
    fault_vfs.szOsFile = (int)sizeof(fault_file) + platform->szOsFile;
    fault_vfs.zName = FAULT_VFS_NAME;
    fault_vfs.pNext = NULL;
    fault_vfs.xOpen = fault_open;
    fault_vfs.xDelete = fault_delete;
    fault_vfs.xAccess = fault_access;
    fault_vfs.xFullPathname = fault_full_name;
    fault_vfs.xGetLastError = fault_last_error;
    sqlite3_vfs_register(&fault_vfs, 0);
}

void fault_vfs_arm(fault_call call, long countdown, bool sticky)
{
    atomic_store(&armed_call, FAULT_NONE);
    atomic_store(&failure_count, 0);
    atomic_store(&countdown_left, countdown);
    atomic_store(&armed_sticky, sticky);
    atomic_store(&armed_call, countdown > 0 ? (int)call : FAULT_NONE);
}

long fault_vfs_failures(void)
{
    return atomic_load(&failure_count);
}
