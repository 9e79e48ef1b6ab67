#include "device_rows.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace autodeco {

namespace {

predictions predicted(ggml_context * ctx, const heads_data * heads, const device_weights * weights, ggml_tensor * hidden, const stats_builder & stats) {
    return heads ? build_heads(ctx, weights->tensors, heads->prob_stats, hidden, stats) : predictions{ nullptr, nullptr, nullptr };
}

// `read` are the hidden states whose levels may be asked for; without a control head it is not looked at
device_draw build_draw(ggml_context * ctx, const heads_data * heads, const device_weights * weights, ggml_tensor * logits, ggml_tensor * hidden,
                       ggml_tensor * read) {
    const sorted_rows rows = sort_rows(ctx, logits);
    predictions       pred = predicted(ctx, heads, weights, hidden, [&](ggml_tensor * t) { return device_stats(ctx, rows, t); });
    if (!heads || !heads->has_control) {
        return build_device_draw(ctx, rows, pred);
    }
    pred.level = build_level(ctx, weights->tensors, heads->control, read);
    return build_device_draw(ctx, rows, pred, heads->control);
}

// llama.cpp makes room in its graphs for as many tensors as a sampler makes in a probe, which has one row. A sampler may be
// the only one in its rows: leave room for as many as any number of them takes.
void count_rows(ggml_context * ctx, const heads_data * heads, const device_weights * weights, int64_t n_vocab) {
    constexpr int64_t n = SORTED_AT_ONCE - 1; // sorted one by one, and then joined
    ggml_tensor * logits = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_vocab, n);
    ggml_tensor * hidden = heads ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, heads->n_embd, n) : nullptr;
    build_draw(ctx, heads, weights, logits, hidden, hidden);
}

// all values of all rows, which have no level where there is no control head
void get_values(const ggml_tensor * tensor, std::vector<device_values> & values) {
    std::vector<float> found(ggml_nelements(tensor));
    ggml_backend_tensor_get(tensor, found.data(), 0, found.size() * sizeof(float));
    for (size_t i = 0; i < values.size(); ++i) {
        std::memcpy(&values[i], &found[i * tensor->ne[0]], tensor->ne[0] * sizeof(float));
    }
}

} // namespace

std::shared_ptr<device_rows> device_rows::in_graph(ggml_context * ctx, ggml_cgraph * gf, const heads_data * heads, const device_weights * weights,
                                                   const output_rows & outputs, int64_t at_once) {
    const int64_t n_vocab = outputs.logits->ne[0];
    at_once               = std::max<int64_t>(1, std::min(at_once, most_rows(n_vocab)));
    // the rows fall into groups of `at_once`
    const int64_t begin = std::max(outputs.row / at_once * at_once, outputs.first);
    const int64_t end   = std::min(outputs.row / at_once * at_once + at_once, outputs.first + outputs.logits->ne[1]);

    // Found by a name that nobody else uses in this graph. Whoever made them is attached like the sampler that asks, so they
    // live while graphs are built.
    char name[GGML_MAX_NAME];
    snprintf(name, sizeof(name), "autodeco_settings_%p_%lld", (const void *) weights, (long long) begin);
    if (const ggml_tensor * settings = ggml_graph_get_tensor(gf, name)) {
        device_rows * rows;
        std::memcpy(&rows, settings->op_params, sizeof(rows));
        if (outputs.row < begin + settings->ne[0]) {
            return rows->shared_from_this();
        }
    }

    auto          rows    = std::make_shared<device_rows>();
    const int64_t n_all   = outputs.logits->ne[1];
    ggml_tensor * hidden  = heads ? hidden_of(ctx, gf, outputs, heads->n_embd, begin, end - begin) : nullptr;
    // the first output of an answer, whose level all behind it take, may lie in another group
    const bool    is_part = heads && heads->has_control && end - begin < n_all;
    ggml_tensor * read    = is_part ? hidden_of(ctx, gf, outputs, heads->n_embd, outputs.first, n_all) : hidden;
    rows->first           = begin;
    rows->first_read      = outputs.first;
    rows->draw            = build_draw(ctx, heads, weights, logits_of(ctx, outputs, begin, end - begin), hidden, read);
    rows->values.resize(end - begin);
    rows->seen.resize(end - begin);
    ggml_set_name(rows->draw.settings, name);
    device_rows * self = rows.get();
    std::memcpy(rows->draw.settings->op_params, &self, sizeof(self)); // unused by tensors without an operation
    if (outputs.is_probe) {
        count_rows(ctx, heads, weights, n_vocab);
    }
    return rows;
}

ggml_tensor * device_rows::token(ggml_context * ctx, int64_t row) const {
    return ggml_view_1d(ctx, draw.token, 1, (row - first) * draw.token->nb[1]);
}

ggml_tensor * device_rows::told(ggml_context * ctx, int64_t row) const {
    return ggml_view_1d(ctx, draw.values, draw.values->ne[0], (row - first) * draw.values->nb[1]);
}

void device_rows::prepare(int64_t row, const device_settings & settings) {
    std::lock_guard<std::mutex> lock(mutex);
    is_read = false;
    is_seen = false;
    device_settings own = settings;
    own.level_row -= (float) first_read;
    write_settings(draw.settings, row - first, own);
}

bool device_rows::read(int64_t row, device_values & result) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!is_read && draw.values) {
        get_values(draw.values, values);
        is_read = true;
    }
    result = values[row - first];
    return is_read;
}

bool device_rows::read_drawn(int64_t row, int32_t token, device_values & result) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto is_drawn = [&](const std::vector<device_values> & from) {
        result = from[row - first];
        return (int32_t) result.token == token;
    };
    if (is_read) {
        return is_drawn(values);
    }
    if (is_seen && is_drawn(seen)) {
        return true;
    }
    if (!draw.values) {
        return false;
    }
    get_values(draw.values, seen);
    is_seen = true;
    return is_drawn(seen);
}

void device_rows::forget_graph() {
    std::lock_guard<std::mutex> lock(mutex);
    draw = { nullptr, nullptr, nullptr };
}

} // namespace autodeco
