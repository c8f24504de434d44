/* python/feed.h - following a store (es.Feed): every matching event after a position, each once.
 *
 * Who iterates waits in the core (escqrs_store_wait), without the GIL, in slices so that Ctrl-C
 * works. Who awaits has a descriptor of its own that its event loop watches; one thread a store,
 * started with the first such feed, waits in the core for all of them and writes to the
 * descriptors of those for whom there is something. It never takes the GIL. */
#ifndef ESC_PYTHON_FEED_H
#define ESC_PYTHON_FEED_H

#include "python/store.h"

typedef struct esc_py_watch esc_py_watch;

/* End its thread; waits for it, without the GIL. The store is closed. NULL is fine; twice is once.
 */
void esc_py_watch_stop(esc_py_watch *watch);
void esc_py_watch_destroy(esc_py_watch *watch); /* stops first */

int esc_py_feed_exec(PyObject *module);

#endif
