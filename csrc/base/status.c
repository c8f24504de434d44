/* The names of the statuses: one table, in the order of their numbers. */
#include <escqrs/base.h>

static const char *const names[] = {
    [ESCQRS_OK] = "OK",
    [ESCQRS_DONE] = "DONE",
    [ESCQRS_NO_MEMORY] = "NO_MEMORY",
    [ESCQRS_INVALID] = "INVALID",
    [ESCQRS_IO] = "IO",
    [ESCQRS_TOO_LARGE] = "TOO_LARGE",
    [ESCQRS_WRONG_VERSION] = "WRONG_VERSION",
    [ESCQRS_CONDITION_FAILED] = "CONDITION_FAILED",
    [ESCQRS_CHECKPOINT_BEHIND] = "CHECKPOINT_BEHIND",
    [ESCQRS_KEY_REUSED] = "KEY_REUSED",
    [ESCQRS_DEADLOCK] = "DEADLOCK",
    [ESCQRS_TIMEOUT] = "TIMEOUT",
    [ESCQRS_MAILBOX_FULL] = "MAILBOX_FULL",
    [ESCQRS_CLOSED] = "CLOSED",
    [ESCQRS_FORKED] = "FORKED",
    [ESCQRS_LOCKED] = "LOCKED",
    [ESCQRS_FULL] = "FULL",
    [ESCQRS_READ_ONLY] = "READ_ONLY",
    [ESCQRS_NOT_A_STORE] = "NOT_A_STORE",
    [ESCQRS_CORRUPT] = "CORRUPT",
    [ESCQRS_UNKNOWN_TYPE] = "UNKNOWN_TYPE",
    [ESCQRS_NAME_CLASH] = "NAME_CLASH",
    [ESCQRS_NAME_EXISTS] = "NAME_EXISTS",
    [ESCQRS_SCHEMA_MISMATCH] = "SCHEMA_MISMATCH",
    [ESCQRS_READ_MODEL_STOPPED] = "READ_MODEL_STOPPED",
    [ESCQRS_REJECTED] = "REJECTED",
    [ESCQRS_ABORTED] = "ABORTED",
    [ESCQRS_REPLAY] = "REPLAY",
    [ESCQRS_DELETED] = "DELETED",
    [ESCQRS_NOT_COVERED] = "NOT_COVERED",
};

const char *escqrs_status_name(escqrs_status status)
{
    size_t index = (size_t)(int)status;
    return index < sizeof names / sizeof names[0] ? names[index] : "?";
}
