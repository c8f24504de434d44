/* See lock.h.
 *
 * fork: the child shares the open file and would hold the lock for as long as it lives. A handler
 * of pthread_atfork closes the descriptors of all locks in the child; that needs a list of them.
 *
 * Names (hard links): each has a WAL of its own, so of two that use a file by two names neither
 * sees what the other commits, and a WAL that is left under one is read into the file long after it
 * was changed by the other. Nobody can find the other names. The rule: who opens a file for writing
 * finds one name, before SQLite opens it and once more after that. So whoever writes it opened it
 * while it had one, and has held SQLite's locks since before the second was made: a shared lock
 * (fcntl) on bytes of the file itself, whatever name it is opened by. Who opens it to read, and
 * finds several names and somebody who has such a lock, is refused, unless it is by this name that
 * others have it open. However the openings and the making of the link fall together, no two go on
 * of which one writes.
 *
 * The kernel tells who has such locks, through a descriptor of our own. Closing it would drop those
 * that connections of this process have, which may be others beside the one that the kernel names,
 * so where anybody has one the descriptor is kept, one a file.
 *
 * Lock order: `registry.mutex` is a leaf, held over fork. */
#include "store/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/list.h"

#define HOLDER_SIZE 256

struct esc_lock {
    esc_list_node node; /* registry.mutex */
    int descriptor;     /* -1 in a child of fork */
    bool created;
    char path[];
};

typedef struct kept_file { /* one whose descriptor cannot be closed */
    struct kept_file *next;
    dev_t device;
    ino_t number;
    int descriptor;
} kept_file;

static struct {
    pthread_mutex_t mutex;
    pthread_once_t once;
    esc_list locks;
    kept_file *kept;
} registry = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_ONCE_INIT, {{NULL, NULL}}, NULL};

static void before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&registry.mutex);
}

static void after_fork_child(void)
{
    for (esc_list_node *node = esc_list_first(&registry.locks); node != NULL;
         node = esc_list_next(&registry.locks, node)) {
        esc_lock *lock = ESC_CONTAINER_OF(node, esc_lock, node);
        close(lock->descriptor);
        lock->descriptor = -1;
    }
    esc_list_init(&registry.locks);
    while (registry.kept != NULL) { /* no lock of the parent's is lost by that */
        kept_file *kept = registry.kept;
        registry.kept = kept->next;
        close(kept->descriptor);
        escqrs_free(kept);
    }
    pthread_mutex_unlock(&registry.mutex);
}

static void registry_start(void)
{
    esc_list_init(&registry.locks);
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Who holds it, as far as the file tells. */
static void read_holder(int descriptor, char holder[HOLDER_SIZE])
{
    ssize_t size = pread(descriptor, holder, HOLDER_SIZE - 1, 0);
    holder[size > 0 ? size : 0] = '\0';
    char *end = strchr(holder, '\n');
    if (end != NULL) {
        *end = '\0';
    }
    for (char *c = holder; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~') {
            *c = '?';
        }
    }
    if (holder[0] == '\0') {
        snprintf(holder, HOLDER_SIZE, "another process");
    }
}

/* Under the registry's mutex: is the file that somebody has locked one that we have locked? */
static bool is_ours(int descriptor)
{
    struct stat wanted, held;
    if (fstat(descriptor, &wanted) != 0) {
        return false;
    }
    for (esc_list_node *node = esc_list_first(&registry.locks); node != NULL;
         node = esc_list_next(&registry.locks, node)) {
        const esc_lock *lock = ESC_CONTAINER_OF(node, esc_lock, node);
        if (fstat(lock->descriptor, &held) == 0 && held.st_ino == wanted.st_ino &&
            held.st_dev == wanted.st_dev) {
            return true;
        }
    }
    return false;
}

static void program_name(char *name, size_t size)
{
    FILE *file = fopen("/proc/self/comm", "re");
    name[0] = '\0';
    if (file != NULL) {
        if (fgets(name, (int)size, file) == NULL) {
            name[0] = '\0';
        }
        fclose(file);
    }
    name[strcspn(name, "\n")] = '\0';
}

static void write_holder(int descriptor)
{
    char program[64], text[HOLDER_SIZE], host[65] = "";
    time_t now = time(NULL);
    struct tm utc;
    program_name(program, sizeof program);
    gethostname(host, sizeof host - 1);
    gmtime_r(&now, &utc);
    int size = snprintf(text, sizeof text,
                        "process %ld (%s) on %s, since %04d-%02d-%02d %02d:%02d:%02d UTC\n",
                        (long)getpid(), program, host, utc.tm_year + 1900, utc.tm_mon + 1,
                        utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
    /* What is written here only serves a message; a full disk must not refuse the store. */
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, text, (size_t)size, 0) != size) {
        (void)!ftruncate(descriptor, 0);
    }
}

/* Is the file that we have locked still the one of that name? A holder that discards its file
 * unlinks it before it lets go, and we may have opened it before. */
static bool is_current(int descriptor, const char *path)
{
    struct stat held, named;
    return fstat(descriptor, &held) == 0 && stat(path, &named) == 0 &&
           held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

static escqrs_status open_file(const char *path, int *descriptor, bool *created,
                               escqrs_error *error)
{
    *created = false;
    *descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*descriptor < 0 && errno == ENOENT) {
        *descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        *created = *descriptor >= 0;
        if (*descriptor < 0 && errno == EEXIST) { /* somebody was faster */
            *descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666);
        }
    }
    if (*descriptor >= 0) {
        return ESCQRS_OK;
    }
    int failure = errno;
    escqrs_status status = failure == EACCES || failure == EROFS || failure == EPERM
                               ? ESCQRS_READ_ONLY
                           : failure == ENOSPC || failure == EDQUOT ? ESCQRS_FULL
                                                                    : ESCQRS_IO;
    return esc_error_system(error, status, failure, "cannot open the lock file %s", path);
}

char *esc_lock_path(const char *path)
{
    size_t size = strlen(path) + sizeof "-lock";
    char *name = escqrs_alloc(size);
    if (name != NULL) {
        snprintf(name, size, "%s-lock", path);
    }
    return name;
}

escqrs_status esc_lock_acquire(const char *path, esc_lock **result, escqrs_error *error)
{
    pthread_once(&registry.once, registry_start);
    size_t size = strlen(path) + sizeof "-lock";
    esc_lock *lock = escqrs_alloc_zero(sizeof *lock + size);
    if (lock == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a lock");
    }
    snprintf(lock->path, size, "%s-lock", path);
    for (;;) {
        /* Opened, locked and registered under the mutex that fork takes: no child can keep it. */
        pthread_mutex_lock(&registry.mutex);
        escqrs_status status = open_file(lock->path, &lock->descriptor, &lock->created, error);
        if (status != ESCQRS_OK) {
            pthread_mutex_unlock(&registry.mutex);
            escqrs_free(lock);
            return status;
        }
        int failed = flock(lock->descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        if (failed == 0 && is_current(lock->descriptor, lock->path)) {
            esc_list_push_back(&registry.locks, &lock->node);
            pthread_mutex_unlock(&registry.mutex);
            break;
        }
        char holder[HOLDER_SIZE];
        bool ours = failed != 0 && is_ours(lock->descriptor);
        if (failed != 0) {
            read_holder(lock->descriptor, holder);
        }
        close(lock->descriptor);
        pthread_mutex_unlock(&registry.mutex);
        if (failed != 0) {
            status = failed == EWOULDBLOCK || failed == EINTR
                         ? escqrs_error_set(error, ESCQRS_LOCKED,
                                            "%s is open for writing by %s%s; open it read-only, or "
                                            "close it there first",
                                            path, ours ? "this very process: " : "", holder)
                         : esc_error_system(error, ESCQRS_IO, failed, "cannot lock %s", lock->path);
            escqrs_free(lock);
            return status;
        } /* else it was discarded meanwhile: once more with the new one */
    }
    write_holder(lock->descriptor);
    *result = lock;
    return ESCQRS_OK;
}

bool esc_lock_is_held(const esc_lock *lock)
{
    return is_current(lock->descriptor, lock->path);
}

/* ---- names ------------------------------------------------------------------------------------ */

/* What SQLite's locks lie in (its file format, "the lock-byte page"). */
#define LOCK_BYTES_FIRST 0x40000000
#define LOCK_BYTES_COUNT 512

static bool stands_beside(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *name = escqrs_alloc(size);
    struct stat found;
    bool there = false;
    if (name != NULL) {
        snprintf(name, size, "%s%s", path, suffix);
        there = stat(name, &found) == 0;
        escqrs_free(name);
    }
    return there;
}

/* Who has it open as SQLite does; 0: nobody, or it cannot be told; -1: a process that has no number
 * here, as one of another container. */
static pid_t who_has(int descriptor)
{
    struct flock asked = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = LOCK_BYTES_FIRST,
                          .l_len = LOCK_BYTES_COUNT};
    if (fcntl(descriptor, F_OFD_GETLK, &asked) != 0 || asked.l_type == F_UNLCK) {
        return 0;
    }
    return asked.l_pid > 0 ? asked.l_pid : -1;
}

/* Under the registry's mutex. */
static kept_file *find_kept(const struct stat *file)
{
    kept_file *kept = registry.kept;
    while (kept != NULL && (kept->device != file->st_dev || kept->number != file->st_ino)) {
        kept = kept->next;
    }
    return kept;
}

/* Under the registry's mutex: the descriptor of that file. IO, NO_MEMORY. */
static escqrs_status keep(const char *path, const struct stat *file, kept_file **result,
                          escqrs_error *error)
{
    kept_file *kept = find_kept(file);
    if (kept == NULL) {
        kept = escqrs_alloc_zero(sizeof *kept);
        if (kept == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to open %s", path);
        }
        int descriptor = open(path, O_RDONLY | O_CLOEXEC);
        if (descriptor < 0) {
            escqrs_free(kept);
            return esc_error_system(error, ESCQRS_IO, errno, "cannot open %s", path);
        }
        *kept = (kept_file){registry.kept, file->st_dev, file->st_ino, descriptor};
        registry.kept = kept;
    }
    *result = kept;
    return ESCQRS_OK;
}

/* Under the registry's mutex: it goes where that drops no lock of anybody. */
static void drop_unused(kept_file *kept)
{
    if (who_has(kept->descriptor) != 0) {
        return;
    }
    kept_file **at = &registry.kept;
    while (*at != kept) {
        at = &(*at)->next;
    }
    *at = kept->next;
    close(kept->descriptor);
    escqrs_free(kept);
}

static escqrs_status refuse_holder(const char *path, const struct stat *file, pid_t holder,
                                   escqrs_error *error)
{
    char shown[48] = "another process";
    if (holder > 0) {
        snprintf(shown, sizeof shown, "%s %ld", holder == getpid() ? "this process," : "process",
                 (long)holder);
    }
    return escqrs_error_set(error, ESCQRS_LOCKED,
                            "%s has %ld names (hard links) and is open in %s: a store is used by "
                            "one name; close it there, or copy it with backup",
                            path, (long)file->st_nlink, shown);
}

static escqrs_status refuse_names(const char *path, const struct stat *file, escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_IO,
                            "%s has %ld names (hard links), each of which would have a WAL of its "
                            "own: it can be read, but not opened for writing. Delete the other "
                            "names (find -samefile), or put a copy in its place; a hard link is no "
                            "backup, as it is the same file",
                            path, (long)file->st_nlink);
}

static escqrs_status find_holder(const char *path, const struct stat *file, pid_t *holder,
                                 escqrs_error *error)
{
    kept_file *kept = NULL;
    pthread_once(&registry.once, registry_start);
    pthread_mutex_lock(&registry.mutex);
    escqrs_status status = keep(path, file, &kept, error);
    if (status == ESCQRS_OK) {
        ESC_ASSERT(kept != NULL);
        *holder = who_has(kept->descriptor);
        drop_unused(kept);
    }
    pthread_mutex_unlock(&registry.mutex);
    return status;
}

escqrs_status esc_lock_check_names(const char *path, bool writes, escqrs_error *error)
{
    struct stat file;
    pid_t holder = 0;
    if (stat(path, &file) != 0 || file.st_nlink < 2 || (!writes && stands_beside(path, "-shm"))) {
        return ESCQRS_OK;
    }
    escqrs_status status = find_holder(path, &file, &holder, error);
    if (status == ESCQRS_OK && holder != 0) {
        status = refuse_holder(path, &file, holder, error);
    } else if (status == ESCQRS_OK && writes) {
        status = refuse_names(path, &file, error);
    }
    return status;
}

escqrs_status esc_lock_check_one_name(const char *path, escqrs_error *error)
{
    struct stat file;
    return stat(path, &file) != 0 || file.st_nlink < 2 ? ESCQRS_OK
                                                       : refuse_names(path, &file, error);
}

/* ---- holding ---------------------------------------------------------------------------------- */

void esc_lock_announce(const esc_lock *lock)
{
    char byte;
    if (lock != NULL && pread(lock->descriptor, &byte, 1, 0) != 1) {
        (void)!futimens(lock->descriptor, NULL); /* the holder could not be written in it */
    }
}

void esc_lock_release(esc_lock *lock, bool discard)
{
    if (lock == NULL) {
        return;
    }
    pthread_mutex_lock(&registry.mutex);
    if (lock->descriptor >= 0) {
        if (discard && lock->created) {
            unlink(lock->path);
        } else {
            (void)!ftruncate(lock->descriptor, 0); /* nobody holds it now */
        }
        /* A child on its way from vfork to exec, where no handler runs, still has a copy. */
        (void)!flock(lock->descriptor, LOCK_UN);
        close(lock->descriptor);
        esc_list_remove(&lock->node);
    }
    pthread_mutex_unlock(&registry.mutex);
    escqrs_free(lock);
}
