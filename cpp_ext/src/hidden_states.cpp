#include "hidden_states.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <new>

namespace autodeco {

namespace {

bool is_named(const ggml_tensor * tensor) {
    return std::any_of(std::begin(HIDDEN_NAMES), std::end(HIDDEN_NAMES), [&](const char * name) { return std::strcmp(tensor->name, name) == 0; });
}

// Whether the node is the product with the output matrix, which may be the tied one of the embeddings, or a copy of either
// on another device.
bool reads_output_matrix(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT) {
        return false;
    }
    for (const char * name : { "output.weight", "token_embd.weight" }) {
        const char * matrix = node->src[0]->name;
        const char * found  = std::strstr(matrix, name);
        if (found && (found == matrix || found[-1] == '#')) { // ggml calls a copy DEVICE#NAME#NUMBER
            return true;
        }
    }
    return false;
}

} // namespace

bool hidden_states::on_node(ggml_tensor * node, bool ask, void * self) {
    auto & states = *(hidden_states *) self;
    if (ask) {
        return states.wants(node);
    }
    states.take(is_named(node) ? node : node->src[1]);
    return true; // go on
}

void hidden_states::clear() {
    values.clear();
    failure = nullptr;
}

bool hidden_states::wants(const ggml_tensor * node) {
    if (is_named(node)) {
        named = true;
        return !ggml_is_empty(node);
    }
    if (!reads_output_matrix(node)) {
        return false;
    }
    const bool was_named = named;
    named                = false; // the next graph begins
    return !was_named && !ggml_is_empty(node);
}

void hidden_states::take(const ggml_tensor * state) {
    const auto held = values.size();
    if (state->type != GGML_TYPE_F32 || !ggml_is_contiguous(state) || (held > 0 && n_embd != state->ne[0])) {
        failure = "the hidden states of this architecture have a form that is not known here";
        return;
    }
    try {
        values.resize(held + (size_t) ggml_nelements(state));
    } catch (const std::bad_alloc &) { // llama.cpp, which calls, has a C interface
        failure = "no memory for the hidden states";
        return;
    }
    n_embd = state->ne[0];
    ggml_backend_tensor_get(state, values.data() + held, 0, ggml_nbytes(state));
}

} // namespace autodeco
