// The hidden states of the outputs of llama.cpp's graphs, taken while these run.
//
// llama.cpp itself hands them out with its embeddings flag only. That makes every token an output, and some architectures
// then compute no logits (LFM2), or copy more than the state has (DeepSeek-V4, Qwen4-exp).

#pragma once

#include "ggml.h"

#include <cstdint>
#include <vector>

namespace autodeco {

// What llama.cpp calls the vectors that the output matrix multiplies: usually, and while the context returns embeddings.
constexpr const char * HIDDEN_NAMES[] = { "result_norm", "result_embd_pooled" };

class hidden_states {
public:
    // llama_context_params.cb_eval; `self` is its user data, and must outlive the context
    static bool on_node(ggml_tensor * node, bool ask, void * self);

    // Forget the rows that are held.
    void clear();

    // The states [n, width] of all outputs since clear(), in the order of their graphs; after the decode is done.
    const std::vector<float> & rows() const { return values; }
    int64_t width() const { return n_embd; }

    // What hindered the taking, or null.
    const char * wrong() const { return failure; }

private:
    bool wants(const ggml_tensor * node);
    void take(const ggml_tensor * state);

    std::vector<float> values;
    int64_t            n_embd  = 0;
    bool               named   = false; // this graph has named its state before the product that reads it
    const char *       failure = nullptr;
};

} // namespace autodeco
