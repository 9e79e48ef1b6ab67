#include "cpu_heads.h"

#include "control.h"
#include "host_node.h"

#include <algorithm>
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

// values of the first layers of the temperature head and the top-p head, behind which those of the control head stand
int64_t n_first(const heads_data & heads) {
    return HEAD_WIDTH * ((heads.has_temp ? 1 : 0) + (heads.has_top_p ? 1 : 0));
}

int64_t n_first_with_control(const heads_data & heads) {
    return n_first(heads) + (heads.has_control ? HEAD_WIDTH : 0);
}

dot_product * dot_of(ggml_type type) {
    const row_passes & passes = best_passes();
    switch (type) {
        case GGML_TYPE_F16:  return passes.dot_f16;
        case GGML_TYPE_BF16: return passes.dot_bf16;
        case GGML_TYPE_Q8_0: return passes.dot_q8_0;
        default:             return passes.dot_f32; // the reader lets no other type pass
    }
}

// values begin to end of all heads' W1 hidden, one behind the other, the temperature head's first
void first_layers(const heads_data & heads, const float * hidden, int64_t begin, int64_t end, float * out) {
    int64_t first = 0;
    for (const mlp_values * mlp : { &heads.temperature, &heads.top_p, &heads.control_head }) {
        if (!mlp->w1) {
            continue;
        }
        dot_product * const dot  = dot_of(mlp->w1->type);
        const size_t        size = ggml_row_size(mlp->w1->type, heads.n_embd);
        for (int64_t i = std::max(begin, first); i < std::min(end, first + HEAD_WIDTH); ++i) {
            out[i] = dot(mlp->w1->bytes.data() + (i - first) * size, hidden, heads.n_embd);
        }
        first += HEAD_WIDTH;
    }
}

float temperature_of(const heads_data & heads, const float * first) {
    return heads.has_temp ? TEMPERATURE_SCALE * sigmoid(second_layer(heads.temperature, first, nullptr)) : 1.0f;
}

void predict(const heads_data & heads, const float * first, const float * logits, row_workspace & ws, float & temperature, float & top_p) {
    temperature = temperature_of(heads, first);
    if (!heads.has_top_p) {
        return;
    }
    float extra[1 + N_PROB_STATS] = { temperature };
    if (heads.prob_stats) {
        prob_stats stats = { 0.0f, 0.0f, 0.0f, 0.0f }; // logits that are no numbers are reported by whoever draws
        distribution_stats(logits, heads.n_vocab, temperature, ws, stats);
        extra[1] = stats.max_prob;
        extra[2] = stats.entropy;
        extra[3] = stats.prob_var;
        extra[4] = stats.top5_sum;
    }
    top_p = sigmoid(second_layer(heads.top_p, first + (heads.has_temp ? HEAD_WIDTH : 0), extra));
}

float level_of(const heads_data & heads, const float * first) {
    return control_level(heads.control, sigmoid(second_layer(heads.control_head, first + n_first(heads), nullptr)));
}

void first_layers_node(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const cpu_heads_row & row = *(cpu_heads_row *) userdata;
    const int64_t         n   = row.reads_level ? n_first_with_control(*row.heads) : n_first(*row.heads);
    if (!row.is_skipped) {
        first_layers(*row.heads, (const float *) dst->src[0]->data, n * ith / nth, n * (ith + 1) / nth, (float *) dst->data);
    }
}

// sources of the other nodes: logits, then the first layers
void maxima_node(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const cpu_heads_row & row    = *(cpu_heads_row *) userdata;
    const ggml_tensor *   logits = dst->src[0];
    if (!row.is_skipped) {
        row_maxima((const float *) logits->data, logits->ne[0], ith, nth, *row.ws);
    }
}

void exponentials_node(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const cpu_heads_row & row    = *(cpu_heads_row *) userdata;
    const ggml_tensor *   logits = dst->src[0];
    if (row.is_skipped) {
        return;
    }
    // every thread computes the temperature, rather than wait for one that does
    const float temperature = temperature_of(*row.heads, (const float *) dst->src[1]->data);
    row_exponentials((const float *) logits->data, logits->ne[0], temperature, ith, nth, *row.ws);
}

// temperature and top-p [2], and the level [3] where there is a control head
void predict_node(ggml_tensor * dst, int ith, int /*nth*/, void * userdata) {
    const cpu_heads_row & row = *(cpu_heads_row *) userdata;
    if (ith != 0 || row.is_skipped) {
        return;
    }
    float *       out   = (float *) dst->data;
    const float * first = (const float *) dst->src[1]->data;
    predict(*row.heads, first, (const float *) dst->src[0]->data, *row.ws, out[0], out[1]);
    if (row.heads->has_control) {
        out[2] = row.reads_level ? level_of(*row.heads, first) : 0.0f;
    }
}

} // namespace

predictions build_cpu_heads(ggml_context * ctx, ggml_tensor * hidden, ggml_tensor * logits, cpu_heads_row & row) {
    ggml_tensor * first = host_node(ctx, GGML_TYPE_F32, n_first_with_control(*row.heads), 1, { hidden }, first_layers_node, GGML_N_TASKS_MAX, &row);
    ggml_tensor * ready = host_one(); // what has prepared the statistics
    if (row.heads->has_top_p && row.heads->prob_stats && logits->ne[0] > LONG_ROW) {
        ready = host_node(ctx, GGML_TYPE_F32, 1, 1, { logits, first }, maxima_node, GGML_N_TASKS_MAX, &row);
        ready = host_node(ctx, GGML_TYPE_F32, 1, 1, { logits, first, ready }, exponentials_node, GGML_N_TASKS_MAX, &row);
    }
    const bool    has_control = row.heads->has_control;
    ggml_tensor * all         = host_node(ctx, GGML_TYPE_F32, has_control ? 3 : 2, 1, { logits, first, ready }, predict_node, 1, &row);
    ggml_set_name(all, "autodeco_predictions");
    return { ggml_view_1d(ctx, all, 1, 0), row.heads->has_top_p ? ggml_view_1d(ctx, all, 1, sizeof(float)) : nullptr,
             has_control ? ggml_view_1d(ctx, all, 1, 2 * sizeof(float)) : nullptr };
}

float cpu_level_of(const heads_data & heads, const float * hidden) {
    if (!heads.has_control) {
        return 0.0f;
    }
    float first[3 * HEAD_WIDTH];
    first_layers(heads, hidden, n_first(heads), n_first_with_control(heads), first);
    return level_of(heads, first);
}

void cpu_heads_of(const heads_data & heads, const float * hidden, const float * logits, row_workspace & ws, float & temperature, float & top_p) {
    float first[2 * HEAD_WIDTH];
    first_layers(heads, hidden, 0, n_first(heads), first);
    top_p = 1.0f;
    predict(heads, first, logits, ws, temperature, top_p);
}

} // namespace autodeco
