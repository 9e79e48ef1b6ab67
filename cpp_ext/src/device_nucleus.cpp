#include "device_nucleus.h"

#include "ggml-backend.h"

#include <cfloat>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace autodeco {

namespace {

// half a unit in the last place of a float32 near 1, as on the CPU: a mass that reaches top-p but for rounding reaches it
constexpr float TOP_P_ROUNDING = 6e-8f;

// forces one way or the other, for tests and for devices whose operations turn out to be broken
constexpr const char * FORCE = "AUTODECO_NUCLEUS"; // "device" or "cpu"

ggml_tensor * setting(ggml_context * ctx, ggml_tensor * settings, size_t offset) {
    return ggml_view_1d(ctx, settings, 1, offset);
}

ggml_tensor * flat(ggml_context * ctx, ggml_tensor * tensor) {
    return ggml_reshape_1d(ctx, tensor, ggml_nelements(tensor));
}

// 0, 1, 2, ...: as many as a vector has elements
ggml_tensor * counting(ggml_context * ctx, const ggml_tensor * vector) {
    return ggml_arange(ctx, 0.0f, (float) ggml_nelements(vector), 1.0f);
}

// the vector whose element `index[i]` is `vector[i]`; `index` is a permutation
ggml_tensor * scattered(ggml_context * ctx, ggml_tensor * vector, ggml_tensor * index) {
    const int64_t n    = ggml_nelements(vector);
    ggml_tensor * room = ggml_reshape_2d(ctx, counting(ctx, vector), 1, n);
    return flat(ctx, ggml_set_rows(ctx, room, ggml_reshape_2d(ctx, vector, 1, n), index));
}

// element [1] of a vector at an index [1], F32 or I32
ggml_tensor * element(ggml_context * ctx, ggml_tensor * vector, ggml_tensor * index) {
    ggml_tensor * rows = ggml_reshape_2d(ctx, vector, 1, ggml_nelements(vector));
    return flat(ctx, ggml_get_rows(ctx, rows, index->type == GGML_TYPE_I32 ? index : ggml_cast(ctx, index, GGML_TYPE_I32)));
}

// smaller of two scalars
ggml_tensor * least(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return ggml_sub(ctx, a, ggml_relu(ctx, ggml_sub(ctx, a, b)));
}

// how many elements of a vector are above a scalar; NaN is above nothing
ggml_tensor * count_above(ggml_context * ctx, ggml_tensor * vector, ggml_tensor * scalar) {
    return ggml_sum(ctx, ggml_step(ctx, ggml_sub(ctx, vector, scalar)));
}

// how many are not
ggml_tensor * count_rest(ggml_context * ctx, ggml_tensor * vector, ggml_tensor * scalar) {
    return ggml_scale_bias(ctx, count_above(ctx, vector, scalar), -1.0f, (float) ggml_nelements(vector));
}

// scale * predicted + fixed
ggml_tensor * apply_setting(ggml_context * ctx, ggml_tensor * predicted, ggml_tensor * scale, ggml_tensor * fixed) {
    return predicted ? ggml_add(ctx, ggml_mul(ctx, flat(ctx, predicted), scale), fixed) : fixed;
}

} // namespace

sorted_row sort_row(ggml_context * ctx, ggml_tensor * logits) {
    logits = flat(ctx, logits);
    ggml_tensor * id = ggml_argsort(ctx, logits, GGML_SORT_ORDER_DESC);
    // Each logit is put where it belongs. Fetching them by id reads better, but on CUDA get_rows starts a block of threads
    // for every single number: five times the sort itself at 152k of them (benchmarks/gpu/operations.cpp).
    ggml_tensor * rank = scattered(ctx, counting(ctx, logits), id);
    return { id, scattered(ctx, logits, ggml_cast(ctx, rank, GGML_TYPE_I32)) };
}

ggml_tensor * device_stats(ggml_context * ctx, const sorted_row & row, ggml_tensor * temperature) {
    const auto  n = (double) ggml_nelements(row.logits);
    const auto  k = (int64_t) std::min(n, 5.0);
    ggml_tensor * q       = ggml_soft_max(ctx, ggml_div(ctx, row.logits, ggml_scale_bias(ctx, flat(ctx, temperature), 1.0f, 1e-8f)));
    ggml_tensor * top     = ggml_view_1d(ctx, q, 1, 0);
    ggml_tensor * log_q   = ggml_log(ctx, ggml_scale_bias(ctx, q, 1.0f, 1e-8f));
    ggml_tensor * entropy = ggml_neg(ctx, ggml_sum(ctx, ggml_mul(ctx, q, log_q)));
    // unbiased: the sum of (q - 1/n)^2 is that of q^2 less 1/n
    const double scale = n > 1.0 ? 1.0 / (n - 1.0) : 0.0;
    ggml_tensor * var  = ggml_relu(ctx, ggml_scale_bias(ctx, ggml_sum(ctx, ggml_sqr(ctx, q)), (float) scale, (float) (-scale / n)));
    ggml_tensor * top5 = ggml_sum(ctx, ggml_view_1d(ctx, q, k, 0));

    ggml_tensor * stats = ggml_concat(ctx, ggml_concat(ctx, top, entropy, 0), ggml_concat(ctx, var, top5, 0), 0);
    return ggml_reshape_2d(ctx, stats, N_PROB_STATS, 1);
}

device_draw build_device_draw(ggml_context * ctx, const sorted_row & row, predictions pred) {
    const auto    n        = (float) ggml_nelements(row.logits);
    ggml_tensor * settings = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, sizeof(device_settings) / sizeof(float));
    ggml_set_input(settings);
    ggml_set_name(settings, "autodeco_settings");
    // one copy to the device: the scheduler would make one of every view
    ggml_tensor * on_device = ggml_scale(ctx, settings, 1.0f);
    const auto    get       = [&](size_t offset) { return setting(ctx, on_device, offset); };

    ggml_tensor * temperature = apply_setting(ctx, pred.temperature, get(offsetof(device_settings, temperature_scale)),
                                              get(offsetof(device_settings, temperature)));
    ggml_tensor * top_p = apply_setting(ctx, pred.top_p, get(offsetof(device_settings, top_p_scale)), get(offsetof(device_settings, top_p)));
    top_p               = ggml_clamp(ctx, top_p, 0.0f, 1.0f);

    // greedy is the coldest temperature that divides, with a uniform number of 0
    ggml_tensor * q   = ggml_soft_max(ctx, ggml_div(ctx, row.logits, ggml_clamp(ctx, temperature, GREEDY_TEMPERATURE, FLT_MAX)));
    ggml_tensor * cum = ggml_cumsum(ctx, q);

    // In descending order every cut keeps a prefix, so that all of them are one length: min-p and top-k first,
    ggml_tensor * least_q = ggml_mul(ctx, ggml_view_1d(ctx, q, 1, 0), get(offsetof(device_settings, min_p)));
    ggml_tensor * kept    = least(ctx, count_above(ctx, q, least_q), get(offsetof(device_settings, top_k)));
    kept                  = ggml_clamp(ctx, kept, 1.0f, n);
    ggml_tensor * mass    = element(ctx, cum, ggml_scale_bias(ctx, kept, 1.0f, -1.0f));
    // then the tokens before which the mass has not reached top-p; a top-p of 1 is never reached
    ggml_tensor * target = ggml_mul(ctx, ggml_scale_bias(ctx, top_p, 1.0f, -TOP_P_ROUNDING), mass);
    target               = ggml_add(ctx, target, ggml_step(ctx, ggml_scale_bias(ctx, top_p, 1.0f, -1.0f + TOP_P_ROUNDING)));
    // the first token, and one after each token at which it has not
    ggml_tensor * size = least(ctx, ggml_scale_bias(ctx, count_above(ctx, cum, target), -1.0f, n + 1.0f), kept);

    ggml_tensor * last   = ggml_scale_bias(ctx, size, 1.0f, -1.0f);
    ggml_tensor * weight = element(ctx, cum, last);
    ggml_tensor * drawn  = ggml_mul(ctx, weight, get(offsetof(device_settings, uniform)));
    // count_rest is all where what is drawn rounds up to the whole mass
    ggml_tensor * rank   = ggml_cast(ctx, least(ctx, count_rest(ctx, cum, drawn), last), GGML_TYPE_I32);

    ggml_tensor * id    = ggml_reshape_2d(ctx, row.id, 1, ggml_nelements(row.id));
    ggml_tensor * token = ggml_get_rows(ctx, id, rank);
    ggml_tensor * prob  = ggml_div(ctx, element(ctx, q, rank), weight);

    ggml_tensor * values = ggml_cast(ctx, flat(ctx, token), GGML_TYPE_F32);
    for (ggml_tensor * value : { pred.temperature ? flat(ctx, pred.temperature) : temperature, pred.top_p ? flat(ctx, pred.top_p) : top_p, size, prob }) {
        values = ggml_concat(ctx, values, value, 0);
    }
    ggml_set_output(values);
    ggml_set_name(values, "autodeco_values");
    return { settings, values, flat(ctx, token) };
}

bool device_can_draw(ggml_backend_buffer_type_t buft, int64_t n_vocab) {
    const char *             forced = std::getenv(FORCE);
    const ggml_backend_dev_t device = ggml_backend_buft_get_device(buft);
    if (forced && std::strcmp(forced, "device") == 0) {
        return true;
    }
    if ((forced && std::strcmp(forced, "cpu") == 0) || !device || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU ||
        ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL) {
        return false;
    }

    constexpr size_t MAX_NODES = 256;
    ggml_context *   ctx       = ggml_init({ /* .mem_size = */ MAX_NODES * ggml_tensor_overhead() + ggml_graph_overhead_custom(MAX_NODES, false),
                                             /* .mem_buffer = */ nullptr, /* .no_alloc = */ true });
    if (!ctx) {
        return false;
    }
    ggml_tensor *     one    = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1);
    const sorted_row  row    = sort_row(ctx, ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_vocab));
    const device_draw draw   = build_device_draw(ctx, row, { one, one });
    ggml_cgraph *     gf     = ggml_new_graph_custom(ctx, MAX_NODES, false);
    ggml_build_forward_expand(gf, device_stats(ctx, row, one));
    ggml_build_forward_expand(gf, draw.values);
    bool can = true;
    for (int i = 0; can && i < ggml_graph_n_nodes(gf); ++i) {
        can = ggml_backend_dev_supports_op(device, ggml_graph_node(gf, i));
    }
    ggml_free(ctx);
    return can;
}

} // namespace autodeco
