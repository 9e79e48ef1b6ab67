// A chat template is a program from a stranger, and llama.cpp's engine runs it as far as it goes. It runs in a process of its
// own here, with limits on time, memory, depth (the stack) and text. template_limits_posix.cpp or template_limits_windows.cpp.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cli {

// What a template works on: its source, and then texts that `render` knows the order of.
using template_texts = std::vector<std::string>;

using template_renderer = std::string (*)(const template_texts & texts);

// What `render` makes of `texts`; throws input_error, one line, for what it throws and where it goes over a limit.
std::string in_limits(template_renderer render, const template_texts & texts);

// Windows starts a program anew for a process of its own. The exit code of this process where it was started for that; else
// nothing.
std::optional<int> template_process(template_renderer render, const std::vector<std::string> & arguments);

//
// Of both systems: the process that renders answers with a 't' and the text, or with an 'r' and the reason for which there is
// none. No answer at all: it was ended.
//

constexpr uint64_t MOST_TEMPLATE_SECONDS = 5;        // of a processor; a template takes milliseconds
constexpr uint64_t MORE_TEMPLATE_MEMORY  = 1u << 30; // than the process has already

std::string template_answer(template_renderer render, const template_texts & texts);

enum class template_end { by_itself, too_long, too_large, crashed };

// The text of an answer; throws input_error where there is none.
std::string answered_text(const std::string & answer, template_end end);

} // namespace cli
