// Text that comes from a file, or from anybody else, as a terminal may show it. The same as autodeco/terminal.py, but for
// letters that Unicode has not assigned.

#pragma once

#include <string>

namespace autodeco {

// One line that drives no terminal and turns no direction of writing: breaks, with the blanks around them, become one blank,
// as other blanks do each; controls, marks of direction and whatever else is not printable, or no UTF-8, a question mark.
std::string one_line(const std::string & text);

// The same letter by letter, which leaves all blanks.
std::string without_controls(const std::string & text);

} // namespace autodeco
