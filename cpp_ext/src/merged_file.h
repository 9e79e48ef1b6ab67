// Opening the model inside a merged file.

#pragma once

#include "heads.h"

namespace autodeco {

// Load a plain or merged GGUF by llama.cpp; null on failure.
llama_model * load_model(const std::string & path, llama_model_params params, failure & error);

} // namespace autodeco
