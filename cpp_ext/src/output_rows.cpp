#include "output_rows.h"

#include "hidden_states.h"

namespace autodeco {

namespace {

// The vectors that the output matrix multiplies, a column for each row of logits; null in a graph without a model.
ggml_tensor * find_hidden(ggml_cgraph * gf, ggml_tensor * logits, int64_t n_embd) {
    for (const char * name : HIDDEN_NAMES) {
        ggml_tensor * tensor = ggml_graph_get_tensor(gf, name);
        if (tensor && tensor->ne[0] == n_embd && tensor->type == GGML_TYPE_F32) {
            return tensor;
        }
    }
    // else walk back to the output matrix through what may follow it: scale, softcap, bias, adapters, views
    for (ggml_tensor * tensor = logits; tensor; tensor = tensor->src[0]) {
        if (tensor->op == GGML_OP_MUL_MAT) {
            ggml_tensor * hidden = tensor->src[1];
            return hidden->ne[0] == n_embd && hidden->type == GGML_TYPE_F32 ? hidden : nullptr;
        }
    }
    return nullptr;
}

} // namespace

output_rows find_output_rows(ggml_tensor * logits) {
    ggml_tensor * padded = logits->view_src;
    if (!padded) {
        return { logits, 0, 0, true };
    }
    // llama.cpp copies all logits to have one more row: on a CPU that copy takes longer than everything that is done here,
    // so what is copied is read instead. Batches without outputs have no row but the one more.
    const auto    row = (int64_t) (logits->view_offs / padded->nb[1]);
    ggml_tensor * all = padded->op == GGML_OP_PAD ? padded->src[0] : nullptr;
    if (!all || row >= all->ne[1] || all->ne[0] != logits->ne[0]) {
        return { logits, row, row, false };
    }
    return { all, 0, row, false };
}

ggml_tensor * logits_of(ggml_context * ctx, const output_rows & rows, int64_t first, int64_t n) {
    ggml_tensor * all = rows.logits;
    return n == all->ne[1] ? all : ggml_view_2d(ctx, all, all->ne[0], n, all->nb[1], (first - rows.first) * all->nb[1]);
}

ggml_tensor * hidden_of(ggml_context * ctx, ggml_cgraph * gf, const output_rows & rows, int64_t n_embd, int64_t first, int64_t n) {
    ggml_tensor * hidden = find_hidden(gf, rows.logits, n_embd);
    if (!hidden) {
        return ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_embd, n);
    }
    if (first + n > hidden->ne[1]) {
        // a batch without outputs: llama.cpp pads the logits alike
        hidden = ggml_pad(ctx, hidden, 0, (int) (first + n - hidden->ne[1]), 0, 0);
    }
    return n == hidden->ne[1] ? hidden : ggml_view_2d(ctx, hidden, n_embd, n, hidden->nb[1], first * hidden->nb[1]);
}

} // namespace autodeco
