/* What a C++ program sees of the public headers, and does with them; cxx.cpp, compiled as C++17. */
#ifndef ESC_TESTS_SUPPORT_CXX_H
#define ESC_TESTS_SUPPORT_CXX_H

#include <stdalign.h>
#include <stddef.h>

#include <escqrs/actor.h>
#include <escqrs/entity.h>
#include <escqrs/provider_suite.h>
#include <escqrs/readmodel.h>
#include <escqrs/schema.h>
#include <escqrs/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes and places of what holds atomics, which C and C++ have to agree on. */
#define TEST_LAYOUT                                                                                \
    {                                                                                              \
        sizeof(escqrs_message), alignof(escqrs_message), sizeof(escqrs_actor),                     \
            alignof(escqrs_actor), offsetof(escqrs_actor, mailbox),                                \
            offsetof(escqrs_actor, references), offsetof(escqrs_actor, resume_sent),               \
            offsetof(escqrs_actor, waits_for), sizeof(escqrs_future),                              \
            offsetof(escqrs_future, completed), offsetof(escqrs_future, sent_to),                  \
            sizeof(escqrs_sink), offsetof(escqrs_sink, system), sizeof(escqrs_timing),             \
            offsetof(escqrs_timing, max_ns), sizeof(escqrs_wait), sizeof(escqrs_envelope),         \
            sizeof(escqrs_command), sizeof(escqrs_commit), sizeof(escqrs_error)                    \
    }
#define TEST_LAYOUT_COUNT 20

extern const size_t test_cxx_layout[TEST_LAYOUT_COUNT];

/* Spawn an actor with a middleware that counts, ask it for a number, and stop all; how many
 * messages the middleware has seen, or -1. */
int test_cxx_ask(int number, int *answer);

#ifdef __cplusplus
}
#endif

#endif
