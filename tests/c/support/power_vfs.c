/* See power_vfs.h. Beside each file stands its content on the disk and the list of what was done to
 * it since. One mutex guards all of it; `step` is called without it. */
#include "support/power_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 16
#define SECTOR 512

typedef struct change { /* a write, or with `bytes` NULL a truncation to `offset` */
    struct change *next;
    size_t offset, size;
    unsigned char *bytes;
} change;

typedef struct disk_file {
    char name[600]; /* "": free */
    unsigned char *bytes;
    size_t size, capacity;
    change *first, *last;
    bool named;   /* the folder on the disk has it */
    bool deleted; /* and would not, were the folder synced */
} disk_file;

typedef struct power_file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct */
    disk_file *disk;    /* NULL: not kept */
    bool journal;       /* its sync is one of the folder too */
} power_file;

static sqlite3_vfs power_vfs;
static sqlite3_vfs *platform;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static disk_file files[FILES_MAX];
static void (*step_function)(void *context);
static void *step_context;
static bool next_sync_fails;

static void *check(void *memory)
{
    if (memory == NULL) {
        abort();
    }
    return memory;
}

static void step(void)
{
    if (step_function != NULL) {
        step_function(step_context);
    }
}

/* ---- content ---------------------------------------------------------------------------------- */

static void resize(disk_file *file, size_t size)
{
    if (size >= file->capacity) {
        file->capacity = size * 2 + 1;
        file->bytes = check(realloc(file->bytes, file->capacity));
    }
    if (size > file->size) {
        memset(file->bytes + file->size, 0, size - file->size);
    }
    file->size = size;
}

static void put(disk_file *file, size_t offset, const unsigned char *bytes, size_t size)
{
    if (offset + size > file->size) {
        resize(file, offset + size);
    }
    if (size > 0) {
        memcpy(file->bytes + offset, bytes, size);
    }
}

static void apply(disk_file *file, const change *one)
{
    if (one->bytes == NULL) {
        resize(file, one->offset);
    } else {
        put(file, one->offset, one->bytes, one->size);
    }
}

static void forget_changes(disk_file *file)
{
    while (file->first != NULL) {
        change *one = file->first;
        file->first = one->next;
        free(one->bytes);
        free(one);
    }
    file->last = NULL;
}

static void add_change(disk_file *file, size_t offset, const void *bytes, size_t size)
{
    change *one = check(calloc(1, sizeof *one));
    *one = (change){.offset = offset, .size = size};
    if (bytes != NULL) {
        one->bytes = check(malloc(size + 1));
        memcpy(one->bytes, bytes, size);
    }
    *(file->last == NULL ? &file->first : &file->last->next) = one;
    file->last = one;
}

static void forget(disk_file *file)
{
    forget_changes(file);
    free(file->bytes);
    *file = (disk_file){0};
}

static disk_file *find(const char *name, bool make)
{
    disk_file *unused = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        if (strcmp(files[i].name, name) == 0) {
            return &files[i];
        }
        if (unused == NULL && files[i].name[0] == '\0') {
            unused = &files[i];
        }
    }
    if (!make) {
        return NULL;
    }
    disk_file *made = check(unused);
    snprintf(made->name, sizeof made->name, "%s", name);
    return made;
}

static void sync_folder(void)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].deleted) {
            forget(&files[i]);
        } else if (files[i].name[0] != '\0') {
            files[i].named = true;
        }
    }
}

/* ---- files ------------------------------------------------------------------------------------ */

static power_file *of(sqlite3_file *file)
{
    return (power_file *)file;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return of(file)->real;
}

static int power_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}

static int power_read(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), buffer, size, offset);
}

static int power_write(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    step();
    if (of(file)->disk != NULL) {
        pthread_mutex_lock(&mutex);
        add_change(of(file)->disk, (size_t)offset, buffer, (size_t)size);
        pthread_mutex_unlock(&mutex);
    }
    return real_of(file)->pMethods->xWrite(real_of(file), buffer, size, offset);
}

static int power_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    step();
    if (of(file)->disk != NULL) {
        pthread_mutex_lock(&mutex);
        add_change(of(file)->disk, (size_t)size, NULL, 0);
        pthread_mutex_unlock(&mutex);
    }
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int power_sync(sqlite3_file *file, int flags)
{
    (void)flags; /* the real disk keeps its power */
    step();
    disk_file *disk = of(file)->disk;
    bool failed = false;
    if (disk != NULL) {
        pthread_mutex_lock(&mutex);
        failed = next_sync_fails && of(file)->journal;
        if (failed) {
            next_sync_fails = false;
            forget_changes(disk);
        }
        for (change *one = disk->first; one != NULL; one = one->next) {
            apply(disk, one);
        }
        forget_changes(disk);
        if (of(file)->journal && !failed) {
            sync_folder();
        }
        pthread_mutex_unlock(&mutex);
    }
    return failed ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int power_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int power_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int power_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int power_reserved(sqlite3_file *file, int *result)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), result);
}

static int power_control(sqlite3_file *file, int operation, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), operation, argument);
}

static int power_sector(sqlite3_file *file)
{
    (void)file;
    return SECTOR;
}

/* None: what SQLite may rely on with a disk of which it knows nothing. */
static int power_device(sqlite3_file *file)
{
    (void)file;
    return 0;
}

static int power_shm_map(sqlite3_file *file, int region, int size, int extend,
                         void volatile **memory)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, memory);
}

static int power_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), first, count, flags);
}

static void power_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int power_shm_unmap(sqlite3_file *file, int delete)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), delete);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* no mapping of the main file */
    .xClose = power_close,
    .xRead = power_read,
    .xWrite = power_write,
    .xTruncate = power_truncate,
    .xSync = power_sync,
    .xFileSize = power_size,
    .xLock = power_lock,
    .xUnlock = power_unlock,
    .xCheckReservedLock = power_reserved,
    .xFileControl = power_control,
    .xSectorSize = power_sector,
    .xDeviceCharacteristics = power_device,
    .xShmMap = power_shm_map,
    .xShmLock = power_shm_lock,
    .xShmBarrier = power_shm_barrier,
    .xShmUnmap = power_shm_unmap,
};

/* A file that was there before power_vfs_begin is durable as it is. */
static void adopt(disk_file *disk)
{
    FILE *stream = fopen(disk->name, "rb");
    if (stream == NULL) {
        return;
    }
    unsigned char buffer[4096];
    size_t size;
    while ((size = fread(buffer, 1, sizeof buffer, stream)) > 0) {
        put(disk, disk->size, buffer, size);
    }
    fclose(stream);
    disk->named = true;
}

static int power_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                      int *out_flags)
{
    (void)vfs;
    const int kept = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
    power_file *self = (power_file *)file;
    *self = (power_file){.real = (sqlite3_file *)(self + 1)};
    memset(self->real, 0, (size_t)platform->szOsFile);
    if (name != NULL && (flags & kept) != 0) {
        pthread_mutex_lock(&mutex);
        bool known = find(name, false) != NULL;
        self->disk = find(name, true);
        self->disk->deleted = false;
        self->journal = (flags & SQLITE_OPEN_MAIN_DB) == 0;
        if (!known) {
            adopt(self->disk);
        }
        pthread_mutex_unlock(&mutex);
    }
    int code = platform->xOpen(platform, name, self->real, flags, out_flags);
    if (self->real->pMethods != NULL) {
        file->pMethods = &methods;
    }
    return code;
}

static int power_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    step();
    pthread_mutex_lock(&mutex);
    disk_file *disk = find(name, false);
    if (disk != NULL) {
        disk->deleted = true;
        if (!disk->named || sync != 0) {
            forget(disk);
        }
    }
    if (sync != 0) {
        sync_folder();
    }
    pthread_mutex_unlock(&mutex);
    return platform->xDelete(platform, name, 0);
}

static int power_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    return platform->xAccess(platform, name, flags, result);
}

static int power_full_name(sqlite3_vfs *vfs, const char *name, int size, char *full)
{
    (void)vfs;
    return platform->xFullPathname(platform, name, size, full);
}

void power_vfs_register(void)
{
    if (platform != NULL) {
        return;
    }
    sqlite3_initialize();
    platform = sqlite3_vfs_find(NULL);
    power_vfs = *platform;
    power_vfs.iVersion = 2;
    power_vfs.szOsFile = (int)sizeof(power_file) + platform->szOsFile;
    power_vfs.zName = POWER_VFS_NAME;
    power_vfs.pNext = NULL;
    power_vfs.xOpen = power_open;
    power_vfs.xDelete = power_delete;
    power_vfs.xAccess = power_access;
    power_vfs.xFullPathname = power_full_name;
    sqlite3_vfs_register(&power_vfs, 0);
}

void power_vfs_begin(void (*function)(void *context), void *context)
{
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < FILES_MAX; i++) {
        forget(&files[i]);
    }
    pthread_mutex_unlock(&mutex);
    step_function = function;
    step_context = context;
}

/* ---- the power goes --------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state) /* splitmix64: Steele, Lea, Flood 2014 */
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void apply_sectors(disk_file *file, const change *one, uint64_t *random)
{
    for (size_t at = 0; at < one->size;) {
        size_t size = SECTOR - (one->offset + at) % SECTOR;
        size = size < one->size - at ? size : one->size - at;
        if (draw(random) % 2 != 0) {
            put(file, one->offset + at, one->bytes + at, size);
        }
        at += size;
    }
}

static void lose(disk_file *image, const disk_file *file, power_loss loss, uint64_t *random)
{
    uint64_t count = 0, number = 0;
    for (const change *one = file->first; one != NULL; one = one->next) {
        count++;
    }
    uint64_t border = draw(random) % (count + 1);
    for (const change *one = file->first; one != NULL; one = one->next, number++) {
        bool torn = (loss == POWER_KEEPS_PARTS && one->bytes != NULL) ||
                    (loss == POWER_KEEPS_FIRST && number == border && one->bytes != NULL);
        bool whole =
            loss == POWER_KEEPS_ALL || (loss == POWER_KEEPS_FIRST && number < border) ||
            (loss == POWER_KEEPS_LAST && number >= border) ||
            ((loss == POWER_KEEPS_SOME || loss == POWER_KEEPS_PARTS) && draw(random) % 2 != 0);
        if (torn) {
            apply_sectors(image, one, random);
        } else if (whole) {
            apply(image, one);
        }
    }
}

void power_vfs_fail_sync(void)
{
    pthread_mutex_lock(&mutex);
    next_sync_fails = true;
    pthread_mutex_unlock(&mutex);
}

void power_vfs_cut(const char *folder, power_loss loss, uint64_t seed)
{
    uint64_t random = seed;
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < FILES_MAX; i++) {
        const disk_file *file = &files[i];
        bool there = file->named ? !file->deleted || loss == POWER_KEEPS_NOTHING ||
                                       (loss != POWER_KEEPS_ALL && draw(&random) % 2 != 0)
                                 : loss == POWER_KEEPS_ALL ||
                                       (loss != POWER_KEEPS_NOTHING && draw(&random) % 2 != 0);
        if (file->name[0] == '\0' || !there) {
            continue;
        }
        disk_file image = {0};
        put(&image, 0, file->bytes, file->size);
        lose(&image, file, loss, &random);
        char name[1300];
        snprintf(name, sizeof name, "%s/%s", folder, strrchr(file->name, '/') + 1);
        FILE *stream = check(fopen(name, "wb"));
        if (image.size != 0 && fwrite(image.bytes, 1, image.size, stream) != image.size) {
            abort();
        }
        if (fclose(stream) != 0) {
            abort();
        }
        free(image.bytes);
    }
    pthread_mutex_unlock(&mutex);
}
