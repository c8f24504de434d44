/* Read models on a provider that a program brings, which has SQL for their rows beside it. */
#include "readmodel/fixture.h"

int example_main(void);
#define main example_main
#include "../../../examples/provider.c"
#undef main

/* In place of the store that the fixture has opened, or of the last one on the shelf. */
static void put_on(fixture *self, shelf *kept)
{
    escqrs_error error = {0};
    fixture_close(self);
    check(shelf_open(kept, &(escqrs_store_options){.log = self->log}, &self->store, &error),
          &error);
    check(escqrs_store_type(self->store, escqrs_slice_of("ItemAdded"), (escqrs_slice){"", 0},
                            &self->type, &error),
          &error);
    fixture_open_projector(self);
}

static void test_rows(void **state)
{
    fixture *self = *state;
    shelf *kept = shelf_create();
    put_on(self, kept);
    append_item(self, "book", 2);
    append_many(self, 1, 1000);
    escqrs_readmodel *model = add_items(self);
    start(self);
    append_item(self, "pen", 3);
    flush(self, model);
    assert_look(self, "SELECT sum(quantity) FROM items", "1005");
    put_on(self, kept); /* the rows are made anew */
    append_item(self, "ink", 5);
    model = add_items(self);
    start(self);
    flush(self, model);
    assert_look(self, "SELECT sum(quantity) FROM items", "1010");
    fixture_close(self);
    shelf_destroy(kept);
}

/* There is no transaction that its rows and the events could share: said, not left out. */
static void test_inline_rows(void **state)
{
    fixture *self = *state;
    shelf *kept = shelf_create();
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    put_on(self, kept);
    escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                    .schema = self->schema,
                                    .sql = escqrs_slice_of(ITEMS_SQL)};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Items"),
                                  .schema = escqrs_slice_of(ITEMS_SCHEMA),
                                  .projections = &projection,
                                  .projection_count = 1,
                                  .is_inline = true};
    check(escqrs_readmodel_add(self->projector, &spec, &model, &error), &error);
    start(self);
    assert_int_equal(note(self->store, "x", ESCQRS_EXPECT_ANY, &error), ESCQRS_INVALID);
    assert_non_null(strstr(error.message, "inline"));
    assert_int_equal(escqrs_store_head(self->store), 0);
    fixture_close(self);
    shelf_destroy(kept);
}

int main(void)
{
    alarm(900);
    const struct CMUnitTest tests[] = {FILE_ONLY(test_rows), FILE_ONLY(test_inline_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
