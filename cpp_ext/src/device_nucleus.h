// Statistics and nucleus as ggml operations, for devices that have argsort and cumsum: the logits never leave them.
//
// All take n rows at once, each with settings of its own: a device starts an operation for one row in the time it takes for
// many. The CPU has kernels of its own (distribution.h), which do the same without sorting. Differences: sums are float32,
// and equal logits stand in the order that the device's sort leaves them in.

#pragma once

#include "draw_inputs.h"

#include <algorithm>

namespace autodeco {

// Rows of logits in descending order, each less its largest.
struct sorted_rows {
    ggml_tensor * id;     // [n_vocab, n] I32
    ggml_tensor * logits; // [n_vocab, n] F32, 0 first
};

// From this many rows on they are sorted by one operation, and one by one before. CUDA's sort of rows gives each to a block
// of threads, and that of one row to the whole device: eighteen times faster at 152k logits (benchmarks/gpu/operations.cpp).
constexpr int64_t SORTED_AT_ONCE = 16;

// How many rows one chain of operations draws from at most. So many numbers in one tensor over all rows, of which a graph
// holds half a dozen at a time: 32 MB each; and so many rows, which is how many sequences llama.cpp knows.
inline int64_t most_rows(int64_t n_vocab) {
    constexpr int64_t MOST_NUMBERS = 1 << 23;
    constexpr int64_t MOST_ROWS    = 256;
    return std::max<int64_t>(1, std::min(MOST_NUMBERS / n_vocab, MOST_ROWS));
}

sorted_rows sort_rows(ggml_context * ctx, ggml_tensor * logits);

// the inputs [N_PROB_STATS, n] of the top-p head, at temperature [1, n]
ggml_tensor * device_stats(ggml_context * ctx, const sorted_rows & rows, ggml_tensor * temperature);

struct device_draw {
    ggml_tensor * settings; // of draw_inputs; rows that are not written draw something, and disturb nobody
    ggml_tensor * values;   // output, [6 or 7, n], a device_values for each row
    ggml_tensor * token;    // [1, n] I32
};

// Draw a token from each row; `pred` as the heads predict, null for what they do not, and its level as place_draw_inputs
// takes it.
device_draw build_device_draw(ggml_context * ctx, const sorted_rows & rows, const predictions & pred, const control_ends & ends = {});

} // namespace autodeco
