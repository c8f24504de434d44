/* File systems that lie on other machines. Two processes that use a store need locks, and memory
 * mapped from one file, that are the same for both; between machines they are not, and what one
 * writes the other destroys. So a store lies on a local file system, and where it does not it is
 * refused, rather than served for as long as nobody else happens to use it. */
#ifndef ESC_STORE_NETWORK_H
#define ESC_STORE_NETWORK_H

#include <escqrs/base.h>

/* Where does the file at `path` (absolute, it need not exist) lie? IO with ENOTSUP on a file system
 * that is known to be a network's; where it may be one (FUSE, 9P) the log says so. */
escqrs_status esc_network_check(const char *path, const escqrs_log *log,
                                escqrs_error *error) ESCQRS_MUST_USE;

#endif
