#include "row_nodes.h"

#include "control.h"
#include "cut_row.h"
#include "host_node.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

float scalar(const ggml_tensor * tensor) {
    return *(const float *) tensor->data;
}

// a prediction, or 1 where there is none
ggml_tensor * or_one(ggml_tensor * prediction) {
    return prediction ? prediction : host_one();
}

// Node of the CPU over what is predicted of a row, behind `first`, which may be null: temperature, top-p and, of a control
// head alone, the level.
ggml_tensor * predicted_node(ggml_context * ctx, ggml_type type, ggml_tensor * first, const predictions & pred, ggml_custom_op_t function, graph_row & row) {
    ggml_tensor * temperature = or_one(pred.temperature);
    ggml_tensor * top_p       = or_one(pred.top_p);
    if (!first) {
        return pred.level ? host_node(ctx, type, 1, 1, { temperature, top_p, pred.level }, function, 1, &row)
                          : host_node(ctx, type, 1, 1, { temperature, top_p }, function, 1, &row);
    }
    return pred.level ? host_node(ctx, type, 1, 1, { first, temperature, top_p, pred.level }, function, 1, &row)
                      : host_node(ctx, type, 1, 1, { first, temperature, top_p }, function, 1, &row);
}

// What is predicted of a row by sources of its node, and steered where there is a control head.
void read_predictions(ggml_tensor * const * sources, graph_row & row, float & temperature, float & top_p) {
    temperature = scalar(sources[0]);
    top_p       = scalar(sources[1]);
    if (row.owner->heads && row.owner->heads->has_control) {
        steer(row.owner->heads->control, row.owner->level_of(row, scalar(sources[2])), temperature, top_p);
    }
}

// Compute no output of the running graph from `first` on: their nodes come behind those of the ones before.
void skip_rows(sampler_state & state, size_t first) {
    for (size_t i = 0; i < state.n_run; ++i) {
        state.rows[i].heads.is_skipped |= state.rows[i].output >= first;
    }
}

// CPU node: draw a token from logits [n_vocab] by what is predicted; userdata is the graph_row
void nucleus_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    graph_row &         row    = *(graph_row *) userdata;
    const ggml_tensor * logits = dst->src[0];
    sampler_state &     state  = *row.owner;
    row.has_run                = true;
    if (row.heads.is_skipped) {
        row.last               = undecided(AUTODECO_STATUS_NOT_DECODED);
        *(int32_t *) dst->data = 0;
        return;
    }

    float temperature, top_p;
    read_predictions(dst->src + 1, row, temperature, top_p);
    const float user_temperature = state.user_temperature(temperature);
    const float user_top_p       = state.user_top_p(top_p);

    const float * z   = (const float *) logits->data;
    if (state.draws_on_host) {
        row.logits.assign(z, z + logits->ne[0]);
        row.last               = { -1, temperature, top_p, 0, 0.0f, 0 };
        *(int32_t *) dst->data = 0;
        return;
    }
    const bool    cut = (state.top_k > 0 || state.min_p > 0.0f) && user_temperature >= GREEDY_TEMPERATURE &&
                     row_check(z, logits->ne[0], row.ws) == row_status::ok; // NaN has no order; the draw reports it
    if (cut) {
        cut_row(z, logits->ne[0], user_temperature, state.top_k, state.min_p, row.logits);
        z = row.logits.data();
    }
    const nucleus_draw draw = nucleus_sample(z, logits->ne[0], user_temperature, user_top_p, row.uniform, row.ws, !cut);
    row.last = { draw.token, state.told_temperature(temperature), state.told_top_p(top_p), draw.size, draw.prob, (int32_t) draw.status };
    if (state.ends_draft(row.output, draw.token)) {
        skip_rows(state, row.output + 1);
    }
    // -1 would send llama_sampler_sample looking for logits that were never copied to the host
    *(int32_t *) dst->data = std::max(draw.token, 0);
}

// CPU node: keep what is predicted for the host stages; userdata is the graph_row
void observer_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    graph_row & row = *(graph_row *) userdata;
    float       temperature, top_p;
    read_predictions(dst->src, row, temperature, top_p);
    row.last = { -1, temperature, top_p, 0, 0.0f, 0 };
    *(float *) dst->data = 0.0f;
}

} // namespace

// Keep what was predicted, and let the logits depend on that: llama.cpp leaves out what it does for a sequence that has no
// output in a batch, and nothing may be kept of that either.
void observe(ggml_context * ctx, ggml_cgraph * gf, const predictions & pred, llama_sampler_data & data, graph_row & row) {
    ggml_tensor * kept = predicted_node(ctx, GGML_TYPE_F32, nullptr, pred, observer_node, row);
    ggml_set_name(kept, "autodeco_observer");
    row.computed = kept;
    if (!data.logits->view_src) { // of a probe
        ggml_build_forward_expand(gf, kept);
        return;
    }
    data.logits         = ggml_view_1d(ctx, data.logits, data.logits->ne[0], 0);
    data.logits->src[1] = kept;
}

ggml_tensor * draw_on_cpu(ggml_context * ctx, ggml_tensor * logits, const predictions & pred, graph_row & row) {
    return predicted_node(ctx, GGML_TYPE_I32, logits, pred, nucleus_node, row);
}

} // namespace autodeco
