// The nodes of the CPU that end one output row of a sampler: they draw from it, or keep what was predicted for the host.

#pragma once

#include "sampler_state.h"

namespace autodeco {

// A node that draws a token from logits [n_vocab], by what is predicted; it tells the row.
ggml_tensor * draw_on_cpu(ggml_context * ctx, ggml_tensor * logits, const predictions & pred, graph_row & row);

// A node that keeps what is predicted in the row, on which the logits of `data` then depend.
void observe(ggml_context * ctx, ggml_cgraph * gf, const predictions & pred, llama_sampler_data & data, graph_row & row);

} // namespace autodeco
