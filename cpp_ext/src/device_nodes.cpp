#include "device_nodes.h"

#include "device_nucleus.h"
#include "llama_releases.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace autodeco {

namespace {

// force one way or the other, for tests and for devices whose operations turn out to be broken: "device" or "cpu"
constexpr const char * FORCE_NUCLEUS = "AUTODECO_NUCLEUS";
constexpr const char * FORCE_HEADS   = "AUTODECO_HEADS";

bool is_forced(const char * variable, const char * place) {
    const char * value = std::getenv(variable);
    return value && std::strcmp(value, place) == 0;
}

// A graph without memory, which `build` makes; whether `has` is true of all its nodes.
bool has_all(const node_question & has, const std::function<void(ggml_context * ctx, ggml_cgraph * gf)> & build) {
    constexpr size_t MAX_NODES = 1024;
    ggml_context *   ctx       = ggml_init({ /* .mem_size = */ 2 * MAX_NODES * ggml_tensor_overhead() + ggml_graph_overhead_custom(MAX_NODES, false),
                                             /* .mem_buffer = */ nullptr, /* .no_alloc = */ true });
    if (!ctx) {
        return false;
    }
    ggml_cgraph * gf = ggml_new_graph_custom(ctx, MAX_NODES, false);
    build(ctx, gf);
    bool all = true;
    for (int i = 0; all && i < ggml_graph_n_nodes(gf); ++i) {
        all = has(ggml_graph_node(gf, i));
    }
    ggml_free(ctx);
    return all;
}

// rows drawn from at once: one, few, many, and all that one graph may hold; each takes other operations
std::vector<int64_t> row_counts(int64_t n_vocab) {
    return { 1, 2, SORTED_AT_ONCE, most_rows(n_vocab) };
}

bool is_cpu(ggml_backend_dev_t device) {
    return !device || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

} // namespace

node_question asking(ggml_backend_dev_t device) {
    return [=](const ggml_tensor * node) { return ggml_backend_dev_supports_op(device, node); };
}

void shape_heads(heads_data & heads, int32_t n_embd, ggml_type type) {
    heads.n_embd     = n_embd;
    heads.n_vocab    = 1; // as many rows as there may be
    heads.prob_stats = heads.has_temp = heads.has_top_p = true;
    for (const std::string & head : { TEMPERATURE_HEAD, TOP_P_HEAD }) {
        heads.tensors[head + ".0.weight"] = { type, { n_embd, HEAD_WIDTH }, {} };
        heads.tensors[head + ".0.bias"]   = { GGML_TYPE_F32, { HEAD_WIDTH, 1 }, {} };
        heads.tensors[head + ".2.weight"] = { type, { HEAD_WIDTH, 1 }, {} };
        heads.tensors[head + ".2.bias"]   = { GGML_TYPE_F32, { 1, 1 }, {} };
    }
    heads.tensors[TOP_P_HEAD + ".0.extra.weight"] = { GGML_TYPE_F32, { 1 + N_PROB_STATS, HEAD_WIDTH }, {} };
}

bool has_head_nodes(const heads_data & heads, const node_question & has) {
    return has_all(has, [&](ggml_context * ctx, ggml_cgraph * gf) {
        const head_tensors weights = heads.place(ctx).tensors;
        for (const int64_t n : row_counts(heads.n_vocab)) {
            // padded where a batch has no output
            ggml_tensor *     hidden = ggml_pad(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, heads.n_embd, n), 0, 1, 0, 0);
            ggml_tensor *     rows   = ggml_view_2d(ctx, hidden, heads.n_embd, n, hidden->nb[1], hidden->nb[1]);
            const predictions pred   = build_heads(ctx, weights, heads.prob_stats, rows, [&](ggml_tensor *) {
                return ggml_new_tensor_2d(ctx, GGML_TYPE_F32, N_PROB_STATS, n);
            });
            ggml_build_forward_expand(gf, pred.temperature);
            if (pred.top_p) {
                ggml_build_forward_expand(gf, pred.top_p);
            }
            if (heads.has_control) { // with all that a level does to a draw
                const predictions steered = { pred.temperature, pred.top_p, build_level(ctx, weights, heads.control, rows) };
                const draw_inputs in      = place_draw_inputs(ctx, n, steered, heads.control);
                ggml_build_forward_expand(gf, in.divisor);
                ggml_build_forward_expand(gf, in.share);
            }
        }
    });
}

bool has_draw_nodes(int64_t n_vocab, const node_question & has) {
    return has_all(has, [&](ggml_context * ctx, ggml_cgraph * gf) {
        for (const int64_t n : row_counts(n_vocab)) {
            ggml_tensor *     ones = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1, n);
            const sorted_rows rows = sort_rows(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_vocab, n));
            ggml_build_forward_expand(gf, device_stats(ctx, rows, ones));
            ggml_build_forward_expand(gf, build_device_draw(ctx, rows, { ones, ones }).token);
        }
    });
}

node_places places_on(const node_question & has, const heads_data * heads, int64_t n_vocab) {
    const bool predicts = !heads || has_head_nodes(*heads, has);
    return { predicts && has_draw_nodes(n_vocab, has), !predicts };
}

node_places places(ggml_backend_buffer_type_t buft, const heads_data * heads, int64_t n_vocab) {
    if (!SEVERAL_OUTPUTS) { // nor room in a graph for what samplers compute: what has the fewest nodes
        return { false, true };
    }
    const ggml_backend_dev_t device = ggml_backend_buft_get_device(buft);
    node_places              result = { false, ggml_backend_buft_is_host(buft) };
    if (!is_cpu(device)) {
        result = places_on(asking(device), heads, n_vocab);
    }
    if (is_forced(FORCE_NUCLEUS, "device")) {
        result = { true, false };
    } else if (is_forced(FORCE_NUCLEUS, "cpu")) {
        result.draw_on_device = false;
    }
    if (is_forced(FORCE_HEADS, "cpu")) {
        result = { false, true };
    }
    return result;
}

} // namespace autodeco
