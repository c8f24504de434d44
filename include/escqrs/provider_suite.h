/* escqrs/provider_suite.h - whether a provider of one's own (escqrs/provider.h) does all that a
 * provider has to. The tests go through the public API alone and want no framework: a program that
 * opens the provider, linked as any other, is enough.
 *
 *     static escqrs_status open_mine(void *context, bool fresh, const escqrs_store_options
 * *options, escqrs_store **store, escqrs_error *error);
 *
 *     int main(void)
 *     {
 *         escqrs_provider_suite mine = {.name = "mine", .open = open_mine};
 *         return escqrs_provider_suite_run(&mine) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
 *     }
 *
 * escqrs runs them on SQLite's file, the store in memory and examples/provider.c. What a provider
 * may leave out (streams, stats, snapshots, verify) is tested where it does not answer INVALID.
 * Not tested: copies, the chain, compacting, and what nobody can see from outside, that what is
 * durable survives the machine and that a batch that breaks is taken back whole.
 *
 * A provider with a call that never comes back keeps its test waiting for ever: give the program a
 * time limit. */
#ifndef ESCQRS_PROVIDER_SUITE_H
#define ESCQRS_PROVIDER_SUITE_H

#include <escqrs/provider.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is tested. Zeroed fields are unused, but for `name` and `open`. */
typedef struct escqrs_provider_suite {
    const char *name; /* of the provider, before that of each test */
    /* A store on an empty provider (`fresh`), or on that of the last call, whose store was
     * destroyed; with these options (NULL: none), which the provider obeys as far as they concern
     * it: the clock does. It is the suite's, which has one open at a time and destroys it, also
     * where a test fails. Anything but OK fails the test. */
    escqrs_status (*open)(void *context, bool fresh, const escqrs_store_options *options,
                          escqrs_store **store, escqrs_error *error);
    /* Told of each test when it has ended: `failure` is NULL, or says what was expected and where
     * (valid during the call). NULL: a line each on standard output. */
    void (*report)(void *context, const char *test, const char *failure);
    void *context;   /* of both */
    bool forgets;    /* what was committed is gone with the store (memory) */
    bool deletes;    /* it has `erase` and `erased`; otherwise it has to refuse */
    bool begins_new; /* it has `restart`; otherwise it has to refuse */
} escqrs_provider_suite;

/* Run all of it, on the calling thread and some that it starts; how many tests failed. Blocks. */
ESCQRS_MUST_USE size_t escqrs_provider_suite_run(const escqrs_provider_suite *suite);

#ifdef __cplusplus
}
#endif

#endif
