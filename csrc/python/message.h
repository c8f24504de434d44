/* python/message.h - message classes (es.Message, es.Event, es.Command) and the fields of states.
 *
 * Design
 *   - A *layout* (esc_py_layout) is what the binding knows of a list of annotated fields: the
 * sealed escqrs_schema and, for each field, names, default, nested class, enum members. Message
 * classes have one; an aggregate's state has one of its own.
 *   - A message class is an instance of the metaclass MessageMeta: a heap type with a pointer to
 * its layout behind it. A message is a head, the C struct it was decoded from (or NULL), and one
 * slot a field.
 *   - A slot holds the *stored form* of a value: exact str, int, float, bool, bytes; an aware
 * datetime in UTC; a date, time, timedelta, Decimal, UUID; an enum member; a message; for a list or
 * a tuple (of fixed size or not) a tuple; for a set or a frozenset a frozenset; for a dict a dict
 * nobody else holds. A decoded message fills a slot when the field is first read. Slots never
 * change once filled.
 *   - Messages are not tracked by the garbage collector: what they hold cannot form cycles.
 * Locks: none; the GIL guards the filling of slots. Nothing here blocks, nothing releases the GIL,
 * but resolving a layout for the first time runs Python code.
 *
 * "New reference" and "borrowed" mean what they mean in Python's manual. int results: 0, or -1 with
 * an exception set.
 */
#ifndef ESC_PYTHON_MESSAGE_H
#define ESC_PYTHON_MESSAGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <escqrs/schema.h>

#include "base/buffer.h"

struct esc_py_state;

typedef enum esc_py_kind {
    ESC_PY_NONE = 0, /* no message */
    ESC_PY_MESSAGE = 1,
    ESC_PY_EVENT = 2,
    ESC_PY_COMMAND = 3,
} esc_py_kind;

/* What a field of the label LIST is in Python. */
typedef enum esc_py_collection {
    ESC_PY_LIST = 0,
    ESC_PY_TUPLE = 1,
    ESC_PY_SET = 2,
    ESC_PY_FROZENSET = 3,
} esc_py_collection;

/* One member of an enum, or one class of a union and its field's number in the union's message. */
typedef struct esc_py_member {
    PyObject *object; /* strong */
    int32_t number;
} esc_py_member;

/* One value of a Literal, or one member of the enum that a dict's keys are of. */
typedef struct esc_py_literal {
    PyObject *object; /* strong: an exact str or int; the member */
    PyObject *name;   /* strong: the member's, an exact str; else NULL */
    const char *text; /* str: its UTF-8, which the object (or the name) keeps */
    size_t size;
    int64_t number; /* int */
} esc_py_literal;

struct esc_py_layout;

typedef struct esc_py_field {
    PyObject *name; /* interned str */
    escqrs_kind kind;
    escqrs_label label;
    escqrs_kind key_kind;         /* MAP */
    esc_py_collection collection; /* LIST */
    uint8_t plain; /* the kind of a ONE that most values are of as they come; else 0 */
    bool is_union; /* MESSAGE: of one of several classes, the members */
    bool keyword_only;
    uint32_t number;
    const escqrs_field *in;    /* in the sealed schema: offsets */
    PyObject *default_value;   /* stored form, or NULL */
    PyObject *default_factory; /* or NULL */
    PyObject *type;            /* MESSAGE but no union: the class; ENUM: the enum; else NULL */
    bool default_ready;        /* default_value is checked and in stored form */
    esc_py_member *by_object;  /* ENUM, union: members sorted by address */
    esc_py_member *by_number;  /* sorted by number; borrows from by_object */
    size_t member_count;
    esc_py_literal *literals; /* a Literal's values in order; else NULL */
    size_t literal_count;
    esc_py_literal
        *keys; /* MAP with an enum's members as keys, written as their names; else NULL */
    size_t key_count;
    struct esc_py_layout *parts; /* MESSAGE: a tuple of fixed size, its items as fields; else NULL;
                                    strong */
    uint8_t tag[5];              /* the encoded tag of the field */
    uint8_t tag_size;
} esc_py_field;

/* A Python object (tracked by the garbage collector). Fields stand in the order of declaration,
 * which is the order of the schema's indices and of the slots of a message. */
typedef struct esc_py_layout {
    PyObject_HEAD
    struct esc_py_state *state;
    PyObject *owner;       /* borrowed: the class; NULL once it is gone */
    PyObject *title;       /* str: the class's name in error texts */
    escqrs_schema *schema; /* exists from the start, sealed with `sealed` */
    bool sealed;           /* own fields are known */
    bool ready;            /* and those of all that it nests */
    bool broken;           /* sealing failed for good */
    bool checked;          /* decoding has something to verify: see esc_py_layout_verify */
    uint32_t count;
    uint32_t leaf_depth;  /* of nesting, nested messages left aside: 1, 2 or 3 */
    bool nests;           /* some field holds messages */
    bool is_parts;        /* of a tuple of fixed size: `title` is its field's */
    esc_py_field *fields; /* NULL until sealed */
    uint32_t *order;      /* indices by field number; NULL where they are in order already */
    uint32_t positional;  /* fields that may be given by position ... */
    uint32_t *positions;  /* ... their indices; NULL where they are the first ones */
} esc_py_layout;

/* A field that is read by name without asking the type; see message_field.c. */
typedef struct esc_py_known {
    PyObject *name; /* borrowed from the layout; NULL: none */
    uint32_t index;
    bool copied; /* a container: readers get copies */
} esc_py_known;

/* Type object of a message class. */
typedef struct esc_py_message_type {
    PyHeapTypeObject base;
    struct esc_py_state *state;
    esc_py_layout *layout; /* NULL while the class statement runs */
    PyObject *field_names; /* tuple of str */
    PyObject *declared;    /* tuple: what _field.py knows of each field */
    PyObject *post_init;   /* __post_init__ or NULL */
    PyObject *stored_name; /* str */
    PyObject *reply;       /* COMMAND: the R of Command[R], or NULL */
    PyObject *adopted;     /* the class that it stands for, or NULL; see adopted.h */
    uint32_t field_count;
    esc_py_known *known;    /* by address of the name; NULL: none yet */
    size_t known_mask;      /* how many there are, less one */
    unsigned known_version; /* tp_version_tag that they hold for; never 0 where there are some */
    esc_py_kind kind;
    bool abstract; /* es.Message, es.Event, es.Command themselves */
} esc_py_message_type;

/* Memory of one unpacked message, shared by the Python messages that read from it. */
typedef struct esc_py_block {
    size_t references; /* guarded by the GIL */
    ProtobufCMessage *root;
} esc_py_block;

typedef struct esc_py_message {
    PyObject_HEAD
    ProtobufCMessage *packed; /* NULL unless decoded */
    esc_py_block *block;      /* NULL: `packed`, if any, is ours alone */
    uint32_t depth;  /* of nesting in protobuf terms, 1 for the message alone; 0: not counted yet */
    uint32_t within; /* bytes behind the slots, which `packed` lies in; 0: it is elsewhere */
    PyObject *slots[];
} esc_py_message;

/* Section of the module's state. */
typedef struct esc_py_message_state {
    PyTypeObject *meta;   /* MessageMeta */
    PyTypeObject *base;   /* MessageBase, which has the slots functions */
    PyTypeObject *field;  /* the descriptor of one field */
    PyTypeObject *layout; /* Layout */
    PyObject *prepare;    /* functions of _message.py, NULL until it has bound them */
    PyObject *resolve;
    PyObject *signature;
    PyObject *registry; /* dict (module, qualname) -> weak reference to the newest class */
    PyObject *utc;      /* datetime.timezone.utc */
    PyObject *decimal;  /* decimal.Decimal and uuid.UUID; NULL until a field is one */
    PyObject *uuid;
    PyObject *uuid_safety; /* SafeUUID.unknown, an attribute of every UUID that is read */
    PyObject *rebuild;     /* the module's function _rebuild, for pickle */
    PyObject *adopt;       /* function of _protobuf.py, NULL until it is wanted */
    PyObject *event_twins; /* dict: adopted class -> the message class that stands for it */
    PyObject *command_twins;
    PyObject *from_string; /* names of protobuf's methods */
    PyObject *to_string;
    PyObject *to_string_names; /* of its keyword arguments */
    esc_buffer scratch;        /* for packing on the way to bytes */
    uint64_t generation;       /* class definitions so far */
} esc_py_message_state;

int esc_py_message_exec(PyObject *module);
int esc_py_message_traverse(esc_py_message_state *section, visitproc visit, void *arg);
void esc_py_message_clear(esc_py_message_state *section);

/* ---- classes ---------------------------------------------------------------------------------- */

/* What `object` is, when it is a message / when it is a message class; never fails. */
esc_py_kind esc_py_message_kind(struct esc_py_state *state, PyObject *object);
esc_py_kind esc_py_class_kind(struct esc_py_state *state, PyObject *object);

/* `cls` and `message` below must be a message class and an instance of one (see the kinds). */

/* The layout of a class, its annotations resolved; borrowed, NULL with an exception (TypeError
 * names class and field). Lives as long as the class. */
esc_py_layout *esc_py_class_layout(PyTypeObject *cls);
/* Its schema, likewise resolved with all that it nests. */
const escqrs_schema *esc_py_message_schema(PyTypeObject *cls);
/* The name in the store, borrowed. */
PyObject *esc_py_class_stored_name(PyTypeObject *cls);

/* The newest definition of any registered class of the same module and qualified name: `cls` itself
 * where there is no newer one. New reference. */
PyObject *esc_py_newest(struct esc_py_state *state, PyObject *cls);
/* Grows with every registered definition, so that an open system knows when to look for newer ones.
 */
uint64_t esc_py_definition_generation(struct esc_py_state *state);

/* ---- packing ---------------------------------------------------------------------------------- */

/* Append the protobuf bytes of a message. Fails for want of memory only. */
int esc_py_message_pack(PyObject *message, esc_buffer *out);

/* A message that reads from `packed`, which was unpacked with the class's schema and is taken over
 * (also on failure). es.Corrupt naming class and field where an enum number is unknown, a time is
 * out of range, or a datetime or message without default is absent. New reference. */
PyObject *esc_py_message_wrap(PyTypeObject *cls, ProtobufCMessage *packed);
/* Unpack and wrap. `limits` may be NULL. es.Corrupt, es.TooLarge. New reference. */
PyObject *esc_py_message_decode(PyTypeObject *cls, escqrs_slice data, const escqrs_limits *limits);

/* What wrap verifies, without Python: may run on a core thread without the GIL once the layout is
 * ready. CORRUPT. */
ESCQRS_MUST_USE escqrs_status esc_py_layout_verify(const esc_py_layout *layout,
                                                   const ProtobufCMessage *packed,
                                                   escqrs_error *error);

/* ---- values by layout: for states, and for whoever reads fields in C ---------------------------- */

/* The layout of the fields of any class, made by escqrs._message.layout_of_state(cls, name) in
 * Python: NULL with TypeError where `object` is no layout. Resolves it. Borrowed. */
esc_py_layout *esc_py_layout_cast(struct esc_py_state *state, PyObject *object);

/* Field by name, or -1 without an exception. */
Py_ssize_t esc_py_layout_find(const esc_py_layout *layout, PyObject *name);

/* The stored form of `value` for a field: strict checks, TypeError/ValueError naming class, field
 * and element. New reference. */
PyObject *esc_py_value_check(esc_py_layout *layout, uint32_t index, PyObject *value);
/* The same for one item of a LIST or MAP field, which stands at `key`, or at `at` where that is
 * NULL; and for a key of a MAP. New reference. */
PyObject *esc_py_item_check(esc_py_layout *layout, uint32_t index, PyObject *key, Py_ssize_t at,
                            PyObject *item);
PyObject *esc_py_key_check(esc_py_layout *layout, uint32_t index, PyObject *key);
/* What a reader gets of a stored form: itself, or a new list, set or dict. Also copies a live
 * container of a state. New reference. */
PyObject *esc_py_value_copy(const esc_py_field *field, PyObject *value);
/* The value a field begins with: its default, else the kind's zero value ("", 0, [], {}, None for T
 * | None), else NULL without an exception (a date or time, UUID, message, an enum without the
 * number 0, a Literal without the zero value). Containers are new ones. New reference. */
PyObject *esc_py_value_initial(esc_py_layout *layout, uint32_t index);

/* Append the bytes of `layout->count` values, NULL for absent ones, each checked as above. */
int esc_py_values_pack(esc_py_layout *layout, PyObject *const *values, esc_buffer *out);
/* Fill `values` with `layout->count` new references, as a reader gets them (lists and dicts are new
 * and mutable); a field that is absent gets its initial value, or NULL. On failure all are NULL. */
int esc_py_values_unpack(esc_py_layout *layout, const ProtobufCMessage *packed, PyObject **values);

#endif
