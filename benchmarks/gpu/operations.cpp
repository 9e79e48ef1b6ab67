// What single ggml operations cost on the first GPU, for rows of logits: the ground for choosing how to find a nucleus.
//
//   bench_operations [N_VOCAB] [ROWS]
//
// Each operation stands in a graph ENOUGH times and the graph is computed again and again, as llama.cpp does, so that
// graphs of the device's own (CUDA graphs) are made and used. Prints microseconds for one of them; the last line is a whole
// draw.

#include "device_nucleus.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

static constexpr int ENOUGH = 16;
static constexpr int ROUNDS = 30;
static constexpr int NODES  = 4096;

struct inputs {
    ggml_tensor * logits; // [n_vocab, rows]
    ggml_tensor * id;     // [n_vocab, rows] I32, a permutation of each row
    ggml_tensor * scalar; // [1, rows]
};

using operation = std::function<ggml_tensor *(ggml_context *, const inputs &)>;

static double microseconds(ggml_backend_t backend, int64_t n_vocab, int64_t rows, const operation & op) {
    ggml_context * ctx = ggml_init({ NODES * ggml_tensor_overhead() + ggml_graph_overhead_custom(NODES, false), nullptr, true });
    const inputs   in  = { ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_vocab, rows), ggml_new_tensor_2d(ctx, GGML_TYPE_I32, n_vocab, rows),
                           ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1, rows) };
    for (ggml_tensor * tensor : { in.logits, in.id, in.scalar }) {
        ggml_set_input(tensor);
        ggml_set_output(tensor); // which every round reads again
    }
    ggml_cgraph * gf = ggml_new_graph_custom(ctx, NODES, false);
    for (int i = 0; i < ENOUGH; ++i) {
        ggml_tensor * out = op(ctx, in);
        ggml_set_output(out);
        ggml_build_forward_expand(gf, out);
    }
    ggml_gallocr_t alloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
    ggml_gallocr_alloc_graph(alloc, gf);

    std::mt19937                    rng(1);
    std::normal_distribution<float> normal(0.0f, 4.0f);
    std::vector<float>              z((size_t) (n_vocab * rows));
    std::vector<int32_t>            id(z.size());
    std::generate(z.begin(), z.end(), [&] { return normal(rng); });
    for (size_t i = 0; i < id.size(); ++i) {
        id[i] = (int32_t) (i % (size_t) n_vocab);
    }
    for (int64_t i = 0; i < rows; ++i) {
        std::shuffle(id.begin() + i * n_vocab, id.begin() + (i + 1) * n_vocab, rng);
    }
    const auto set = [](ggml_tensor * tensor, const void * data) {
        if (tensor->buffer) {
            ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
        }
    };
    set(in.logits, z.data());
    set(in.id, id.data());
    set(in.scalar, z.data());

    std::vector<double> seconds;
    for (int i = 0; i < ROUNDS; ++i) {
        const auto began = std::chrono::steady_clock::now();
        ggml_backend_graph_compute(backend, gf);
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    std::sort(seconds.begin(), seconds.end());
    ggml_gallocr_free(alloc);
    ggml_free(ctx);
    return seconds[ROUNDS / 2] / ENOUGH * 1e6;
}

static ggml_tensor * columns(ggml_context * ctx, ggml_tensor * rows) {
    return ggml_reshape_3d(ctx, rows, 1, rows->ne[0], rows->ne[1]);
}

int main(int argc, char ** argv) {
    const int64_t n_vocab = argc > 1 ? atoll(argv[1]) : 151936;
    const int64_t rows    = argc > 2 ? atoll(argv[2]) : 1;
    ggml_backend_load_all();
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_GPU, nullptr);
    if (!backend) {
        backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    }
    const struct {
        const char * name;
        operation    op;
    } operations[] = {
        { "scale",    [](ggml_context * ctx, const inputs & in) { return ggml_scale(ctx, in.logits, 2.0f); } },
        { "div",      [](ggml_context * ctx, const inputs & in) { return ggml_div(ctx, in.logits, in.scalar); } },
        { "step",     [](ggml_context * ctx, const inputs & in) { return ggml_step(ctx, in.logits); } },
        { "exp",      [](ggml_context * ctx, const inputs & in) { return ggml_exp(ctx, in.logits); } },
        { "soft_max", [](ggml_context * ctx, const inputs & in) { return ggml_soft_max(ctx, in.logits); } },
        { "sum",      [](ggml_context * ctx, const inputs & in) { return ggml_sum(ctx, in.logits); } },
        { "sum_rows", [](ggml_context * ctx, const inputs & in) { return ggml_sum_rows(ctx, in.logits); } },
        { "sum_rows twice", [](ggml_context * ctx, const inputs & in) {
              const int64_t part = 128;
              ggml_tensor * sums = ggml_sum_rows(ctx, ggml_reshape_2d(ctx, in.logits, in.logits->ne[0] / part, part * in.logits->ne[1]));
              return ggml_sum_rows(ctx, ggml_reshape_2d(ctx, sums, part, in.logits->ne[1]));
          } },
        { "cumsum",   [](ggml_context * ctx, const inputs & in) { return ggml_cumsum(ctx, in.logits); } },
        { "argmax",   [](ggml_context * ctx, const inputs & in) { return ggml_argmax(ctx, in.logits); } },
        { "argsort",  [](ggml_context * ctx, const inputs & in) { return ggml_argsort(ctx, in.logits, GGML_SORT_ORDER_DESC); } },
        { "argsort 4096", [](ggml_context * ctx, const inputs & in) {
              return ggml_argsort(ctx, ggml_view_2d(ctx, in.logits, 4096, in.logits->ne[1], 4096 * sizeof(float), 0), GGML_SORT_ORDER_DESC);
          } },
        { "get_rows 4096", [](ggml_context * ctx, const inputs & in) {
              ggml_tensor * id = ggml_view_2d(ctx, in.id, 4096, in.id->ne[1], in.id->nb[1], 0);
              return ggml_get_rows(ctx, columns(ctx, in.logits), id);
          } },
        { "top_k 64", [](ggml_context * ctx, const inputs & in) { return ggml_top_k(ctx, in.logits, 64); } },
        { "get_rows", [](ggml_context * ctx, const inputs & in) { return ggml_get_rows(ctx, columns(ctx, in.logits), in.id); } },
        { "set_rows", [](ggml_context * ctx, const inputs & in) {
              return ggml_set_rows(ctx, columns(ctx, ggml_scale(ctx, in.logits, 0.0f)), columns(ctx, in.logits), in.id);
          } },
        { "cast",     [](ggml_context * ctx, const inputs & in) { return ggml_cast(ctx, in.logits, GGML_TYPE_I32); } },
        { "mul_mat",  [](ggml_context * ctx, const inputs & in) {
              return ggml_mul_mat(ctx, ggml_view_2d(ctx, in.logits, in.logits->ne[0], 1, in.logits->nb[1], 0),
                                  ggml_view_2d(ctx, in.logits, in.logits->ne[0], 1, in.logits->nb[1], 0));
          } },
        { "scalar",   [](ggml_context * ctx, const inputs & in) { return ggml_relu(ctx, in.scalar); } },
        { "draw",     [](ggml_context * ctx, const inputs & in) {
              return autodeco::build_device_draw(ctx, autodeco::sort_rows(ctx, in.logits), { in.scalar, in.scalar }).values;
          } },
    };
    printf("%s, rows of %lld, %lld at once; microseconds\n", ggml_backend_name(backend), (long long) n_vocab, (long long) rows);
    for (const auto & [name, op] : operations) {
        printf("%-16s %8.1f\n", name, microseconds(backend, n_vocab, rows, op));
        fflush(stdout);
    }
    ggml_backend_free(backend);
    return 0;
}
