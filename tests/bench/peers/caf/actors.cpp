// The workloads of tests/bench/actors.c on CAF, the C++ Actor Framework. Prints one JSON object:
// figures a second, bytes of an idle actor.
//
//     caf one|all [PART]
//
// one: what a single worker of its scheduler runs; all: with a worker for each processor. PART: a
// share of the usual counts.
#include <caf/all.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <malloc.h>
#include <thread>
#include <vector>

struct letter {
    int64_t hops_left;
    uint32_t random;
};

struct order {
    int64_t first;
    int64_t size;
};

// They stay in this process.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(letter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(order)

namespace
{

double part = 1;

int64_t counted(int64_t count)
{
    return std::max<int64_t>(1000, static_cast<int64_t>(static_cast<double>(count) * part));
}

class configuration : public caf::actor_system_config
{
  public:
    explicit configuration(size_t workers)
    {
        if (workers > 0) {
            set("scheduler.max-threads", workers);
        }
    }
};

template <class Run> double rate(int64_t count, Run run)
{
    auto start = std::chrono::steady_clock::now();
    run();
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return static_cast<double>(count) / took.count();
}

// A count that a thread waits for.
class countdown
{
  public:
    explicit countdown(int64_t count) : left(count)
    {
    }

    void down()
    {
        if (left.fetch_sub(1) == 1) {
            std::lock_guard<std::mutex> guard{lock};
            zero.notify_all();
        }
    }

    void wait()
    {
        std::unique_lock<std::mutex> guard{lock};
        zero.wait(guard, [this] { return left.load() <= 0; });
    }

  private:
    std::atomic<int64_t> left;
    std::mutex lock;
    std::condition_variable zero;
};

// ---- letters that wander ------------------------------------------------------------------------

struct group {
    group(size_t actors, int64_t letters) : started(static_cast<int64_t>(actors)), finished(letters)
    {
        all.reserve(actors);
    }

    std::vector<caf::actor> all;
    countdown started;
    countdown finished;
};

caf::behavior wander(caf::event_based_actor *self, group *peers)
{
    peers->started.down();
    return {[=](letter given) {
        if (--given.hops_left < 0) {
            peers->finished.down();
            return;
        }
        size_t next;
        if (peers->all.size() == 2) {
            next = peers->all[0] == self;
        } else {
            given.random = given.random * 1664525u + 1013904223u;
            next = (static_cast<uint64_t>(given.random) * peers->all.size()) >> 32;
        }
        self->send(peers->all[next], given);
    }};
}

double wandering(size_t workers, size_t actors, int64_t letters, int64_t count)
{
    configuration config{workers};
    caf::actor_system system{config};
    group peers{actors, letters};
    for (size_t i = 0; i < actors; i++) {
        peers.all.push_back(system.spawn(wander, &peers));
    }
    peers.started.wait();
    double result = rate(count, [&] {
        for (int64_t i = 0; i < letters; i++) {
            caf::anon_send(peers.all[static_cast<size_t>(i) % actors],
                           letter{count / letters, static_cast<uint32_t>(i) * 2654435761u});
        }
        peers.finished.wait();
    });
    for (auto &actor : peers.all) {
        caf::anon_send_exit(actor, caf::exit_reason::kill);
    }
    return result;
}

// ---- many to one, lives -------------------------------------------------------------------------

double many_to_one(int64_t count)
{
    configuration config{1};
    caf::actor_system system{config};
    countdown handled{2 * count};
    auto target = system.spawn([&handled](caf::event_based_actor *) -> caf::behavior {
        return {[&handled](letter) { handled.down(); }};
    });
    double result = rate(2 * count, [&] {
        auto flood = [&] {
            for (int64_t i = 0; i < count; i++) {
                caf::anon_send(target, letter{0, 0});
            }
        };
        std::thread first{flood};
        std::thread second{flood};
        first.join();
        second.join();
        handled.wait();
    });
    caf::anon_send_exit(target, caf::exit_reason::kill);
    return result;
}

caf::behavior live(caf::event_based_actor *self, countdown *finished)
{
    return {[=](letter) {
        finished->down();
        self->quit();
    }};
}

// Some at a time, so that the worker has room for them.
caf::behavior nurse(caf::event_based_actor *self, countdown *finished)
{
    return {[=](letter given) {
        for (int i = 0; i < 8 && given.hops_left > 0; i++, given.hops_left--) {
            self->send(self->spawn(live, finished), given);
        }
        if (given.hops_left > 0) {
            self->send(self, given);
        } else {
            self->quit();
        }
    }};
}

double lives(int64_t count)
{
    configuration config{1};
    caf::actor_system system{config};
    countdown finished{count};
    return rate(count, [&] {
        caf::anon_send(system.spawn(nurse, &finished), letter{count, 0});
        finished.wait();
    });
}

// ---- Skynet, memory -----------------------------------------------------------------------------

struct node {
    int64_t sum = 0;
    int waiting = 0;
};

caf::behavior skynet_node(caf::stateful_actor<node> *self, caf::actor parent)
{
    return {
        [=](order given) {
            if (given.size == 1) {
                self->send(parent, given.first);
                self->quit();
                return;
            }
            int64_t size = given.size / 10;
            self->state.waiting = 10;
            for (int i = 0; i < 10; i++) {
                auto child = self->spawn(skynet_node, caf::actor_cast<caf::actor>(self));
                self->send(child, order{given.first + i * size, size});
            }
        },
        [=](int64_t value) {
            self->state.sum += value;
            if (--self->state.waiting == 0) {
                self->send(parent, self->state.sum);
                self->quit();
            }
        },
    };
}

double skynet()
{
    static constexpr int64_t leaves = 1000000;
    configuration config{0};
    caf::actor_system system{config};
    caf::scoped_actor self{system};
    return rate(leaves, [&] {
        auto top = system.spawn(skynet_node, caf::actor_cast<caf::actor>(self));
        caf::anon_send(top, order{0, leaves});
        self->receive([](int64_t sum) {
            if (sum != leaves / 2 * (leaves - 1)) {
                std::cerr << "skynet: wrong sum " << sum << '\n';
                std::exit(1);
            }
        });
    });
}

double idle_bytes()
{
    constexpr size_t count = 100000;
    configuration config{1};
    caf::actor_system system{config};
    group peers{count, 1};
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < count; i++) {
        peers.all.push_back(system.spawn(wander, &peers));
    }
    peers.started.wait();
    double result = static_cast<double>(mallinfo2().uordblks - before) / count;
    for (auto &actor : peers.all) {
        caf::anon_send_exit(actor, caf::exit_reason::kill);
    }
    return result;
}

void print(const char *name, double value)
{
    static const char *separator = "{";
    std::cout << separator << "\"caf." << name << "\": " << std::fixed << value;
    separator = ", ";
}

} // namespace

int main(int argc, char **argv)
{
    bool one = argc > 1 && std::strcmp(argv[1], "one") == 0;
    part = argc > 2 ? std::strtod(argv[2], nullptr) : 1;
    if (one) {
        print("bytes", idle_bytes());
        print("ping_pong", wandering(1, 2, 1, counted(3000000)));
        print("ping_pong_many", wandering(1, 2, 100, counted(5000000)));
        print("random_thousand", wandering(1, 1000, 4000, counted(5000000)));
        print("random_million", wandering(1, 1000000, 1000, counted(2000000)));
        print("lives", lives(counted(300000)));
    } else {
        print("random_thousand_all", wandering(0, 1000, 4000, counted(5000000)));
        print("random_million_all", wandering(0, 1000000, 1000, counted(2000000)));
        print("many_to_one", many_to_one(counted(1000000)));
        print("skynet", skynet());
    }
    std::cout << "}\n";
    return 0;
}
