/* See sqlite_provider.h. The pool of reader connections: each is one borrower's at a time, and is
 * opened when it is first needed; who comes when all are lent waits.
 *
 * pool.mutex is a leaf; nothing is opened or closed under it. */
#include "store/sqlite_provider.h"

#include "base/assert.h"
#include "base/error.h"

#define INTERRUPT_AGAIN_NS 10000000 /* while a closing store waits for its readers */

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

escqrs_status esc_sqlite_take_reader(esc_sqlite *sqlite, esc_connection **result,
                                     escqrs_error *error)
{
    esc_connection *connection = NULL;
    esc_mutex_lock(&sqlite->pool.mutex);
    while (!sqlite->pool.stopped && esc_list_is_empty(&sqlite->pool.idle) &&
           sqlite->pool.count >= sqlite->pool.count_max) {
        esc_cond_wait(&sqlite->pool.returned, &sqlite->pool.mutex);
    }
    bool stopped = sqlite->pool.stopped;
    if (!stopped) {
        esc_list_node *node = esc_list_pop_front(&sqlite->pool.idle);
        connection = ESC_CONTAINER_OF(node, esc_connection, node);
        if (connection != NULL) {
            esc_list_push_front(&sqlite->pool.busy, &connection->node);
        } else {
            sqlite->pool.count++;
        }
    }
    esc_mutex_unlock(&sqlite->pool.mutex);
    if (stopped) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "%s is closed", sqlite->shown);
    }
    if (connection != NULL) {
        *result = connection;
        return ESCQRS_OK;
    }
    escqrs_status status = ESCQRS_NO_MEMORY;
    connection = escqrs_alloc(sizeof *connection);
    if (connection != NULL) {
        status = esc_connection_open(sqlite, false, connection, error);
    } else {
        (void)escqrs_error_set(error, status, "no memory for a connection");
    }
    esc_mutex_lock(&sqlite->pool.mutex);
    stopped = sqlite->pool.stopped; /* meanwhile: nobody waits for one that is not in `busy` */
    if (status == ESCQRS_OK && !stopped) {
        esc_list_push_front(&sqlite->pool.busy, &connection->node);
    } else {
        sqlite->pool.count--;
        esc_cond_signal(&sqlite->pool.returned);
    }
    esc_mutex_unlock(&sqlite->pool.mutex);
    if (status == ESCQRS_OK && stopped) {
        esc_connection_close(sqlite, connection);
        status = escqrs_error_set(error, ESCQRS_CLOSED, "%s is closed", sqlite->shown);
    }
    if (status != ESCQRS_OK) {
        escqrs_free(connection);
        return status;
    }
    *result = connection;
    return ESCQRS_OK;
}

void esc_sqlite_give_reader(esc_sqlite *sqlite, esc_connection *connection)
{
    if (!sqlite3_get_autocommit(
            connection->db)) { /* a borrower left a transaction, which holds the WAL */
        sqlite3_exec(connection->db, "ROLLBACK", NULL, NULL, NULL);
    }
    esc_mutex_lock(&sqlite->pool.mutex);
    esc_list_remove(&connection->node);
    esc_list_push_front(&sqlite->pool.idle, &connection->node);
    if (sqlite->pool.stopped) {
        esc_cond_broadcast(&sqlite->pool.returned);
    } else {
        esc_cond_signal(&sqlite->pool.returned);
    }
    esc_mutex_unlock(&sqlite->pool.mutex);
}

void esc_sqlite_stop_readers(escqrs_provider *self)
{
    esc_sqlite *sqlite = of(self);
    esc_mutex_lock(&sqlite->pool.mutex);
    sqlite->pool.stopped = true;
    esc_cond_broadcast(&sqlite->pool.returned);
    while (!esc_list_is_empty(&sqlite->pool.busy)) {
        for (esc_list_node *node = esc_list_first(&sqlite->pool.busy); node != NULL;
             node = esc_list_next(&sqlite->pool.busy, node)) {
            sqlite3_interrupt(ESC_CONTAINER_OF(node, esc_connection, node)->db);
        }
        /* Again: SQLite forgets an interrupt that comes just before a statement begins. */
        (void)esc_cond_wait_until(&sqlite->pool.returned, &sqlite->pool.mutex,
                                  esc_deadline_after(INTERRUPT_AGAIN_NS));
    }
    esc_mutex_unlock(&sqlite->pool.mutex);
}

void esc_sqlite_close_readers(esc_sqlite *sqlite)
{
    esc_list_node *node;
    ESC_ASSERT(esc_list_is_empty(&sqlite->pool.busy));
    while ((node = esc_list_pop_front(&sqlite->pool.idle)) != NULL) {
        esc_connection *connection = ESC_CONTAINER_OF(node, esc_connection, node);
        esc_connection_close(sqlite, connection);
        escqrs_free(connection);
        sqlite->pool.count--;
    }
}

escqrs_status esc_sqlite_reader(escqrs_provider *self, void **db, escqrs_error *error)
{
    esc_connection *connection = NULL;
    escqrs_status status = esc_sqlite_check_opened(of(self), error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_take_reader(of(self), &connection, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    ESC_ASSERT(connection != NULL);
    *db = connection->db;
    return ESCQRS_OK;
}

void esc_sqlite_reader_return(escqrs_provider *self, void *db)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection = NULL;
    esc_mutex_lock(&sqlite->pool.mutex);
    for (esc_list_node *node = esc_list_first(&sqlite->pool.busy);
         node != NULL && connection == NULL; node = esc_list_next(&sqlite->pool.busy, node)) {
        esc_connection *busy = ESC_CONTAINER_OF(node, esc_connection, node);
        connection = busy->db == db ? busy : NULL;
    }
    esc_mutex_unlock(&sqlite->pool.mutex);
    ESC_ASSERT(connection != NULL); /* given back twice, or of another store */
    esc_sqlite_give_reader(sqlite, connection);
}
