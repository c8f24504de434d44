/* See escqrs/base.h. No locks. */
#include <escqrs/base.h>

#include <string.h>

escqrs_slice escqrs_slice_of(const char *text)
{
    return (escqrs_slice){text, text == NULL ? 0 : strlen(text)};
}

bool escqrs_slice_equal(escqrs_slice a, escqrs_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}
