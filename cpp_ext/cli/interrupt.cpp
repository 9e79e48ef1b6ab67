#include "interrupt.h"

#include <atomic>
#include <cstdlib>

#if defined(_WIN32)
#    include "windows_text.h"
#else
#    include <csignal>
#endif

namespace cli {

namespace {

// without a lock, as a signal's handler needs it; Windows calls its handler in a thread of its own
std::atomic<int> n_interrupts = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal's handler may not wait");

void on_interrupt(int /*signal*/) {
    if (++n_interrupts > 1) {
        std::_Exit(INTERRUPTED_EXIT_CODE);
    }
}

#if defined(_WIN32)
BOOL WINAPI on_console_event(DWORD event) {
    if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) {
        return FALSE; // the window closes, or the user leaves
    }
    on_interrupt(0);
    return TRUE;
}
#endif

} // namespace

void catch_interrupts() {
#if defined(_WIN32)
    SetConsoleCtrlHandler(on_console_event, TRUE);
#else
    struct sigaction action = {};
    action.sa_handler       = on_interrupt; // without SA_RESTART: waiting for a line of input ends
    sigaction(SIGINT, &action, nullptr);
#endif
}

bool interrupted() {
    return n_interrupts > 0;
}

void clear_interrupt() {
    n_interrupts = 0;
}

} // namespace cli
