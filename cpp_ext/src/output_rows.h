// The output rows of llama.cpp's graph, as a sampler finds them: logits, and the hidden states that they came from.

#pragma once

#include "ggml.h"

namespace autodeco {

struct output_rows {
    ggml_tensor * logits; // [n_vocab, n], consecutive outputs of the graph
    int64_t       first;  // of them
    int64_t       row;    // the one that was asked for, counted among all outputs like `first`
    bool          is_probe; // of a graph without a model, with which llama.cpp counts nodes
};

// All outputs that lie in one tensor with the row that llama.cpp hands to a sampler.
output_rows find_output_rows(ggml_tensor * logits);

// logits [n_vocab, n] of outputs `first` and following
ggml_tensor * logits_of(ggml_context * ctx, const output_rows & rows, int64_t first, int64_t n);

// the hidden states [n_embd, n] F32 that belong to them
ggml_tensor * hidden_of(ggml_context * ctx, ggml_cgraph * gf, const output_rows & rows, int64_t n_embd, int64_t first, int64_t n);

} // namespace autodeco
