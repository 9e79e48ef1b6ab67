// The heads of one token on a CPU, in as few nodes as can be: threads meet after every node of a graph, which for vectors
// this short takes longer than the arithmetic.

#pragma once

#include "heads_graph.h"

namespace autodeco {

// What the nodes of one row read and write beside their tensors; lives as long as the graph.
struct cpu_heads_row {
    const heads_data * heads = nullptr;
    row_workspace *    ws    = nullptr; // keeps what the statistics found, for a draw from the same row
};

// Nodes that compute temperature [1] and top-p [1] (null where there is no top-p head) from hidden [n_embd] and raw logits
// [n_vocab]. Weights in host memory.
predictions build_cpu_heads(ggml_context * ctx, const head_tensors & heads, ggml_tensor * hidden, ggml_tensor * logits, cpu_heads_row & row);

} // namespace autodeco
