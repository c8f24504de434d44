/* cart_actors.c - carts as persistent actors in C, on a C event store.
 *
 *     make examples-c && build/examples/cart_actors [FILE]
 *
 * A cart is a persistent actor (escqrs/persistent.h): spawned with a name, it gets its stored
 * events before anything else. AddItem is refused where the cart holds the item; otherwise it
 * persists the event ItemAdded, which changes the cart, and answers, and tells the updater, an
 * actor that keeps a read model. Both leave when the event is durable; meanwhile the worker runs
 * other actors. An append that fails restarts the cart from what is stored, and the asker gets the
 * error.
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

#include <escqrs/persistent.h>

#define ITEMS_MAX 100
#define TEXT_SIZE 64
#define CARTS 3

static int fail(const char *what, const escqrs_error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->message, escqrs_status_name(error->status));
    return EXIT_FAILURE;
}

/* ---- messages --------------------------------------------------------------------------------- */

/* AddItem is answered with Answer; CartChanged goes to the updater. Freed with escqrs_free, as the
 * types say nothing else. */
typedef struct add_item {
    escqrs_envelope envelope;
    char name[TEXT_SIZE];
    int64_t quantity;
} add_item;

typedef struct cart_changed {
    escqrs_envelope envelope;
    char cart[TEXT_SIZE];
    int64_t pieces; /* in it now */
} cart_changed;

typedef struct answer {
    escqrs_envelope envelope;
    bool added;
    int64_t number; /* the cart's version, or the total */
} answer;

static const escqrs_message_type ADD_ITEM = {.name = "AddItem"};
static const escqrs_message_type CART_CHANGED = {.name = "CartChanged"};
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
    add_item *made = message_new(sizeof *made, &ADD_ITEM);
    snprintf(made->name, sizeof made->name, "%s", name);
    made->quantity = quantity;
    return &made->envelope;
}

static void respond(escqrs_context *context, bool added, int64_t number)
{
    answer *made = message_new(sizeof *made, &ANSWER);
    made->added = added;
    made->number = number;
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

/* In memory: each cart says what it holds when it has been recovered, too. */
typedef struct totals {
    char carts[CARTS][TEXT_SIZE];
    int64_t pieces[CARTS];
} totals;

static void updater_note(totals *self, const cart_changed *changed)
{
    for (size_t i = 0; i < CARTS; i++) {
        if (self->carts[i][0] == '\0') {
            snprintf(self->carts[i], TEXT_SIZE, "%s", changed->cart);
        }
        if (strcmp(self->carts[i], changed->cart) == 0) {
            self->pieces[i] = changed->pieces;
            return;
        }
    }
}

static escqrs_turn_end updater_receive(escqrs_context *context, void *state,
                                       escqrs_envelope *message)
{
    totals *self = state;
    if (message->type == &CART_CHANGED) {
        updater_note(self, (const cart_changed *)message);
    } else if (message->type == &GET_TOTAL) {
        int64_t sum = 0;
        for (size_t i = 0; i < CARTS; i++) {
            sum += self->pieces[i];
        }
        respond(context, true, sum);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class UPDATER = {.name = "Updater", .receive = updater_receive};

/* ---- a cart ----------------------------------------------------------------------------------- */

typedef struct cart {
    shop *shop;
    char names[ITEMS_MAX][TEXT_SIZE];
    size_t item_count;
    int64_t pieces;
} cart;

static escqrs_turn_end cart_create(escqrs_context *context, void *user_data, void **state)
{
    cart *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL, "no memory for a cart");
    }
    self->shop = user_data;
    *state = self;
    return ESCQRS_TURN_NEXT;
}

static void cart_destroy(void *state, void *user_data)
{
    (void)user_data;
    escqrs_free(state);
}

/* The only place where a cart changes, now and in replay. An event's data is "quantity name". */
static escqrs_turn_end cart_apply(escqrs_context *context, cart *self, escqrs_slice data)
{
    char text[TEXT_SIZE + 32], *name = NULL;
    snprintf(text, sizeof text, "%.*s", (int)data.size, (const char *)data.data);
    int64_t quantity = strtoll(text, &name, 10);
    if (*name != ' ' || self->item_count == ITEMS_MAX) {
        return escqrs_context_fail(context, ESCQRS_CORRUPT, NULL, "not an item: %s", text);
    }
    snprintf(self->names[self->item_count++], TEXT_SIZE, "%s", name + 1);
    self->pieces += quantity;
    return ESCQRS_TURN_NEXT;
}

static void cart_tell(escqrs_context *context, const cart *self)
{
    cart_changed *made = message_new(sizeof *made, &CART_CHANGED);
    escqrs_ref_name(escqrs_context_self(context), made->cart, sizeof made->cart);
    made->pieces = self->pieces;
    escqrs_context_tell(context, self->shop->updater, &made->envelope);
}

static bool cart_takes(const cart *self, const char *name)
{
    for (size_t i = 0; i < self->item_count; i++) {
        if (strcmp(self->names[i], name) == 0) {
            return false;
        }
    }
    return self->item_count < ITEMS_MAX;
}

static escqrs_turn_end cart_add(escqrs_context *context, cart *self, const add_item *given)
{
    char data[TEXT_SIZE + 32];
    escqrs_error error = {0};
    if (!cart_takes(self, given->name)) {
        respond(context, false, escqrs_context_version(context));
        return ESCQRS_TURN_NEXT;
    }
    snprintf(data, sizeof data, "%" PRId64 " %s", given->quantity, given->name);
    escqrs_status status =
        escqrs_context_persist(context, self->shop->item_added, escqrs_slice_of(data), &error);
    if (status != ESCQRS_OK) {
        return escqrs_context_fail(context, status, NULL, "%s", error.message);
    }
    respond(context, true, escqrs_context_version(context));
    cart_tell(context, self);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end cart_receive(escqrs_context *context, void *state, escqrs_envelope *message)
{
    cart *self = state;
    if (message->type == &escqrs_persisted) {
        return cart_apply(context, self, ((const escqrs_persisted_message *)message)->data);
    }
    if (message->type == &escqrs_replay_complete) {
        cart_tell(context, self);
    } else if (message->type == &ADD_ITEM) {
        return cart_add(context, self, (const add_item *)message);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class CART = {
    .name = "Cart", .create = cart_create, .receive = cart_receive, .destroy = cart_destroy};

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
        status = escqrs_persistent_props(
            &(escqrs_props_options){.actor_class = &CART, .user_data = self},
            &(escqrs_persistence){.store = self->store}, &self->cart_props, error);
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

static escqrs_status add_to_cart(shop *self, int number, const char *name, escqrs_error *error)
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
               answered->added ? "added" : "refused", answered->number);
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
            status = add_to_cart(&self, number, names[i], error);
        }
    }
    escqrs_envelope *got = NULL;
    if (status == ESCQRS_OK) {
        status = escqrs_ask(self.updater, message_new(sizeof(escqrs_envelope), &GET_TOTAL),
                            INT64_MAX, &got, error);
    }
    if (status == ESCQRS_OK) {
        printf("  in all carts: %" PRId64 " pieces\n", ((const answer *)got)->number);
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
