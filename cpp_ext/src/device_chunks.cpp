#include "device_chunks.h"

#include "llama_releases.h"
#include "row_operations.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

// rows with `more` columns of -inf, which are no candidates
ggml_tensor * padded(ggml_context * ctx, ggml_tensor * rows, int64_t more) {
    if (more == 0) {
        return rows;
    }
    ggml_tensor * none = ggml_scale_bias(ctx, ggml_arange(ctx, 0.0f, (float) more, 1.0f), 0.0f, -INFINITY);
    return ggml_concat(ctx, rows, rows->ne[1] == 1 ? none : ggml_repeat_4d(ctx, none, more, rows->ne[1], 1, 1), 0);
}

ggml_tensor * largest(ggml_context * ctx, ggml_tensor * rows) {
    return element(ctx, rows, ggml_reshape_2d(ctx, ggml_argmax(ctx, rows), 1, rows->ne[1]));
}

ggml_tensor * weights_at(ggml_context * ctx, ggml_tensor * logits, ggml_tensor * temperature) {
    return ggml_exp(ctx, ggml_div(ctx, logits, temperature));
}

// 1 where a is above b, else 0; NaN is above nothing
ggml_tensor * is_above(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return ggml_step(ctx, ggml_sub(ctx, a, b));
}

// a where `which` is 1, b where it is 0; both are finite
ggml_tensor * either(ggml_context * ctx, ggml_tensor * which, ggml_tensor * a, ggml_tensor * b) {
    return ggml_add(ctx, b, ggml_mul(ctx, which, ggml_sub(ctx, a, b)));
}

} // namespace

chunked_rows chunk_rows(ggml_context * ctx, ggml_tensor * logits) {
    constexpr int64_t k        = KEPT_OF_A_CHUNK;
    const int64_t     n_vocab  = logits->ne[0];
    const int64_t     n        = logits->ne[1];
    const int64_t     n_chunks = std::max(FEWEST_CHUNKS, (n_vocab + LONGEST_CHUNK - 1) / LONGEST_CHUNK);
    const int64_t     length   = (n_vocab + n_chunks - 1) / n_chunks;

    ggml_tensor * rows   = padded(ctx, logits, n_chunks * length - n_vocab);
    ggml_tensor * chunks = ggml_cont(ctx, ggml_transpose(ctx, ggml_reshape_3d(ctx, rows, n_chunks, length, n)));
    chunks               = ggml_reshape_2d(ctx, chunks, length, n_chunks * n);
    ggml_tensor * order  = ggml_argsort(ctx, chunks, GGML_SORT_ORDER_DESC);
    ggml_tensor * best   = ggml_cont(ctx, ggml_view_2d(ctx, order, k, n_chunks * n, order->nb[1], 0));
    ggml_tensor * kept   = ggml_get_rows(ctx, numbers(ctx, chunks), best); // [1, k, n_chunks * n]

    // the place in a chunk times their number, plus that of the chunk
    ggml_tensor * place = ggml_reshape_3d(ctx, ggml_cast(ctx, best, GGML_TYPE_F32), k, n_chunks, n);
    ggml_tensor * chunk = ggml_reshape_3d(ctx, ggml_arange(ctx, 0.0f, (float) n_chunks, 1.0f), 1, n_chunks, 1);
    ggml_tensor * id    = ggml_add(ctx, ggml_scale(ctx, place, (float) n_chunks), chunk);

    ggml_tensor * candidates = ggml_reshape_2d(ctx, kept, k * n_chunks, n);
    ggml_tensor * by_logit   = ggml_argsort(ctx, candidates, GGML_SORT_ORDER_DESC);
    ggml_tensor * sorted     = ggml_reshape_2d(ctx, ggml_get_rows(ctx, numbers(ctx, candidates), by_logit), k * n_chunks, n);
    ggml_tensor * max        = column(ctx, sorted, 0);

    ggml_tensor * last_kept = ggml_reshape_2d(ctx, ggml_cont(ctx, column(ctx, ggml_reshape_2d(ctx, kept, k, n_chunks * n), k - 1)), n_chunks, n);
    return {
        ggml_sub(ctx, logits, max),
        ggml_reshape_2d(ctx, id, k * n_chunks, n),
        by_logit,
        ggml_sub(ctx, sorted, max),
        ggml_sub(ctx, largest(ctx, last_kept), max),
    };
}

ggml_tensor * chunked_stats(ggml_context * ctx, const chunked_rows & rows, ggml_tensor * temperature) {
    const auto    n       = (double) rows.all->ne[0];
    ggml_tensor * t       = ggml_scale_bias(ctx, temperature, 1.0f, STATS_EPSILON);
    ggml_tensor * weights = weights_at(ctx, rows.all, t);
    ggml_tensor * sum     = sums(ctx, weights);
    ggml_tensor * q       = ggml_div(ctx, weights, sum);
    ggml_tensor * log_q   = ggml_log(ctx, ggml_scale_bias(ctx, q, 1.0f, STATS_EPSILON));
    ggml_tensor * entropy = ggml_neg(ctx, sums(ctx, ggml_mul(ctx, q, log_q)));
    ggml_tensor * var     = ggml_relu(ctx, ggml_scale_bias(ctx, sums(ctx, ggml_sqr(ctx, q)), (float) (1.0 / (n - 1.0)), (float) (-1.0 / (n - 1.0) / n)));
    // a chunk keeps more than five, so that the five largest are candidates
    static_assert(KEPT_OF_A_CHUNK >= 5);
    ggml_tensor * five = ggml_cont(ctx, ggml_view_2d(ctx, rows.logits, 5, rows.logits->ne[1], rows.logits->nb[1], 0));
    ggml_tensor * best = ggml_div(ctx, weights_at(ctx, five, t), sum);
    return ggml_concat(ctx, ggml_concat(ctx, column(ctx, best, 0), entropy, 0), ggml_concat(ctx, var, sums(ctx, best), 0), 0);
}

chunked_draw build_chunked_draw(ggml_context * ctx, const chunked_rows & rows, const predictions & pred) {
    const auto        n_vocab = (float) rows.all->ne[0];
    const auto        end     = (float) rows.logits->ne[0] - 1.0f; // rank of the last candidate
    const draw_inputs in      = place_draw_inputs(ctx, rows.all->ne[1], pred);
    ggml_tensor *     all     = weights_at(ctx, rows.all, in.divisor);
    ggml_tensor *     total   = sums(ctx, all);
    ggml_tensor *     weights = weights_at(ctx, rows.logits, in.divisor);
    ggml_tensor *     cum     = ggml_cumsum(ctx, weights);
    const auto candidate = [&](ggml_tensor * rank) { return clamped(ctx, rank, 0.0f, end); };
    const auto is_known  = [&](ggml_tensor * rank) { return is_above(ctx, element(ctx, rows.logits, candidate(rank)), rows.bound); };

    // As build_device_draw: ranks count from 0, and each cut keeps a prefix. Where min-p and top-k leave out nothing that has
    // a weight, the mass is that of all tokens.
    ggml_tensor * weighing = ggml_scale_bias(ctx, count_above(ctx, all, in.min_p), 1.0f, -1.0f);
    ggml_tensor * kept     = clamped(ctx, least(ctx, weighing, in.last), 0.0f, n_vocab - 1.0f);
    ggml_tensor * is_uncut = ggml_mul(ctx, ggml_scale_bias(ctx, ggml_step(ctx, in.min_p), -1.0f, 1.0f),
                                      ggml_step(ctx, ggml_scale_bias(ctx, ggml_sub(ctx, in.last, weighing), 1.0f, 0.5f)));
    ggml_tensor * whole    = either(ctx, is_uncut, total, element(ctx, cum, candidate(kept)));
    ggml_tensor * is_whole = ggml_step(ctx, ggml_scale_bias(ctx, in.share, 1.0f, -1.0f));

    ggml_tensor * crossing = least(ctx, count_rest(ctx, cum, ggml_mul(ctx, in.share, whole)), kept);
    ggml_tensor * last     = either(ctx, is_whole, kept, crossing);
    ggml_tensor * mass     = either(ctx, is_whole, whole, element(ctx, cum, candidate(crossing)));
    ggml_tensor * rank     = candidate(least(ctx, count_rest(ctx, cum, ggml_mul(ctx, mass, in.uniform)), last));
    ggml_tensor * prob     = ggml_div(ctx, element(ctx, weights, rank), mass);
    ggml_tensor * id       = element(ctx, rows.id, element(ctx, rows.order, rank));

    // a nucleus that ends among the candidates, or that is all of the row where only the drawn token has to be one
    ggml_tensor * is_cut_known = either(ctx, is_uncut, is_uncut, is_known(kept));
    ggml_tensor * is_drawn     = ggml_mul(ctx, is_cut_known, is_known(either(ctx, is_whole, rank, last)));
    return { in.settings, told_values(ctx, in, pred, id, { last, prob, total, is_drawn }) };
}

} // namespace autodeco
