/* See escqrs/provider.h and provider.h. The table that a provider gives is copied, and functions
 * that may be absent get stand-ins, so that who calls one need not ask whether it is there; where
 * the core has to know (erase, run ...), the stand-in answers what the absence means.
 *
 * There is no lock: the head and the count of deletions are atomic, the types lock for themselves.
 */
#include "store/provider.h"

#include <string.h>

#include "base/checksum.h"
#include "base/error.h"

/* ---- stand-ins -------------------------------------------------------------------------------- */

static escqrs_status cannot(const escqrs_provider *self, const char *what, escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "a provider of the kind \"%s\" %s",
                            self->functions->name, what);
}

static escqrs_status do_begin(escqrs_provider *self, escqrs_error *error)
{
    (void)self, (void)error;
    return ESCQRS_OK;
}

static void do_nothing(escqrs_provider *self)
{
    (void)self;
}

static escqrs_status no_sql_run(escqrs_provider *self, bool sync,
                                escqrs_status (*work)(void *context, void *sqlite,
                                                      escqrs_error *error),
                                void *context, escqrs_error *error)
{
    (void)self, (void)sync, (void)work, (void)context;
    return escqrs_error_set(error, ESCQRS_NOT_A_STORE, "this provider has no SQL");
}

static escqrs_status no_sql_reader(escqrs_provider *self, void **sqlite, escqrs_error *error)
{
    (void)self, (void)sqlite;
    return escqrs_error_set(error, ESCQRS_NOT_A_STORE, "this provider has no SQL");
}

static void no_reader_return(escqrs_provider *self, void *sqlite)
{
    (void)self, (void)sqlite;
}

static escqrs_status cannot_erase(escqrs_provider *self, escqrs_erasure *erasures, size_t count,
                                  escqrs_error *error)
{
    (void)erasures, (void)count;
    return cannot(self, "deletes no events", error);
}

static escqrs_status nothing_erased(escqrs_provider *self, escqrs_slice stream,
                                    escqrs_erased *erased, escqrs_error *error)
{
    (void)self, (void)stream, (void)error;
    *erased = (escqrs_erased){0};
    return ESCQRS_OK;
}

static escqrs_status cannot_compact(escqrs_provider *self, int64_t pages, int64_t *bytes,
                                    bool *more, escqrs_error *error)
{
    (void)pages;
    *bytes = 0;
    *more = false;
    return cannot(self, "has no file to compact", error);
}

static escqrs_status cannot_restart(escqrs_provider *self, escqrs_error *error)
{
    return cannot(self, "does not begin anew: close the store and open it again", error);
}

static escqrs_status cannot_list(escqrs_provider *self, int64_t after, size_t max,
                                 bool (*visit)(void *context, const escqrs_stream_info *stream),
                                 void *context, escqrs_error *error)
{
    (void)after, (void)max, (void)visit, (void)context;
    return cannot(self, "does not list its streams", error);
}

static escqrs_status cannot_back_up(escqrs_provider *self, const char *path, escqrs_error *error)
{
    (void)path;
    return cannot(self, "does not copy itself to a file", error);
}

static escqrs_status cannot_count(escqrs_provider *self, escqrs_statistics *found,
                                  void (*visit)(void *context, escqrs_slice type, int64_t count),
                                  void *context, escqrs_error *error)
{
    (void)found, (void)visit, (void)context;
    return cannot(self, "does not count what it holds", error);
}

static escqrs_status cannot_verify(escqrs_provider *self, const escqrs_observer *observer,
                                   escqrs_verification *found, escqrs_error *error)
{
    (void)observer, (void)found;
    return cannot(self, "does not prove itself", error);
}

static escqrs_status cannot_list_snapshots(escqrs_provider *self,
                                           const escqrs_snapshot_visitor *visitor,
                                           escqrs_error *error)
{
    (void)visitor;
    return cannot(self, "does not list its snapshots", error);
}

static escqrs_status no_chain(escqrs_provider *self, int64_t position, uint8_t *link,
                              escqrs_error *error)
{
    (void)self, (void)position, (void)error;
    memset(link, 0, ESCQRS_CHAIN_LINK_SIZE);
    return ESCQRS_DONE;
}

static const char *not_announced(escqrs_provider *self)
{
    (void)self;
    return NULL;
}

/* Required ones are NULL here. */
static const escqrs_provider_functions stand_ins = {
    .begin = do_begin,
    .end = do_begin,
    .rollback = do_nothing,
    .upkeep = do_nothing,
    .run = no_sql_run,
    .erase = cannot_erase,
    .compact = cannot_compact,
    .restart = cannot_restart,
    .streams = cannot_list,
    .backup = cannot_back_up,
    .stats = cannot_count,
    .verify = cannot_verify,
    .erased = nothing_erased,
    .snapshots = cannot_list_snapshots,
    .chain = no_chain,
    .refresh = do_begin,
    .announced = not_announced,
    .reader = no_sql_reader,
    .reader_return = no_reader_return,
    .stop_readers = do_nothing,
    .close = do_nothing,
};

/* ---- life ------------------------------------------------------------------------------------- */

/* The first required function that is absent, or NULL. */
static const char *missing(const escqrs_provider_functions *functions)
{
    return functions->apply == NULL              ? "apply"
           : functions->delete_snapshots == NULL ? "delete_snapshots"
           : functions->read == NULL             ? "read"
           : functions->version == NULL          ? "version"
           : functions->checkpoint == NULL       ? "checkpoint"
           : functions->snapshot == NULL         ? "snapshot"
           : functions->key == NULL              ? "key"
           : functions->destroy == NULL          ? "destroy"
                                                 : NULL;
}

/* One that another needs which is there, or NULL. */
static const char *missing_beside(const escqrs_provider_functions *functions)
{
    return functions->begin != NULL && functions->end == NULL              ? "end"
           : functions->begin != NULL && functions->rollback == NULL       ? "rollback"
           : functions->erase != NULL && functions->erased == NULL         ? "erased"
           : functions->run != NULL && functions->reader == NULL           ? "reader"
           : functions->reader != NULL && functions->run == NULL           ? "run"
           : functions->reader != NULL && functions->reader_return == NULL ? "reader_return"
                                                                           : NULL;
}

#define COMPLETE(table, function)                                                                  \
    ((table)->function = (table)->function != NULL ? (table)->function : stand_ins.function)

static void complete(escqrs_provider_functions *functions)
{
    COMPLETE(functions, begin);
    COMPLETE(functions, end);
    COMPLETE(functions, rollback);
    COMPLETE(functions, upkeep);
    COMPLETE(functions, run);
    COMPLETE(functions, erase);
    COMPLETE(functions, compact);
    COMPLETE(functions, restart);
    COMPLETE(functions, streams);
    COMPLETE(functions, backup);
    COMPLETE(functions, stats);
    COMPLETE(functions, verify);
    COMPLETE(functions, erased);
    COMPLETE(functions, snapshots);
    COMPLETE(functions, chain);
    COMPLETE(functions, refresh);
    COMPLETE(functions, announced);
    COMPLETE(functions, reader);
    COMPLETE(functions, reader_return);
    COMPLETE(functions, stop_readers);
    COMPLETE(functions, close);
}

escqrs_status escqrs_provider_init(escqrs_provider *provider,
                                   const escqrs_provider_functions *functions, escqrs_error *error)
{
    memset(provider, 0, sizeof *provider);
    if (functions->interface_version != ESCQRS_PROVIDER_VERSION) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "the provider was made for version %u of the interface; this "
                                "escqrs knows version %u alone",
                                (unsigned)functions->interface_version, ESCQRS_PROVIDER_VERSION);
    }
    esc_provider_core *core = escqrs_alloc_zero(sizeof *core);
    if (core == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a provider");
    }
    size_t size =
        functions->size < sizeof core->functions ? functions->size : sizeof core->functions;
    memcpy(&core->functions, functions, size); /* what lies beyond is absent: NULL */
    const char *absent = core->functions.name == NULL ? "name" : missing(&core->functions);
    if (absent == NULL) {
        absent = missing_beside(&core->functions);
    }
    if (absent != NULL) {
        escqrs_free(core);
        return escqrs_error_set(error, ESCQRS_INVALID, "the provider has no `%s`, which is needed",
                                absent);
    }
    complete(&core->functions);
    esc_type_registry_init(&core->types);
    provider->core = core;
    provider->functions = &core->functions;
    return ESCQRS_OK;
}

void escqrs_provider_fini(escqrs_provider *provider)
{
    if (provider->core != NULL) {
        esc_type_registry_fini(&provider->core->types);
        escqrs_free(provider->core);
        provider->core = NULL;
        provider->functions = NULL;
    }
}

/* ---- numbers and types ------------------------------------------------------------------------ */

/* Never back: a look may be overtaken by another. */
static void move_up(_Atomic int64_t *number, int64_t value)
{
    /* relaxed: what is compared is the number alone */
    int64_t before = atomic_load_explicit(number, memory_order_relaxed);
    /* release: pairs with the acquire in esc_provider_head and esc_provider_deletions */
    while (before < value &&
           !atomic_compare_exchange_weak_explicit(number, &before, value, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

void escqrs_provider_set_head(escqrs_provider *provider, int64_t head)
{
    move_up(&provider->core->head, head);
}

int64_t escqrs_provider_head(const escqrs_provider *provider)
{
    return esc_provider_head(provider);
}

void escqrs_provider_set_deletions(escqrs_provider *provider, int64_t deletions)
{
    move_up(&provider->core->deletions, deletions);
}

int64_t escqrs_provider_deletions(const escqrs_provider *provider)
{
    return esc_provider_deletions(provider);
}

escqrs_status escqrs_provider_type(escqrs_provider *provider, escqrs_slice name,
                                   escqrs_slice record, escqrs_type **type, escqrs_error *error)
{
    return esc_type_registry_get(&provider->core->types, name, record, type, error);
}

escqrs_status escqrs_provider_load_type(escqrs_provider *provider, int64_t id, escqrs_slice name,
                                        escqrs_slice record, escqrs_type **type,
                                        escqrs_error *error)
{
    return esc_type_registry_load(&provider->core->types, id, name, record, type, error);
}

void escqrs_type_set_stored(escqrs_type *type)
{
    /* release: pairs with the acquire of who asks whether it is used */
    atomic_store_explicit(&type->stored, true, memory_order_release);
}

bool escqrs_type_stored(const escqrs_type *type)
{
    /* acquire: pairs with the release where it was stored */
    return atomic_load_explicit(&type->stored, memory_order_acquire);
}

/* ---- commits ---------------------------------------------------------------------------------- */

static void take_id(escqrs_slice text, const escqrs_uuid *given, const escqrs_uuid *otherwise,
                    escqrs_slice *found_text, escqrs_uuid *found)
{
    *found_text = text;
    if (text.size == 0) {
        *found = given != NULL ? *given : *otherwise;
    }
}

void escqrs_event_resolve(const escqrs_commit *commit, const escqrs_new_event *event,
                          escqrs_uuid *cause, escqrs_recorded *recorded)
{
    const escqrs_origin of_commit = {.correlation_id = commit->correlation_id,
                                     .correlation_text = commit->correlation_text,
                                     .causation_id = commit->causation_id,
                                     .metadata = commit->metadata,
                                     .metadata_count = commit->metadata_count};
    const escqrs_origin *origin = event->origin != NULL ? event->origin : &of_commit;
    escqrs_uuid fresh = {{0}};
    if (escqrs_uuid_is_nil(cause)) {
        *cause = escqrs_uuid_new(NULL, NULL);
    }
    if (event->id == NULL && event->id_text.size == 0) {
        fresh = escqrs_uuid_new(NULL, NULL);
    }
    *recorded = (escqrs_recorded){.type = event->type,
                                  .data = event->data,
                                  .metadata = origin->metadata,
                                  .metadata_count = origin->metadata_count,
                                  .tags = event->tags,
                                  .tag_count = event->tag_count};
    take_id(event->id_text, event->id, &fresh, &recorded->id_text, &recorded->id);
    take_id(origin->causation_text, origin->causation_id, cause, &recorded->causation_text,
            &recorded->causation_id);
    if (origin->correlation_id == NULL && origin->correlation_text.size == 0) {
        recorded->correlation_text = recorded->causation_text;
        recorded->correlation_id = recorded->causation_id;
    } else {
        take_id(origin->correlation_text, origin->correlation_id, &fresh,
                &recorded->correlation_text, &recorded->correlation_id);
    }
}

static uint64_t event_fingerprint(const escqrs_new_event *event, uint64_t hash)
{
    hash = esc_hash(event->type->name, hash);
    hash = esc_hash(event->data, hash);
    for (size_t i = 0; i < event->tag_count; i++) {
        hash = esc_hash(event->tags[i], hash + event->tag_count);
    }
    if (event->id != NULL) {
        hash = esc_hash((escqrs_slice){event->id->bytes, sizeof event->id->bytes}, hash);
    }
    return event->id_text.size > 0 ? esc_hash(event->id_text, hash) : hash;
}

/* The number is stored with keys: docs/format.md has it. */
uint64_t escqrs_commit_fingerprint(const escqrs_commit *commit)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < commit->write_count; i++) {
        const escqrs_write *write = &commit->writes[i];
        hash = esc_hash(write->stream, hash + write->event_count);
        for (size_t j = 0; j < write->event_count; j++) {
            hash = event_fingerprint(&write->events[j], hash);
        }
    }
    return hash;
}

/* ---- matches ---------------------------------------------------------------------------------- */

static bool bears_tag(const escqrs_recorded *recorded, escqrs_slice tag)
{
    for (size_t i = 0; i < recorded->tag_count; i++) {
        if (escqrs_slice_equal(recorded->tags[i], tag)) {
            return true;
        }
    }
    return false;
}

static bool matches_one(const escqrs_match *match, const escqrs_recorded *recorded)
{
    bool type_fits = match->type_count == 0;
    escqrs_slice name = escqrs_type_name(recorded->type);
    for (size_t i = 0; i < match->type_count && !type_fits; i++) {
        type_fits = escqrs_slice_equal(match->types[i], name);
    }
    if (!type_fits) {
        return false;
    }
    for (size_t i = 0; i < match->tag_count; i++) {
        if (!bears_tag(recorded, match->tags[i])) {
            return false;
        }
    }
    return true;
}

static bool matches_any(const escqrs_match *matches, size_t count, const escqrs_recorded *recorded)
{
    for (size_t i = 0; i < count; i++) {
        if (matches_one(&matches[i], recorded)) {
            return true;
        }
    }
    return count == 0;
}

bool escqrs_query_matches(const escqrs_query *query, const escqrs_recorded *recorded)
{
    return matches_any(query->matches, query->match_count, recorded);
}

bool escqrs_condition_matches(const escqrs_condition *condition, const escqrs_recorded *recorded)
{
    return recorded->position > condition->after &&
           matches_any(condition->matches, condition->match_count, recorded);
}
