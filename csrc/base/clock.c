/* The system's clocks, unless a test put its own in their place. */
#include <escqrs/base.h>

#include <time.h>

#include "base/assert.h"

static struct timespec read_clock(clockid_t id)
{
    struct timespec now;
    int failed = clock_gettime(id, &now); /* fails for unknown clocks only */
    ESC_ASSERT(failed == 0);
    return now;
}

int64_t escqrs_clock_now_us(const escqrs_clock *clock)
{
    if (clock != NULL && clock->now_us != NULL) {
        return clock->now_us(clock->context);
    }
    struct timespec now = read_clock(CLOCK_REALTIME);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t escqrs_clock_monotonic_ns(const escqrs_clock *clock)
{
    if (clock != NULL && clock->monotonic_ns != NULL) {
        return clock->monotonic_ns(clock->context);
    }
    struct timespec now = read_clock(CLOCK_MONOTONIC);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
