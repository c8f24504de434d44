/* What the C tests share: cmocka with all that its header wants, a seed that is printed, a folder.
 */
#ifndef ESC_TESTS_SUPPORT_TEST_H
#define ESC_TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

#include <cmocka.h>

/* A generator for tests. The seed comes from ESCQRS_SEED, or is drawn; it is printed either way, so
 * that what fails can be run again. */
typedef struct test_random {
    uint64_t state;
} test_random;

test_random test_random_new(void);
uint64_t test_random_next(test_random *random);
uint64_t test_random_below(test_random *random, uint64_t limit); /* limit > 0 */

/* How a test goes on that tries very many things one after another: by 1, and by `slowly` under
 * ThreadSanitizer and valgrind, where all takes ten times as long. */
long test_stride(long slowly);

/* Makes an empty folder for one test and returns its path, to be given to test_folder_remove. */
char *test_folder_new(void);
void test_folder_remove(char *path); /* with all in it; frees the path */

/* The end of a child of fork(), whose status is 0 where it went well. */
_Noreturn void test_child_end(bool well);

#endif
