// What a device would run for us: every operation of heads and draw, built without memory to ask the device beforehand.
//
// Devices differ in what they have, and one driver from another: nothing is assumed of any.

#pragma once

#include "heads.h"

#include <functional>
#include <string>
#include <vector>

namespace autodeco {

// Whether a device runs the operation of a tensor, which has no memory.
using node_question = std::function<bool(const ggml_tensor *)>;

// The answers of a device.
node_question asking(ggml_backend_dev_t device);

// Ask for all operations that predict with heads of these shapes and types, or that draw from rows of n_vocab logits, with
// one row and with as many as a graph ever takes at once. False after the first that is not there.
bool has_head_nodes(const heads_data & heads, const node_question & has);
bool has_draw_nodes(int64_t n_vocab, const node_question & has);

// Both heads, with statistics, for hidden states [n_embd]: shapes alone, to ask for.
void shape_heads(heads_data & heads, int32_t n_embd, ggml_type type);

// Where the parts of a sampler run.
struct node_places {
    bool draw_on_device; // else by the CPU's node, which the logits are brought to
    bool heads_on_host;  // by the CPU's nodes; else by operations on the device that has the logits
};

// On a device other than a CPU, which has better: as much as it has operations for. `heads` may be null, for fixed settings.
node_places places_on(const node_question & has, const heads_data * heads, int64_t n_vocab);

// Where they run if the device of `buft` has the logits.
node_places places(ggml_backend_buffer_type_t buft, const heads_data * heads, int64_t n_vocab);

} // namespace autodeco
