#include "heads_graph.h"

#include "control.h"
#include "host_node.h"
#include "llama_releases.h"

namespace autodeco {

namespace {

// CPU node: statistics [4, n] of logits [n_vocab, n] at temperature [1, n], a row a task
void stats_node(ggml_tensor * dst, int ith, int nth, void * /*userdata*/) {
    // one a thread, grown to the largest vocabulary once: no allocation per token
    static thread_local row_workspace ws;

    const ggml_tensor * logits      = dst->src[0];
    const ggml_tensor * temperature = dst->src[1];
    for (int64_t i = ith; i < dst->ne[1]; i += nth) {
        const float * z = (const float *) ((const char *) logits->data + i * logits->nb[1]);
        const float   t = *(const float *) ((const char *) temperature->data + i * temperature->nb[1]);
        prob_stats stats = { 0.0f, 0.0f, 0.0f, 0.0f }; // logits that are no numbers are reported by whoever draws from them
        distribution_stats(z, logits->ne[0], t, ws, stats);
        float * out = (float *) ((char *) dst->data + i * dst->nb[1]);
        out[0] = stats.max_prob;
        out[1] = stats.entropy;
        out[2] = stats.prob_var;
        out[3] = stats.top5_sum;
    }
}

// The product [m, n] of a matrix with every column of [k, n], in float32. CUDA has kernels that do so for one column at a
// time, and rounds several to float16 or TF32 first, which moves a temperature by 1e-3: so each is a batch of its own. Unless
// told not to, it adds up products with float16 weights in float16; and it forgets that it was told where it joins a product
// and the addition behind it, which the last reshape keeps apart.
ggml_tensor * mul_columns(ggml_context * ctx, ggml_tensor * matrix, ggml_tensor * columns) {
    const int64_t n       = columns->ne[1];
    ggml_tensor * product = ggml_mul_mat(ctx, matrix, ggml_reshape_3d(ctx, columns, columns->ne[0], 1, n));
    add_up_in_f32(product, 0);
    return ggml_reshape_2d(ctx, product, matrix->ne[1], n);
}

ggml_tensor * build_mlp(ggml_context * ctx, const mlp_tensors & mlp, ggml_tensor * hidden, ggml_tensor * extra) {
    ggml_tensor * cur = mul_columns(ctx, mlp.w1, hidden);
    if (extra) {
        cur = ggml_add(ctx, cur, mul_columns(ctx, mlp.w1_extra, extra));
    }
    cur = ggml_relu(ctx, ggml_add(ctx, cur, mlp.b1));
    cur = ggml_add(ctx, mul_columns(ctx, mlp.w2, cur), mlp.b2);
    return ggml_sigmoid(ctx, cur);
}

} // namespace

ggml_tensor * cpu_stats(ggml_context * ctx, ggml_tensor * logits, ggml_tensor * temperature) {
    return host_node(ctx, GGML_TYPE_F32, N_PROB_STATS, logits->ne[1], { logits, temperature }, stats_node, GGML_N_TASKS_MAX, nullptr);
}

predictions build_heads(ggml_context * ctx, const head_tensors & heads, bool prob_stats, ggml_tensor * hidden, const stats_builder & stats) {
    const int64_t n = hidden->ne[1];

    predictions result = { nullptr, nullptr, nullptr };
    if (heads.temperature.w1) {
        result.temperature = ggml_scale(ctx, build_mlp(ctx, heads.temperature, hidden, nullptr), TEMPERATURE_SCALE);
    } else {
        result.temperature = ggml_repeat_4d(ctx, heads.one, 1, n, 1, 1);
    }
    ggml_set_name(result.temperature, "autodeco_temperature");

    if (heads.top_p.w1) {
        ggml_tensor * extra = result.temperature;
        if (prob_stats) {
            extra = ggml_concat(ctx, extra, stats(result.temperature), 0);
        }
        result.top_p = build_mlp(ctx, heads.top_p, hidden, extra);
        ggml_set_name(result.top_p, "autodeco_top_p");
    }
    return result;
}

ggml_tensor * build_level(ggml_context * ctx, const head_tensors & heads, const control_ends & ends, ggml_tensor * hidden) {
    return heads.control.w1 ? build_control_level(ctx, ends, build_mlp(ctx, heads.control, hidden, nullptr)) : nullptr;
}

} // namespace autodeco
