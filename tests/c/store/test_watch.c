/* The watch of a read-only store, by itself. */
#include "fixture.h"

#include "base/thread.h"
#include "store/watch.h"

typedef struct looker {
    esc_mutex mutex;
    esc_cond called;
    int calls;
} looker;

/* Cannot see anything at first. */
static bool look(void *context)
{
    looker *self = context;
    esc_mutex_lock(&self->mutex);
    bool sees = ++self->calls > 2;
    esc_cond_broadcast(&self->called);
    esc_mutex_unlock(&self->mutex);
    return sees;
}

/* A look that fails is tried again, though nobody tells of another commit. */
static void test_look_that_fails(void **state)
{
    (void)state;
    looker self = {0};
    esc_watch *watch = NULL;
    char path[600];
    escqrs_error error = {0};
    const escqrs_log log = {0};
    snprintf(path, sizeof path, "%s-lock", fixture_path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    esc_mutex_init(&self.mutex);
    esc_cond_init(&self.called);
    assert_int_equal(esc_watch_start(path, &log, look, &self, &watch, &error), ESCQRS_OK);
    esc_watch_enter(watch);
    int64_t deadline_ns = esc_deadline_after(600000000000LL);
    esc_mutex_lock(&self.mutex);
    while (self.calls < 3 && esc_cond_wait_until(&self.called, &self.mutex, deadline_ns)) {
    }
    assert_true(self.calls >= 3);
    esc_mutex_unlock(&self.mutex);
    esc_watch_leave(watch);
    esc_watch_stop(watch);
    esc_cond_fini(&self.called);
    esc_mutex_fini(&self.mutex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_look_that_fails, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
