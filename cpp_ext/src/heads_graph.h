// The heads as nodes of a ggml graph.

#pragma once

#include "kernel/distribution.h"
#include "heads.h"

#include <functional>

namespace autodeco {

struct predictions {
    ggml_tensor * temperature; // [1, n], in (0, 2)
    ggml_tensor * top_p;       // [1, n], in (0, 1); null where there is no top-p head, which means 1
    ggml_tensor * level = nullptr; // [1, n], in [-1, 1], that the rows read; null where there is no control head
};

// Makes the node of the statistics [N_PROB_STATS, n] at temperature [1, n].
using stats_builder = std::function<ggml_tensor *(ggml_tensor * temperature)>;

// Nodes that compute temperature and top-p for n tokens from hidden [n_embd, n] F32, the vectors that the output matrix
// multiplies. `stats` is asked only if the heads read statistics.
predictions build_heads(ggml_context * ctx, const head_tensors & heads, bool prob_stats, ggml_tensor * hidden, const stats_builder & stats);

// The level [1, n] of each state; null where there is no control head.
ggml_tensor * build_level(ggml_context * ctx, const head_tensors & heads, const control_ends & ends, ggml_tensor * hidden);

// The statistics of logits [n_vocab, n] F32 on the CPU.
ggml_tensor * cpu_stats(ggml_context * ctx, ggml_tensor * logits, ggml_tensor * temperature);

} // namespace autodeco
