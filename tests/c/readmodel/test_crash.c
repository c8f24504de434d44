/* Read models are a fold of the feed, wherever a process dies.
 *
 * A script (what is stored, projected and rebuilt) runs in a process that dies at its n-th write to
 * a file, from the first one until it comes to its end; sometimes a second one dies at any step of
 * the life after it. Whoever opens the files next finds rows that are the fold of the events up to
 * their checkpoint, and comes level. The seed decides the script, and which steps are tried. */
#include "readmodel/fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "readmodel/projector.h"
#include "support/fault_vfs.h"

#define MODELS 3
#define STRIDE 3 /* on average: which steps are tried, the seed decides */
#define SCHEMA(table)                                                                              \
    "CREATE TABLE " table " (stream TEXT PRIMARY KEY, n INTEGER NOT NULL, mixed INTEGER NOT NULL)"
/* What happens twice, not at all or in another order is seen. */
#define SQL(table)                                                                                 \
    "INSERT INTO " table " VALUES (:_stream, 1, :_position % 1000003) ON CONFLICT (stream) DO "    \
    "UPDATE SET n = n + 1, mixed = (mixed * 31 + :_position + :quantity - 1) % 1000003"

typedef struct life {
    fixture base;
    escqrs_readmodel *models[MODELS];
} life;

static const char *const names[MODELS] = {"Plain", "Side", "Inline"};
static const char *const tables[MODELS] = {"plain", "side", "inlined"};

static void open_life(life *self, const char *folder, escqrs_schema *schema, const char *version)
{
    static const char *const schemas[MODELS] = {SCHEMA("plain"), SCHEMA("side"), SCHEMA("inlined")};
    static const char *const texts[MODELS] = {SQL("plain"), SQL("side"), SQL("inlined")};
    escqrs_error error = {0};
    *self = (life){.base = {.schema = schema}};
    self->base.log = (escqrs_log){fixture_log, &self->base};
    snprintf(self->base.path, sizeof self->base.path, "%s/shop.db", folder);
    escqrs_store_options options = {.durability = ESCQRS_DURABILITY_NORMAL,
                                    .log = self->base.log,
                                    .sqlite_vfs = FAULT_VFS_NAME,
                                    .manual = true};
    check(escqrs_store_open(self->base.path, &options, &self->base.store, &error), &error);
    check(escqrs_store_type(self->base.store, escqrs_slice_of("ItemAdded"), (escqrs_slice){"", 0},
                            &self->base.type, &error),
          &error);
    fixture_open_projector(&self->base);
    for (size_t i = 0; i < MODELS; i++) {
        escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                        .schema = schema,
                                        .sql = escqrs_slice_of(texts[i])};
        escqrs_readmodel_spec spec = {.name = escqrs_slice_of(names[i]),
                                      .schema = escqrs_slice_of(schemas[i]),
                                      .version = escqrs_slice_of(version),
                                      .file = escqrs_slice_of(i == 1 ? "own.db" : ""),
                                      .projections = &projection,
                                      .projection_count = 1,
                                      .is_inline = i == 2};
        check(escqrs_readmodel_add(self->base.projector, &spec, &self->models[i], &error), &error);
    }
}

static void step(life *self, size_t times)
{
    for (size_t i = 0; i < times && escqrs_projector_step(self->base.projector); i++) {
    }
}

/* ---- the life that dies ---------------------------------------------------------------------- */

static void run_script(const char *folder, escqrs_schema *schema, test_random script)
{
    life self;
    escqrs_error error = {0};
    open_life(&self, folder, schema, "2"); /* all three have changed */
    for (int i = 0; i < 6; i++) {
        switch (test_random_below(&script, 4)) {
        case 0:
            append_item(&self.base, "one", (int64_t)test_random_below(&script, 100));
            break;
        case 1:
            append_many(&self.base, 0, 1 + (int)test_random_below(&script, 4));
            break;
        case 2:
            check(escqrs_readmodel_rebuild(self.models[test_random_below(&script, MODELS)], &error),
                  &error);
            break;
        default:
            break;
        }
        step(&self, 1 + test_random_below(&script, 4));
    }
    step(&self, SIZE_MAX);
    fixture_close(&self.base);
}

/* False: it came to its end before. */
static bool is_killed(const char *folder, escqrs_schema *schema, test_random script, long n)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fault_vfs_arm(FAULT_KILL, n, false);
        run_script(folder, schema, script);
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFEXITED(how)) {
        assert_int_equal(WEXITSTATUS(how), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(how), SIGKILL);
    return true;
}

/* ---- the life after it ----------------------------------------------------------------------- */

typedef struct fold {
    int64_t n[2], mixed[2]; /* Cart/cart-1, Cart/many */
} fold;

static fold fold_feed(life *self, int64_t upto)
{
    fold result = {0};
    escqrs_error error = {0};
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded = NULL;
    escqrs_range range = {.upto = upto};
    if (upto == 0) {
        return result;
    }
    check(escqrs_store_events(self->base.store, &range, &cursor, &error), &error);
    while (escqrs_cursor_next(cursor, &recorded, &error) == ESCQRS_OK) {
        int i = escqrs_slice_equal(recorded->stream, escqrs_slice_of("Cart/many"));
        const uint8_t *data = recorded->data.data;
        int64_t more = data[recorded->data.size - 1] - 1; /* quantity; see pack_item */
        int64_t before = result.mixed[i] * 31 + recorded->position + more;
        result.mixed[i] = result.n[i]++ == 0 ? recorded->position % 1000003 : before % 1000003;
    }
    escqrs_cursor_close(cursor);
    return result;
}

static void check_rows(life *self, size_t i, const char *when)
{
    void *db = NULL;
    escqrs_error error = {0};
    sqlite3_stmt *look = NULL;
    char sql[200];
    check(escqrs_readmodel_reader(self->models[i], &db, &error), &error);
    snprintf(sql, sizeof sql, "SELECT position FROM escqrs_readmodel WHERE name = '%s'", names[i]);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &look, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(look), SQLITE_ROW);
    int64_t position = sqlite3_column_int64(look, 0);
    sqlite3_finalize(look);
    fold expected = fold_feed(self, position);
    snprintf(sql, sizeof sql, "SELECT stream = 'Cart/many', n, mixed FROM %s", tables[i]);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &look, NULL), SQLITE_OK);
    while (sqlite3_step(look) == SQLITE_ROW) {
        int which = sqlite3_column_int(look, 0);
        expected.n[which] -= sqlite3_column_int64(look, 1);
        expected.mixed[which] -= sqlite3_column_int64(look, 2);
    }
    sqlite3_finalize(look);
    for (int which = 0; which < 2; which++) {
        if (expected.n[which] != 0 || expected.mixed[which] != 0) {
            fail_msg("%s: %s is not the fold of the events up to %lld", when, names[i],
                     (long long)position);
        }
    }
    escqrs_readmodel_reader_return(self->models[i], db);
}

static void check_life(const char *folder, escqrs_schema *schema, const char *version)
{
    life self;
    escqrs_error error = {0};
    open_life(&self, folder, schema, version);
    check(esc_models_make(self.base.projector, &error), &error);
    for (size_t i = 0; i < MODELS; i++) {
        check_rows(&self, i, "as it was found");
    }
    step(&self, SIZE_MAX);
    append_item(&self.base, "last", 1);
    step(&self, SIZE_MAX);
    for (size_t i = 0; i < MODELS; i++) {
        escqrs_readmodel_status status;
        escqrs_readmodel_get_status(self.models[i], &status);
        assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
        assert_int_equal(status.position, escqrs_store_head(self.base.store));
        assert_false(status.rebuilding);
        check_rows(&self, i, "when level");
    }
    fixture_close(&self.base);
}

static void shell(const char *format, const char *first, const char *second)
{
    char command[1300];
    snprintf(command, sizeof command, format, first, second);
    assert_int_equal(system(command), 0);
}

static void test_every_step(void **state)
{
    fixture *made = *state;
    test_random random = test_random_new();
    const test_random script = random;
    char *before = test_folder_new();
    life self;
    open_life(&self, before, made->schema, "1");
    append_many(&self.base, 0, 5);
    append_item(&self.base, "one", 7);
    step(&self, SIZE_MAX);
    fixture_close(&self.base);
    const uint64_t stride = 2 * STRIDE * (uint64_t)test_stride(3) - 1;
    bool killed = true;
    for (long n = 1; killed; n += 1 + (long)test_random_below(&random, stride)) {
        char *folder = test_folder_new();
        shell("cp -r '%s/.' '%s/'", before, folder);
        killed = is_killed(folder, made->schema, script, n);
        if (killed && n % 4 == 0) {
            (void)is_killed(folder, made->schema, script,
                            1 + (long)test_random_below(&random, 200));
        }
        check_life(folder, made->schema, n % 5 == 0 ? "1" : "2");
        shell("test -z \"$(ls '%s' | grep -e -rebuild-)\"%s", folder, "");
        test_folder_remove(folder);
        if (!killed) {
            print_message("%ld steps\n", n - 1);
            assert_true(n > 50);
        }
    }
    test_folder_remove(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_step, fixture_setup_in_memory, fixture_teardown),
    };
    fault_vfs_register();
    /* copies and files of read models are opened with the default one */
    (void)sqlite3_vfs_register(sqlite3_vfs_find(FAULT_VFS_NAME), 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
