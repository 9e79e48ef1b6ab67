// What one request asks of the heads, and what is made of the settings that its client sends anyway.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct llama_vocab;
struct common_params_sampling;
class common_json;

namespace autodeco {

struct serving;

struct request {
    bool  use_temperature   = true; // the heads that are asked
    bool  use_top_p         = true;
    float temperature_scale = 1.0f; // multiplies the predicted temperature, 0: greedy
    float top_p_scale       = 1.0f;
    bool  values            = false; // put them into the answer
    bool  on_host           = false; // not in the graph, whatever else would allow it

    // in the place of a prediction, below 0: none
    float fixed_temperature = -1.0f;
    float fixed_top_p       = -1.0f;

    bool  is_greedy() const { return temperature_scale == 0.0f || fixed_temperature == 0.0f; }

    // settings of the client that were not applied, for the answer
    std::vector<std::string> ignored;
};

// Read the field "autodeco" of a request (null in `sampling` afterwards: without heads), and let `sampling` keep what the
// heads do not decide. Throws std::invalid_argument, one line, for what cannot be.
void read_request(const common_json & body, const serving * serving, common_params_sampling & sampling);

// Whether a sampler is wanted that cannot work in the graph.
bool needs_host(const common_params_sampling & sampling, const llama_vocab * vocab);

} // namespace autodeco
