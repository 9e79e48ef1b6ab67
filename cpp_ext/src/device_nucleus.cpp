#include "device_nucleus.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cfloat>
#include <cstddef>

namespace autodeco {

namespace {

// as on the CPU, in what a device computes with: a mass that reaches top-p but for rounding reaches it
constexpr auto ROUNDING = (float) TOP_P_ROUNDING;

// one number of each row, as all operations here take them
ggml_tensor * scalars(ggml_context * ctx, ggml_tensor * tensor) {
    return ggml_reshape_2d(ctx, tensor, 1, ggml_nelements(tensor));
}

// column `i` [1, n] of rows
ggml_tensor * column(ggml_context * ctx, ggml_tensor * rows, int64_t i) {
    return ggml_view_2d(ctx, rows, 1, rows->ne[1], rows->nb[1], i * rows->nb[0]);
}

// rows [n_vocab, n] as single numbers that get_rows and set_rows move
ggml_tensor * numbers(ggml_context * ctx, ggml_tensor * rows) {
    return ggml_reshape_3d(ctx, rows, 1, rows->ne[0], rows->ne[1]);
}

// 0, 1, 2, ... in each row
ggml_tensor * counting(ggml_context * ctx, const ggml_tensor * rows) {
    ggml_tensor * row = ggml_arange(ctx, 0.0f, (float) rows->ne[0], 1.0f);
    return rows->ne[1] == 1 ? row : ggml_repeat_4d(ctx, row, rows->ne[0], rows->ne[1], 1, 1);
}

// rows whose element `index[i]` is `rows[i]`, where `room` is, which is overwritten; `index` is a permutation
ggml_tensor * scattered(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * index, ggml_tensor * room) {
    ggml_tensor * result = ggml_set_rows(ctx, numbers(ctx, room), numbers(ctx, rows), index);
    return ggml_reshape_2d(ctx, result, rows->ne[0], rows->ne[1]);
}

// element [1, n] of each row at an index [1, n], F32 or I32
ggml_tensor * element(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * index) {
    return scalars(ctx, ggml_get_rows(ctx, numbers(ctx, rows), index->type == GGML_TYPE_I32 ? index : ggml_cast(ctx, index, GGML_TYPE_I32)));
}

// sum [1, n] of each row
ggml_tensor * sums(ggml_context * ctx, ggml_tensor * rows) {
    constexpr int64_t LONG_ROW   = 4096;
    constexpr int64_t MOST_PARTS = 128;

    const int64_t width = rows->ne[0];
    const int64_t n     = rows->ne[1];
    if (n == 1) {
        return ggml_sum(ctx, rows);
    }
    // CUDA gives a row to one block of threads: a long one is cut into parts, by the largest power of two that divides it
    const int64_t parts = std::min(width & -width, MOST_PARTS);
    if (parts > 1 && width >= LONG_ROW) {
        rows = ggml_reshape_2d(ctx, ggml_sum_rows(ctx, ggml_reshape_2d(ctx, rows, width / parts, parts * n)), parts, n);
    }
    return ggml_sum_rows(ctx, rows);
}

// softmax of sorted rows at temperature [1, n], but for a factor: the first is 1. CUDA's own softmax gives a row to one
// block of threads if that can hold it, as most vocabularies can be: five times the other operations of a row each.
ggml_tensor * weights_at(ggml_context * ctx, const sorted_rows & rows, ggml_tensor * temperature) {
    return ggml_exp(ctx, ggml_div(ctx, rows.logits, temperature));
}

// smaller of two scalars
ggml_tensor * least(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return ggml_sub(ctx, a, ggml_relu(ctx, ggml_sub(ctx, a, b)));
}

// how many elements of each row are above its scalar; NaN is above nothing
ggml_tensor * count_above(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * scalar) {
    return sums(ctx, ggml_step(ctx, ggml_sub(ctx, rows, scalar)));
}

// how many are not
ggml_tensor * count_rest(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * scalar) {
    return ggml_scale_bias(ctx, count_above(ctx, rows, scalar), -1.0f, (float) rows->ne[0]);
}

// scale * predicted + fixed
ggml_tensor * apply_setting(ggml_context * ctx, ggml_tensor * predicted, ggml_tensor * scale, ggml_tensor * fixed) {
    return predicted ? ggml_add(ctx, ggml_mul(ctx, predicted, scale), fixed) : fixed;
}

// ids [n_vocab, n] in descending order of logits
ggml_tensor * sorted_ids(ggml_context * ctx, ggml_tensor * logits) {
    const int64_t n = logits->ne[1];
    if (n == 1 || n >= SORTED_AT_ONCE) {
        return ggml_argsort(ctx, logits, GGML_SORT_ORDER_DESC);
    }
    const auto half = [&](int64_t first, int64_t count) {
        return sorted_ids(ctx, ggml_view_2d(ctx, logits, logits->ne[0], count, logits->nb[1], first * logits->nb[1]));
    };
    return ggml_concat(ctx, half(0, n / 2), half(n / 2, n - n / 2), 1);
}

} // namespace

sorted_rows sort_rows(ggml_context * ctx, ggml_tensor * logits) {
    ggml_tensor * id = sorted_ids(ctx, logits);
    // Each logit is put where it belongs. Fetching them by id reads better, but on CUDA get_rows starts a block of threads
    // for every single number: five times the sort itself at 152k of them (benchmarks/gpu/operations.cpp).
    ggml_tensor * ranks  = counting(ctx, logits);
    ggml_tensor * rank = ggml_cast(ctx, scattered(ctx, ranks, id, counting(ctx, logits)), GGML_TYPE_I32);
    ggml_tensor * sorted = scattered(ctx, logits, rank, ranks); // which are done with
    return { id, ggml_sub(ctx, sorted, column(ctx, sorted, 0)) };
}

ggml_tensor * device_stats(ggml_context * ctx, const sorted_rows & rows, ggml_tensor * temperature) {
    const auto  n = (double) rows.logits->ne[0];
    const auto  k = (int64_t) std::min(n, 5.0);
    ggml_tensor * weights = weights_at(ctx, rows, ggml_scale_bias(ctx, temperature, 1.0f, STATS_EPSILON));
    ggml_tensor * q       = ggml_div(ctx, weights, sums(ctx, weights));
    ggml_tensor * top     = column(ctx, q, 0);
    ggml_tensor * log_q   = ggml_log(ctx, ggml_scale_bias(ctx, q, 1.0f, STATS_EPSILON));
    ggml_tensor * entropy = ggml_neg(ctx, sums(ctx, ggml_mul(ctx, q, log_q)));
    // unbiased: the sum of (q - 1/n)^2 is that of q^2 less 1/n
    const double scale = n > 1.0 ? 1.0 / (n - 1.0) : 0.0;
    ggml_tensor * var  = ggml_relu(ctx, ggml_scale_bias(ctx, sums(ctx, ggml_sqr(ctx, q)), (float) scale, (float) (-scale / n)));
    ggml_tensor * top5 = sums(ctx, ggml_view_2d(ctx, q, k, q->ne[1], q->nb[1], 0));
    return ggml_concat(ctx, ggml_concat(ctx, top, entropy, 0), ggml_concat(ctx, var, top5, 0), 0);
}

device_draw build_device_draw(ggml_context * ctx, const sorted_rows & rows, predictions pred) {
    const auto    n_vocab  = (float) rows.logits->ne[0];
    const int64_t n        = rows.logits->ne[1];
    ggml_tensor * settings = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, sizeof(device_settings) / sizeof(float));
    ggml_set_input(settings);
    ggml_set_name(settings, "autodeco_settings");
    // one copy to the device: the scheduler would make one of every view
    ggml_tensor * on_device = ggml_scale(ctx, settings, 1.0f);
    const auto    get       = [&](size_t offset) { return ggml_view_2d(ctx, on_device, 1, n, sizeof(float), offset * n); };

    ggml_tensor * temperature = apply_setting(ctx, pred.temperature, get(offsetof(device_settings, temperature_scale)),
                                              get(offsetof(device_settings, temperature)));
    ggml_tensor * top_p = apply_setting(ctx, pred.top_p, get(offsetof(device_settings, top_p_scale)), get(offsetof(device_settings, top_p)));

    // greedy is the coldest temperature that divides, with a uniform number of 0
    ggml_tensor * weights = weights_at(ctx, rows, ggml_clamp(ctx, temperature, GREEDY_TEMPERATURE, FLT_MAX));
    ggml_tensor * cum     = ggml_cumsum(ctx, weights);

    // In descending order every cut keeps a prefix, so that all of them are one rank, that of the last token kept. Clamped,
    // for no index may leave its row whatever the settings are. Min-p and top-k first,
    ggml_tensor * kept = ggml_scale_bias(ctx, count_above(ctx, weights, get(offsetof(device_settings, min_p))), 1.0f, -1.0f);
    kept               = ggml_clamp(ctx, least(ctx, kept, get(offsetof(device_settings, last))), 0.0f, n_vocab - 1.0f);
    // then the tokens before which the mass has not reached top-p; a top-p of 1, here 2, is never reached
    ggml_tensor * share = ggml_add(ctx, ggml_scale_bias(ctx, top_p, 1.0f, -ROUNDING),
                                   ggml_step(ctx, ggml_scale_bias(ctx, top_p, 1.0f, -1.0f + ROUNDING)));
    ggml_tensor * target = ggml_mul(ctx, share, element(ctx, cum, kept));
    // one token after each at which it has not
    ggml_tensor * last = least(ctx, count_rest(ctx, cum, target), kept);

    ggml_tensor * mass  = element(ctx, cum, last);
    ggml_tensor * drawn = ggml_mul(ctx, mass, get(offsetof(device_settings, uniform)));
    // count_rest is all where what is drawn rounds up to the whole mass
    ggml_tensor * rank = ggml_cast(ctx, least(ctx, count_rest(ctx, cum, drawn), last), GGML_TYPE_I32);
    ggml_tensor * prob = ggml_div(ctx, element(ctx, weights, rank), mass);

    ggml_tensor * values = ggml_cast(ctx, element(ctx, rows.id, rank), GGML_TYPE_F32);
    for (ggml_tensor * value : { pred.temperature ? pred.temperature : temperature, pred.top_p ? pred.top_p : top_p, last, prob,
                                  column(ctx, cum, (int64_t) n_vocab - 1) }) {
        values = ggml_concat(ctx, values, value, 0);
    }
    ggml_set_output(values);
    ggml_set_name(values, "autodeco_values");
    // taken from the values, so that these are computed where a token is asked for, and nowhere else
    ggml_tensor * token = ggml_cast(ctx, column(ctx, values, 0), GGML_TYPE_I32);
    ggml_set_output(token);
    ggml_set_name(token, "autodeco_token");
    return { settings, values, token };
}

void write_settings(ggml_tensor * settings, int64_t row, const device_settings & values) {
    const auto * value = (const float *) &values;
    for (int64_t i = 0; i < settings->ne[1]; ++i) {
        ggml_backend_tensor_set(settings, value + i, i * settings->nb[1] + row * settings->nb[0], sizeof(float));
    }
}

} // namespace autodeco
