/* What every provider has to do (escqrs/provider.h), as tests for cmocka. They go through the
 * public API alone, so that they serve for providers of other people:
 *
 *     static escqrs_store *open_mine(void *context, bool fresh, const escqrs_store_options
 * *options);
 *
 *     int main(void)
 *     {
 *         return provider_suite_run(&(provider_maker){.name = "mine", .open = open_mine});
 *     }
 *
 *     cc my_test.c provider_suite.c test.c -lcmocka libescqrs.a -lsqlite3 -lprotobuf-c -lcrypto
 *
 * tests/c/store/test_provider.c runs them on SQLite's file, the store in memory and
 * examples/provider.c. */
#ifndef ESC_TESTS_SUPPORT_PROVIDER_SUITE_H
#define ESC_TESTS_SUPPORT_PROVIDER_SUITE_H

#include <stdbool.h>

#include <escqrs/provider.h>

typedef struct provider_maker {
    const char *name;
    /* A store on an empty provider (`fresh`), or on the one of the last call, whose store was
     * destroyed. With these options. It fails the test rather than answering NULL. */
    escqrs_store *(*open)(void *context, bool fresh, const escqrs_store_options *options);
    void *context;
    bool forgets;    /* what was committed is gone with the store (memory) */
    bool deletes;    /* it has escqrs_store_erase */
    bool begins_new; /* it has escqrs_store_restart */
} provider_maker;

/* Run all of it; the number of tests that failed. */
int provider_suite_run(const provider_maker *maker);

#endif
