/* The kernel's randomness, unless a test put its own in its place. */
#include <escqrs/base.h>

#include <errno.h>
#include <sys/random.h>

#include "base/assert.h"

void escqrs_random_fill(const escqrs_random *random, void *buffer, size_t size)
{
    if (random != NULL && random->fill != NULL) {
        random->fill(random->context, buffer, size);
        return;
    }
    uint8_t *bytes = buffer;
    while (size > 0) {
        ssize_t got = getrandom(bytes, size, 0);
        if (got < 0) {
            /* a kernel of Linux 3.17 or later has no other failure for a valid buffer */
            ESC_ASSERT(errno == EINTR);
            continue;
        }
        bytes += got;
        size -= (size_t)got;
    }
}
