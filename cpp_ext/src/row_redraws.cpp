#include "row_redraws.h"

#include "cut_row.h"
#include "host_node.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace autodeco {

namespace {

void tokens_node(ggml_tensor * dst, int ith, int /*nth*/, void * /*userdata*/) {
    const auto * values = (const device_values *) dst->src[0]->data;
    for (int64_t i = 0; ith == 0 && i < dst->ne[1]; ++i) {
        ((int32_t *) dst->data)[i] = (int32_t) values[i].token;
    }
}

} // namespace

row_redraws::row_redraws(ggml_tensor * logits) : logits(logits), settings(logits->ne[1]), is_asked(logits->ne[1]) {
    ggml_set_output(logits->view_src ? logits->view_src : logits); // nothing else may take their memory
}

void row_redraws::prepare(int64_t row, const device_settings & of_row) {
    settings[row] = of_row;
    is_asked[row] = true;
}

device_values row_redraws::drawn(int64_t row, device_values told) {
    const device_settings & s       = settings[row];
    const int64_t           n_vocab = logits->ne[0];
    ws.reserve(n_vocab);
    copied.resize(n_vocab);
    ggml_backend_tensor_get(logits, copied.data(), row * logits->nb[1], n_vocab * sizeof(float));

    const float   temperature = s.temperature_scale * told.temperature + s.temperature;
    const float   top_p       = s.top_p_scale * told.top_p + s.top_p;
    const auto    top_k       = s.last < (float) n_vocab - 1.0f ? (int32_t) s.last + 1 : 0;
    const float   min_p       = s.min_p / MIN_P_ROUNDING;
    const float * z           = copied.data();
    const bool    is_cut      = (top_k > 0 || min_p > 0.0f) && temperature >= GREEDY_TEMPERATURE && row_check(z, n_vocab, ws) == row_status::ok;
    if (is_cut) {
        cut_row(z, n_vocab, temperature, top_k, min_p, cut);
        z = cut.data();
    }
    const nucleus_draw draw = nucleus_sample(z, n_vocab, temperature, top_p, s.uniform, ws);
    const bool         ok   = draw.status == row_status::ok;
    return { (float) std::max(draw.token, 0), told.temperature, told.top_p, (float) draw.size - 1.0f, draw.prob, ok ? 1.0f : NAN };
}

void row_redraws::finish(const chunked_values * told, device_values * values) {
    for (size_t i = 0; i < is_asked.size(); ++i) {
        values[i] = told[i].values;
        if (!is_asked[i]) {
            values[i].token = 0.0f;
        } else if (!(told[i].is_drawn > 0.0f)) {
            values[i] = drawn((int64_t) i, told[i].values);
        }
        is_asked[i] = false;
    }
}

void row_redraws::run(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith == 0) {
        ((row_redraws *) userdata)->finish((const chunked_values *) dst->src[0]->data, (device_values *) dst->data);
    }
}

ggml_tensor * row_redraws::values(ggml_context * ctx, ggml_tensor * told) {
    return host_node(ctx, GGML_TYPE_F32, sizeof(device_values) / sizeof(float), told->ne[1], { told }, run, 1, this);
}

ggml_tensor * row_redraws::tokens(ggml_context * ctx, ggml_tensor * values) {
    return host_node(ctx, GGML_TYPE_I32, 1, values->ne[1], { values }, tokens_node, 1, nullptr);
}

} // namespace autodeco
