// The model's own chat template.

#pragma once

#include "llama.h"

#include <optional>
#include <string>
#include <vector>

namespace cli {

struct message {
    std::string role; // "system", "user" or "assistant"
    std::string content;
};

// The text of a conversation, up to where the model's next answer begins, with the special tokens written out.
// Throws input_error where the model has no template, or one that this build cannot run.
std::string apply_chat_template(const llama_model * model, const std::vector<message> & messages);

// The exit code of this process where it was started to run a template for another one; else nothing.
std::optional<int> template_process(const std::vector<std::string> & arguments);

} // namespace cli
