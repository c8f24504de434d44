/* cart_actors.c - carts as persistent actors in C, on a C event store.
 *
 *     make examples-c && build/examples/cart_actors [FILE]
 *
 * A cart is a named actor. When it is spawned it replays its events from the store. AddItem is
 * refused where the cart holds the item; otherwise the event ItemAdded is appended, and only when
 * it is durable the cart changes, answers, and tells the updater, an actor that keeps a read model.
 * While the event is on its way the cart is suspended, and the worker runs other actors. An append
 * that fails restarts the cart from what is stored, and the asker gets the error.
 *
 * The program adds items to some carts, stops everything, and starts it again on the same file.
 * Without FILE it works on a new file in a temporary folder; with one it may be run again and
 * again.
 *
 * Read it from the bottom: main, then what a cart does, then its messages. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <escqrs/actor.h>
#include <escqrs/store.h>

#define ITEMS_MAX 100
#define TEXT_SIZE 64
#define CARTS 3

static int fail(const char *what, const escqrs_error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->message, escqrs_status_name(error->status));
    return EXIT_FAILURE;
}

/* ---- messages --------------------------------------------------------------------------------- */

/* AddItem is answered with Answer; ItemAdded goes to the updater. Freed with escqrs_free, as the
 * types say nothing else. */
typedef struct item_message {
    escqrs_envelope envelope;
    char name[TEXT_SIZE];
    int64_t quantity;
    char stream[TEXT_SIZE]; /* ItemAdded: whose event, and which */
    int64_t version;
} item_message;

typedef struct answer {
    escqrs_envelope envelope;
    bool added;
    int64_t version;
} answer;

static const escqrs_message_type ADD_ITEM = {.name = "AddItem"};
static const escqrs_message_type ITEM_ADDED = {.name = "ItemAdded"};
static const escqrs_message_type GET_TOTAL = {.name = "GetTotal"};
static const escqrs_message_type ANSWER = {.name = "Answer"};

static void *message_new(size_t size, const escqrs_message_type *type)
{
    escqrs_envelope *made = escqrs_alloc_zero(size);
    if (made == NULL) {
        fprintf(stderr, "no memory\n");
        exit(EXIT_FAILURE);
    }
    made->type = type;
    return made;
}

static escqrs_envelope *add_item_new(const char *name, int64_t quantity)
{
    item_message *made = message_new(sizeof *made, &ADD_ITEM);
    snprintf(made->name, sizeof made->name, "%s", name);
    made->quantity = quantity;
    return &made->envelope;
}

static escqrs_envelope *item_added_new(const char *stream, int64_t version, int64_t quantity)
{
    item_message *made = message_new(sizeof *made, &ITEM_ADDED);
    snprintf(made->stream, sizeof made->stream, "%s", stream);
    made->version = version;
    made->quantity = quantity;
    return &made->envelope;
}

static void respond(escqrs_context *context, bool added, int64_t version)
{
    answer *made = message_new(sizeof *made, &ANSWER);
    made->added = added;
    made->version = version;
    escqrs_context_respond(context, &made->envelope);
}

/* ---- the shop: what all carts share ----------------------------------------------------------- */

typedef struct shop {
    escqrs_store *store;
    escqrs_type *item_added;
    escqrs_actor_system *system;
    escqrs_ref *updater;
    escqrs_props *cart_props;
} shop;

/* ---- the updater: a read model ---------------------------------------------------------------- */

/* A cart that is restarted replays, and tells its events again: each counts once. */
typedef struct seen {
    char stream[TEXT_SIZE];
    int64_t version;
} seen;

typedef struct totals {
    seen carts[CARTS];
    int64_t pieces;
} totals;

static void updater_count(totals *self, const item_message *added)
{
    for (size_t i = 0; i < CARTS; i++) {
        seen *known = &self->carts[i];
        if (known->version == 0) {
            snprintf(known->stream, sizeof known->stream, "%s", added->stream);
        }
        if (strcmp(known->stream, added->stream) == 0) {
            if (added->version > known->version) {
                self->pieces += added->quantity;
                known->version = added->version;
            }
            return;
        }
    }
}

static escqrs_turn_end updater_receive(escqrs_context *context, void *state,
                                       escqrs_envelope *message)
{
    totals *self = state;
    if (message->type == &ITEM_ADDED) {
        updater_count(self, (const item_message *)message);
    } else if (message->type == &GET_TOTAL) {
        respond(context, true, self->pieces);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class UPDATER = {.name = "Updater", .receive = updater_receive};

/* ---- a cart ----------------------------------------------------------------------------------- */

typedef struct cart {
    shop *shop;
    escqrs_ref *self;
    char stream[TEXT_SIZE];
    char names[ITEMS_MAX][TEXT_SIZE];
    size_t item_count;
    int64_t version;

    /* the append that is on its way */
    escqrs_commit commit;
    escqrs_write write;
    escqrs_new_event event;
    char data[TEXT_SIZE + 32];
    escqrs_error error;
} cart;

/* The only place where a cart changes. */
static void cart_apply(cart *self, const char *name)
{
    snprintf(self->names[self->item_count++], TEXT_SIZE, "%s", name);
    self->version++;
}

/* An event's data is "quantity name". Its quantity also goes to the read model. */
static void cart_replayed(cart *self, const escqrs_recorded *recorded)
{
    char text[TEXT_SIZE + 32];
    snprintf(text, sizeof text, "%.*s", (int)recorded->data.size,
             (const char *)recorded->data.data);
    char *name = NULL;
    int64_t quantity = strtoll(text, &name, 10);
    cart_apply(self, name + 1);
    escqrs_tell(self->shop->updater, item_added_new(self->stream, self->version, quantity), NULL);
}

static escqrs_status cart_replay(cart *self, escqrs_error *error)
{
    escqrs_cursor *cursor = NULL;
    escqrs_range all = {0};
    escqrs_status status = escqrs_store_history(self->shop->store, escqrs_slice_of(self->stream),
                                                &all, &cursor, error);
    const escqrs_recorded *recorded;
    while (status == ESCQRS_OK) {
        status = escqrs_cursor_next(cursor, &recorded, error);
        if (status == ESCQRS_OK) {
            cart_replayed(self, recorded);
        }
    }
    escqrs_cursor_close(cursor);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_turn_end cart_create(escqrs_context *context, void *user_data, void **state)
{
    cart *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL, "no memory for a cart");
    }
    self->shop = user_data;
    self->self = escqrs_context_self(context);
    char name[TEXT_SIZE - 8];
    escqrs_ref_name(self->self, name, sizeof name);
    snprintf(self->stream, sizeof self->stream, "Cart/%s", name);
    escqrs_error error = {0};
    escqrs_status status = cart_replay(self, &error);
    if (status != ESCQRS_OK) {
        escqrs_free(self);
        return escqrs_context_fail(context, status, NULL, "replay: %s", error.message);
    }
    *state = self;
    return ESCQRS_TURN_NEXT;
}

static void cart_destroy(void *state, void *user_data)
{
    (void)user_data;
    escqrs_free(state);
}

/* On a thread of the journal: the event is durable, or the append has failed. */
static void cart_stored(escqrs_commit *commit)
{
    escqrs_ref_resume(((cart *)commit->context)->self);
}

static escqrs_turn_end cart_persist(escqrs_context *context, cart *self, const item_message *given)
{
    snprintf(self->data, sizeof self->data, "%" PRId64 " %s", given->quantity, given->name);
    self->event =
        (escqrs_new_event){.type = self->shop->item_added, .data = escqrs_slice_of(self->data)};
    self->write = (escqrs_write){.stream = escqrs_slice_of(self->stream),
                                 .expected = self->version,
                                 .events = &self->event,
                                 .event_count = 1};
    self->commit = (escqrs_commit){.writes = &self->write,
                                   .write_count = 1,
                                   .done = cart_stored,
                                   .context = self,
                                   .error = &self->error};
    escqrs_error error = {0};
    escqrs_status status = escqrs_store_submit(self->shop->store, &self->commit, &error);
    if (status != ESCQRS_OK) {
        return escqrs_context_fail(context, status, NULL, "append: %s", error.message);
    }
    return ESCQRS_TURN_SUSPEND;
}

static escqrs_turn_end cart_resume(escqrs_context *context, void *state)
{
    cart *self = state;
    if (self->commit.status != ESCQRS_OK) {
        return escqrs_context_fail(context, self->commit.status, NULL, "append: %s",
                                   self->error.message);
    }
    const item_message *given = (const item_message *)escqrs_context_message(context);
    cart_apply(self, given->name);
    respond(context, true, self->version);
    escqrs_context_tell(context, self->shop->updater,
                        item_added_new(self->stream, self->version, given->quantity));
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end cart_receive(escqrs_context *context, void *state, escqrs_envelope *message)
{
    cart *self = state;
    if (message->type != &ADD_ITEM) {
        return ESCQRS_TURN_NEXT;
    }
    const item_message *given = (const item_message *)message;
    bool refused = self->item_count == ITEMS_MAX;
    for (size_t i = 0; i < self->item_count; i++) {
        refused = refused || strcmp(self->names[i], given->name) == 0;
    }
    if (refused) {
        respond(context, false, self->version);
        return ESCQRS_TURN_NEXT;
    }
    return cart_persist(context, self, given);
}

static const escqrs_actor_class CART = {.name = "Cart",
                                        .create = cart_create,
                                        .receive = cart_receive,
                                        .resume = cart_resume,
                                        .destroy = cart_destroy};

/* ---- the program ------------------------------------------------------------------------------ */

static escqrs_status shop_open(shop *self, const char *path, totals *sums, escqrs_error *error)
{
    escqrs_status status = escqrs_store_open(path, NULL, &self->store, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(self->store, escqrs_slice_of("ItemAdded"), (escqrs_slice){0},
                                   &self->item_added, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_actor_system_create(NULL, &self->system, error);
    }
    escqrs_props *updater = NULL;
    if (status == ESCQRS_OK) {
        status = escqrs_props_create(
            &(escqrs_props_options){.actor_class = &UPDATER, .user_data = sums}, &updater, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_actor_system_spawn(self->system, updater, escqrs_slice_of("updater"),
                                           &self->updater, error);
    }
    if (status == ESCQRS_OK) {
        status =
            escqrs_props_create(&(escqrs_props_options){.actor_class = &CART, .user_data = self},
                                &self->cart_props, error);
    }
    escqrs_props_release(updater);
    return status;
}

/* Actors first: they may still append. */
static escqrs_status shop_close(shop *self, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (self->system != NULL) {
        status = escqrs_actor_system_stop(self->system, INT64_MAX, error);
    }
    escqrs_props_release(self->cart_props);
    escqrs_ref_release(self->updater);
    escqrs_actor_system_destroy(self->system);
    escqrs_store_destroy(self->store);
    *self = (shop){0};
    return status;
}

/* The cart of that number, spawned where it is not there yet; held. */
static escqrs_status shop_cart(shop *self, int number, escqrs_ref **cart_ref, escqrs_error *error)
{
    char name[TEXT_SIZE];
    snprintf(name, sizeof name, "cart-%d", number);
    escqrs_status status = escqrs_actor_system_spawn(self->system, self->cart_props,
                                                     escqrs_slice_of(name), cart_ref, error);
    return status == ESCQRS_NAME_EXISTS ? ESCQRS_OK : status;
}

static escqrs_status add_item(shop *self, int number, const char *name, escqrs_error *error)
{
    escqrs_ref *ref = NULL;
    escqrs_status status = shop_cart(self, number, &ref, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_envelope *got = NULL;
    status = escqrs_ask(ref, add_item_new(name, number + 1), INT64_MAX, &got, error);
    if (status == ESCQRS_OK) {
        const answer *answered = (const answer *)got;
        printf("  cart-%d: %s %s, version %" PRId64 "\n", number, name,
               answered->added ? "added" : "refused", answered->version);
        escqrs_envelope_destroy(got);
    }
    escqrs_ref_release(ref);
    return status;
}

static escqrs_status run(const char *path, escqrs_error *error)
{
    shop self = {0};
    totals sums = {0};
    escqrs_status status = shop_open(&self, path, &sums, error);
    static const char *const names[] = {"book", "pen", "book"};
    for (int number = 0; status == ESCQRS_OK && number < CARTS; number++) {
        for (size_t i = 0; status == ESCQRS_OK && i < sizeof names / sizeof names[0]; i++) {
            status = add_item(&self, number, names[i], error);
        }
    }
    escqrs_envelope *got = NULL;
    if (status == ESCQRS_OK) {
        status = escqrs_ask(self.updater, message_new(sizeof(escqrs_envelope), &GET_TOTAL),
                            INT64_MAX, &got, error);
    }
    if (status == ESCQRS_OK) {
        printf("  in all carts: %" PRId64 " pieces\n", ((const answer *)got)->version);
        escqrs_envelope_destroy(got);
    }
    escqrs_status closed = shop_close(&self, status == ESCQRS_OK ? error : NULL);
    return status == ESCQRS_OK ? closed : status;
}

int main(int argc, char **argv)
{
    char folder[] = "/tmp/cart-actors-XXXXXX";
    char path[sizeof folder + 16];
    if (argc < 2 && mkdtemp(folder) == NULL) {
        perror("mkdtemp");
        return EXIT_FAILURE;
    }
    snprintf(path, sizeof path, "%s/carts.db", folder);
    const char *file = argc < 2 ? path : argv[1];
    escqrs_error error = {0};
    for (int i = 0; i < 2; i++) {
        printf("%s:\n", i == 0 ? "the first time" : "again, from what is stored");
        if (run(file, &error) != ESCQRS_OK) {
            return fail("carts", &error);
        }
    }
    if (argc < 2) {
        unlink(path);
        char lock[sizeof path + 8];
        snprintf(lock, sizeof lock, "%s-lock", path);
        unlink(lock);
        rmdir(folder);
    }
    return EXIT_SUCCESS;
}
