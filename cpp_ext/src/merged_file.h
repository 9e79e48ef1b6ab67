// Opening the model in a file that may bring its heads.

#pragma once

#include "failure.h"

#include "llama.h"

#include <string>

namespace autodeco {

// The fingerprint of the model in a plain, merged or embedded file, as autodeco-export writes it; empty and an error when the file
// cannot be read.
std::string model_fingerprint(const std::string & path, failure & error);

// Load the model of such a GGUF by llama.cpp; null on failure.
llama_model * load_model(const std::string & path, llama_model_params params, failure & error);

} // namespace autodeco
