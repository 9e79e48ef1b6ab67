// How much memory the program has used, and what it says before it takes more than there is.

#pragma once

#include "ggml.h"
#include "llama.h"

#include <cstdint>
#include <string>

namespace cli {

// largest resident size of this process so far, in bytes
uint64_t peak_memory();

// Bytes that the system and the process' control group have left; UINT64_MAX where neither tells.
uint64_t memory_left();

// Bytes that this machine has in all.
uint64_t memory_in_all();

// How many of a model's layers stay on the CPU. llama.cpp counts the output as one more, which goes to the GPU first; below 0
// is all.
int32_t layers_on_cpu(int32_t n_layers, int32_t n_gpu_layers, bool has_gpu);

// Bytes that keys (and as many, values) of a context take on the CPU; 0 for models whose context is not of one size a token:
// recurrent ones, hybrid ones, and those with a sliding window.
uint64_t key_bytes(const llama_model * model, int64_t n_ctx, ggml_type type, int32_t n_layers);

// What a user should know of a model with `on_cpu` bytes on the CPU while `left` are left; empty where it fits. llama.cpp maps
// the file, and reads again what did not stay in memory: that is slow, and no error.
std::string model_warning(const std::string & path, uint64_t on_cpu, uint64_t left);

// The same of a context, which is not mapped. Throws input_error where its keys alone are more than `in_all`.
std::string context_warning(int64_t n_ctx, uint64_t keys, uint64_t left, uint64_t in_all);

// From now on, what llama.cpp cannot go on from (it aborts, or throws where nobody catches) ends the program with one line
// on standard error and exit code 2.
void report_aborts();

} // namespace cli
