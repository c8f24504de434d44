#include "support/test.h"

#include "base/list.h"
#include "base/queue.h"
#include "base/thread.h"

enum { PRODUCERS = 3, ITEMS = 20000 };

typedef struct item {
    esc_queue_node node;
    int producer;
    int number;
} item;

typedef struct producer {
    esc_queue *queue;
    _Atomic uint32_t *wake; /* counts the pushes that found the queue empty */
    item *items;
    esc_thread thread;
} producer;

static void produce(void *context)
{
    producer *self = context;
    for (int i = 0; i < ITEMS; i++) {
        if (esc_queue_push(self->queue, &self->items[i].node)) {
            /* release: the consumer that reads it acquires; the queue orders the items anyhow */
            atomic_fetch_add_explicit(self->wake, 1, memory_order_release);
            esc_futex_wake(self->wake, 1);
        }
    }
}

static void everything_arrives_once_and_in_each_producers_order(void **state)
{
    (void)state;
    static item items[PRODUCERS][ITEMS];
    esc_queue queue;
    _Atomic uint32_t wake = 0;
    producer producers[PRODUCERS];
    esc_queue_init(&queue);
    for (int p = 0; p < PRODUCERS; p++) {
        for (int i = 0; i < ITEMS; i++) {
            items[p][i].producer = p;
            items[p][i].number = i;
        }
        producers[p] = (producer){.queue = &queue, .wake = &wake, .items = items[p]};
    }
    for (int p = 0; p < PRODUCERS; p++) {
        assert_int_equal(
            esc_thread_create(&producers[p].thread, "producer", 0, produce, &producers[p], NULL),
            ESCQRS_OK);
    }
    int next[PRODUCERS] = {0};
    for (int taken = 0; taken < PRODUCERS * ITEMS;) {
        /* acquire: pairs with the producer's add */
        uint32_t seen = atomic_load_explicit(&wake, memory_order_acquire);
        esc_queue_node *node = esc_queue_take_all(&queue);
        if (node == NULL) {
            assert_true(esc_futex_wait(&wake, seen, ESC_DEADLINE_NEVER));
            continue;
        }
        for (; node != NULL; node = node->next) {
            item *it = ESC_CONTAINER_OF(node, item, node);
            assert_int_equal(it->number, next[it->producer]++);
            taken++;
        }
    }
    for (int p = 0; p < PRODUCERS; p++) {
        esc_thread_join(&producers[p].thread);
    }
    assert_true(esc_queue_is_empty(&queue));
    /* every taking emptied it, so at most one push after each found it so */
    assert_true(atomic_load_explicit(&wake, memory_order_relaxed) >= 1);
}

static void only_the_first_push_finds_it_empty(void **state)
{
    (void)state;
    esc_queue queue;
    item items[3] = {0};
    esc_queue_init(&queue);
    assert_true(esc_queue_is_empty(&queue));
    assert_null(esc_queue_take_all(&queue));
    assert_true(esc_queue_push(&queue, &items[0].node));
    assert_false(esc_queue_push(&queue, &items[1].node));
    assert_false(esc_queue_is_empty(&queue));
    esc_queue_node *all = esc_queue_take_all(&queue);
    assert_ptr_equal(all, &items[0].node);
    assert_ptr_equal(all->next, &items[1].node);
    assert_null(all->next->next);
    assert_true(esc_queue_push(&queue, &items[2].node));
}

typedef struct member {
    int number;
    esc_list_node node;
} member;

static void lists_keep_order_and_let_go(void **state)
{
    (void)state;
    esc_list list;
    esc_list_init(&list);
    member members[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    assert_true(esc_list_is_empty(&list));
    assert_null(esc_list_first(&list));
    assert_null(esc_list_last(&list));
    assert_null(esc_list_pop_front(&list));
    assert_false(esc_list_contains_node(&members[0].node));
    for (int i = 1; i < 4; i++) {
        esc_list_push_back(&list, &members[i].node);
    }
    esc_list_push_front(&list, &members[0].node);
    assert_true(esc_list_contains_node(&members[0].node));
    int expected = 0;
    for (esc_list_node *node = esc_list_first(&list); node != NULL;
         node = esc_list_next(&list, node)) {
        assert_int_equal(ESC_CONTAINER_OF(node, member, node)->number, expected++);
    }
    assert_int_equal(expected, 4);
    esc_list_remove(&members[2].node);
    assert_false(esc_list_contains_node(&members[2].node));
    assert_ptr_equal(esc_list_last(&list), &members[3].node);
    assert_ptr_equal(esc_list_pop_front(&list), &members[0].node);
    assert_ptr_equal(esc_list_pop_front(&list), &members[1].node);
    assert_ptr_equal(esc_list_pop_front(&list), &members[3].node);
    assert_true(esc_list_is_empty(&list));
    assert_null(ESC_CONTAINER_OF(esc_list_first(&list), member, node));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_arrives_once_and_in_each_producers_order),
        cmocka_unit_test(only_the_first_push_finds_it_empty),
        cmocka_unit_test(lists_keep_order_and_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
