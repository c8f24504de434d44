#include "support/test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <escqrs/base.h>

test_random test_random_new(void)
{
    test_random random = {0};
    const char *given = getenv("ESCQRS_SEED");
    if (given != NULL) {
        random.state = strtoull(given, NULL, 10);
    } else {
        escqrs_random_fill(NULL, &random.state, sizeof random.state);
    }
    printf("ESCQRS_SEED=%llu\n", (unsigned long long)random.state);
    fflush(stdout);
    return random;
}

/* splitmix64 */
uint64_t test_random_next(test_random *random)
{
    uint64_t value = random->state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint64_t test_random_below(test_random *random, uint64_t limit)
{
    return test_random_next(random) % limit;
}

long test_stride(long slowly)
{
#if defined(__SANITIZE_THREAD__)
    return slowly;
#else
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "valgrind") != NULL ? slowly : 1;
#endif
}

char *test_folder_new(void)
{
    const char *base = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/escqrs-test-XXXXXX", base != NULL ? base : "/tmp");
    char *made = mkdtemp(path);
    if (made == NULL) {
        perror(path);
        abort();
    }
    return escqrs_strdup(escqrs_slice_of(made));
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

void test_folder_remove(char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    escqrs_free(path);
}

_Noreturn void test_child_end(bool well)
{
    if (well) {
        /* Another program: valgrind would say that what the parent's threads held was lost here. */
        execlp("true", "true", (char *)NULL);
    }
    _exit(1);
}
