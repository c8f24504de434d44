/* What the tests of escqrs/provider_suite.h share: one that fails leaves by longjmp, so a check may
 * stand anywhere on the thread of the test. The store, the cursor and memory that a test has open
 * belong to the struct and are let go of by the runner. */
#ifndef ESC_TESTING_SUITE_H
#define ESC_TESTING_SUITE_H

#include <setjmp.h>

#include <escqrs/provider_suite.h>

typedef struct esc_suite {
    const escqrs_provider_suite *of;
    escqrs_store *store;   /* open now, or NULL */
    escqrs_cursor *cursor; /* likewise */
    void *memory;          /* for escqrs_free, or NULL */
    escqrs_error error;    /* of the last call that a test made with it */
    jmp_buf failed;
    char why[2048];
} esc_suite;

typedef struct esc_suite_test {
    const char *name;
    void (*run)(esc_suite *suite);
} esc_suite_test;

/* Each ends with a name of NULL. */
extern const esc_suite_test esc_suite_commits[];
extern const esc_suite_test esc_suite_readings[];
extern const esc_suite_test esc_suite_aids[];

/* ---- checks: on the test's own thread --------------------------------------------------------- */

_Noreturn void esc_suite_fail(esc_suite *suite, const char *file, int line, const char *format, ...)
    ESCQRS_PRINTF(4, 5);
void esc_suite_same(esc_suite *suite, const char *file, int line, const char *what, int64_t found,
                    int64_t wanted);
void esc_suite_gives(esc_suite *suite, const char *file, int line, const char *call,
                     escqrs_status found, escqrs_status wanted);
void esc_suite_reads(esc_suite *suite, const char *file, int line, const char *what,
                     escqrs_slice found, const char *wanted);

#define CHECK(suite, what)                                                                         \
    ((what) ? (void)0 : esc_suite_fail(suite, __FILE__, __LINE__, "it does not hold: %s", #what))
#define SAME(suite, found, wanted)                                                                 \
    esc_suite_same(suite, __FILE__, __LINE__, #found, (int64_t)(found), (int64_t)(wanted))
/* A status; the call fills suite->error, which is then told. */
#define GIVES(suite, call, wanted)                                                                 \
    ((suite)->error = (escqrs_error){0},                                                           \
     esc_suite_gives(suite, __FILE__, __LINE__, #call, call, wanted))
#define READS(suite, found, wanted)                                                                \
    esc_suite_reads(suite, __FILE__, __LINE__, #found, found, wanted)

/* ---- what most tests do ----------------------------------------------------------------------- */

/* A store on an empty provider, with options or NULL; the suite's. */
escqrs_store *esc_suite_open(esc_suite *suite, const escqrs_store_options *options);
/* The same provider, its store closed and opened; NULL where it forgets. */
escqrs_store *esc_suite_open_again(esc_suite *suite);
void esc_suite_close(esc_suite *suite);
void esc_suite_close_cursor(esc_suite *suite);

escqrs_type *esc_suite_type(esc_suite *suite, const char *name);
escqrs_new_event esc_suite_event(esc_suite *suite, const char *type, const char *data);

/* A commit of one event of type "Test" to one stream, with room for what a test adds. */
typedef struct esc_suite_one {
    escqrs_new_event event;
    escqrs_write write;
    escqrs_commit commit;
    escqrs_error error; /* where it is submitted */
} esc_suite_one;

void esc_suite_one_init(esc_suite *suite, esc_suite_one *one, const char *stream, int64_t expected,
                        const char *data);
escqrs_status esc_suite_one_commit(esc_suite *suite, esc_suite_one *one);
void esc_suite_one_submit(esc_suite *suite, esc_suite_one *one);
void esc_suite_append(esc_suite *suite, const char *stream, int64_t expected, const char *data);

int64_t esc_suite_version(esc_suite *suite, const char *stream);
int64_t esc_suite_checkpoint(esc_suite *suite, const char *name);
/* The data of what is read, with a blank behind each, valid until the next call; `stream` NULL: of
 * the store; `range` NULL: all. */
escqrs_slice esc_suite_texts(esc_suite *suite, const char *stream, const escqrs_range *range);
/* The next event of suite->cursor. */
const escqrs_recorded *esc_suite_next(esc_suite *suite);

#endif
