// Which models heads cannot run with: those that do not write one token after the other.

#pragma once

#include "llama.h"

#include <string>

namespace autodeco {

// What such a model is, "" for others: by its architecture, whether its attention is causal, and llama.cpp's kind of pooling
// that it names (0: none). The same table stands in export/language_models.py.
std::string refused_model(const std::string & architecture, bool causal, long pooling);

// One line that says so, "" for a model that heads can run with.
std::string why_no_language_model(const std::string & architecture, bool causal, long pooling);
std::string why_no_language_model(const llama_model * model);

} // namespace autodeco
