// The heads as nodes of a ggml graph.

#pragma once

#include "distribution.h"
#include "heads.h"

namespace autodeco {

struct predictions {
    ggml_tensor * temperature; // [1, n], in (0, 2)
    ggml_tensor * top_p;       // [1, n], in (0, 1); null where there is no top-p head, which means 1
};

// Nodes that compute temperature and top-p for n tokens.
//   hidden [n_embd, n] F32: the vectors that the output matrix multiplies
//   logits [n_vocab, n] F32: raw logits
//   ws: for n = 1, where to leave what the statistics found, for a draw from the same row; may be null
predictions build_heads(ggml_context * ctx, const head_tensors & heads, bool prob_stats, ggml_tensor * hidden, ggml_tensor * logits,
                        row_workspace * ws);

} // namespace autodeco
