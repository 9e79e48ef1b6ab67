// What the program has from the system that starts it: arguments, standard streams, a terminal. All text is UTF-8, and no line
// break is translated, on Windows too. console_posix.cpp or console_windows.cpp.

#pragma once

#include <string>
#include <vector>

namespace cli {

// The arguments of main() as UTF-8.
std::vector<std::string> utf8_arguments(int argc, char ** argv);

// Make the standard streams usable: those that are closed get the null device, in whose place files would else be opened.
// Throws input_error where standard output is closed.
void open_streams();

bool input_is_terminal();

enum class input_end { line, interrupt, end };

// The next line of standard input, without its line break; what ended the wait for it.
input_end read_input_line(std::string & line);

} // namespace cli
