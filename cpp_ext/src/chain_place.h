// Whether our sampler is alone in its chain. llama.cpp hands the samplers of a chain one set of tensors, from one to the next,
// and none of them is told of the others.

#pragma once

#include "llama.h"

#include "ggml.h"

namespace autodeco {

// Whether the logits are those of the model, with nothing drawn or cut away by a sampler before.
bool is_first(const llama_sampler_data & data);

// Give a token that is in the vocabulary, where no sampler before has: llama.cpp aborts without one.
void give_likeliest(ggml_context * ctx, llama_sampler_data & data);

// The graph without a model in which llama.cpp tries a chain when it is attached: what is added to it behind our sampler is
// another sampler's.
class chain_probe {
public:
    void begin(ggml_context * ctx); // our sampler has added what it does
    bool end();                     // before the graph goes: whether another one has added to it since

private:
    ggml_context * ctx  = nullptr;
    ggml_tensor *  last = nullptr;
};

} // namespace autodeco
