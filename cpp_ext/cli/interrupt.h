// Ctrl-C: once stops the answer, twice the program.

#pragma once

namespace cli {

constexpr int INTERRUPTED_EXIT_CODE = 130; // 128 + SIGINT, as shells have it

void catch_interrupts();

// whether Ctrl-C was pressed since the last clear_interrupt()
bool interrupted();
void clear_interrupt();

} // namespace cli
