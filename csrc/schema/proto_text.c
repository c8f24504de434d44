/* Definitions as a .proto file that protoc accepts.
 *
 * What is written to disk is decided by numbers and types alone, so names may be bent where the two
 * languages differ, and that is all the work here:
 *  - A file has one package: the longest that all messages share. What a name has beyond it becomes
 *    messages in messages, so full names stay as they are.
 *  - Letters beyond ASCII become `_u` and their code point.
 *  - Names of one scope must differ, and protoc compares some of them without case and underscores;
 * a name that is taken gets a number behind it. Enums and their values share the scope of the file,
 * so values are prefixed with the enum's name.
 *  - An enum must begin with a value of number zero.
 * A name that is not as declared is followed by the declared one in a comment. References are
 * written in full with a leading dot, so that no name in between can capture them. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/map.h"
#include "schema/closure.h"
#include "schema/writer.h"

#define INDENT 2

/* A set of the names used in a scope, as protoc compares them. */
typedef struct scope {
    esc_map names; /* of char *, in the arena */
} scope;

/* A message of the file, or a part of a dotted name that is none. */
typedef struct node {
    const escqrs_schema *schema; /* NULL: only a scope for others */
    escqrs_slice component;      /* as declared */
    const char *name;            /* in the file */
    struct node *parent;         /* NULL: the file itself */
    struct node *first;          /* its children, in the order of the closure */
    struct node *last;
    struct node *next;
} node;

typedef struct enumeration {
    const escqrs_field *field; /* one that has it */
    const char *name;          /* in the file */
} enumeration;

typedef struct file {
    esc_arena arena;
    esc_vector closure; /* of const escqrs_schema * */
    esc_vector nodes;   /* of node *: nodes[i] is that of closure[i] */
    esc_vector enums;   /* of enumeration */
    node root;
    scope names;          /* of the file: messages, enums, values */
    escqrs_slice package; /* as declared */
    char *package_name;   /* in the file; "" for none */
    bool has_time;
    bool has_duration;
    bool out_of_memory;
} file;

/* ---- names ------------------------------------------------------------------------------------ */

static escqrs_slice key_of_text(const void *value)
{
    return escqrs_slice_of(value);
}

static void *take(file *f, size_t size)
{
    void *memory = esc_arena_alloc(&f->arena, size);
    f->out_of_memory |= memory == NULL;
    return memory;
}

static uint32_t code_point(const uint8_t *at, size_t *size)
{
    if (at[0] < 0x80) {
        *size = 1;
        return at[0];
    }
    *size = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    uint32_t value = at[0] & (0xffu >> (*size + 1));
    for (size_t i = 1; i < *size; i++) {
        value = value << 6 | (at[i] & 0x3fu);
    }
    return value;
}

/* The identifier in ASCII; dots, as an enum's name may have, become underscores. NULL: out of
 * memory. */
static char *to_ascii(file *f, escqrs_slice name)
{
    const uint8_t *in = name.data;
    char *out = take(f, name.size * 3 + 1); /* two bytes become the six of `_uNNNN` */
    if (out == NULL) {
        return NULL;
    }
    size_t used = 0;
    for (size_t i = 0; i < name.size;) {
        size_t size = 0;
        uint32_t c = code_point(in + i, &size);
        if (c >= 0x80) {
            used += (size_t)sprintf(out + used, "_u%04x", (unsigned)c);
        } else {
            out[used++] = (char)(c == '.' ? '_' : c);
        }
        i += size;
    }
    out[used] = '\0';
    return out;
}

static char to_lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static char to_upper(char c)
{
    return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

/* As protoc compares names of fields and values: lower case, without underscores, behind a prefix
 * that keeps kinds of names apart. */
static char *fold(file *f, const char *prefix, const char *name)
{
    char *out = take(f, strlen(prefix) + strlen(name) + 1);
    if (out == NULL) {
        return NULL;
    }
    size_t used = strlen(prefix);
    memcpy(out, prefix, used);
    for (; *name != '\0'; name++) {
        if (*name != '_') {
            out[used++] = to_lower(*name);
        }
    }
    out[used] = '\0';
    return out;
}

static bool has(const scope *s, const char *name)
{
    return esc_map_get(&s->names, escqrs_slice_of(name)) != NULL;
}

static void reserve(file *f, scope *s, char *name)
{
    if (name != NULL && !has(s, name) && esc_map_insert(&s->names, name) != ESCQRS_OK) {
        f->out_of_memory = true;
    }
}

/* The name itself, or the first of name_2, name_3, ... that is free; taken then. NULL: out of
 * memory. */
static const char *unique(file *f, scope *s, const char *name)
{
    if (name == NULL) {
        return NULL;
    }
    size_t size = strlen(name) + 24;
    char *out = take(f, size);
    if (out == NULL) {
        return NULL;
    }
    snprintf(out, size, "%s", name);
    for (unsigned long i = 2; has(s, out); i++) {
        snprintf(out, size, "%s_%lu", name, i);
    }
    reserve(f, s, out);
    return out;
}

/* What protoc calls the message that it makes for the entries of a map. */
static char *entry_name(file *f, const char *field)
{
    char *out = take(f, strlen(field) + sizeof "Entry");
    if (out == NULL) {
        return NULL;
    }
    size_t used = 0;
    bool upper = true;
    for (; *field != '\0'; field++) {
        if (*field == '_') {
            upper = true;
        } else {
            out[used++] = (char)(upper ? to_upper(*field) : *field);
            upper = false;
        }
    }
    memcpy(out + used, "Entry", sizeof "Entry");
    return out;
}

/* ---- the tree of messages --------------------------------------------------------------------- */

static escqrs_slice package_of(const escqrs_schema *schema)
{
    const char *name = schema->descriptor.name;
    const char *dot = strrchr(name, '.');
    return (escqrs_slice){name, dot != NULL ? (size_t)(dot - name) : 0};
}

/* The longest dotted prefix that both packages have. */
static escqrs_slice common_package(escqrs_slice a, escqrs_slice b)
{
    const char *x = a.data;
    const char *y = b.data;
    size_t common = 0;
    for (size_t i = 0;; i++) {
        bool x_ends = i == a.size || x[i] == '.';
        bool y_ends = i == b.size || y[i] == '.';
        if (x_ends && y_ends) {
            common = i;
        }
        if (i == a.size || i == b.size || x[i] != y[i]) {
            return (escqrs_slice){a.data, common};
        }
    }
}

static node *child_of(file *f, node *parent, escqrs_slice component)
{
    for (node *child = parent->first; child != NULL; child = child->next) {
        if (escqrs_slice_equal(child->component, component)) {
            return child;
        }
    }
    node *made = take(f, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    *made = (node){.component = component, .parent = parent};
    if (parent->last != NULL) {
        parent->last->next = made;
    } else {
        parent->first = made;
    }
    parent->last = made;
    return made;
}

static void plant(file *f, const escqrs_schema *schema)
{
    const char *at = schema->descriptor.name;
    if (f->package.size > 0) {
        at += f->package.size + 1;
    }
    node *place = &f->root;
    while (place != NULL) {
        const char *dot = strchr(at, '.');
        size_t size = dot != NULL ? (size_t)(dot - at) : strlen(at);
        place = child_of(f, place, (escqrs_slice){at, size});
        if (dot == NULL) {
            break;
        }
        at = dot + 1;
    }
    if (place != NULL) {
        place->schema = schema;
    }
    if (esc_vector_push(&f->nodes, &place) != ESCQRS_OK) {
        f->out_of_memory = true;
    }
}

/* Messages get their names before all else in their scope: theirs are the ones that others refer
 * to. */
static void name_children(file *f, node *parent, scope *s)
{
    for (node *child = parent->first; child != NULL; child = child->next) {
        child->name = unique(f, s, to_ascii(f, child->component));
    }
}

/* Every message below the root is named here, in a scope of its parent that is forgotten again:
 * when the parent is printed, the names are reserved anew. Each node's depth is a component of a
 * name. */
static void name_descendants(file *f, node *parent)
{
    for (node *child = parent->first; child != NULL; child = child->next) {
        scope s;
        esc_map_init(&s.names, key_of_text, NULL);
        name_children(f, child, &s);
        esc_map_fini(&s.names);
        name_descendants(f, child);
    }
}

/* ---- enums ------------------------------------------------------------------------------------ */

static const char *enum_in_file(const file *f, const escqrs_field *field)
{
    for (size_t i = 0; i < f->enums.count; i++) {
        const enumeration *known = &ESC_VECTOR_AT(&f->enums, enumeration, i);
        if (strcmp(known->field->enum_name, field->enum_name) == 0 &&
            esc_enum_equal(known->field, field)) {
            return known->name;
        }
    }
    return NULL;
}

static void add_enum(file *f, const escqrs_field *field)
{
    if (f->out_of_memory || enum_in_file(f, field) != NULL) {
        return;
    }
    enumeration made = {field,
                        unique(f, &f->names, to_ascii(f, escqrs_slice_of(field->enum_name)))};
    if (made.name == NULL || esc_vector_push(&f->enums, &made) != ESCQRS_OK) {
        f->out_of_memory = true;
    }
}

/* "ItemColor" to "ITEM_COLOR_". */
static char *value_prefix(file *f, const char *name)
{
    char *out = take(f, strlen(name) * 2 + 2);
    if (out == NULL) {
        return NULL;
    }
    size_t used = 0;
    for (size_t i = 0; name[i] != '\0'; i++) {
        bool upper = name[i] >= 'A' && name[i] <= 'Z';
        bool after_lower = i > 0 && name[i - 1] >= 'a' && name[i - 1] <= 'z';
        if (upper && after_lower) {
            out[used++] = '_';
        }
        out[used++] = to_upper(name[i]);
    }
    out[used++] = '_';
    out[used] = '\0';
    return out;
}

/* A value's name: unique in the file as it is written, and in its enum as protoc folds it, which
 * looks away from the enum's name before it. */
static const char *value_name(file *f, scope *folded, const char *prefix, const char *member)
{
    size_t size = member != NULL ? strlen(prefix) + strlen(member) + 24 : 0;
    char *out = member != NULL ? take(f, size) : NULL;
    if (out == NULL) {
        return NULL;
    }
    snprintf(out, size, "%s%s", prefix, member);
    char *folded_name = fold(f, "", out + strlen(prefix));
    for (unsigned long i = 2;
         folded_name != NULL && (has(&f->names, out) || has(folded, folded_name)); i++) {
        snprintf(out, size, "%s%s_%lu", prefix, member, i);
        folded_name = fold(f, "", out + strlen(prefix));
    }
    reserve(f, &f->names, out);
    reserve(f, folded, folded_name);
    return out;
}

static void print_value(file *f, esc_writer *w, scope *folded, const char *prefix,
                        const escqrs_enum_value *value)
{
    const char *ascii = to_ascii(f, escqrs_slice_of(value->name));
    const char *name = value_name(f, folded, prefix, ascii);
    if (name == NULL) {
        return;
    }
    esc_writer_format(w, "%*s", INDENT, "");
    esc_writer_text(w, name);
    esc_writer_format(w, " = %ld;", (long)value->number);
    if (strcmp(name + strlen(prefix), value->name) != 0) {
        esc_writer_text(w, "  // ");
        esc_writer_text(w, value->name);
    }
    esc_writer_put(w, "\n", 1);
}

static void print_enum(file *f, esc_writer *w, const enumeration *e)
{
    const escqrs_field *field = e->field;
    const char *prefix = value_prefix(f, e->name);
    if (prefix == NULL) {
        return;
    }
    scope folded;
    esc_map_init(&folded.names, key_of_text, NULL);
    esc_writer_text(w, "\nenum ");
    esc_writer_text(w, e->name);
    esc_writer_text(w, " {");
    if (strcmp(e->name, field->enum_name) != 0) {
        esc_writer_text(w, "  // ");
        esc_writer_text(w, field->enum_name);
    }
    esc_writer_put(w, "\n", 1);
    size_t zero = 0;
    while (zero < field->enum_value_count && field->enum_values[zero].number != 0) {
        zero++;
    }
    if (zero < field->enum_value_count) {
        print_value(f, w, &folded, prefix, &field->enum_values[zero]);
    } else {
        const char *name = value_name(f, &folded, prefix, "UNSPECIFIED");
        if (name != NULL) {
            esc_writer_format(w, "%*s", INDENT, "");
            esc_writer_text(w, name);
            esc_writer_text(w, " = 0;\n");
        }
    }
    for (size_t i = 0; i < field->enum_value_count && !f->out_of_memory; i++) {
        if (i != zero) {
            print_value(f, w, &folded, prefix, &field->enum_values[i]);
        }
    }
    esc_writer_text(w, "}\n");
    esc_map_fini(&folded.names);
}

/* ---- messages --------------------------------------------------------------------------------- */

static void print_path(const file *f, esc_writer *w, const node *place)
{
    if (place->parent == NULL) {
        if (f->package_name[0] != '\0') {
            esc_writer_put(w, ".", 1);
            esc_writer_text(w, f->package_name);
        }
        return;
    }
    print_path(f, w, place->parent); /* as deep as the name has dots */
    esc_writer_put(w, ".", 1);
    esc_writer_text(w, place->name);
}

static void print_type(const file *f, esc_writer *w, const escqrs_field *field, escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
        esc_writer_text(w, "int64");
        break;
    case ESCQRS_KIND_FLOAT:
        esc_writer_text(w, "double");
        break;
    case ESCQRS_KIND_BOOL:
        esc_writer_text(w, "bool");
        break;
    case ESCQRS_KIND_INT32:
        esc_writer_text(w, "int32");
        break;
    case ESCQRS_KIND_UINT32:
        esc_writer_text(w, "uint32");
        break;
    case ESCQRS_KIND_UINT64:
        esc_writer_text(w, "uint64");
        break;
    case ESCQRS_KIND_SINT32:
        esc_writer_text(w, "sint32");
        break;
    case ESCQRS_KIND_SINT64:
        esc_writer_text(w, "sint64");
        break;
    case ESCQRS_KIND_FLOAT32:
        esc_writer_text(w, "float");
        break;
    case ESCQRS_KIND_FIXED32:
        esc_writer_text(w, "fixed32");
        break;
    case ESCQRS_KIND_FIXED64:
        esc_writer_text(w, "fixed64");
        break;
    case ESCQRS_KIND_SFIXED32:
        esc_writer_text(w, "sfixed32");
        break;
    case ESCQRS_KIND_SFIXED64:
        esc_writer_text(w, "sfixed64");
        break;
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        esc_writer_text(w, "string");
        break;
    case ESCQRS_KIND_BYTES:
        esc_writer_text(w, "bytes");
        break;
    case ESCQRS_KIND_TIME:
        esc_writer_text(w, ".google.protobuf.Timestamp");
        break;
    case ESCQRS_KIND_DURATION:
        esc_writer_text(w, ".google.protobuf.Duration");
        break;
    case ESCQRS_KIND_ENUM: {
        const char *name = enum_in_file(f, field);
        print_path(f, w, &f->root);
        esc_writer_put(w, ".", 1);
        esc_writer_text(w, name != NULL ? name : "");
        break;
    }
    case ESCQRS_KIND_MESSAGE: {
        size_t index = esc_closure_index(&f->closure, field->message->descriptor.name);
        print_path(f, w, ESC_VECTOR_AT(&f->nodes, node *, index));
        break;
    }
    }
}

/* A field's name: free as it is, as protoc folds it, and for a map with the name of its entries. */
static const char *field_name(file *f, scope *s, const escqrs_field *field)
{
    const char *ascii = to_ascii(f, escqrs_slice_of(field->name));
    size_t size = ascii != NULL ? strlen(ascii) + 24 : 0;
    char *out = ascii != NULL ? take(f, size) : NULL;
    if (out == NULL) {
        return NULL;
    }
    snprintf(out, size, "%s", ascii);
    for (unsigned long i = 2;; i++) {
        char *folded = fold(f, "field ", out);
        char *entry = field->label == ESCQRS_MAP ? entry_name(f, out) : NULL;
        if (f->out_of_memory) {
            return NULL;
        }
        if (!has(s, out) && !has(s, folded) && (entry == NULL || !has(s, entry))) {
            reserve(f, s, out);
            reserve(f, s, folded);
            reserve(f, s, entry);
            return out;
        }
        snprintf(out, size, "%s_%lu", ascii, i);
    }
}

/* What a text is, where the protobuf type does not tell. */
static const char *form_name(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_DATE:
        return "date";
    case ESCQRS_KIND_CLOCK:
        return "time";
    case ESCQRS_KIND_LOCAL:
        return "date and time without zone";
    case ESCQRS_KIND_DECIMAL:
        return "decimal";
    case ESCQRS_KIND_UUID:
        return "UUID";
    default:
        return NULL;
    }
}

static void print_comment(esc_writer *w, const char *name, const escqrs_field *field)
{
    const char *form = form_name(field->kind);
    bool bent = strcmp(name, field->name) != 0;
    if (bent || form != NULL) {
        esc_writer_text(w, "  // ");
        esc_writer_text(w, bent ? field->name : "");
        esc_writer_text(w, bent && form != NULL ? ": " : "");
        esc_writer_text(w, form != NULL ? form : "");
    }
}

/* In a union `label` is empty. */
static void print_field(file *f, esc_writer *w, scope *s, const escqrs_field *field,
                        const char *label, int indent)
{
    const char *name = field_name(f, s, field);
    if (name == NULL) {
        return;
    }
    esc_writer_format(w, "%*s", indent, "");
    if (field->label == ESCQRS_MAP) {
        esc_writer_text(w, "map<");
        print_type(f, w, field, field->key_kind);
        esc_writer_text(w, ", ");
        print_type(f, w, field, field->kind);
        esc_writer_text(w, ">");
    } else {
        esc_writer_text(w, field->label == ESCQRS_LIST ? "repeated " : label);
        print_type(f, w, field, field->kind);
    }
    esc_writer_put(w, " ", 1);
    esc_writer_text(w, name);
    esc_writer_format(w, " = %lu;", (unsigned long)field->number);
    print_comment(w, name, field);
    esc_writer_put(w, "\n", 1);
}

static void print_fields(file *f, esc_writer *w, scope *s, const escqrs_schema *schema, int indent)
{
    const char *label = schema->is_union ? "" : "optional ";
    if (schema->is_union) {
        const char *name = unique(f, s, to_ascii(f, escqrs_slice_of("value")));
        esc_writer_format(w, "%*soneof ", indent, "");
        esc_writer_text(w, name != NULL ? name : "");
        esc_writer_text(w, " {\n");
    }
    int inner = schema->is_union ? indent + INDENT : indent;
    for (size_t i = 0; i < schema->field_count && !f->out_of_memory; i++) {
        print_field(f, w, s, &schema->fields[i], label, inner);
    }
    if (schema->is_union) {
        esc_writer_format(w, "%*s}\n", indent, "");
    }
}

/* As deep as names have dots. */
static void print_message(file *f, esc_writer *w, node *place, int indent)
{
    scope s;
    esc_map_init(&s.names, key_of_text, NULL);
    for (node *child = place->first; child != NULL; child = child->next) {
        reserve(f, &s, (char *)child->name);
    }
    esc_writer_format(w, "\n%*smessage ", indent, "");
    esc_writer_text(w, place->name);
    esc_writer_text(w, " {");
    if (!escqrs_slice_equal(escqrs_slice_of(place->name), place->component)) {
        esc_writer_text(w, "  // ");
        esc_writer_put(w, place->component.data, place->component.size);
    }
    esc_writer_put(w, "\n", 1);
    if (place->schema != NULL) {
        print_fields(f, w, &s, place->schema, indent + INDENT);
    }
    for (node *child = place->first; child != NULL && !f->out_of_memory; child = child->next) {
        print_message(f, w, child, indent + INDENT);
    }
    esc_writer_format(w, "%*s}\n", indent, "");
    esc_map_fini(&s.names);
}

/* ---- the file --------------------------------------------------------------------------------- */

static void name_package(file *f)
{
    /* Component by component, so that the dots stay. */
    size_t limit = f->package.size * 3 + 1;
    f->package_name = take(f, limit);
    if (f->package_name == NULL) {
        return;
    }
    size_t used = 0;
    f->package_name[0] = '\0';
    const char *at = f->package.data;
    const char *end = at + f->package.size;
    while (at < end) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        const char *stop = dot != NULL ? dot : end;
        const char *ascii = to_ascii(f, (escqrs_slice){at, (size_t)(stop - at)});
        if (ascii == NULL) {
            return;
        }
        used += (size_t)snprintf(f->package_name + used, limit - used, "%s%s", ascii,
                                 dot != NULL ? "." : "");
        at = dot != NULL ? dot + 1 : end;
    }
}

/* Everything gets its name; what is printed then only looks them up, but for values and fields. */
static void prepare(file *f)
{
    const escqrs_schema *first = ESC_VECTOR_AT(&f->closure, const escqrs_schema *, 0);
    f->package = package_of(first);
    for (size_t i = 1; i < f->closure.count; i++) {
        f->package = common_package(
            f->package, package_of(ESC_VECTOR_AT(&f->closure, const escqrs_schema *, i)));
    }
    name_package(f);
    for (size_t i = 0; i < f->closure.count && !f->out_of_memory; i++) {
        plant(f, ESC_VECTOR_AT(&f->closure, const escqrs_schema *, i));
    }
    if (!f->out_of_memory) {
        name_children(f, &f->root, &f->names);
        name_descendants(f, &f->root);
    }
    for (size_t i = 0; i < f->closure.count; i++) {
        const escqrs_schema *schema = ESC_VECTOR_AT(&f->closure, const escqrs_schema *, i);
        for (size_t j = 0; j < schema->field_count; j++) {
            const escqrs_field *field = &schema->fields[j];
            f->has_time |= field->kind == ESCQRS_KIND_TIME;
            f->has_duration |= field->kind == ESCQRS_KIND_DURATION;
            if (field->kind == ESCQRS_KIND_ENUM) {
                add_enum(f, field);
            }
        }
    }
}

static void print_file(file *f, esc_writer *w)
{
    esc_writer_text(w, "syntax = \"proto3\";\n");
    if (f->package_name[0] != '\0') {
        esc_writer_text(w, "\npackage ");
        esc_writer_text(w, f->package_name);
        esc_writer_text(w, ";\n");
    }
    if (f->has_time || f->has_duration) {
        esc_writer_put(w, "\n", 1);
    }
    if (f->has_duration) {
        esc_writer_text(w, "import \"google/protobuf/duration.proto\";\n");
    }
    if (f->has_time) {
        esc_writer_text(w, "import \"google/protobuf/timestamp.proto\";\n");
    }
    for (node *child = f->root.first; child != NULL && !f->out_of_memory; child = child->next) {
        print_message(f, w, child, 0);
    }
    for (size_t i = 0; i < f->enums.count && !f->out_of_memory; i++) {
        print_enum(f, w, &ESC_VECTOR_AT(&f->enums, enumeration, i));
    }
}

escqrs_status escqrs_schema_print_proto(const escqrs_schema *const *schemas, size_t count,
                                        escqrs_write_function write, void *context,
                                        escqrs_error *error)
{
    file f = {
        .closure = ESC_VECTOR_OF(const escqrs_schema *),
        .nodes = ESC_VECTOR_OF(node *),
        .enums = ESC_VECTOR_OF(enumeration),
    };
    esc_arena_init(&f.arena, 0);
    esc_map_init(&f.names.names, key_of_text, NULL);
    esc_writer writer;
    esc_writer_init(&writer, write, context);
    escqrs_status status = ESCQRS_OK;
    if (count == 0) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "no message to print");
        goto done;
    }
    status = esc_closure_collect(schemas, count, &f.closure, error);
    if (status != ESCQRS_OK) {
        goto done;
    }
    prepare(&f);
    if (!f.out_of_memory) {
        print_file(&f, &writer);
    }
    bool written = esc_writer_finish(&writer);
    if (f.out_of_memory || !written) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a .proto file");
    }

done:
    esc_map_fini(&f.names.names);
    esc_vector_fini(&f.enums);
    esc_vector_fini(&f.nodes);
    esc_vector_fini(&f.closure);
    esc_arena_fini(&f.arena);
    return status;
}
