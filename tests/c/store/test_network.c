/* Stores on file systems of other machines: refused where it is known, said in the log where it may
 * be. The program has a statfs of its own, which is what the library calls. */
#include "fixture.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

static unsigned long pretended; /* the number of the file system; 0: as it is */
static char logged[600];

int statfs(const char *path, struct statfs *found)
{
    long result = syscall(SYS_statfs, path, found);
    if (result == 0 && pretended != 0) {
        found->f_type = (__typeof__(found->f_type))pretended;
    }
    return (int)result;
}

static void keep_log(void *context, escqrs_log_level level, const char *text)
{
    (void)context;
    if (level >= ESCQRS_LOG_WARNING) {
        snprintf(logged, sizeof logged, "%s", text);
    }
}

static void test_network(void **state)
{
    (void)state;
    static const unsigned long numbers[] = {0x6969, 0xff534d42, 0xfe534d42, 0x00c36400};
    static const char *const names[] = {"(NFS)", "(CIFS)", "(SMB)", "(Ceph)"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        escqrs_error error;
        pretended = numbers[i];
        refused(fixture_path, NULL, ESCQRS_IO, &error);
        assert_int_equal(error.system_error, ENOTSUP);
        assert_non_null(strstr(error.message, names[i]));
        assert_false(exists(fixture_path, ""));
        assert_false(exists(fixture_path, "-lock"));
    }
    pretended = 0;
    escqrs_store_destroy(open_store(":memory:"));
}

/* What nobody writes may lie anywhere. */
static void test_reading_a_copy(void **state)
{
    (void)state;
    escqrs_store_options readonly = {.readonly = true};
    escqrs_error error;
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 3);
    pretended = 0x6969;
    refused(fixture_path, &readonly, ESCQRS_IO, &error); /* its WAL is in use */
    pretended = 0;
    escqrs_store_destroy(store);
    pretended = 0x6969;
    store = open_with(fixture_path, &readonly);
    assert_int_equal(check_stream(store, "s"), 3);
    escqrs_store_destroy(store);
    pretended = 0;
}

static void test_perhaps(void **state)
{
    (void)state;
    escqrs_store_options options = {.log = {keep_log, NULL}};
    escqrs_store_destroy(open_with(fixture_path, &options));
    assert_string_equal(logged, "");
    pretended = 0x65735546;
    escqrs_store_destroy(open_with(fixture_path, &options));
    assert_non_null(strstr(logged, "FUSE"));
    pretended = 0;
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_network, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_reading_a_copy, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_perhaps, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
