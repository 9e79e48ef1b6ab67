// Nodes of a graph that run a function of this process.

#pragma once

#include "ggml.h"

#include <cstdint>
#include <initializer_list>

namespace autodeco {

// A tensor [1] F32 that holds 1, in the memory of this process; what no head predicts is it. Null for want of memory. Made
// once, and read by all graphs.
ggml_tensor * host_one();

// A node [ne0, ne1] of `type` that `function` computes from `sources`, on the CPU and nowhere else. GGML_OP_CUSTOM does not
// say so by itself: llama.cpp's scheduler gives it to any device that claims to have every operation, and a server of RPC,
// which claims that, would call an address of this process. So each node reads host_one() as its last source, too: nodes run
// where their weights lie.
ggml_tensor * host_node(ggml_context * ctx, ggml_type type, int64_t ne0, int64_t ne1, std::initializer_list<ggml_tensor *> sources,
                        ggml_custom_op_t function, int n_tasks, void * userdata);

} // namespace autodeco
