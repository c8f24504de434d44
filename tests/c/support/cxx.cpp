/* See cxx.h. Nothing of the C++ library is linked. */
#include "support/cxx.h"

extern "C" const size_t test_cxx_layout[TEST_LAYOUT_COUNT] = TEST_LAYOUT;

namespace
{

struct number_message {
    escqrs_envelope envelope;
    int number;
};

const escqrs_message_type NUMBER = {"Number", nullptr, nullptr, nullptr, false};

number_message *number_new(int number)
{
    auto *made = static_cast<number_message *>(escqrs_alloc_zero(sizeof(number_message)));
    if (made != nullptr) {
        made->envelope.type = &NUMBER;
        made->number = number;
    }
    return made;
}

escqrs_turn_end doubler(escqrs_context *context, void *, escqrs_envelope *message)
{
    if (message->type != &NUMBER) {
        return ESCQRS_TURN_NEXT;
    }
    auto *given = reinterpret_cast<number_message *>(message);
    number_message *answer = number_new(given->number * 2);
    if (answer == nullptr) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, nullptr, "no memory");
    }
    escqrs_context_respond(context, &answer->envelope);
    return ESCQRS_TURN_NEXT;
}

escqrs_status ask(escqrs_ref *ref, int number, int *answer, escqrs_error *error)
{
    number_message *question = number_new(number);
    escqrs_envelope *got = nullptr;
    escqrs_status status = question == nullptr
                               ? ESCQRS_NO_MEMORY
                               : escqrs_ask(ref, &question->envelope, INT64_MAX, &got, error);
    if (status == ESCQRS_OK) {
        *answer = reinterpret_cast<number_message *>(got)->number;
        escqrs_envelope_destroy(got);
    }
    return status;
}

} // namespace

extern "C" int test_cxx_ask(int number, int *answer)
{
    escqrs_error error = {};
    escqrs_actor_system *system = nullptr;
    if (escqrs_actor_system_create(nullptr, &system, &error) != ESCQRS_OK) {
        return -1;
    }
    static escqrs_timing timing;
    const escqrs_receive_middleware middleware = {escqrs_timing_middleware, &timing};
    escqrs_actor_class doubling = {};
    doubling.name = "Doubler";
    doubling.receive = doubler;
    escqrs_props_options options = {};
    options.actor_class = &doubling;
    options.receive_middleware = &middleware;
    options.receive_middleware_count = 1;
    escqrs_props *props = nullptr;
    escqrs_ref *ref = nullptr;
    escqrs_status status = escqrs_props_create(&options, &props, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_actor_system_spawn(system, props, escqrs_slice_of("doubler"), &ref, &error);
    }
    if (status == ESCQRS_OK) {
        status = ask(ref, number, answer, &error);
    }
    escqrs_status stopped = escqrs_actor_system_stop(system, INT64_MAX, &error);
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    escqrs_actor_system_destroy(system);
    bool well = status == ESCQRS_OK && stopped == ESCQRS_OK;
    return well ? static_cast<int>(timing.count.load(std::memory_order_relaxed)) : -1;
}
