// How much memory the program has used and may use.

#pragma once

#include <cstdint>
#include <string>

namespace cli {

// largest resident size of this process so far, in bytes
uint64_t peak_memory();

// Ask for no more memory than the system and the process' control group have left: what is too much then fails, with a
// line, where it would otherwise be killed, or swap. Throws input_error where the model's file alone is larger than that.
void limit_memory(const std::string & model_path);

// Throws input_error where a context of so many tokens is certain not to fit: llama.cpp would find out by filling the memory.
void check_context(uint32_t n_ctx);

// From now on, what llama.cpp cannot go on from (it aborts, or throws where nobody catches) ends the program with one line
// on standard error and exit code 2.
void report_aborts();

} // namespace cli
