// Opening the model inside a merged file.

#pragma once

#include "failure.h"

#include "llama.h"

#include <string>

namespace autodeco {

// The fingerprint of the model in a plain or merged file, as autodeco-export writes it; empty and an error when the file
// cannot be read.
std::string model_fingerprint(const std::string & path, failure & error);

// Load a plain or merged GGUF by llama.cpp; null on failure.
llama_model * load_model(const std::string & path, llama_model_params params, failure & error);

} // namespace autodeco
