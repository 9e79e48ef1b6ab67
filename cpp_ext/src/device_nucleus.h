// Statistics and nucleus as ggml operations, for devices that have argsort and cumsum: the logits never leave them.
//
// The CPU has kernels of its own (distribution.h), which do the same without sorting. Differences: sums are float32, and
// equal logits stand in the order that the device's sort leaves them in.

#pragma once

#include "heads_graph.h"

namespace autodeco {

// What a draw depends on beside logits and heads, as the graph reads it: one input tensor for each row.
struct device_settings {
    // temperature of the draw: `temperature_scale` times the predicted one plus `temperature`; top-p alike
    float temperature_scale;
    float temperature;
    float top_p_scale;
    float top_p;
    float uniform;
    float top_k; // as many as the vocabulary for none
    float min_p; // times 1 - 1e-6: what is as likely but for rounding stays
};

// What a draw tells of itself, read back from one output tensor.
struct device_values {
    float token; // ids are below 2^24
    float temperature;
    float top_p;
    float nucleus;
    float prob;
};

// Logits [n_vocab] in descending order.
struct sorted_row {
    ggml_tensor * id;     // [n_vocab] I32
    ggml_tensor * logits; // [n_vocab] F32
};

sorted_row sort_row(ggml_context * ctx, ggml_tensor * logits);

// the inputs [N_PROB_STATS, 1] of the top-p head, at temperature [1]
ggml_tensor * device_stats(ggml_context * ctx, const sorted_row & row, ggml_tensor * temperature);

struct device_draw {
    ggml_tensor * settings; // input, holds a device_settings
    ggml_tensor * values;   // output, holds a device_values
    ggml_tensor * token;    // [1] I32
};

// Draw a token; `pred` as the heads predict, null for what they do not.
device_draw build_device_draw(ggml_context * ctx, const sorted_row & row, predictions pred);

// Whether the device of `buft` has all that is needed for vocabularies of this size; false for CPUs, which have better.
bool device_can_draw(ggml_backend_buffer_type_t buft, int64_t n_vocab);

} // namespace autodeco
