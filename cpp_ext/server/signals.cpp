#include "signals.h"

#include <stdexcept>
#include <utility>

#if defined(_WIN32)

namespace autodeco {

static std::function<void(int)> end_of_server;

signal_thread::signal_thread(std::function<void(int)> end) { end_of_server = std::move(end); }

signal_thread::~signal_thread() = default;

void signal_thread::wake(int signal) { end_of_server(signal); }

} // namespace autodeco

#else

#include <cerrno>
#include <unistd.h>

namespace autodeco {

static int ends_of_pipe[2]; // to read from, and to write to

signal_thread::signal_thread(std::function<void(int)> end) {
    if (pipe(ends_of_pipe) != 0) {
        throw std::runtime_error("no pipe for signals: too many open files");
    }
    thread = std::thread([end = std::move(end)] {
        char signal = 0;
        while (read(ends_of_pipe[0], &signal, 1) < 0 && errno == EINTR) {
        }
        if (signal != 0) {
            end(signal);
        }
    });
}

signal_thread::~signal_thread() {
    wake(0);
    thread.join();
}

void signal_thread::wake(int signal) {
    const int  before = errno;
    const char byte   = (char) signal;
    if (write(ends_of_pipe[1], &byte, 1) != 1) {
        _exit(1);
    }
    errno = before;
}

} // namespace autodeco

#endif
