// Random rows and heads, and a graph over them on the CPU: for tests and figures of single nodes.

#pragma once

#include "heads.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace autodeco {

inline std::vector<float> random_row(int64_t n, float deviation) {
    std::mt19937                    rng((uint32_t) n);
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float>              row(n);
    std::generate(row.begin(), row.end(), [&] { return normal(rng); });
    return row;
}

// where graphs are computed; null for the CPU
inline ggml_backend_dev_t node_device = nullptr;

// A graph over rows of logits, one after the other in `z`, and a scalar for each, computed by some threads of a CPU.
class row_graph {
public:
    explicit row_graph(const std::vector<float> & z, int64_t n = 1) : z(z) {
        logits = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, (int64_t) z.size() / n, n);
        scalar = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1, n);
        ggml_set_input(logits);
        ggml_set_input(scalar);
    }

    ~row_graph() {
        ggml_gallocr_free(alloc);
        ggml_backend_free(backend);
        ggml_free(ctx);
    }

    void plan(ggml_tensor * out) {
        planned.push_back(out);
        ggml_set_output(out);
        ggml_build_forward_expand(gf, out);
    }

    void allocate() { ggml_gallocr_alloc_graph(alloc, gf); }

    // the same scalar for all rows
    void compute(float value, int n_threads) { compute(std::vector<float>(scalar->ne[1], value), n_threads); }

    void compute(const std::vector<float> & scalars, int n_threads) {
        if (logits->buffer) {
            ggml_backend_tensor_set(logits, z.data(), 0, ggml_nbytes(logits));
        }
        if (scalar->buffer) {
            ggml_backend_tensor_set(scalar, scalars.data(), 0, ggml_nbytes(scalar));
        }
        const auto registry    = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
        const auto set_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads");
        if (set_threads) { // of a CPU
            set_threads(backend, n_threads);
        }
        run();
    }

    void run() { ggml_backend_graph_compute(backend, gf); }

    static std::vector<float> values(const ggml_tensor * tensor) {
        std::vector<float> result(ggml_nelements(tensor));
        ggml_backend_tensor_get(tensor, result.data(), 0, ggml_nbytes(tensor));
        return result;
    }

    const std::vector<float> & z;
    ggml_context *             ctx = ggml_init({ 512 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true });
    ggml_tensor *              logits;
    ggml_tensor *              scalar;
    std::vector<ggml_tensor *> planned;

private:
    ggml_backend_t backend = node_device ? ggml_backend_dev_init(node_device, nullptr) : ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_gallocr_t alloc   = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
    ggml_cgraph *  gf      = ggml_new_graph(ctx);
};

// heads of random weights
inline std::shared_ptr<heads_data> random_heads(bool temperature, bool top_p, bool prob_stats, int64_t n_vocab, int32_t n_embd = 64, ggml_type type = GGML_TYPE_F32,
                                                bool has_control = false) {
    auto heads        = std::make_shared<heads_data>();
    heads->n_embd     = n_embd;
    heads->n_vocab    = (int32_t) n_vocab;
    heads->has_temp   = temperature;
    heads->has_top_p  = top_p;
    heads->prob_stats = prob_stats;
    heads->has_control = has_control;
    const auto add    = [&](const std::string & name, int64_t ne0, int64_t ne1) {
        const std::vector<float>  values = random_row(ne0 * ne1 + (int64_t) heads->tensors.size(), 0.1f);
        tensor_data & tensor = heads->tensors[name];
        const bool                is_half = type == GGML_TYPE_F16 && ne1 == HEAD_WIDTH && ne0 == heads->n_embd;
        tensor = { is_half ? type : GGML_TYPE_F32, { ne0, ne1 }, std::vector<uint8_t>(ne0 * ne1 * (is_half ? 2 : 4)) };
        if (is_half) {
            ggml_fp32_to_fp16_row(values.data(), (ggml_fp16_t *) tensor.bytes.data(), ne0 * ne1);
        } else {
            std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
        }
    };
    for (const std::string & head : { TEMPERATURE_HEAD, TOP_P_HEAD, CONTROL_HEAD }) {
        const bool is_top_p = head == TOP_P_HEAD;
        if (!(head == CONTROL_HEAD ? has_control : is_top_p ? top_p : temperature)) {
            continue;
        }
        add(head + ".0.weight", heads->n_embd, HEAD_WIDTH);
        add(head + ".0.bias", HEAD_WIDTH, 1);
        add(head + ".2.weight", HEAD_WIDTH, 1);
        add(head + ".2.bias", 1, 1);
        if (is_top_p) {
            add(head + ".0.extra.weight", prob_stats ? 1 + N_PROB_STATS : 1, HEAD_WIDTH);
        }
    }
    heads->take_values();
    return heads;
}

// Heads that predict what `heads` do, and read levels of random weights.
inline std::shared_ptr<heads_data> with_control(const heads_data & heads, const control_ends & ends) {
    auto made     = random_heads(true, true, heads.prob_stats, heads.n_vocab, heads.n_embd, GGML_TYPE_F32, true);
    made->control = ends;
    for (const auto & [name, tensor] : heads.tensors) {
        made->tensors[name] = tensor;
    }
    made->take_values();
    return made;
}

} // namespace autodeco
