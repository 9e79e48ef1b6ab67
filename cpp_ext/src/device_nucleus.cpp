#include "device_nucleus.h"

#include "llama_releases.h"
#include "row_operations.h"

namespace autodeco {

namespace {

// rows whose element `index[i]` is `rows[i]`, where `room` is, which is overwritten; `index` is a permutation
ggml_tensor * scattered(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * index, ggml_tensor * room) {
    ggml_tensor * result = ggml_set_rows(ctx, numbers(ctx, room), numbers(ctx, rows), index);
    return ggml_reshape_2d(ctx, result, rows->ne[0], rows->ne[1]);
}

// softmax of sorted rows at temperature [1, n], but for a factor: the first is 1. CUDA's own softmax gives a row to one
// block of threads if that can hold it, as most vocabularies can be: five times the other operations of a row each.
ggml_tensor * weights_at(ggml_context * ctx, const sorted_rows & rows, ggml_tensor * temperature) {
    return ggml_exp(ctx, ggml_div(ctx, rows.logits, temperature));
}

// Rows that begin where any device can sort them. Vulkan's argsort aborts the process at rows in the midst of others whose
// length is no multiple of its alignment, as that of a vocabulary of 50,257 is not.
ggml_tensor * aligned(ggml_context * ctx, ggml_tensor * rows) {
    constexpr size_t LARGEST_ALIGNMENT = 256; // that Vulkan allows a device to want (minStorageBufferOffsetAlignment)
    return rows->view_offs % LARGEST_ALIGNMENT == 0 ? rows : ggml_cont(ctx, rows);
}

// ids [n_vocab, n] in descending order of logits
ggml_tensor * sorted_ids(ggml_context * ctx, ggml_tensor * logits) {
    const int64_t n = logits->ne[1];
    if (n == 1 || n >= SORTED_AT_ONCE) {
        return ggml_argsort(ctx, aligned(ctx, logits), GGML_SORT_ORDER_DESC);
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

device_draw build_device_draw(ggml_context * ctx, const sorted_rows & rows, const predictions & pred, const control_ends & ends) {
    const auto        n_vocab = (float) rows.logits->ne[0];
    const draw_inputs in      = place_draw_inputs(ctx, rows.logits->ne[1], pred, ends);
    ggml_tensor *     weights = weights_at(ctx, rows, in.divisor);
    ggml_tensor *     cum     = ggml_cumsum(ctx, weights);

    // In descending order every cut keeps a prefix, so that all of them are one rank, that of the last token kept. Clamped,
    // for no index may leave its row whatever the settings are. Min-p and top-k first,
    ggml_tensor * kept = ggml_scale_bias(ctx, count_above(ctx, weights, in.min_p), 1.0f, -1.0f);
    kept               = clamped(ctx, least(ctx, kept, in.last), 0.0f, n_vocab - 1.0f);
    // then the tokens before which the mass has not reached top-p, and one token after each at which it has not
    ggml_tensor * target = ggml_mul(ctx, in.share, element(ctx, cum, kept));
    ggml_tensor * last   = least(ctx, count_rest(ctx, cum, target), kept);

    ggml_tensor * mass  = element(ctx, cum, last);
    ggml_tensor * drawn = ggml_mul(ctx, mass, in.uniform);
    // count_rest is all where what is drawn rounds up to the whole mass
    ggml_tensor * rank   = ggml_cast(ctx, least(ctx, count_rest(ctx, cum, drawn), last), GGML_TYPE_I32);
    ggml_tensor * prob   = ggml_div(ctx, element(ctx, weights, rank), mass);
    ggml_tensor * id     = ggml_cast(ctx, element(ctx, rows.id, rank), GGML_TYPE_F32);
    ggml_tensor * values = told_values(ctx, in, id, { last, prob, column(ctx, cum, (int64_t) n_vocab - 1) });
    ggml_set_output(values);
    ggml_set_name(values, "autodeco_values");
    // taken from the values, so that these are computed where a token is asked for, and nowhere else
    ggml_tensor * token = ggml_cast(ctx, column(ctx, values, 0), GGML_TYPE_I32);
    ggml_set_output(token);
    ggml_set_name(token, "autodeco_token");
    return { in.settings, values, token };
}

} // namespace autodeco
