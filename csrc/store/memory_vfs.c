/* See memory_vfs.h.
 *
 * A file is a list of chunks, so growing moves nothing. One mutex a VFS guards files, their bytes,
 * the locks of the WAL index and the reference counts; it is a leaf. The WAL index itself is shared
 * memory as SQLite wants it: its own locks and barriers guard it. Locks on the main file are not
 * needed: in WAL mode SQLite takes only shared ones there, but for closing, where each connection
 * keeps the WAL (see sqlite_file.c). */
#include "store/memory_vfs.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"
#include "base/thread.h"
#include "base/vector.h"

#define CHUNK_SIZE 65536
#define SHM_LOCK_COUNT 8 /* SQLITE_SHM_NLOCK */
#define NAME_SIZE 64

typedef struct memory_file { /* all under the VFS's mutex */
    esc_list_node node;      /* of named files */
    char *name;              /* NULL: a temporary one, gone when closed */
    unsigned references;
    bool deleted;
    sqlite3_int64 size;
    esc_vector chunks; /* uint8_t *, each CHUNK_SIZE */
    esc_vector shm;    /* void *: regions of the WAL index */
    unsigned shared[SHM_LOCK_COUNT];
    bool exclusive[SHM_LOCK_COUNT];
} memory_file;

struct esc_memory_vfs {
    sqlite3_vfs vfs;
    sqlite3_vfs *platform; /* for randomness, sleep and time */
    esc_mutex mutex;
    esc_list files;
    char name[NAME_SIZE];
};

typedef struct handle {
    sqlite3_file base;
    esc_memory_vfs *owner;
    memory_file *file;
    unsigned shm_shared; /* masks of the locks that this connection holds */
    unsigned shm_exclusive;
} handle;

static void free_file(memory_file *file)
{
    for (size_t i = 0; i < file->chunks.count; i++) {
        escqrs_free(ESC_VECTOR_AT(&file->chunks, void *, i));
    }
    for (size_t i = 0; i < file->shm.count; i++) {
        escqrs_free(ESC_VECTOR_AT(&file->shm, void *, i));
    }
    esc_vector_fini(&file->chunks);
    esc_vector_fini(&file->shm);
    escqrs_free(file->name);
    escqrs_free(file);
}

/* ---- files ------------------------------------------------------------------------------------ */

static int file_close(sqlite3_file *base)
{
    handle *self = (handle *)base;
    esc_mutex_lock(&self->owner->mutex);
    memory_file *file = self->file;
    file->references--;
    bool gone = file->references == 0 && (file->name == NULL || file->deleted);
    esc_mutex_unlock(&self->owner->mutex);
    if (gone) {
        free_file(file);
    }
    return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *buffer, int size, sqlite3_int64 offset)
{
    handle *self = (handle *)base;
    uint8_t *out = buffer;
    int result = SQLITE_OK;
    esc_mutex_lock(&self->owner->mutex);
    sqlite3_int64 there = self->file->size > offset ? self->file->size - offset : 0;
    if (there < size) {
        memset(out + there, 0, (size_t)(size - there));
        size = (int)there;
        result = SQLITE_IOERR_SHORT_READ;
    }
    while (size > 0) {
        size_t inside = (size_t)(offset % CHUNK_SIZE);
        size_t part = CHUNK_SIZE - inside < (size_t)size ? CHUNK_SIZE - inside : (size_t)size;
        const uint8_t *chunk =
            ESC_VECTOR_AT(&self->file->chunks, uint8_t *, (size_t)(offset / CHUNK_SIZE));
        memcpy(out, chunk + inside, part);
        out += part;
        offset += (sqlite3_int64)part;
        size -= (int)part;
    }
    esc_mutex_unlock(&self->owner->mutex);
    return result;
}

static bool make_room(memory_file *file, sqlite3_int64 end)
{
    while ((sqlite3_int64)file->chunks.count * CHUNK_SIZE < end) {
        uint8_t *chunk = escqrs_alloc_zero(CHUNK_SIZE);
        if (chunk == NULL) {
            return false;
        }
        if (esc_vector_push(&file->chunks, &chunk) != ESCQRS_OK) {
            escqrs_free(chunk);
            return false;
        }
    }
    return true;
}

static int file_write(sqlite3_file *base, const void *buffer, int size, sqlite3_int64 offset)
{
    handle *self = (handle *)base;
    const uint8_t *in = buffer;
    memory_file *file = self->file;
    esc_mutex_lock(&self->owner->mutex);
    bool room = make_room(file, offset + size);
    if (room && offset + size > file->size) {
        file->size = offset + size;
    }
    while (room && size > 0) {
        size_t inside = (size_t)(offset % CHUNK_SIZE);
        size_t part = CHUNK_SIZE - inside < (size_t)size ? CHUNK_SIZE - inside : (size_t)size;
        uint8_t *chunk = ESC_VECTOR_AT(&file->chunks, uint8_t *, (size_t)(offset / CHUNK_SIZE));
        memcpy(chunk + inside, in, part);
        in += part;
        offset += (sqlite3_int64)part;
        size -= (int)part;
    }
    esc_mutex_unlock(&self->owner->mutex);
    return room ? SQLITE_OK : SQLITE_IOERR_NOMEM;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    handle *self = (handle *)base;
    memory_file *file = self->file;
    esc_mutex_lock(&self->owner->mutex);
    if (size < file->size) {
        size_t keep = (size_t)((size + CHUNK_SIZE - 1) / CHUNK_SIZE);
        while (file->chunks.count > keep) {
            escqrs_free(ESC_VECTOR_AT(&file->chunks, void *, file->chunks.count - 1));
            esc_vector_pop(&file->chunks);
        }
        if (size % CHUNK_SIZE != 0) { /* what is behind the end reads as zeros if it grows again */
            uint8_t *last = ESC_VECTOR_AT(&file->chunks, uint8_t *, keep - 1);
            memset(last + size % CHUNK_SIZE, 0, (size_t)(CHUNK_SIZE - size % CHUNK_SIZE));
        }
        file->size = size;
    }
    esc_mutex_unlock(&self->owner->mutex);
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
    (void)base;
    (void)flags;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *size)
{
    handle *self = (handle *)base;
    esc_mutex_lock(&self->owner->mutex);
    *size = self->file->size;
    esc_mutex_unlock(&self->owner->mutex);
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *base, int level)
{
    (void)base;
    (void)level;
    return SQLITE_OK;
}

static int file_check_lock(sqlite3_file *base, int *reserved)
{
    (void)base;
    *reserved = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int operation, void *argument)
{
    (void)base;
    (void)operation;
    (void)argument;
    return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *base)
{
    (void)base;
    return 4096;
}

static int file_device(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_ATOMIC4K;
}

/* ---- the WAL index ---------------------------------------------------------------------------- */

static int shm_map(sqlite3_file *base, int region, int size, int extend, void volatile **memory)
{
    handle *self = (handle *)base;
    esc_vector *shm = &self->file->shm;
    int result = SQLITE_OK;
    *memory = NULL;
    esc_mutex_lock(&self->owner->mutex);
    while (extend && shm->count <= (size_t)region) {
        void *fresh = escqrs_alloc_zero((size_t)size);
        if (fresh == NULL || esc_vector_push(shm, &fresh) != ESCQRS_OK) {
            escqrs_free(fresh);
            result = SQLITE_NOMEM;
            break;
        }
    }
    if ((size_t)region < shm->count) {
        *memory = ESC_VECTOR_AT(shm, void *, (size_t)region);
    }
    esc_mutex_unlock(&self->owner->mutex);
    return result;
}

static int shm_lock(sqlite3_file *base, int first, int count, int flags)
{
    handle *self = (handle *)base;
    memory_file *file = self->file;
    unsigned mask = ((1u << count) - 1) << first;
    int result = SQLITE_OK;
    esc_mutex_lock(&self->owner->mutex);
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
        for (int i = first; i < first + count; i++) {
            file->shared[i] -= (self->shm_shared >> i) & 1;
            if ((self->shm_exclusive >> i) & 1) {
                file->exclusive[i] = false;
            }
        }
        self->shm_shared &= ~mask;
        self->shm_exclusive &= ~mask;
    } else if ((flags & SQLITE_SHM_SHARED) != 0) {
        for (int i = first; i < first + count; i++) {
            if (file->exclusive[i] && !((self->shm_exclusive >> i) & 1)) {
                result = SQLITE_BUSY;
            }
        }
        for (int i = first; i < first + count && result == SQLITE_OK; i++) {
            file->shared[i] += !((self->shm_shared >> i) & 1);
        }
        self->shm_shared |= result == SQLITE_OK ? mask : 0;
    } else {
        for (int i = first; i < first + count; i++) {
            unsigned own = (self->shm_shared >> i) & 1;
            if (file->shared[i] > own ||
                (file->exclusive[i] && !((self->shm_exclusive >> i) & 1))) {
                result = SQLITE_BUSY;
            }
        }
        for (int i = first; i < first + count && result == SQLITE_OK; i++) {
            file->exclusive[i] = true;
        }
        self->shm_exclusive |= result == SQLITE_OK ? mask : 0;
    }
    esc_mutex_unlock(&self->owner->mutex);
    return result;
}

static void shm_barrier(sqlite3_file *base)
{
    handle *self = (handle *)base;
    atomic_thread_fence(memory_order_seq_cst); /* pairs with itself in the other connections */
    esc_mutex_lock(&self->owner->mutex);
    esc_mutex_unlock(&self->owner->mutex);
}

static int shm_unmap(sqlite3_file *base, int delete)
{
    handle *self = (handle *)base;
    (void)delete; /* the regions go with the file */
    (void)shm_lock(base, 0, SHM_LOCK_COUNT, SQLITE_SHM_UNLOCK);
    (void)self;
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* ---- the file system -------------------------------------------------------------------------- */

static memory_file *find(esc_memory_vfs *self, const char *name)
{
    for (esc_list_node *node = esc_list_first(&self->files); node != NULL;
         node = esc_list_next(&self->files, node)) {
        memory_file *file = ESC_CONTAINER_OF(node, memory_file, node);
        if (strcmp(file->name, name) == 0) {
            return file;
        }
    }
    return NULL;
}

static memory_file *make(const char *name)
{
    memory_file *file = escqrs_alloc_zero(sizeof *file);
    if (file == NULL) {
        return NULL;
    }
    file->chunks = ESC_VECTOR_OF(void *);
    file->shm = ESC_VECTOR_OF(void *);
    if (name != NULL) {
        file->name = escqrs_strdup(escqrs_slice_of(name));
        if (file->name == NULL) {
            escqrs_free(file);
            return NULL;
        }
    }
    return file;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags,
                    int *out_flags)
{
    esc_memory_vfs *self = vfs->pAppData;
    handle *opened = (handle *)base;
    int result = SQLITE_OK;
    base->pMethods = NULL;
    esc_mutex_lock(&self->mutex);
    memory_file *file = name == NULL ? NULL : find(self, name);
    if (file == NULL && name != NULL && (flags & SQLITE_OPEN_CREATE) == 0) {
        result = SQLITE_CANTOPEN;
    } else if (file == NULL) {
        file = make(name);
        if (file == NULL) {
            result = SQLITE_NOMEM;
        } else if (name != NULL) {
            esc_list_push_back(&self->files, &file->node);
        }
    }
    if (result == SQLITE_OK) {
        file->references++;
        opened->owner = self;
        opened->file = file;
        opened->shm_shared = opened->shm_exclusive = 0;
        base->pMethods = &methods;
    }
    esc_mutex_unlock(&self->mutex);
    if (out_flags != NULL) {
        *out_flags = flags;
    }
    return result;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)sync;
    esc_memory_vfs *self = vfs->pAppData;
    esc_mutex_lock(&self->mutex);
    memory_file *file = find(self, name);
    bool gone = false;
    if (file != NULL) {
        esc_list_remove(&file->node);
        file->deleted = true;
        gone = file->references == 0;
    }
    esc_mutex_unlock(&self->mutex);
    if (gone) {
        free_file(file);
    }
    return file != NULL ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)flags;
    esc_memory_vfs *self = vfs->pAppData;
    esc_mutex_lock(&self->mutex);
    memory_file *file = find(self, name);
    *result = file != NULL && (flags != SQLITE_ACCESS_EXISTS || file->size > 0);
    esc_mutex_unlock(&self->mutex);
    return SQLITE_OK;
}

static int vfs_full_name(sqlite3_vfs *vfs, const char *name, int size, char *full)
{
    (void)vfs;
    sqlite3_snprintf(size, full, "%s", name);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *bytes)
{
    sqlite3_vfs *platform = ((esc_memory_vfs *)vfs->pAppData)->platform;
    return platform->xRandomness(platform, size, bytes);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    sqlite3_vfs *platform = ((esc_memory_vfs *)vfs->pAppData)->platform;
    return platform->xSleep(platform, microseconds);
}

static int vfs_time(sqlite3_vfs *vfs, double *days)
{
    sqlite3_vfs *platform = ((esc_memory_vfs *)vfs->pAppData)->platform;
    return platform->xCurrentTime(platform, days);
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *text)
{
    (void)vfs;
    if (size > 0) {
        text[0] = '\0';
    }
    return 0;
}

static int vfs_time_millis(sqlite3_vfs *vfs, sqlite3_int64 *millis)
{
    sqlite3_vfs *platform = ((esc_memory_vfs *)vfs->pAppData)->platform;
    return platform->xCurrentTimeInt64(platform, millis);
}

escqrs_status esc_memory_vfs_create(esc_memory_vfs **result, escqrs_error *error)
{
    esc_memory_vfs *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    if (sqlite3_initialize() != SQLITE_OK || (self->platform = sqlite3_vfs_find(NULL)) == NULL) {
        escqrs_free(self);
        return escqrs_error_set(error, ESCQRS_IO, "SQLite does not start");
    }
    esc_mutex_init(&self->mutex);
    esc_list_init(&self->files);
    snprintf(self->name, sizeof self->name, "escqrs-memory-%p", (void *)self);
    self->vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(handle),
        .mxPathname = 512,
        .zName = self->name,
        .pAppData = self,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_name,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time_millis,
    };
    if (sqlite3_vfs_register(&self->vfs, 0) != SQLITE_OK) {
        esc_mutex_fini(&self->mutex);
        escqrs_free(self);
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    *result = self;
    return ESCQRS_OK;
}

void esc_memory_vfs_destroy(esc_memory_vfs *self)
{
    if (self == NULL) {
        return;
    }
    sqlite3_vfs_unregister(&self->vfs);
    esc_list_node *node;
    while ((node = esc_list_pop_front(&self->files)) != NULL) {
        free_file(ESC_CONTAINER_OF(node, memory_file, node));
    }
    esc_mutex_fini(&self->mutex);
    escqrs_free(self);
}

const char *esc_memory_vfs_name(const esc_memory_vfs *self)
{
    return self->name;
}

bool esc_memory_vfs_holds(sqlite3 *db)
{
    sqlite3_vfs *vfs = NULL;
    return sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) == SQLITE_OK &&
           vfs != NULL && vfs->xOpen == vfs_open;
}
