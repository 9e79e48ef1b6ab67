#include "interrupt.h"

#include <csignal>
#include <unistd.h>

namespace cli {

namespace {

volatile std::sig_atomic_t n_interrupts = 0;

void on_interrupt(int /*signal*/) {
    n_interrupts = n_interrupts + 1;
    if (n_interrupts > 1) {
        _exit(INTERRUPTED_EXIT_CODE);
    }
}

} // namespace

void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler       = on_interrupt; // without SA_RESTART: waiting for a line of input ends
    sigaction(SIGINT, &action, nullptr);
}

bool interrupted() {
    return n_interrupts > 0;
}

void clear_interrupt() {
    n_interrupts = 0;
}

} // namespace cli
