#include "chain_place.h"

namespace autodeco {

bool is_first(const llama_sampler_data & data) {
    const bool is_untouched = data.logits && !data.probs && !data.sampled && !data.candidates;
    return is_untouched && (data.logits->op == GGML_OP_NONE || data.logits->op == GGML_OP_VIEW);
}

void give_likeliest(ggml_context * ctx, llama_sampler_data & data) {
    if (data.sampled || !data.logits) {
        return;
    }
    data.sampled = ggml_argmax(ctx, ggml_reshape_1d(ctx, data.logits, ggml_nelements(data.logits)));
    if (data.candidates) { // the place in a list
        ggml_tensor * tokens = ggml_reshape_2d(ctx, data.candidates, 1, ggml_nelements(data.candidates));
        data.sampled         = ggml_get_rows(ctx, tokens, data.sampled);
    }
}

void chain_probe::begin(ggml_context * graph) {
    ctx = graph;
    for (ggml_tensor * tensor = ggml_get_first_tensor(ctx); tensor; tensor = ggml_get_next_tensor(ctx, tensor)) {
        last = tensor;
    }
}

bool chain_probe::end() {
    const bool is_followed = last && ggml_get_next_tensor(ctx, last);
    ctx                    = nullptr;
    last                   = nullptr;
    return is_followed;
}

} // namespace autodeco
