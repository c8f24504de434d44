/* escqrs/schema.h - message types made at run time, and the codec for them.
 *
 * A schema describes one message type: a command, an event, an aggregate's state, or a message
 * nested in one. It is turned into a protobuf-c descriptor, so that what is written is plain
 * protobuf (proto3) that any protobuf library reads; protobuf-c packs, and its structs are what is
 * unpacked into.
 *
 * Life: create, add fields, seal; immutable from then on and usable from any thread. The creator
 * owns it and destroys it after everything that was made with it, and after the schemas that nest
 * it (cycles between schemas are destroyed together, in any order, when no message of them is
 * left). Nothing here blocks. No function here needs an interpreter.
 *
 * Presence: every singular field is written even when zero (it is printed as `optional`), so a
 * field that is absent was absent when the event was written: `has` is false and the reader uses
 * its default.
 */
#ifndef ESCQRS_SCHEMA_H
#define ESCQRS_SCHEMA_H

#include <escqrs/base.h>
#include <protobuf-c/protobuf-c.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a field holds:
 *
 *             protobuf type               C type of the value in a message
 *   INT       int64                       int64_t
 *   FLOAT     double                      double
 *   BOOL      bool                        protobuf_c_boolean
 *   STRING    string, checked UTF-8       ProtobufCBinaryData (may hold NULs)
 *   BYTES     bytes                       ProtobufCBinaryData
 *   TIME      google.protobuf.Timestamp   escqrs_timestamp *
 *   ENUM      an enum                     int
 *   MESSAGE   a message                   ProtobufCMessage *
 *   INT32     int32                       int32_t
 *   UINT32    uint32                      uint32_t
 *   UINT64    uint64                      uint64_t
 *   SINT32    sint32                      int32_t
 *   SINT64    sint64                      int64_t
 *   DURATION  google.protobuf.Duration    escqrs_duration *
 *   DATE      string "2024-02-29"         ProtobufCBinaryData
 *   CLOCK     string "23:59:59.123456"    ProtobufCBinaryData
 *   LOCAL     string of both, a `T` between ProtobufCBinaryData
 *   DECIMAL   string "-12.50", "1E+5"     ProtobufCBinaryData
 *   UUID      string of 36 characters     ProtobufCBinaryData
 *   FLOAT32   float                       float
 *   FIXED32   fixed32                     uint32_t
 *   FIXED64   fixed64                     uint64_t
 *   SFIXED32  sfixed32                    int32_t
 *   SFIXED64  sfixed64                    int64_t
 *
 * CLOCK is a time of day and LOCAL a date with one, both without a zone; their fraction of a second
 * has six digits or is left out. DECIMAL is a finite number of at most 4,096 characters whose
 * exponent has at most 6 digits. The check proves these forms as it proves UTF-8.
 */
typedef enum escqrs_kind {
    ESCQRS_KIND_INT = 1,
    ESCQRS_KIND_FLOAT = 2,
    ESCQRS_KIND_BOOL = 3,
    ESCQRS_KIND_STRING = 4,
    ESCQRS_KIND_BYTES = 5,
    ESCQRS_KIND_TIME = 6,
    ESCQRS_KIND_ENUM = 7,
    ESCQRS_KIND_MESSAGE = 8,
    ESCQRS_KIND_INT32 = 9,
    ESCQRS_KIND_UINT32 = 10,
    ESCQRS_KIND_UINT64 = 11,
    ESCQRS_KIND_SINT32 = 12,
    ESCQRS_KIND_SINT64 = 13,
    ESCQRS_KIND_DURATION = 14,
    ESCQRS_KIND_DATE = 15,
    ESCQRS_KIND_CLOCK = 16,
    ESCQRS_KIND_LOCAL = 17,
    ESCQRS_KIND_DECIMAL = 18,
    ESCQRS_KIND_UUID = 19,
    ESCQRS_KIND_FLOAT32 = 20,
    ESCQRS_KIND_FIXED32 = 21,
    ESCQRS_KIND_FIXED64 = 22,
    ESCQRS_KIND_SFIXED32 = 23,
    ESCQRS_KIND_SFIXED64 = 24,
} escqrs_kind;

#define ESCQRS_KIND_LAST ESCQRS_KIND_SFIXED64
#define ESCQRS_DECIMAL_SIZE_MAX 4096 /* characters */

/* Is a value of that kind a pointer to a message? Then NULL is absent. */
static inline bool escqrs_kind_is_pointer(escqrs_kind kind)
{
    return kind == ESCQRS_KIND_TIME || kind == ESCQRS_KIND_MESSAGE || kind == ESCQRS_KIND_DURATION;
}

/* Is it a string on the wire, of any form? */
static inline bool escqrs_kind_is_text(escqrs_kind kind)
{
    return kind == ESCQRS_KIND_STRING || (kind >= ESCQRS_KIND_DATE && kind <= ESCQRS_KIND_UUID);
}

/* Is it a whole number other than a bool or an enum? */
static inline bool escqrs_kind_is_integer(escqrs_kind kind)
{
    return kind == ESCQRS_KIND_INT || (kind >= ESCQRS_KIND_INT32 && kind <= ESCQRS_KIND_SINT64) ||
           (kind >= ESCQRS_KIND_FIXED32 && kind <= ESCQRS_KIND_SFIXED64);
}

/* May the keys of a map be of that kind? */
static inline bool escqrs_kind_is_key(escqrs_kind kind)
{
    return escqrs_kind_is_text(kind) || escqrs_kind_is_integer(kind) || kind == ESCQRS_KIND_BOOL;
}

/* Size of one value of that kind in a message or in a list's array. */
size_t escqrs_kind_size(escqrs_kind kind);

/* How often a field occurs:
 *
 *   ONE       always set when written; a protobuf_c_boolean `has` stands beside the value
 *   OPTIONAL  may be absent on purpose (T | None); laid out like ONE
 *   LIST      size_t count, pointer to an array of the C type; packed where proto3 packs
 *   MAP       size_t count, pointer to an array of ProtobufCMessage *: the entries, each a message
 *             of field `entry` with key = 1 and value = 2. Keys: integers, BOOL and texts; the last
 *             of several equal keys counts; a key or value that is absent stands for zero, "", an
 *             empty message, 1970-01-01 or no time; where text has another form, it may not be
 */
typedef enum escqrs_label {
    ESCQRS_ONE = 1,
    ESCQRS_OPTIONAL = 2,
    ESCQRS_LIST = 3,
    ESCQRS_MAP = 4,
} escqrs_label;

/* google.protobuf.Timestamp as protobuf-c lays it out. */
typedef struct escqrs_timestamp {
    ProtobufCMessage base;
    protobuf_c_boolean has_seconds;
    int64_t seconds; /* since 1970-01-01T00:00:00Z */
    protobuf_c_boolean has_nanos;
    int32_t nanos; /* 0 to 999,999,999 */
} escqrs_timestamp;

/* google.protobuf.Duration, which is laid out alike: nanos from -999,999,999 to 999,999,999, the
 * whole within 315,576,000,000 seconds (10,000 years) to either side. */
typedef escqrs_timestamp escqrs_duration;

extern const ProtobufCMessageDescriptor escqrs_timestamp_descriptor;
extern const ProtobufCMessageDescriptor escqrs_duration_descriptor;

typedef struct escqrs_schema escqrs_schema;

typedef struct escqrs_enum_value {
    const char *name; /* as in Python; unique within the enum */
    int32_t number;
} escqrs_enum_value;

/* What the author of a message says of one field. Everything is copied when the field is added. */
typedef struct escqrs_field_spec {
    const char *name; /* an identifier that does not begin with `_` */
    uint32_t number;  /* 1 to 536,870,911 without 19,000-19,999; unique in the message */
    escqrs_kind kind; /* of the value */
    escqrs_label label;
    escqrs_kind key_kind;         /* MAP */
    bool has_default;             /* the reader fills it in where the field is absent */
    const escqrs_schema *message; /* kind MESSAGE; need not be sealed yet */
    const char *enum_name;        /* kind ENUM */
    const escqrs_enum_value *enum_values;
    size_t enum_value_count;
    const char *const *was; /* former names of the field */
    size_t was_count;
    /* For comparing definitions alone; what is read is not held against them. None: any value. */
    const char *const *literals; /* the only values, kinds STRING and INT; numbers as text */
    size_t literal_count;
    const char *const *key_names; /* MAP: the only keys, of kind STRING */
    size_t key_name_count;
} escqrs_field_spec;

/* A field of a sealed schema; lives as long as the schema. Offsets are bytes from the start of the
 * unpacked message (a ProtobufCMessage *). */
typedef struct escqrs_field {
    const char *name;
    uint32_t number;
    escqrs_kind kind;
    escqrs_label label;
    escqrs_kind key_kind;
    bool has_default;
    size_t value_offset;
    size_t has_offset; /* ONE, OPTIONAL of every kind but TIME and MESSAGE (there NULL is absent) */
    size_t count_offset;          /* LIST, MAP */
    const escqrs_schema *message; /* MESSAGE */
    const escqrs_schema *entry;   /* MAP: schema of its entries; fields key (0) and value (1) */
    const char *enum_name;
    const escqrs_enum_value *enum_values;
    size_t enum_value_count;
    const char *const *was;
    size_t was_count;
    const char *const *literals; /* sorted */
    size_t literal_count;
    const char *const *key_names; /* sorted */
    size_t key_name_count;
} escqrs_field;

/* `name` is the message's name in the store, e.g. "shop.ItemAdded": dotted identifiers of at most
 * 255 bytes (Unicode letters are allowed in the store; print_proto maps them). Errors: INVALID,
 * NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_create(escqrs_slice name, escqrs_schema **schema,
                                                   escqrs_error *error);
/* Fields are kept in order of addition (their index) whatever their numbers. Errors: INVALID names
 * message and field; TOO_LARGE above 1,000 fields; NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_add(escqrs_schema *schema,
                                                const escqrs_field_spec *field,
                                                escqrs_error *error);
/* Make it a union, before fields are added: a message of which one field is set, which is printed
 * as a oneof. Its fields are OPTIONAL messages. */
void escqrs_schema_make_union(escqrs_schema *schema);
bool escqrs_schema_is_union(const escqrs_schema *schema);
/* A former name of the message, before it is sealed. Errors: INVALID, NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_add_was(escqrs_schema *schema, escqrs_slice name,
                                                    escqrs_error *error);
const char *const *escqrs_schema_was(const escqrs_schema *schema, size_t *count);
ESCQRS_MUST_USE escqrs_status escqrs_schema_seal(escqrs_schema *schema, escqrs_error *error);
/* `nested` will be destroyed with `owner`. Errors: NO_MEMORY; then it is the caller's still. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_own(escqrs_schema *owner, escqrs_schema *nested);
void escqrs_schema_destroy(escqrs_schema *schema);

const char *escqrs_schema_name(const escqrs_schema *schema);
size_t escqrs_schema_field_count(const escqrs_schema *schema);
const escqrs_field *escqrs_schema_field(const escqrs_schema *schema, size_t index);
/* By name; NULL if there is none. */
const escqrs_field *escqrs_schema_find(const escqrs_schema *schema, escqrs_slice name);
const ProtobufCMessageDescriptor *escqrs_schema_descriptor(const escqrs_schema *schema);
/* Size in bytes of the unpacked struct; its first bytes are a ProtobufCMessage. */
size_t escqrs_schema_struct_size(const escqrs_schema *schema);

/* ---- codec ------------------------------------------------------------------------------------ */

typedef struct escqrs_limits {
    size_t bytes_max;   /* 0: 16 MiB */
    unsigned depth_max; /* of nesting; 0: 100 */
    size_t items_max;   /* all list items, map entries and unknown fields of one message together,
                           nested ones included; 0: as many as bytes_max allows, one a byte */
    size_t memory_max;  /* of the unpacked message; 0: 32 times bytes_max, but 1 MiB at least */
} escqrs_limits;        /* bytes_max beyond 2^31-1 and depth_max beyond 500 are cut to these */

/* In all that follows `limits` may be NULL: the defaults.
 *
 * Prove that `data` can be unpacked: size, depth, counts, wire types (a known field with the wrong
 * one is an error, packed and unpacked lists are both accepted), varints of at most 10 bytes,
 * lengths inside the message, tags between 1 and 2^29-1, no groups, UTF-8 of strings and the form
 * of dates, decimals and their like, times within the years 1 to 9999 and durations within 10,000
 * years. Unknown fields are fine, and so are numbers that an enum does not have.
 * Errors: CORRUPT with the byte offset in the text; TOO_LARGE. */
ESCQRS_MUST_USE escqrs_status escqrs_message_check(const escqrs_schema *schema, escqrs_slice data,
                                                   const escqrs_limits *limits,
                                                   escqrs_error *error);

/* Check, then unpack into one block of memory (struct, strings, lists and nested messages
 * together). `*message` owns copies of everything and may be read by many threads, but changed by
 * none; free it with escqrs_message_free. Unknown fields are kept in the ProtobufCMessage, as
 * protobuf-c does; its own unpack gives the same message. `data` may not change during the call.
 * Errors: as of check, and NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_message_unpack(const escqrs_schema *schema, escqrs_slice data,
                                                    const escqrs_limits *limits,
                                                    ProtobufCMessage **message,
                                                    escqrs_error *error);
/* Of escqrs_message_unpack only; NULL is fine. */
void escqrs_message_free(ProtobufCMessage *message);
/* Bytes that the unpacked message occupies in all. */
size_t escqrs_message_memory(const ProtobufCMessage *message);

/* Before a message made by hand is packed: prove that its nesting and size stay within `limits`, so
 * that pack, which recurses, may be called and what it writes can be read again. *packed_size is
 * what protobuf_c_message_get_packed_size gives. Never visits more nested messages than bytes_max
 * allows, also where one is nested many times over. Errors: TOO_LARGE. */
ESCQRS_MUST_USE escqrs_status escqrs_message_measure(const ProtobufCMessage *message,
                                                     const escqrs_limits *limits,
                                                     size_t *packed_size, escqrs_error *error);

/* Pack is protobuf-c's own: protobuf_c_message_get_packed_size / protobuf_c_message_pack on a
 * struct that was unpacked, or filled by hand after escqrs_message_init. */
void escqrs_message_init(const escqrs_schema *schema, ProtobufCMessage *message);

/* ---- JSON, one way: for SQL parameters and for people ----------------------------------------- */

/* The value of one field as JSON text appended by `write` (text is UTF-8, may come in pieces):
 * lists as arrays, maps as objects, messages as objects with the names as declared (of a union the
 * one that is set), bytes as base64, times as RFC 3339 in UTC with microseconds, durations as
 * seconds, enums by name, 64-bit integers as numbers, texts of any form as they are.
 * NaN and infinities are INVALID. `write` returns false when it is out of memory. */
typedef bool (*escqrs_write_function)(void *context, const char *text, size_t size);
ESCQRS_MUST_USE escqrs_status escqrs_field_to_json(const escqrs_field *field,
                                                   const ProtobufCMessage *message,
                                                   escqrs_write_function write, void *context,
                                                   escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_message_to_json(const escqrs_schema *schema,
                                                     const ProtobufCMessage *message,
                                                     escqrs_write_function write, void *context,
                                                     escqrs_error *error);

/* ---- .proto text ------------------------------------------------------------------------------ */

/* A whole .proto file (syntax, package from the dotted name, imports, nested messages and enums
 * with the closure of what `schemas` need), one that protoc accepts. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_print_proto(const escqrs_schema *const *schemas,
                                                        size_t count, escqrs_write_function write,
                                                        void *context, escqrs_error *error);

/* ---- records and evolution -------------------------------------------------------------------- */

/* The schema with all that it nests as bytes (message escqrs.v1.Schema,
 * proto/escqrs/v1/schema.proto), canonical: equal schemas give equal bytes. `*record` is freed with
 * escqrs_free. Errors: NAME_CLASH where two different messages in it have one name, TOO_LARGE above
 * 1 MiB, INVALID, NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_record(const escqrs_schema *schema, void **record,
                                                   size_t *size, escqrs_error *error);
/* A 64-bit fingerprint of the record, computed once; never 0, but 0 if there was no memory to
 * compute it. */
uint64_t escqrs_schema_fingerprint(const escqrs_schema *schema);

/* A schema built from a record; the set of it and its nested ones is destroyed by
 * escqrs_schema_destroy of the returned one. Errors: CORRUPT. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_load(escqrs_slice record, escqrs_schema **schema,
                                                 escqrs_error *error);

/* A record's version, as the author of an event counts them: 1 where it says nothing. A record is
 * given another by appending it, which is where it stands in canonical bytes; `*versioned` is freed
 * with escqrs_free. Errors: CORRUPT; NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_record_version(escqrs_slice record, uint32_t *version,
                                                    escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_record_set_version(escqrs_slice record, uint32_t version,
                                                        void **versioned, size_t *size,
                                                        escqrs_error *error);

/* May data written with `record` be read with `schema`? OK where it may: the same fields, fields
 * added with a default under numbers never used, removed fields whose number nobody else took,
 * changed order, fields and nested messages of another name where one of the two says that it was
 * the other (`was`), ONE to OPTIONAL, a wider integer that reads the same bytes (INT32 and UINT32
 * to INT, UINT32 to UINT64, SINT32 to SINT64), and what is added to a union or an enum.
 * SCHEMA_MISMATCH otherwise: a number that means another name, another kind, label, enum number or
 * nested message; a new field without default; a member of a union or an enum that is gone. The
 * text names class, field, both meanings and the mend. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_compare(const escqrs_schema *schema,
                                                    escqrs_slice record, escqrs_error *error);

/* How a definition differs from the one that data was written with. */
typedef enum escqrs_change_kind {
    ESCQRS_CHANGE_MISREAD = 0, /* the only one that compare refuses; `text` as there */
    ESCQRS_CHANGE_ADDED = 1,   /* a field with a default, a member of an enum or a union */
    ESCQRS_CHANGE_REMOVED = 2, /* a field */
    ESCQRS_CHANGE_RENAMED = 3, /* a field, a nested message */
    ESCQRS_CHANGE_WIDENED = 4, /* an integer; a field that may be absent now */
} escqrs_change_kind;

typedef struct escqrs_change { /* valid during the call */
    escqrs_change_kind kind;
    const char *message; /* name as now */
    const char *field;   /* or "" */
    const char *text;
} escqrs_change;

/* The same, and all of it: calls `visit` for each difference, misreadings too, and answers OK.
 * Errors: CORRUPT, INVALID, NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_schema_changes(
    const escqrs_schema *schema, escqrs_slice record,
    void (*visit)(void *context, const escqrs_change *change), void *context, escqrs_error *error);

#ifdef __cplusplus
}
#endif

#endif
