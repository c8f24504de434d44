/* provider.c - a provider of one's own in C: a store of events that keeps them in arrays.
 *
 *     make examples-c && build/examples/provider
 *
 * It shows all that a provider has to do; include/escqrs/provider.h is the manual, and
 * include/escqrs/provider_suite.h has the tests that tell whether it does, which this program runs.
 *
 * The arrays (a `shelf`) are what a file or a server would be: they outlive the store that is
 * opened on them, so that a program can close it, open it again and find what was committed. Each
 * commit is durable, as far as memory is, when `apply` returns, so there is no begin, end and
 * rollback.
 *
 * One mutex guards a shelf. What a commit adds stands at the ends of the arrays, and is cut off
 * again where the commit runs out of memory; what it replaces or drops goes last. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <escqrs/provider_suite.h>

/* ---- what is kept --------------------------------------------------------------------------- */

typedef struct owned {
    char *data;
    size_t size;
} owned;

typedef struct kept_event {
    escqrs_recorded recorded; /* its slices point into `block`; `type` is that of the open store */
    char *block;
    int64_t type; /* index in `types` */
} kept_event;

typedef struct kept_type {
    owned name, record;
    escqrs_type *open; /* of the store that is open now; NULL: not met in it yet */
} kept_type;

typedef struct kept_snapshot {
    owned stream, data;
    int64_t version, type;
} kept_snapshot;

typedef struct kept_checkpoint {
    owned name;
    int64_t position;
} kept_checkpoint;

typedef struct kept_key {
    owned scope, key, reply;
    uint64_t fingerprint;
    int64_t position;
    int64_t *versions;
} kept_key;

typedef struct list { /* of items of one size */
    void *items;
    size_t count, capacity;
} list;

typedef struct shelf {
    pthread_mutex_t mutex;
    list events;        /* kept_event, in the order of positions */
    list types;         /* kept_type */
    list snapshots;     /* kept_snapshot */
    list checkpoints;   /* kept_checkpoint */
    list keys;          /* kept_key */
    escqrs_clock clock; /* of the store that is open now */
} shelf;

typedef struct shelf_provider {
    escqrs_provider base;
    shelf *shelf;       /* the program's */
    escqrs_store *rows; /* SQL, for read models: a store in memory; a file beside would keep them */
} shelf_provider;

#define AT(list, type, index) (&((type *)(list)->items)[index])

static shelf *of(escqrs_provider *self)
{
    return ((shelf_provider *)self)->shelf;
}

static escqrs_status no_memory(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory on the shelf");
}

/* What the error is about; too long a name is cut. */
static escqrs_status about(escqrs_error *error, escqrs_status status, escqrs_slice subject)
{
    if (error != NULL) {
        snprintf(error->subject, sizeof error->subject, "%.*s", (int)subject.size,
                 (const char *)subject.data);
    }
    return status;
}

/* Zeroed, at the end; NULL without memory. */
static void *add(list *self, size_t item_size)
{
    if (self->count == self->capacity) {
        size_t capacity = self->capacity == 0 ? 16 : 2 * self->capacity;
        void *grown = escqrs_realloc(self->items, capacity * item_size);
        if (grown == NULL) {
            return NULL;
        }
        self->items = grown;
        self->capacity = capacity;
    }
    return memset((char *)self->items + self->count++ * item_size, 0, item_size);
}

static bool copy(escqrs_slice from, owned *to)
{
    to->data = escqrs_alloc(from.size + 1);
    to->size = from.size;
    if (to->data != NULL && from.size > 0) {
        memcpy(to->data, from.data, from.size);
    }
    return to->data != NULL;
}

static escqrs_slice slice(const owned *from)
{
    return (escqrs_slice){from->data, from->size};
}

static bool same(const owned *a, escqrs_slice b)
{
    return escqrs_slice_equal(slice(a), b);
}

static shelf *shelf_create(void)
{
    shelf *made = escqrs_alloc_zero(sizeof *made);
    if (made != NULL) {
        pthread_mutex_init(&made->mutex, NULL);
    }
    return made;
}

/* How many there are of each. */
typedef struct extent {
    size_t events, types, snapshots, checkpoints, keys;
} extent;

/* Free what stands behind that. */
static void cut(shelf *self, extent upto)
{
    while (self->events.count > upto.events) {
        escqrs_free(AT(&self->events, kept_event, --self->events.count)->block);
    }
    while (self->types.count > upto.types) {
        kept_type *type = AT(&self->types, kept_type, --self->types.count);
        escqrs_free(type->name.data);
        escqrs_free(type->record.data);
    }
    while (self->snapshots.count > upto.snapshots) {
        kept_snapshot *snapshot = AT(&self->snapshots, kept_snapshot, --self->snapshots.count);
        escqrs_free(snapshot->stream.data);
        escqrs_free(snapshot->data.data);
    }
    while (self->checkpoints.count > upto.checkpoints) {
        escqrs_free(AT(&self->checkpoints, kept_checkpoint, --self->checkpoints.count)->name.data);
    }
    while (self->keys.count > upto.keys) {
        kept_key *key = AT(&self->keys, kept_key, --self->keys.count);
        escqrs_free(key->scope.data);
        escqrs_free(key->key.data);
        escqrs_free(key->reply.data);
        escqrs_free(key->versions);
    }
}

/* When no store is open on it; NULL is fine. */
static void shelf_destroy(shelf *self)
{
    if (self == NULL) {
        return;
    }
    cut(self, (extent){0});
    escqrs_free(self->events.items);
    escqrs_free(self->types.items);
    escqrs_free(self->snapshots.items);
    escqrs_free(self->checkpoints.items);
    escqrs_free(self->keys.items);
    pthread_mutex_destroy(&self->mutex);
    escqrs_free(self);
}

/* ---- looking up, under the mutex ------------------------------------------------------------ */

static int64_t version_of_stream(const shelf *self, escqrs_slice stream)
{
    for (size_t i = self->events.count; i > 0; i--) {
        const escqrs_recorded *recorded = &AT(&self->events, kept_event, i - 1)->recorded;
        if (escqrs_slice_equal(recorded->stream, stream)) {
            return recorded->version;
        }
    }
    return 0;
}

static kept_checkpoint *find_checkpoint(const shelf *self, escqrs_slice name)
{
    for (size_t i = 0; i < self->checkpoints.count; i++) {
        kept_checkpoint *one = AT(&self->checkpoints, kept_checkpoint, i);
        if (same(&one->name, name)) {
            return one;
        }
    }
    return NULL;
}

static kept_key *find_key(const shelf *self, escqrs_slice scope, escqrs_slice key)
{
    for (size_t i = 0; i < self->keys.count; i++) {
        kept_key *one = AT(&self->keys, kept_key, i);
        if (same(&one->scope, scope) && same(&one->key, key)) {
            return one;
        }
    }
    return NULL;
}

static kept_snapshot *find_snapshot(const shelf *self, escqrs_slice stream, int64_t upto)
{
    kept_snapshot *found = NULL;
    for (size_t i = 0; i < self->snapshots.count; i++) {
        kept_snapshot *one = AT(&self->snapshots, kept_snapshot, i);
        if (same(&one->stream, stream) && one->version <= upto &&
            (found == NULL || one->version > found->version)) {
            found = one;
        }
    }
    return found;
}

static bool ids_equal(const escqrs_recorded *recorded, const escqrs_new_event *event)
{
    if (event->id != NULL) {
        return recorded->id_text.size == 0 &&
               memcmp(recorded->id.bytes, event->id->bytes, sizeof event->id->bytes) == 0;
    }
    return event->id_text.size > 0 && escqrs_slice_equal(recorded->id_text, event->id_text);
}

/* ---- checks of a commit, under the mutex ---------------------------------------------------- */

static escqrs_status check_key(const shelf *self, escqrs_commit *commit, escqrs_error *error)
{
    const kept_key *used =
        commit->key.size > 0 ? find_key(self, commit->key_scope, commit->key) : NULL;
    if (used == NULL) {
        return ESCQRS_OK;
    }
    if (used->fingerprint != escqrs_commit_fingerprint(commit)) {
        (void)escqrs_error_set(error, ESCQRS_KEY_REUSED, "the key was used for other events");
        return about(error, ESCQRS_KEY_REUSED, commit->key);
    }
    for (size_t i = 0; i < commit->write_count; i++) {
        commit->writes[i].version = used->versions[i];
    }
    commit->position = used->position;
    commit->repeated = true;
    return ESCQRS_OK;
}

/* The stream's version with the first `count` writes of the commit. */
static int64_t version_with(const shelf *self, const escqrs_commit *commit, size_t count,
                            escqrs_slice stream)
{
    int64_t version = version_of_stream(self, stream);
    for (size_t i = 0; i < count; i++) {
        if (escqrs_slice_equal(commit->writes[i].stream, stream)) {
            version += (int64_t)commit->writes[i].event_count;
        }
    }
    return version;
}

static escqrs_status check_versions(const shelf *self, const escqrs_commit *commit,
                                    escqrs_error *error)
{
    for (size_t i = 0; i < commit->write_count; i++) {
        const escqrs_write *write = &commit->writes[i];
        int64_t actual = version_with(self, commit, i, write->stream);
        if (write->expected != ESCQRS_EXPECT_ANY && write->expected != actual) {
            (void)escqrs_error_set(error, ESCQRS_WRONG_VERSION,
                                   "stream %.*s is at version %lld, not %lld",
                                   (int)write->stream.size, (const char *)write->stream.data,
                                   (long long)actual, (long long)write->expected);
            if (error != NULL) {
                error->expected = write->expected;
                error->actual = error->version = actual;
            }
            return about(error, ESCQRS_WRONG_VERSION, write->stream);
        }
    }
    const escqrs_new_snapshot *snapshot = commit->snapshot;
    if (snapshot != NULL &&
        snapshot->version > version_with(self, commit, commit->write_count, snapshot->stream)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a snapshot of a version that the stream does not have");
    }
    return ESCQRS_OK;
}

static escqrs_status check_events(const shelf *self, const escqrs_commit *commit,
                                  escqrs_error *error)
{
    for (size_t k = 0; k < self->events.count; k++) {
        const escqrs_recorded *recorded = &AT(&self->events, kept_event, k)->recorded;
        if (commit->condition != NULL && escqrs_condition_matches(commit->condition, recorded)) {
            (void)escqrs_error_set(error, ESCQRS_CONDITION_FAILED,
                                   "the event at position %lld matches the condition",
                                   (long long)recorded->position);
            if (error != NULL) {
                error->position = recorded->position;
            }
            return ESCQRS_CONDITION_FAILED;
        }
    }
    int64_t last_us = self->events.count == 0
                          ? 0
                          : AT(&self->events, kept_event, self->events.count - 1)->recorded.time_us;
    for (size_t i = 0; i < commit->write_count; i++) {
        for (size_t j = 0; j < commit->writes[i].event_count; j++) {
            const escqrs_new_event *event = &commit->writes[i].events[j];
            for (size_t k = 0; k < self->events.count; k++) {
                if (ids_equal(&AT(&self->events, kept_event, k)->recorded, event)) {
                    return escqrs_error_set(error, ESCQRS_KEY_REUSED,
                                            "the id of an event is that of another");
                }
            }
            if (event->time_us != 0 && event->time_us < last_us) {
                return escqrs_error_set(error, ESCQRS_INVALID,
                                        "an event's time is before that of the event before it");
            }
            last_us = event->time_us != 0 ? event->time_us : last_us;
        }
    }
    return ESCQRS_OK;
}

static escqrs_status check_checkpoint(const shelf *self, const escqrs_commit *commit,
                                      escqrs_error *error)
{
    if (commit->checkpoint.size == 0) {
        return ESCQRS_OK;
    }
    const kept_checkpoint *kept = find_checkpoint(self, commit->checkpoint);
    int64_t current = kept != NULL ? kept->position : -1;
    if (commit->checkpoint_position > current) {
        return ESCQRS_OK;
    }
    (void)escqrs_error_set(error, ESCQRS_CHECKPOINT_BEHIND,
                           "the checkpoint is at %lld and does not move to %lld",
                           (long long)current, (long long)commit->checkpoint_position);
    if (error != NULL) {
        error->expected = commit->checkpoint_position;
        error->actual = current;
    }
    return about(error, ESCQRS_CHECKPOINT_BEHIND, commit->checkpoint);
}

/* ---- writing a commit, under the mutex ------------------------------------------------------ */

/* The type's place among those that are kept; -1 without memory. */
static int64_t keep_type(shelf *self, escqrs_type *type)
{
    for (size_t i = 0; i < self->types.count; i++) {
        if (AT(&self->types, kept_type, i)->open == type) {
            return (int64_t)i;
        }
    }
    kept_type *kept = add(&self->types, sizeof *kept);
    if (kept == NULL || !copy(escqrs_type_name(type), &kept->name) ||
        !copy(escqrs_type_record(type), &kept->record)) {
        return -1;
    }
    kept->open = type;
    return (int64_t)self->types.count - 1;
}

static void put(char **block, escqrs_slice *part)
{
    if (part->size > 0) {
        memcpy(*block, part->data, part->size);
    }
    part->data = *block;
    *block += part->size;
}

/* One block of memory: the lists, then all texts. */
static bool own(kept_event *event)
{
    escqrs_recorded *recorded = &event->recorded;
    size_t size = recorded->metadata_count * sizeof(escqrs_pair) +
                  recorded->tag_count * sizeof(escqrs_slice) + recorded->stream.size +
                  recorded->data.size + recorded->id_text.size + recorded->correlation_text.size +
                  recorded->causation_text.size + 1;
    for (size_t i = 0; i < recorded->metadata_count; i++) {
        size += recorded->metadata[i].key.size + recorded->metadata[i].value.size;
    }
    for (size_t i = 0; i < recorded->tag_count; i++) {
        size += recorded->tags[i].size;
    }
    event->block = escqrs_alloc(size);
    if (event->block == NULL) {
        return false;
    }
    escqrs_pair *pairs = (escqrs_pair *)(void *)event->block;
    escqrs_slice *tags = (escqrs_slice *)(pairs + recorded->metadata_count);
    char *texts = (char *)(tags + recorded->tag_count);
    for (size_t i = 0; i < recorded->metadata_count; i++) {
        pairs[i] = recorded->metadata[i];
        put(&texts, &pairs[i].key);
        put(&texts, &pairs[i].value);
    }
    for (size_t i = 0; i < recorded->tag_count; i++) {
        tags[i] = recorded->tags[i];
        put(&texts, &tags[i]);
    }
    recorded->metadata = pairs;
    recorded->tags = tags;
    put(&texts, &recorded->stream);
    put(&texts, &recorded->data);
    put(&texts, &recorded->id_text);
    put(&texts, &recorded->correlation_text);
    put(&texts, &recorded->causation_text);
    return true;
}

static bool add_events(shelf *self, escqrs_commit *commit)
{
    escqrs_uuid cause = {{0}};
    int64_t now_us = escqrs_clock_now_us(&self->clock);
    if (self->events.count > 0) { /* or the clock went back: time stands */
        int64_t last_us = AT(&self->events, kept_event, self->events.count - 1)->recorded.time_us;
        now_us = now_us > last_us ? now_us : last_us;
    }
    for (size_t i = 0; i < commit->write_count; i++) {
        escqrs_write *write = &commit->writes[i];
        write->version = version_of_stream(self, write->stream);
        for (size_t j = 0; j < write->event_count; j++) {
            kept_event *kept = add(&self->events, sizeof *kept);
            if (kept == NULL) {
                return false;
            }
            escqrs_event_resolve(commit, &write->events[j], &cause, &kept->recorded);
            kept->recorded.stream = write->stream;
            kept->recorded.version = ++write->version;
            kept->recorded.position = (int64_t)self->events.count;
            kept->recorded.time_us =
                write->events[j].time_us != 0 ? write->events[j].time_us : now_us;
            kept->type = keep_type(self, write->events[j].type);
            if (kept->type < 0 || !own(kept)) {
                return false;
            }
        }
    }
    commit->position = (int64_t)self->events.count;
    return true;
}

static bool add_snapshot(shelf *self, const escqrs_new_snapshot *snapshot)
{
    kept_snapshot *kept = add(&self->snapshots, sizeof *kept);
    if (kept == NULL || !copy(snapshot->stream, &kept->stream) ||
        !copy(snapshot->data, &kept->data)) {
        return false;
    }
    kept->version = snapshot->version;
    kept->type = keep_type(self, snapshot->type);
    return kept->type >= 0;
}

static bool add_key(shelf *self, const escqrs_commit *commit)
{
    kept_key *kept = add(&self->keys, sizeof *kept);
    if (kept == NULL || !copy(commit->key_scope, &kept->scope) || !copy(commit->key, &kept->key) ||
        !copy(commit->reply, &kept->reply)) {
        return false;
    }
    kept->versions = escqrs_alloc_array(commit->write_count, sizeof(int64_t));
    for (size_t i = 0; kept->versions != NULL && i < commit->write_count; i++) {
        kept->versions[i] = commit->writes[i].version;
    }
    kept->fingerprint = escqrs_commit_fingerprint(commit);
    kept->position = commit->position;
    return kept->versions != NULL;
}

static bool add_checkpoint(shelf *self, escqrs_slice name)
{
    if (find_checkpoint(self, name) != NULL) {
        return true;
    }
    kept_checkpoint *kept = add(&self->checkpoints, sizeof *kept);
    return kept != NULL && copy(name, &kept->name);
}

/* Of the first `count`, those of the stream from one version up to another. */
static void delete_snapshots(shelf *self, size_t count, escqrs_slice stream, int64_t from,
                             int64_t upto)
{
    size_t left = 0;
    for (size_t i = 0; i < self->snapshots.count; i++) {
        kept_snapshot *one = AT(&self->snapshots, kept_snapshot, i);
        if (i < count && same(&one->stream, stream) && from <= one->version &&
            one->version <= upto) {
            escqrs_free(one->stream.data);
            escqrs_free(one->data.data);
        } else {
            *AT(&self->snapshots, kept_snapshot, left++) = *one;
        }
    }
    self->snapshots.count = left;
}

/* The new one stands last: it replaces one of its version, and old ones go. */
static void replace_snapshots(shelf *self, const escqrs_new_snapshot *snapshot)
{
    delete_snapshots(self, self->snapshots.count - 1, snapshot->stream, snapshot->version,
                     snapshot->version);
    const kept_snapshot *one = find_snapshot(self, snapshot->stream, INT64_MAX);
    for (int64_t i = 0; i < snapshot->keep && one != NULL; i++) {
        one = find_snapshot(self, snapshot->stream, one->version - 1);
    }
    if (snapshot->keep > 0 && one != NULL) {
        delete_snapshots(self, self->snapshots.count, snapshot->stream, 0, one->version);
    }
}

static escqrs_status write_commit(shelf *self, escqrs_commit *commit, escqrs_error *error)
{
    extent before = {self->events.count, self->types.count, self->snapshots.count,
                     self->checkpoints.count, self->keys.count};
    if (!add_events(self, commit) ||
        (commit->snapshot != NULL && !add_snapshot(self, commit->snapshot)) ||
        (commit->key.size > 0 && !add_key(self, commit)) ||
        (commit->checkpoint.size > 0 && !add_checkpoint(self, commit->checkpoint))) {
        cut(self, before);
        return no_memory(error);
    }
    for (size_t i = before.types; i < self->types.count; i++) {
        escqrs_type_set_stored(AT(&self->types, kept_type, i)->open);
    }
    if (commit->snapshot != NULL) {
        replace_snapshots(self, commit->snapshot);
    }
    if (commit->checkpoint.size > 0) {
        find_checkpoint(self, commit->checkpoint)->position = commit->checkpoint_position;
    }
    return ESCQRS_OK;
}

static escqrs_status shelf_apply(escqrs_provider *provider, escqrs_commit *commit,
                                 escqrs_error *error)
{
    shelf *self = of(provider);
    if (provider->inliner != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "there are no inline read models on a shelf");
    }
    commit->repeated = false;
    pthread_mutex_lock(&self->mutex);
    escqrs_status status = check_key(self, commit, error);
    if (status == ESCQRS_OK && !commit->repeated) {
        status = check_versions(self, commit, error);
        if (status == ESCQRS_OK) {
            status = check_events(self, commit, error);
        }
        if (status == ESCQRS_OK) {
            status = check_checkpoint(self, commit, error);
        }
        if (status == ESCQRS_OK) {
            status = write_commit(self, commit, error);
        }
    }
    escqrs_provider_set_head(provider, (int64_t)self->events.count);
    pthread_mutex_unlock(&self->mutex);
    return status;
}

static escqrs_status shelf_delete_snapshots(escqrs_provider *provider, escqrs_slice stream,
                                            int64_t upto, escqrs_error *error)
{
    shelf *self = of(provider);
    (void)error;
    pthread_mutex_lock(&self->mutex);
    delete_snapshots(self, self->snapshots.count, stream, 0, upto == 0 ? INT64_MAX : upto);
    pthread_mutex_unlock(&self->mutex);
    return ESCQRS_OK;
}

/* ---- opening: the types of the store, and the head ------------------------------------------ */

static escqrs_status shelf_restart(escqrs_provider *provider, escqrs_error *error)
{
    shelf *self = of(provider);
    escqrs_status status = ESCQRS_OK;
    pthread_mutex_lock(&self->mutex);
    for (size_t i = 0; i < self->types.count && status == ESCQRS_OK; i++) {
        kept_type *type = AT(&self->types, kept_type, i);
        status = escqrs_provider_type(provider, slice(&type->name), slice(&type->record),
                                      &type->open, error);
        if (status == ESCQRS_OK) {
            escqrs_type_set_stored(type->open);
        }
    }
    for (size_t i = 0; i < self->events.count && status == ESCQRS_OK; i++) {
        kept_event *event = AT(&self->events, kept_event, i);
        event->recorded.type = AT(&self->types, kept_type, event->type)->open;
    }
    escqrs_provider_set_head(provider, (int64_t)self->events.count);
    pthread_mutex_unlock(&self->mutex);
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

static escqrs_status shelf_read(escqrs_provider *provider, const escqrs_query *query,
                                escqrs_page *page, escqrs_error *error)
{
    shelf *self = of(provider);
    escqrs_status status = escqrs_page_begin(page, query, error);
    pthread_mutex_lock(&self->mutex);
    size_t count = self->events.count;
    for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
        const escqrs_recorded *recorded =
            &AT(&self->events, kept_event, query->reverse ? count - 1 - i : i)->recorded;
        int64_t number = query->stream.size > 0 ? recorded->version : recorded->position;
        if (number > query->after && number <= query->upto &&
            (query->stream.size == 0 || escqrs_slice_equal(recorded->stream, query->stream))) {
            status = escqrs_page_add(page, query, recorded, error);
            /* a page that ran full goes on later, from where it ended */
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status shelf_version(escqrs_provider *provider, escqrs_slice stream, int64_t *version,
                                   int64_t *hint, escqrs_error *error)
{
    shelf *self = of(provider);
    (void)error;
    pthread_mutex_lock(&self->mutex);
    *version = version_of_stream(self, stream);
    *hint = 0;
    pthread_mutex_unlock(&self->mutex);
    return ESCQRS_OK;
}

static escqrs_status shelf_checkpoint(escqrs_provider *provider, escqrs_slice name,
                                      int64_t *position, escqrs_error *error)
{
    shelf *self = of(provider);
    (void)error;
    pthread_mutex_lock(&self->mutex);
    const kept_checkpoint *kept = find_checkpoint(self, name);
    *position = kept != NULL ? kept->position : -1;
    pthread_mutex_unlock(&self->mutex);
    return ESCQRS_OK;
}

static escqrs_status give(const owned *from, void **data, size_t *size, escqrs_error *error)
{
    owned given;
    if (!copy(slice(from), &given)) {
        return no_memory(error);
    }
    *data = given.data;
    *size = given.size;
    return ESCQRS_OK;
}

static escqrs_status shelf_snapshot(escqrs_provider *provider, escqrs_slice stream, int64_t upto,
                                    escqrs_snapshot *snapshot, escqrs_error *error)
{
    shelf *self = of(provider);
    escqrs_status status = ESCQRS_DONE;
    pthread_mutex_lock(&self->mutex);
    const kept_snapshot *kept = find_snapshot(self, stream, upto == 0 ? INT64_MAX : upto);
    if (kept != NULL) {
        snapshot->version = kept->version;
        snapshot->type = AT(&self->types, kept_type, kept->type)->open;
        status = give(&kept->data, &snapshot->data, &snapshot->size, error);
    }
    pthread_mutex_unlock(&self->mutex);
    return status;
}

static escqrs_status shelf_key(escqrs_provider *provider, escqrs_slice scope, escqrs_slice key,
                               void **reply, size_t *size, int64_t *position, escqrs_error *error)
{
    shelf *self = of(provider);
    escqrs_status status = ESCQRS_DONE;
    pthread_mutex_lock(&self->mutex);
    const kept_key *kept = find_key(self, scope, key);
    if (kept != NULL) {
        *position = kept->position;
        status = give(&kept->reply, reply, size, error);
    }
    pthread_mutex_unlock(&self->mutex);
    return status;
}

/* A stream's number is the position of its first event. */
static escqrs_status shelf_streams(escqrs_provider *provider, int64_t after, size_t max,
                                   bool (*visit)(void *context, const escqrs_stream_info *stream),
                                   void *context, escqrs_error *error)
{
    shelf *self = of(provider);
    size_t given = 0;
    bool more = true;
    (void)error;
    pthread_mutex_lock(&self->mutex);
    for (size_t i = (size_t)after; i < self->events.count && given < max && more; i++) {
        const escqrs_recorded *recorded = &AT(&self->events, kept_event, i)->recorded;
        if (recorded->version == 1) {
            escqrs_stream_info info = {.number = recorded->position,
                                       .name = recorded->stream,
                                       .version = version_of_stream(self, recorded->stream)};
            given++;
            more = visit(context, &info);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return ESCQRS_OK;
}

static escqrs_status shelf_stats(escqrs_provider *provider, escqrs_statistics *found,
                                 void (*visit)(void *context, escqrs_slice type, int64_t count),
                                 void *context, escqrs_error *error)
{
    shelf *self = of(provider);
    (void)error;
    pthread_mutex_lock(&self->mutex);
    found->head = found->events = (int64_t)self->events.count;
    found->snapshots = (int64_t)self->snapshots.count;
    found->checkpoints = (int64_t)self->checkpoints.count;
    found->keys = (int64_t)self->keys.count;
    for (size_t i = 0; i < self->events.count; i++) {
        const escqrs_recorded *recorded = &AT(&self->events, kept_event, i)->recorded;
        found->streams += recorded->version == 1;
        found->tags += (int64_t)recorded->tag_count;
        found->bytes += (int64_t)recorded->data.size;
        found->first_us = i == 0 ? recorded->time_us : found->first_us;
        found->last_us = recorded->time_us;
    }
    for (size_t t = 0; visit != NULL && t < self->types.count; t++) {
        int64_t count = 0;
        for (size_t i = 0; i < self->events.count; i++) {
            count += AT(&self->events, kept_event, i)->type == (int64_t)t;
        }
        if (count > 0) {
            visit(context, slice(&AT(&self->types, kept_type, t)->name), count);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return ESCQRS_OK;
}

/* ---- SQL for read models -------------------------------------------------------------------- */

static escqrs_store *rows_of(escqrs_provider *provider)
{
    return ((shelf_provider *)provider)->rows;
}

static escqrs_status shelf_run(escqrs_provider *provider, bool sync,
                               escqrs_status (*work)(void *context, void *sqlite,
                                                     escqrs_error *error),
                               void *context, escqrs_error *error)
{
    return escqrs_store_run(rows_of(provider), sync, work, context, error);
}

static escqrs_status shelf_reader(escqrs_provider *provider, void **sqlite, escqrs_error *error)
{
    return escqrs_store_reader(rows_of(provider), sqlite, error);
}

static void shelf_reader_return(escqrs_provider *provider, void *sqlite)
{
    escqrs_store_reader_return(rows_of(provider), sqlite);
}

static void shelf_stop_readers(escqrs_provider *provider)
{
    escqrs_store_close(rows_of(provider));
}

/* ---- the end, and the table ----------------------------------------------------------------- */

static void shelf_provider_destroy(escqrs_provider *provider)
{
    escqrs_store_destroy(rows_of(provider));
    escqrs_provider_fini(provider);
    escqrs_free(provider);
}

static const escqrs_provider_functions shelf_functions = {
    .interface_version = ESCQRS_PROVIDER_VERSION,
    .size = sizeof(escqrs_provider_functions),
    .name = "shelf",
    .apply = shelf_apply,
    .run = shelf_run,
    .delete_snapshots = shelf_delete_snapshots,
    .restart = shelf_restart,
    .read = shelf_read,
    .streams = shelf_streams,
    .stats = shelf_stats,
    .version = shelf_version,
    .checkpoint = shelf_checkpoint,
    .snapshot = shelf_snapshot,
    .key = shelf_key,
    .reader = shelf_reader,
    .reader_return = shelf_reader_return,
    .stop_readers = shelf_stop_readers,
    .destroy = shelf_provider_destroy,
};

/* Open a store on the shelf, one at a time. */
static escqrs_status shelf_open(shelf *self, const escqrs_store_options *options,
                                escqrs_store **store, escqrs_error *error)
{
    shelf_provider *provider = escqrs_alloc_zero(sizeof *provider);
    if (provider == NULL) {
        return no_memory(error);
    }
    escqrs_status status = escqrs_provider_init(&provider->base, &shelf_functions, error);
    if (status != ESCQRS_OK) {
        escqrs_free(provider);
        return status;
    }
    provider->shelf = self;
    self->clock = options != NULL ? options->clock : (escqrs_clock){0};
    status = escqrs_store_open(":memory:", NULL, &provider->rows, error);
    if (status == ESCQRS_OK) {
        status = shelf_restart(&provider->base, error);
    }
    if (status != ESCQRS_OK) {
        shelf_provider_destroy(&provider->base);
        return status;
    }
    return escqrs_store_open_provider(&provider->base, "a shelf", options, store, error);
}

/* ---- a program ------------------------------------------------------------------------------ */

static escqrs_status note(escqrs_store *store, const char *what, int64_t expected,
                          escqrs_error *error)
{
    escqrs_new_event event = {.data = escqrs_slice_of(what)};
    escqrs_write write = {.stream = escqrs_slice_of("notes"),
                          .expected = expected,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    escqrs_status status = escqrs_store_type(store, escqrs_slice_of("Noted"),
                                             (escqrs_slice){NULL, 0}, &event.type, error);
    return status == ESCQRS_OK ? escqrs_store_commit(store, &commit, error) : status;
}

static escqrs_status print_all(escqrs_store *store, escqrs_error *error)
{
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_status status = escqrs_store_events(store, NULL, &cursor, error);
    while (status == ESCQRS_OK &&
           (status = escqrs_cursor_next(cursor, &recorded, error)) == ESCQRS_OK) {
        printf("%lld %.*s %.*s\n", (long long)recorded->position, (int)recorded->stream.size,
               (const char *)recorded->stream.data, (int)recorded->data.size,
               (const char *)recorded->data.data);
    }
    escqrs_cursor_close(cursor);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status use(shelf *kept, escqrs_error *error)
{
    escqrs_store *store = NULL;
    escqrs_status status = shelf_open(kept, NULL, &store, error);
    if (status == ESCQRS_OK) {
        status = note(store, "kept in an array", 0, error);
    }
    if (status == ESCQRS_OK && note(store, "too late", 0, error) == ESCQRS_WRONG_VERSION) {
        printf("refused: %s\n", error->message);
    }
    escqrs_store_destroy(store);
    store = NULL;
    if (status == ESCQRS_OK) { /* it is there when the shelf is opened again */
        status = shelf_open(kept, NULL, &store, error);
    }
    if (status == ESCQRS_OK) {
        status = print_all(store, error);
    }
    escqrs_store_destroy(store);
    return status;
}

/* For escqrs/provider_suite.h: `context` points to the shelf, or to NULL. */
static escqrs_status shelf_suite_open(void *context, bool fresh,
                                      const escqrs_store_options *options, escqrs_store **store,
                                      escqrs_error *error)
{
    shelf **kept = context;
    if (fresh) {
        shelf_destroy(*kept);
        *kept = shelf_create();
    }
    return *kept == NULL ? no_memory(error) : shelf_open(*kept, options, store, error);
}

int main(void)
{
    escqrs_error error = {0};
    shelf *kept = shelf_create();
    escqrs_status status = kept == NULL ? no_memory(&error) : use(kept, &error);
    if (status != ESCQRS_OK) {
        fprintf(stderr, "%s (%s)\n", error.message, escqrs_status_name(status));
    }
    escqrs_provider_suite suite = {
        .name = "shelf", .open = shelf_suite_open, .context = &kept, .begins_new = true};
    size_t failed = escqrs_provider_suite_run(&suite);
    shelf_destroy(kept);
    return status == ESCQRS_OK && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
