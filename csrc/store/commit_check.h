/* What may be committed: names, texts, counts and sizes, looked at before a commit is queued.
 *
 * What only the provider can know - versions, conditions, keys, whether ids are new - is not looked
 * at here. */
#ifndef ESC_STORE_COMMIT_CHECK_H
#define ESC_STORE_COMMIT_CHECK_H

#include "store/store.h"

#define ESC_EVENT_BYTES_MAX (512u << 20) /* SQLite has rows of 1,000,000,000 bytes at most */

/* Notes the number of events and bytes in the commit. INVALID, TOO_LARGE, KEY_REUSED (an id twice),
 * READ_ONLY, NO_MEMORY. Any thread; does not block. */
ESCQRS_MUST_USE escqrs_status esc_commit_check(const escqrs_store *store, escqrs_commit *commit,
                                               escqrs_error *error);

#endif
