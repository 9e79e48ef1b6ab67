// Time of the nodes that a CPU computes heads with, beside the time memory takes to deliver their weights.
//
//   bench_heads N_EMBD N_VOCAB N_THREADS BYTES_PER_SECOND      one line of JSON

#include "nodes.h"

#include "cpu_heads.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

using namespace autodeco;

int main(int argc, char ** argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s N_EMBD N_VOCAB N_THREADS BYTES_PER_SECOND\n", argv[0]);
        return 2;
    }
    const auto n_embd    = (int32_t) atoi(argv[1]);
    const auto n_vocab   = (int64_t) atoll(argv[2]);
    const int  n_threads = atoi(argv[3]);

    const auto               heads   = random_heads(true, true, true, n_vocab, n_embd, GGML_TYPE_F16);
    const std::vector<float> z       = random_row(n_vocab, 3.0f);
    const std::vector<float> hidden  = random_row(n_embd, 1.0f);
    row_graph                graph(z);
    row_workspace            ws;
    ws.reserve(n_vocab);
    cpu_heads_row row   = { heads.get(), &ws };
    ggml_tensor * input = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, n_embd, 1);
    ggml_set_input(input);
    const predictions pred = build_cpu_heads(graph.ctx, input, graph.logits, row);
    graph.plan(ggml_cont(graph.ctx, pred.top_p));
    graph.allocate();
    ggml_backend_tensor_set(input, hidden.data(), 0, ggml_nbytes(input));

    graph.compute(1.0f, n_threads);
    std::vector<double> seconds;
    for (int i = 0; i < 2000; ++i) {
        const auto start = std::chrono::steady_clock::now();
        graph.run();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(seconds.begin(), seconds.end());
    const double bytes = 2.0 * HEAD_WIDTH * n_embd * sizeof(ggml_fp16_t) + (double) n_vocab * sizeof(float);
    printf("{\"n_embd\": %d, \"n_vocab\": %lld, \"threads\": %d, \"median_ms\": %.4f, \"fastest_ms\": %.4f, \"limit_ms\": %.4f}\n", n_embd,
           (long long) n_vocab, n_threads, seconds[seconds.size() / 2] * 1e3, seconds[0] * 1e3, bytes / atof(argv[4]) * 1e3);
    return 0;
}
