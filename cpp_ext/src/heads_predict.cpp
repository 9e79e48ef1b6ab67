#include "heads_predict.h"

#include "distribution.h"
#include "heads_graph.h"

#include "ggml-alloc.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

// rows computed at a time: bounds the copy of the logits to 64 x 262k x 4 bytes = 67 MB
constexpr int64_t MAX_ROWS = 64;

struct graph_memory {
    ggml_backend_t        backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_context *        ctx     = nullptr;
    ggml_gallocr_t        alloc   = nullptr;

    ~graph_memory() {
        ggml_gallocr_free(alloc);
        ggml_free(ctx);
        ggml_backend_free(backend);
    }
};

bool predict_rows(const heads_data & heads, const float * hidden, const float * logits, int64_t n, int64_t n_vocab,
                  float * temperature, float * top_p, std::string & error) {
    graph_memory memory;
    error = "out of memory";
    if (!memory.backend) {
        return false;
    }
    const auto weights = heads.weights(ggml_backend_get_default_buffer_type(memory.backend));
    memory.ctx   = ggml_init({ /* .mem_size = */ 64 * ggml_tensor_overhead() + ggml_graph_overhead(), /* .mem_buffer = */ nullptr, /* .no_alloc = */ true });
    memory.alloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(memory.backend));
    if (!weights || !memory.ctx || !memory.alloc) {
        return false;
    }

    ggml_tensor * hidden_in = ggml_new_tensor_2d(memory.ctx, GGML_TYPE_F32, heads.n_embd, n);
    ggml_tensor * logits_in = ggml_new_tensor_2d(memory.ctx, GGML_TYPE_F32, n_vocab, n);
    ggml_set_input(hidden_in);
    ggml_set_input(logits_in);
    const predictions pred = build_heads(memory.ctx, weights->tensors, heads.prob_stats, hidden_in, [&](ggml_tensor * temperature) {
        return cpu_stats(memory.ctx, logits_in, temperature);
    });

    ggml_cgraph * gf = ggml_new_graph(memory.ctx);
    for (ggml_tensor * out : { pred.temperature, pred.top_p }) {
        if (out) {
            ggml_set_output(out);
            ggml_build_forward_expand(gf, out);
        }
    }
    if (!ggml_gallocr_alloc_graph(memory.alloc, gf)) {
        return false;
    }
    // a head without inputs in the graph leaves them unallocated
    for (const auto & [tensor, data] : { std::pair(hidden_in, hidden), std::pair(logits_in, logits) }) {
        if (tensor->buffer) {
            ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
        }
    }
    if (ggml_backend_graph_compute(memory.backend, gf) != GGML_STATUS_SUCCESS) {
        error = "the graph could not be computed";
        return false;
    }
    ggml_backend_tensor_get(pred.temperature, temperature, 0, n * sizeof(float));
    if (pred.top_p) {
        ggml_backend_tensor_get(pred.top_p, top_p, 0, n * sizeof(float));
    } else {
        std::fill(top_p, top_p + n, 1.0f);
    }
    error.clear();
    return true;
}

} // namespace

bool heads_predict(const heads_data & heads, const float * hidden, const float * logits, int64_t n, int64_t n_vocab,
                   float * temperature, float * top_p, std::string & error) {
    for (int64_t i = 0; i < n * heads.n_embd; ++i) {
        if (!std::isfinite(hidden[i])) {
            error = "hidden state " + std::to_string(i / heads.n_embd) + " holds NaN or inf";
            return false;
        }
    }
    row_workspace ws;
    for (int64_t i = 0; i < n; ++i) {
        const row_status status = row_check(logits + i * n_vocab, n_vocab, ws);
        if (status != row_status::ok) {
            error = "row " + std::to_string(i) + ": " + row_status_message(status);
            return false;
        }
    }
    for (int64_t i = 0; i < n; i += MAX_ROWS) {
        const int64_t rows = std::min(MAX_ROWS, n - i);
        if (!predict_rows(heads, hidden + i * heads.n_embd, logits + i * n_vocab, rows, n_vocab, temperature + i, top_p + i, error)) {
            return false;
        }
    }
    return true;
}

} // namespace autodeco
