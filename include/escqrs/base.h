/* escqrs/base.h - what every part of escqrs shares: status codes, errors, memory, log, time, ids.
 *
 * Threads: every function here may be called from any thread unless its comment says otherwise.
 * Fork: after fork() the child may call nothing of escqrs but escqrs_fork_generation().
 * Strings are UTF-8. A slice borrows memory; it is not NUL-terminated unless a comment says so.
 */
#ifndef ESCQRS_BASE_H
#define ESCQRS_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A word that threads share, as a struct shows it to C and to C++, whose compilers lay out both
 * alike. */
#ifdef __cplusplus
#include <atomic>
#define ESCQRS_ATOMIC(type) std::atomic<type>
extern "C" {
#else
#define ESCQRS_ATOMIC(type) _Atomic(type)
#endif

#if defined(__GNUC__)
#define ESCQRS_MUST_USE __attribute__((warn_unused_result))
#define ESCQRS_PRINTF(format_index, first_argument)                                                \
    __attribute__((format(printf, format_index, first_argument)))
#else
#define ESCQRS_MUST_USE
#define ESCQRS_PRINTF(format_index, first_argument)
#endif

/* ---- status ----------------------------------------------------------------------------------- */

/* What a fallible call returns. Every value but OK and DONE has one Python class of the same name
 * (python/escqrs/errors.py); the numbers are stable. */
typedef enum escqrs_status {
    ESCQRS_OK = 0,
    ESCQRS_DONE = 1,              /* no more items; not an error */
    ESCQRS_NO_MEMORY = 2,         /* an allocation failed */
    ESCQRS_INVALID = 3,           /* an argument or a definition that cannot be accepted */
    ESCQRS_IO = 4,                /* the operating system or SQLite refused; text says what */
    ESCQRS_TOO_LARGE = 5,         /* a message, commit or name beyond its limit */
    ESCQRS_WRONG_VERSION = 6,     /* expected version is not the stream's */
    ESCQRS_CONDITION_FAILED = 7,  /* an event matched `Unless` */
    ESCQRS_CHECKPOINT_BEHIND = 8, /* a checkpoint would not move forward */
    ESCQRS_KEY_REUSED = 9,        /* the key was used for other events */
    ESCQRS_DEADLOCK = 10,         /* waiting would close a cycle */
    ESCQRS_TIMEOUT = 11,
    ESCQRS_MAILBOX_FULL = 12,
    ESCQRS_CLOSED = 13, /* used after close, or dropped by it */
    ESCQRS_FORKED = 14, /* used in a child of fork() */
    ESCQRS_LOCKED = 15, /* another system holds the file for writing */
    ESCQRS_FULL = 16,   /* no space left on the device */
    ESCQRS_READ_ONLY = 17,
    ESCQRS_NOT_A_STORE = 18,  /* another program's file, or a newer format */
    ESCQRS_CORRUPT = 19,      /* stored bytes that do not verify or decode */
    ESCQRS_UNKNOWN_TYPE = 20, /* no class of that name was given */
    ESCQRS_NAME_CLASH = 21,   /* two definitions for one name */
    ESCQRS_NAME_EXISTS = 22,
    ESCQRS_SCHEMA_MISMATCH = 23, /* a definition that would misread stored data */
    ESCQRS_READ_MODEL_STOPPED = 24,
    /* a handler refused or failed; the owner of the handler knows why */
    ESCQRS_REJECTED = 25,
    ESCQRS_ABORTED = 26,     /* an earlier command of the same entity failed to be stored */
    ESCQRS_REPLAY = 27,      /* a stored event could not be applied */
    ESCQRS_DELETED = 28,     /* events that were asked for have been deleted, or the stream has */
    ESCQRS_NOT_COVERED = 29, /* no snapshot stands for the events that would be deleted */
} escqrs_status;

/* The status's name, e.g. "WRONG_VERSION"; a static string, "?" for a number that is none. */
const char *escqrs_status_name(escqrs_status status);

/* ---- borrowed bytes --------------------------------------------------------------------------- */

typedef struct escqrs_slice {
    const void *data; /* may be NULL when size is 0 */
    size_t size;      /* bytes */
} escqrs_slice;

escqrs_slice escqrs_slice_of(const char *text); /* strlen; NULL gives the empty slice */
bool escqrs_slice_equal(escqrs_slice a, escqrs_slice b);

/* ---- error ------------------------------------------------------------------------------------ */

/* Owned by the caller of a fallible function (usually on its stack), filled on failure only. Zero
 * it once; a later failure overwrites it. NULL is accepted wherever a parameter `error` stands. */
typedef struct escqrs_error {
    escqrs_status status;
    int64_t version;  /* of the event or stream concerned; 0 if none */
    int64_t position; /* in the store; 0 if none */
    /* WRONG_VERSION: what the writer expected; CHECKPOINT_BEHIND: what it gave */
    int64_t expected;
    int64_t actual;   /* WRONG_VERSION, CHECKPOINT_BEHIND: what the store has */
    int system_error; /* errno, or 0 */
    /* stream, checkpoint, read model or file concerned; "" if none; cut, never split */
    char subject[256];
    /* one or more sentences: what happened, where, what to do; NUL-terminated */
    char message[1024];
} escqrs_error;

/* Fill `error` (may be NULL) and return `status`, so that a failing function can end with
 * `return escqrs_error_set(error, ESCQRS_INVALID, "...", ...)`. Too long a text is cut at a
 * character's boundary. */
escqrs_status escqrs_error_set(escqrs_error *error, escqrs_status status, const char *format, ...)
    ESCQRS_PRINTF(3, 4);

/* ---- memory ----------------------------------------------------------------------------------- */

/* All memory of escqrs and of protobuf-c comes through here, so that a test can fail the n-th
 * allocation. All return NULL when out of memory (also size overflow in _array), and a block for a
 * size of 0; memory is not zeroed unless `_zero`. What they return goes to escqrs_free, which does
 * nothing with NULL. Nothing here blocks. */
void *escqrs_alloc(size_t size);
void *escqrs_alloc_zero(size_t size);
void *escqrs_alloc_array(size_t count, size_t item_size); /* not zeroed */
void *escqrs_realloc(void *memory, size_t size);          /* on NULL the old block is still valid */
char *escqrs_strdup(escqrs_slice text);                   /* NUL-terminated copy */
void escqrs_free(void *memory);

/* Tests only: the allocation that is `countdown` calls away fails, and with `sticky` all later ones
 * too; countdown 0 switches it off. Process-wide; set it while nothing else runs. */
void escqrs_alloc_fail(long countdown, bool sticky);

/* ---- log -------------------------------------------------------------------------------------- */

typedef enum escqrs_log_level {
    ESCQRS_LOG_DEBUG = 10,
    ESCQRS_LOG_INFO = 20,
    ESCQRS_LOG_WARNING = 30,
    ESCQRS_LOG_ERROR = 40,
} escqrs_log_level;

/* Called from any core thread, never under a lock of the core; must return soon and must not call
 * back into escqrs. `text` is valid during the call. */
typedef void (*escqrs_log_function)(void *context, escqrs_log_level level, const char *text);

typedef struct escqrs_log {
    escqrs_log_function function; /* NULL: warnings and errors go to stderr */
    void *context;
} escqrs_log;

/* Too long a text (2,047 bytes) is cut at a character's boundary. `log` may be NULL: stderr. */
void escqrs_log_write(const escqrs_log *log, escqrs_log_level level, const char *format, ...)
    ESCQRS_PRINTF(3, 4);

/* ---- clock and randomness, replaceable for tests ---------------------------------------------- */

typedef struct escqrs_clock {
    /* UTC, microseconds since 1970-01-01; NULL: the system's */
    int64_t (*now_us)(void *context);
    int64_t (*monotonic_ns)(void *context); /* never goes back; NULL: the system's */
    void *context;
} escqrs_clock; /* all zero: the system's clock */

int64_t escqrs_clock_now_us(const escqrs_clock *clock);       /* `clock` may be NULL */
int64_t escqrs_clock_monotonic_ns(const escqrs_clock *clock); /* `clock` may be NULL */

typedef struct escqrs_random {
    void (*fill)(void *context, void *buffer, size_t size); /* NULL: the system's randomness */
    void *context;
} escqrs_random;

void escqrs_random_fill(const escqrs_random *random, void *buffer, size_t size); /* may be NULL */

/* ---- ids -------------------------------------------------------------------------------------- */

/* A UUID in network byte order. New ones are version 7 (RFC 9562): they sort by the millisecond
 * they were made in, and within one thread of one process strictly by making. */
typedef struct escqrs_uuid {
    uint8_t bytes[16];
} escqrs_uuid;

#define ESCQRS_UUID_TEXT_SIZE 37 /* 36 characters and the NUL */

/* Either may be NULL: the system's. */
escqrs_uuid escqrs_uuid_new(const escqrs_clock *clock, const escqrs_random *random);
bool escqrs_uuid_is_nil(const escqrs_uuid *uuid);
void escqrs_uuid_format(const escqrs_uuid *uuid, char text[ESCQRS_UUID_TEXT_SIZE]);
/* Accepts the 36-character form in either case; false for anything else. */
bool escqrs_uuid_parse(escqrs_slice text, escqrs_uuid *uuid);

/* ---- fork ------------------------------------------------------------------------------------- */

/* A number that differs after every fork() in the child. An object remembers it at creation; where
 * it differs, every entry point answers ESCQRS_FORKED and every destructor touches nothing.
 * Async-signal-safe. */
unsigned escqrs_fork_generation(void);

#ifdef __cplusplus
}
#endif

#endif
