// A chat template is a program from a stranger, and llama.cpp's engine runs it as far as it goes. It runs in a process of its
// own here, with limits on time, memory, depth (the stack) and text.

#pragma once

#include <functional>
#include <string>

namespace cli {

// What `render` gives; throws input_error, one line, for what it throws and where it goes over a limit.
std::string in_limits(const std::function<std::string()> & render);

} // namespace cli
