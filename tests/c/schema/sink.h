/* An escqrs_write_function that gathers text, and can run out of memory. */
#ifndef ESC_TESTS_SCHEMA_SINK_H
#define ESC_TESTS_SCHEMA_SINK_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct sink {
    char *text; /* NUL-terminated; NULL while empty */
    size_t size;
    long calls_left; /* 0: no limit */
} sink;

static inline bool sink_write(void *context, const char *text, size_t size)
{
    sink *s = context;
    if (s->calls_left > 0 && --s->calls_left == 0) {
        return false;
    }
    s->text = realloc(s->text, s->size + size + 1);
    memcpy(s->text + s->size, text, size);
    s->size += size;
    s->text[s->size] = '\0';
    return true;
}

static inline void sink_fini(sink *s)
{
    free(s->text);
    *s = (sink){0};
}

#endif
