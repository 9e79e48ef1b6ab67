#include "cpu_heads.h"

#include <cmath>

namespace autodeco {

namespace {

// Rows longer than this are read by all threads: what they save is more than the two meetings cost.
constexpr int64_t LONG_ROW = 65536;

float sigmoid(float x) {
    return 1.0f / (1.0f + std::exp(-x));
}

// W2 relu(first + extra W + b1) + b2, where `first` [HEAD_WIDTH] is the hidden state's part of the first layer
float second_layer(const mlp_values & mlp, const float * first, const float * extra) {
    const auto n_extra = (int64_t) mlp.w1_extra.size() / HEAD_WIDTH;
    float      sum     = mlp.b2;
    for (int64_t i = 0; i < HEAD_WIDTH; ++i) {
        float x = first[i] + mlp.b1[i];
        for (int64_t k = 0; k < n_extra; ++k) {
            x += mlp.w1_extra[i * n_extra + k] * extra[k];
        }
        sum += x > 0.0f ? mlp.w2[i] * x : 0.0f;
    }
    return sum;
}

// sources of the nodes: logits, then the first layers in one tensor, the temperature head's before the top-p head's
float temperature_of(const heads_data & heads, const ggml_tensor * first) {
    return heads.has_temp ? TEMPERATURE_SCALE * sigmoid(second_layer(heads.temperature, (const float *) first->data, nullptr)) : 1.0f;
}

void maxima_node(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const ggml_tensor * logits = dst->src[0];
    row_maxima((const float *) logits->data, logits->ne[0], ith, nth, *((cpu_heads_row *) userdata)->ws);
}

void exponentials_node(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const cpu_heads_row & row    = *(cpu_heads_row *) userdata;
    const ggml_tensor *   logits = dst->src[0];
    // every thread computes the temperature, rather than wait for one that does
    row_exponentials((const float *) logits->data, logits->ne[0], temperature_of(*row.heads, dst->src[1]), ith, nth, *row.ws);
}

// temperature and top-p [2]
void predict_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    if (ith != 0) {
        return;
    }
    const cpu_heads_row & row    = *(cpu_heads_row *) userdata;
    const heads_data &    heads  = *row.heads;
    const ggml_tensor *   logits = dst->src[0];
    const ggml_tensor *   first  = dst->src[1];
    float *               out    = (float *) dst->data;

    out[0] = temperature_of(heads, first);
    if (heads.has_top_p) {
        float extra[1 + N_PROB_STATS] = { out[0] };
        if (heads.prob_stats) {
            prob_stats stats = { 0.0f, 0.0f, 0.0f, 0.0f }; // logits that are no numbers are reported by whoever draws
            distribution_stats((const float *) logits->data, logits->ne[0], out[0], *row.ws, stats);
            extra[1] = stats.max_prob;
            extra[2] = stats.entropy;
            extra[3] = stats.prob_var;
            extra[4] = stats.top5_sum;
        }
        const float * own = (const float *) first->data + (heads.has_temp ? HEAD_WIDTH : 0);
        out[1]            = sigmoid(second_layer(heads.top_p, own, extra));
    }
}

} // namespace

predictions build_cpu_heads(ggml_context * ctx, const head_tensors & heads, ggml_tensor * hidden, ggml_tensor * logits, cpu_heads_row & row) {
    ggml_tensor * first = nullptr;
    if (heads.first) {
        first = ggml_mul_mat(ctx, heads.first, hidden);
    } else {
        for (const mlp_tensors * mlp : { &heads.temperature, &heads.top_p }) {
            if (mlp->w1) {
                ggml_tensor * part = ggml_mul_mat(ctx, mlp->w1, hidden);
                first              = first ? ggml_concat(ctx, first, part, 0) : part;
            }
        }
    }
    ggml_tensor * args[] = { logits, first, nullptr };
    int           n_args = 2;
    if (row.heads->has_top_p && row.heads->prob_stats && logits->ne[0] > LONG_ROW) {
        args[2] = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 2, maxima_node, GGML_N_TASKS_MAX, &row);
        args[2] = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 3, exponentials_node, GGML_N_TASKS_MAX, &row);
        n_args  = 3;
    }
    ggml_tensor * both = ggml_custom_4d(ctx, GGML_TYPE_F32, 2, 1, 1, 1, args, n_args, predict_node, 1, &row);
    ggml_set_name(both, "autodeco_predictions");
    return { ggml_view_1d(ctx, both, 1, 0), row.heads->has_top_p ? ggml_view_1d(ctx, both, 1, sizeof(float)) : nullptr };
}

} // namespace autodeco
