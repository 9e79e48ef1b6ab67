// Signals that end a server. A signal handler may take no lock, for the thread that it interrupts may hold it: it wakes a
// thread that calls what ends the server. On Windows, which calls a handler in a thread of its own, it does so itself.
#pragma once

#include <functional>
#include <thread>

namespace autodeco {

// One at a time. What its `end` uses lives longer: the destructor waits for a call under way.
class signal_thread {
public:
    explicit signal_thread(std::function<void(int)> end);
    ~signal_thread();

    signal_thread(const signal_thread &)             = delete;
    signal_thread & operator=(const signal_thread &) = delete;

    // Has `end` called with `signal`, once at most; for signal handlers.
    static void wake(int signal);

private:
    std::thread thread;
};

} // namespace autodeco
