#include "support/test.h"

#include <sys/wait.h>
#include <unistd.h>

#include <escqrs/base.h>

/* Forks; the child exits 0 if its generation is neither its parent's nor any before, down to
 * `depth`. */
static int child_differs(int depth, unsigned before)
{
    pid_t child = fork();
    if (child == 0) {
        unsigned now = escqrs_fork_generation();
        _exit(now == before || (depth > 1 && child_differs(depth - 1, now) != 0));
    }
    int status = 0;
    return waitpid(child, &status, 0) == child ? status : -1;
}

static void the_child_of_every_fork_has_another_generation(void **state)
{
    (void)state;
    unsigned before = escqrs_fork_generation();
    assert_int_equal(child_differs(3, before), 0);
    assert_int_equal(escqrs_fork_generation(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_child_of_every_fork_has_another_generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
