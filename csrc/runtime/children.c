/* The tree of actors: spawning, names, who is still there.
 *
 * A parent's children are in its esc_tree, whose lock is a leaf but for the pool's, which a request
 * to a child may take. A child leaves the tree on its own thread when it has stopped; the last one
 * to go tells a parent that has asked (esc_children_gone).
 */
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

static escqrs_slice name_of(const void *value)
{
    return escqrs_slice_of(((const esc_cell *)value)->name);
}

static esc_tree *tree_of(const esc_cell *cell)
{
    const esc_extra *extra = esc_cell_has(cell);
    /* acquire: pairs with the release in esc_cell_tree */
    return extra == NULL ? NULL : atomic_load_explicit(&extra->tree, memory_order_acquire);
}

esc_tree *esc_cell_tree(esc_cell *cell)
{
    esc_extra *extra = esc_cell_extra(cell);
    esc_tree *tree = tree_of(cell);
    if (tree != NULL || extra == NULL) {
        return tree;
    }
    tree = escqrs_alloc_zero(sizeof *tree);
    if (tree == NULL) {
        return NULL;
    }
    esc_mutex_init(&tree->lock);
    esc_list_init(&tree->children);
    esc_map_init(&tree->names, name_of, NULL);
    /* release: pairs with tree_of */
    atomic_store_explicit(&extra->tree, tree, memory_order_release);
    return tree;
}

void esc_tree_destroy(esc_tree *tree)
{
    if (tree == NULL) {
        return;
    }
    esc_map_fini(&tree->names);
    esc_mutex_fini(&tree->lock);
    escqrs_free(tree);
}

/* ---- spawning --------------------------------------------------------------------------------- */

static escqrs_status check_name(escqrs_slice name, escqrs_error *error)
{
    if (name.size == 0) {
        return ESCQRS_OK;
    }
    if (name.size > ESC_NAME_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "an actor's name has at most %d bytes",
                                ESC_NAME_MAX);
    }
    const char *text = name.data;
    if (text[0] == '$' || memchr(text, '/', name.size) != NULL ||
        memchr(text, '\0', name.size) != NULL) {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "an actor's name has no '/' and no NUL in it and does not begin with '$': %.*s",
            (int)(name.size > 64 ? 64 : name.size), text);
    }
    return ESCQRS_OK;
}

static escqrs_status refuse_closing(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_CLOSED,
                            "no actor can be spawned: the parent or the system is stopping");
}

/* With the lock held. */
static escqrs_status enter_tree(esc_tree *tree, esc_cell *cell, escqrs_ref **ref,
                                escqrs_error *error)
{
    if (cell->parent->parent == NULL && cell->system->closing) {
        return refuse_closing(error);
    }
    if (cell->name != NULL) {
        esc_cell *other = esc_map_get(&tree->names, name_of(cell));
        if (other != NULL) {
            if (ref != NULL) {
                *ref = esc_cell_ref(other);
                escqrs_ref_hold(*ref);
            }
            return ESCQRS_NAME_EXISTS;
        }
        if (esc_map_insert(&tree->names, cell) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory spawning an actor");
        }
    }
    esc_list_push_back(&tree->children, &cell->in_parent);
    tree->count++;
    return ESCQRS_OK;
}

static escqrs_status name_exists(esc_cell *cell, escqrs_error *error)
{
    char path[ESC_PATH_SIZE];
    escqrs_ref_path(esc_cell_ref(cell), path, sizeof path);
    escqrs_status status = escqrs_error_set(error, ESCQRS_NAME_EXISTS,
                                            "there is an actor of the name %s already", path);
    esc_error_subject(error, escqrs_slice_of(path));
    return status;
}

escqrs_status esc_spawn(escqrs_actor_system *system, esc_cell *parent, escqrs_props *props,
                        escqrs_slice name, escqrs_ref **ref, escqrs_error *error)
{
    escqrs_status status = check_name(name, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (name.size == 0 && props->guard != NULL && props->guard->unnamed != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s", props->guard->unnamed);
    }
    esc_tree *tree = esc_cell_tree(parent);
    if (tree == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory spawning an actor");
    }
    esc_cell *cell;
    status = esc_cell_create(system, parent, props, name, &cell, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (ref != NULL) { /* the tree's is the first */
        escqrs_actor_hold(&cell->actor);
    }
    esc_actor_reserve(&cell->actor);
    /* relaxed: a count */
    atomic_fetch_add_explicit(&system->actor_count, 1, memory_order_relaxed);
    esc_mutex_lock(&tree->lock);
    status = enter_tree(tree, cell, ref, error);
    esc_mutex_unlock(&tree->lock);
    if (status != ESCQRS_OK) {
        if (status == ESCQRS_NAME_EXISTS) {
            name_exists(cell, error);
        }
        atomic_fetch_sub_explicit(&system->actor_count, 1, memory_order_relaxed);
        esc_actor_unreserve(&cell->actor);
        if (ref != NULL) {
            escqrs_actor_release(&cell->actor);
        }
        escqrs_actor_release(&cell->actor);
        return status;
    }
    if (ref != NULL) {
        *ref = esc_cell_ref(cell);
    }
    esc_actor_schedule(&cell->actor);
    return ESCQRS_OK;
}

escqrs_status escqrs_actor_system_spawn(escqrs_actor_system *system, escqrs_props *props,
                                        escqrs_slice name, escqrs_ref **ref, escqrs_error *error)
{
    if (system->spawn_middleware_count > 0) {
        return esc_middleware_spawn(system, &system->root, system->spawn_middleware,
                                    system->spawn_middleware_count, props, name, ref, error);
    }
    return esc_spawn(system, &system->root, props, name, ref, error);
}

escqrs_status escqrs_context_spawn(escqrs_context *context, escqrs_props *props, escqrs_slice name,
                                   escqrs_ref **ref, escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    escqrs_ref_state state = esc_cell_state(cell);
    if (state == ESCQRS_REF_STOPPING || state == ESCQRS_REF_STOPPED ||
        state == ESCQRS_REF_RESTARTING) {
        return refuse_closing(error);
    }
    if (cell->props->spawn_middleware_count > 0) {
        return esc_middleware_spawn(cell->system, cell, cell->props->spawn_middleware,
                                    cell->props->spawn_middleware_count, props, name, ref, error);
    }
    return esc_spawn(cell->system, cell, props, name, ref, error);
}

/* ---- leaving ---------------------------------------------------------------------------------- */

void esc_tree_leave(esc_cell *cell)
{
    esc_cell *parent = cell->parent;
    esc_tree *tree = tree_of(parent);
    esc_mutex_lock(&tree->lock);
    esc_list_remove(&cell->in_parent);
    if (cell->name != NULL) {
        esc_map_remove(&tree->names, name_of(cell));
    }
    tree->count--;
    bool tell = tree->count == 0 && parent->waits_for_children;
    esc_mutex_unlock(&tree->lock);
    if (tell) {
        esc_cell_request(parent, ESC_REQUEST_CHILDREN);
    }
}

bool esc_children_gone(esc_cell *parent)
{
    esc_tree *tree = tree_of(parent);
    if (tree == NULL) {
        return true;
    }
    esc_mutex_lock(&tree->lock);
    bool gone = tree->count == 0;
    parent->waits_for_children = !gone;
    esc_mutex_unlock(&tree->lock);
    return gone;
}

void esc_children_request(esc_cell *parent, uint32_t requests, const esc_cell *except)
{
    esc_tree *tree = tree_of(parent);
    if (tree == NULL) {
        return;
    }
    esc_mutex_lock(&tree->lock);
    for (esc_list_node *node = esc_list_first(&tree->children); node != NULL;
         node = esc_list_next(&tree->children, node)) {
        esc_cell *child = ESC_CONTAINER_OF(node, esc_cell, in_parent);
        if (child != except) {
            esc_cell_request(child, requests);
        }
    }
    esc_mutex_unlock(&tree->lock);
}

/* ---- looking ---------------------------------------------------------------------------------- */

size_t esc_children_list(esc_cell *parent, escqrs_ref **refs, size_t max)
{
    esc_tree *tree = tree_of(parent);
    if (tree == NULL) {
        return 0;
    }
    esc_mutex_lock(&tree->lock);
    size_t count = tree->count;
    esc_list_node *node = esc_list_first(&tree->children);
    for (size_t i = 0; i < max && node != NULL; i++) {
        refs[i] = esc_cell_ref(ESC_CONTAINER_OF(node, esc_cell, in_parent));
        escqrs_ref_hold(refs[i]);
        node = esc_list_next(&tree->children, node);
    }
    esc_mutex_unlock(&tree->lock);
    return count;
}

size_t escqrs_actor_system_children(escqrs_actor_system *system, escqrs_ref *parent,
                                    escqrs_ref **refs, size_t max)
{
    if (parent == NULL) {
        return esc_children_list(&system->root, refs, max);
    }
    return esc_ref_is_cell(parent) ? esc_children_list((esc_cell *)parent, refs, max) : 0;
}

/* "$" and the id in base 16: the name of one that was given none. */
static bool has_id_name(const esc_cell *cell, escqrs_slice name)
{
    char text[32];
    size_t size = escqrs_ref_name((const escqrs_ref *)cell, text, sizeof text);
    return size < sizeof text && escqrs_slice_equal(name, escqrs_slice_of(text));
}

static esc_cell *find_child(esc_cell *parent, escqrs_slice name)
{
    esc_tree *tree = tree_of(parent);
    if (tree == NULL || name.size == 0) {
        return NULL;
    }
    esc_mutex_lock(&tree->lock);
    esc_cell *found = NULL;
    if (*(const char *)name.data != '$') {
        found = esc_map_get(&tree->names, name);
    } else {
        esc_list_node *node = esc_list_first(&tree->children);
        while (node != NULL && found == NULL) {
            esc_cell *child = ESC_CONTAINER_OF(node, esc_cell, in_parent);
            found = child->name == NULL && has_id_name(child, name) ? child : NULL;
            node = esc_list_next(&tree->children, node);
        }
    }
    if (found != NULL) {
        escqrs_actor_hold(&found->actor);
    }
    esc_mutex_unlock(&tree->lock);
    return found;
}

escqrs_ref *escqrs_context_child(escqrs_context *context, escqrs_slice name)
{
    return (escqrs_ref *)find_child(esc_context_cell(context), name);
}

escqrs_ref *escqrs_actor_system_find(escqrs_actor_system *system, escqrs_slice path)
{
    esc_cell *cell = &system->root;
    escqrs_actor_hold(&cell->actor);
    const char *at = path.data;
    const char *end = at + path.size;
    while (cell != NULL) {
        const char *slash = at == end ? NULL : memchr(at, '/', (size_t)(end - at));
        const char *stop = slash == NULL ? end : slash;
        esc_cell *child = find_child(cell, (escqrs_slice){at, (size_t)(stop - at)});
        escqrs_actor_release(&cell->actor);
        cell = child;
        if (slash == NULL) {
            break;
        }
        at = slash + 1;
    }
    return (escqrs_ref *)cell;
}
