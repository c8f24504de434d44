/* cart.c - a shopping cart as a C aggregate, on the C engine alone.
 *
 *     make examples-c && build/examples/cart [FILE]
 *
 * A cart takes the command AddItem. It refuses an item that it holds already; otherwise it emits
 * ItemAdded, and answers when the event is durable. The program adds some items, closes the file,
 * opens it again and shows that replay leads to the same cart. Without FILE it works on a new file
 * in a temporary folder; with one it may be run again and again.
 *
 * Read it from the bottom: main, then what a cart does, then how its messages are written. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <escqrs/entity.h>
#include <escqrs/schema.h>
#include <escqrs/store.h>

#define ITEMS_MAX 100
#define NAME_MAX_SIZE 64

static int fail(const char *what, const escqrs_error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->message, escqrs_status_name(error->status));
    return EXIT_FAILURE;
}

/* ---- messages ------------------------------------------------------------------------------- */

/* ItemAdded { item_id: string = 1; name: string = 2; quantity: int = 3 }, described at run time. */
typedef struct item_added {
    escqrs_schema *schema;
    escqrs_type *type; /* as the store knows it */
} item_added;

static escqrs_status item_added_describe(item_added *message, escqrs_error *error)
{
    static const escqrs_field_spec fields[] = {
        {.name = "item_id", .number = 1, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_ONE},
        {.name = "name", .number = 2, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_ONE},
        {.name = "quantity", .number = 3, .kind = ESCQRS_KIND_INT, .label = ESCQRS_ONE},
    };
    escqrs_status status =
        escqrs_schema_create(escqrs_slice_of("ItemAdded"), &message->schema, error);
    for (size_t i = 0; status == ESCQRS_OK && i < sizeof fields / sizeof fields[0]; i++) {
        status = escqrs_schema_add(message->schema, &fields[i], error);
    }
    return status == ESCQRS_OK ? escqrs_schema_seal(message->schema, error) : status;
}

/* The store keeps the schema's record beside the events, so that a later reader knows what they
 * mean. */
static escqrs_status item_added_register(item_added *message, escqrs_store *store,
                                         escqrs_error *error)
{
    void *record = NULL;
    size_t size = 0;
    escqrs_status status = escqrs_schema_record(message->schema, &record, &size, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(store, escqrs_slice_of("ItemAdded"),
                                   (escqrs_slice){record, size}, &message->type, error);
        escqrs_free(record);
    }
    return status;
}

static void *field_at(ProtobufCMessage *message, size_t offset)
{
    return (char *)message + offset;
}

static void set_string(const escqrs_schema *schema, size_t index, ProtobufCMessage *message,
                       const char *text)
{
    const escqrs_field *field = escqrs_schema_field(schema, index);
    *(protobuf_c_boolean *)field_at(message, field->has_offset) = 1;
    *(ProtobufCBinaryData *)field_at(message, field->value_offset) =
        (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

static void set_int(const escqrs_schema *schema, size_t index, ProtobufCMessage *message,
                    int64_t value)
{
    const escqrs_field *field = escqrs_schema_field(schema, index);
    *(protobuf_c_boolean *)field_at(message, field->has_offset) = 1;
    *(int64_t *)field_at(message, field->value_offset) = value;
}

/* ---- the cart ------------------------------------------------------------------------------- */

typedef struct item {
    char name[NAME_MAX_SIZE];
    int64_t quantity;
} item;

typedef struct cart {
    item items[ITEMS_MAX];
    size_t item_count;
} cart;

/* AddItem, and what came of it. A command begins with the engine's part. */
typedef struct add_item {
    escqrs_command command;
    const char *name;
    int64_t quantity;
    cart copy; /* filled by a visit */

    pthread_mutex_t lock;
    pthread_cond_t answered;
    int is_answered; /* lock */
    escqrs_status status;
    escqrs_error error;
} add_item;

static escqrs_status cart_create(void *context, escqrs_entity *entity, void **state,
                                 escqrs_error *error)
{
    (void)context;
    (void)entity;
    *state = escqrs_alloc_zero(sizeof(cart));
    return *state != NULL ? ESCQRS_OK
                          : escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a cart");
}

static void cart_destroy(void *context, void *state)
{
    (void)context;
    escqrs_free(state);
}

/* The only place where a cart changes; run by handlers and by replay. */
static void cart_apply(cart *self, const item_added *message, ProtobufCMessage *event)
{
    const ProtobufCBinaryData *name =
        field_at(event, escqrs_schema_field(message->schema, 1)->value_offset);
    item *added = &self->items[self->item_count++];
    snprintf(added->name, sizeof added->name, "%.*s", (int)name->len, (const char *)name->data);
    added->quantity =
        *(int64_t *)field_at(event, escqrs_schema_field(message->schema, 2)->value_offset);
}

static escqrs_status cart_decode(void *context, const escqrs_recorded *recorded, void **decoded,
                                 escqrs_error *error)
{
    const item_added *message = context;
    return escqrs_message_unpack(message->schema, recorded->data, NULL,
                                 (ProtobufCMessage **)decoded, error);
}

static void cart_discard(void *context, void *decoded)
{
    (void)context;
    escqrs_message_free(decoded);
}

static escqrs_status cart_replay(void *context, void *state, const escqrs_recorded *recorded,
                                 void *decoded, escqrs_error *error)
{
    (void)recorded;
    escqrs_status status = ESCQRS_OK;
    if (((cart *)state)->item_count == ITEMS_MAX) {
        status = escqrs_error_set(error, ESCQRS_CORRUPT, "a cart holds %d items", ITEMS_MAX);
    } else {
        cart_apply(state, context, decoded);
    }
    escqrs_message_free(decoded);
    return status;
}

/* Pack the event, hand it to the engine, apply it. */
static escqrs_status emit_item_added(const item_added *message, cart *self, escqrs_turn *turn,
                                     const add_item *add, escqrs_error *error)
{
    char id[ESCQRS_UUID_TEXT_SIZE];
    escqrs_uuid uuid = escqrs_uuid_new(NULL, NULL);
    escqrs_uuid_format(&uuid, id);
    ProtobufCMessage *event = escqrs_alloc(escqrs_schema_struct_size(message->schema));
    uint8_t packed[NAME_MAX_SIZE + ESCQRS_UUID_TEXT_SIZE + 32];
    if (event == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for an event");
    }
    escqrs_message_init(message->schema, event);
    set_string(message->schema, 0, event, id);
    set_string(message->schema, 1, event, add->name);
    set_int(message->schema, 2, event, add->quantity);
    size_t size = protobuf_c_message_pack(event, packed);
    escqrs_status status =
        escqrs_turn_emit(turn, message->type, (escqrs_slice){packed, size}, error);
    if (status == ESCQRS_OK) {
        cart_apply(self, message, event);
    }
    escqrs_free(event);
    return status;
}

static escqrs_status cart_handle(void *context, void *state, escqrs_turn *turn,
                                 escqrs_command *command, escqrs_error *error)
{
    cart *self = state;
    const add_item *add = (const add_item *)command;
    for (size_t i = 0; i < self->item_count; i++) {
        if (strcmp(self->items[i].name, add->name) == 0) {
            return escqrs_error_set(error, ESCQRS_REJECTED, "item %s already exists", add->name);
        }
    }
    if (self->item_count == ITEMS_MAX || strlen(add->name) >= NAME_MAX_SIZE) {
        return escqrs_error_set(error, ESCQRS_REJECTED, "item %s does not fit", add->name);
    }
    return emit_item_added(context, self, turn, add, error);
}

static const escqrs_aggregate_ops cart_ops = {
    .create = cart_create,
    .destroy = cart_destroy,
    .decode = cart_decode,
    .discard = cart_discard,
    .apply = cart_replay,
    .handle = cart_handle,
};

/* ---- asking --------------------------------------------------------------------------------- */

static void add_done(escqrs_command *command, escqrs_status status, const escqrs_error *error)
{
    add_item *add = (add_item *)command;
    pthread_mutex_lock(&add->lock);
    add->status = status;
    if (status != ESCQRS_OK) {
        add->error = *error;
    }
    add->is_answered = 1;
    pthread_cond_signal(&add->answered);
    pthread_mutex_unlock(&add->lock);
}

static escqrs_status add_visit(escqrs_command *command, escqrs_entity *entity, void *state,
                               int64_t version, escqrs_error *error)
{
    (void)entity;
    (void)version;
    (void)error;
    ((add_item *)command)->copy = *(cart *)state;
    return ESCQRS_OK;
}

static const escqrs_command_ops add_ops = {.done = add_done, .visit = add_visit};

static void ask(escqrs_entity *entity, add_item *add)
{
    add->command.ops = &add_ops;
    pthread_mutex_init(&add->lock, NULL);
    pthread_cond_init(&add->answered, NULL);
    escqrs_status status = escqrs_entity_ask(entity, &add->command, &add->error);
    if (status != ESCQRS_OK) { /* refused: there will be no answer */
        add->status = status;
    } else {
        pthread_mutex_lock(&add->lock);
        while (!add->is_answered) {
            pthread_cond_wait(&add->answered, &add->lock);
        }
        pthread_mutex_unlock(&add->lock);
    }
    pthread_cond_destroy(&add->answered);
    pthread_mutex_destroy(&add->lock);
}

/* ---- the program ---------------------------------------------------------------------------- */

typedef struct shop {
    item_added message;
    escqrs_store *store;
    escqrs_system *system;
    escqrs_entity *cart;
} shop;

static escqrs_status shop_open(shop *self, const char *path, escqrs_error *error)
{
    escqrs_aggregate *carts = NULL;
    escqrs_status status = escqrs_store_open(path, NULL, &self->store, error);
    if (status == ESCQRS_OK) {
        status = item_added_register(&self->message, self->store, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_system_create(self->store, NULL, &self->system, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_aggregate_add(self->system, escqrs_slice_of("Cart"), &cart_ops,
                                      &self->message, NULL, NULL, &carts, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_entity_get(carts, escqrs_slice_of("cart-1"), &self->cart, error);
    }
    return status;
}

/* Whatever shop_open came to. */
static escqrs_status shop_close(shop *self, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    escqrs_entity_release(self->cart);
    if (self->system != NULL) {
        status = escqrs_system_close(self->system, INT64_MAX, error);
        escqrs_system_destroy(self->system);
    }
    if (self->store != NULL) {
        escqrs_store_destroy(self->store);
    }
    self->cart = NULL;
    self->system = NULL;
    self->store = NULL;
    return status;
}

static escqrs_status read_cart(shop *self, cart *copy, escqrs_error *error)
{
    add_item look = {.command = {.special = true}};
    ask(self->cart, &look);
    *copy = look.copy;
    *error = look.error;
    return look.status;
}

static void print_cart(const char *title, const cart *self)
{
    printf("%s\n", title);
    for (size_t i = 0; i < self->item_count; i++) {
        printf("  %-8s %3lld\n", self->items[i].name, (long long)self->items[i].quantity);
    }
}

static escqrs_status print_history(shop *self, escqrs_error *error)
{
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_range all = {0};
    escqrs_status status =
        escqrs_store_history(self->store, escqrs_entity_stream(self->cart), &all, &cursor, error);
    while (status == ESCQRS_OK &&
           (status = escqrs_cursor_next(cursor, &recorded, error)) == ESCQRS_OK) {
        escqrs_slice type = escqrs_type_name(recorded->type);
        printf("  version %lld, position %lld: %.*s, %zu bytes\n", (long long)recorded->version,
               (long long)recorded->position, (int)type.size, (const char *)type.data,
               recorded->data.size);
    }
    escqrs_cursor_close(cursor);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status fill_cart(shop *self, cart *copy, escqrs_error *error)
{
    static const item wanted[] = {{"book", 2}, {"pen", 1}, {"ink", 3}, {"book", 1}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        add_item add = {.name = wanted[i].name, .quantity = wanted[i].quantity};
        ask(self->cart, &add);
        printf("add %s: %s\n", add.name, add.status == ESCQRS_OK ? "stored" : add.error.message);
        if (add.status != ESCQRS_OK && add.status != ESCQRS_REJECTED) {
            *error = add.error;
            return add.status;
        }
    }
    return read_cart(self, copy, error);
}

static escqrs_status run(shop *self, const char *path, cart *before, cart *after,
                         escqrs_error *error)
{
    escqrs_status status = shop_open(self, path, error);
    if (status == ESCQRS_OK) {
        status = fill_cart(self, before, error);
    }
    if (status == ESCQRS_OK) {
        print_cart("the cart:", before);
        status = shop_close(self, error);
    }
    if (status == ESCQRS_OK) {
        status = shop_open(self, path, error);
    }
    if (status == ESCQRS_OK) {
        status = read_cart(self, after, error);
    }
    if (status == ESCQRS_OK) {
        print_cart("after opening the file again:", after);
        printf("its history:\n");
        status = print_history(self, error);
    }
    return status;
}

static void remove_files(const char *folder, const char *path)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-lock"};
    char name[1200];
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        snprintf(name, sizeof name, "%s%s", path, endings[i]);
        unlink(name);
    }
    rmdir(folder);
}

int main(int argument_count, char **arguments)
{
    const char *base = getenv("TMPDIR");
    char folder[1024], path[1100];
    snprintf(folder, sizeof folder, "%s/escqrs-cart-XXXXXX", base != NULL ? base : "/tmp");
    bool temporary = argument_count < 2;
    if (temporary && mkdtemp(folder) == NULL) {
        perror(folder);
        return EXIT_FAILURE;
    }
    snprintf(path, sizeof path, "%s/cart.db", folder);
    static shop instance;
    static cart before, after;
    escqrs_error error = {0}, ending = {0};
    escqrs_status status = item_added_describe(&instance.message, &error);
    if (status == ESCQRS_OK) {
        status = run(&instance, temporary ? path : arguments[1], &before, &after, &error);
    }
    if (shop_close(&instance, &ending) != ESCQRS_OK && status == ESCQRS_OK) {
        status = ending.status;
        error = ending;
    }
    escqrs_schema_destroy(instance.message.schema);
    if (temporary) {
        remove_files(folder, path);
    }
    if (status != ESCQRS_OK) {
        return fail("cart", &error);
    }
    bool same = memcmp(&before, &after, sizeof before) == 0;
    printf("%s\n", same ? "nothing differs" : "THEY DIFFER");
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
