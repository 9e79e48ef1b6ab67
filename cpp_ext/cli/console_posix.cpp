#include "console.h"

#include "interrupt.h"
#include "options.h"

#include <cstdio>
#include <iostream>

#include <fcntl.h>
#include <unistd.h>

namespace cli {

std::vector<std::string> utf8_arguments(int argc, char ** argv) {
    return { argv, argv + argc };
}

void open_streams() {
    const bool is_closed = fcntl(STDOUT_FILENO, F_GETFD) == -1;
    for (const int number : { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO }) {
        if (fcntl(number, F_GETFD) == -1 && open("/dev/null", O_RDWR) != number) { // the lowest number that is free
            throw input_error("standard streams are closed, and /dev/null cannot be opened");
        }
    }
    if (is_closed) {
        throw input_error("standard output is closed; give it a place, such as > /dev/null");
    }
}

bool input_is_terminal() {
    return isatty(STDIN_FILENO);
}

input_end read_input_line(std::string & line) {
    if (std::getline(std::cin, line)) {
        return input_end::line;
    }
    if (!interrupted() || std::cin.eof()) {
        return input_end::end;
    }
    std::cin.clear();
    clearerr(stdin);
    return input_end::interrupt;
}

} // namespace cli
