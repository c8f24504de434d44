/* See assert.h. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void esc_assert_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "escqrs: %s:%d: assertion failed: %s\n", file, line, condition);
    fflush(stderr);
    abort();
}
