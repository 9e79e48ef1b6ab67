// The heads of one token on a CPU, in as few nodes as can be: threads meet after every node of a graph, which for vectors
// this short takes longer than the arithmetic. Hidden states are multiplied as they are, where ggml would round them to the
// type of the weights first.

#pragma once

#include "heads_graph.h"

namespace autodeco {

// What the nodes of one row read and write beside their tensors; lives as long as the graph.
struct cpu_heads_row {
    const heads_data * heads = nullptr;
    row_workspace *    ws    = nullptr; // keeps what the statistics found, for a draw from the same row
    bool               is_skipped = false; // no token will be taken from this row; changes between two nodes only
    bool               reads_level = false; // the level of the answer is not known yet: else nothing of the control head is computed
};

// Nodes that compute temperature [1], top-p [1] (null where there is no top-p head) and level [1] (null where there is no
// control head, 0 where the row does not read it) from hidden [n_embd] and raw logits [n_vocab].
predictions build_cpu_heads(ggml_context * ctx, ggml_tensor * hidden, ggml_tensor * logits, cpu_heads_row & row);

// The level at a hidden state [n_embd], on one thread; 0 where there is no control head.
float cpu_level_of(const heads_data & heads, const float * hidden);

// Temperature and top-p of arrays, on one thread. The workspace is reserved; a row of logits must hold numbers.
void cpu_heads_of(const heads_data & heads, const float * hidden, const float * logits, row_workspace & ws, float & temperature, float & top_p);

} // namespace autodeco
