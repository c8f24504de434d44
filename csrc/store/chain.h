/* The hash chain of a store that keeps one: each event has a link, a SHA-256 over the link before
 * it and all that the event says. Who changes, inserts or removes an event has to make all later
 * links anew, and a link noted elsewhere shows it.
 *
 * A link is over what is read, not over the bytes of the file, so an export that is imported has
 * the same links. docs/format.md has it to the byte. One thread at a time uses an esc_chain. */
#ifndef ESC_STORE_CHAIN_H
#define ESC_STORE_CHAIN_H

#include <escqrs/store.h>

#include "base/arena.h"
#include "base/buffer.h"

typedef struct esc_chain {
    void *digest;                         /* OpenSSL's EVP_MD_CTX; NULL: not used yet */
    uint8_t link[ESCQRS_CHAIN_LINK_SIZE]; /* the last one; zeros before the first event */
    esc_buffer buffer;
    esc_arena arena; /* for the header of an event, by who adds it */
} esc_chain;

void esc_chain_init(esc_chain *chain); /* allocates nothing */
void esc_chain_fini(esc_chain *chain);
/* What stands for a type in a link. NO_MEMORY. */
escqrs_status esc_chain_type(esc_chain *chain, escqrs_slice name, escqrs_slice record,
                             uint8_t digest[ESCQRS_CHAIN_LINK_SIZE],
                             escqrs_error *error) ESCQRS_MUST_USE;
/* Go on to the link of an event, all of whose fields but `type` are set. NO_MEMORY: the chain stays
 * as it was. */
escqrs_status esc_chain_add(esc_chain *chain, const escqrs_recorded *recorded,
                            const uint8_t type[ESCQRS_CHAIN_LINK_SIZE],
                            escqrs_error *error) ESCQRS_MUST_USE;

#endif
