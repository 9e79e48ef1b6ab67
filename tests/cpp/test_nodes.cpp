// The graph nodes over random rows of logits, without a model: by one thread and by several, and the operations that take
// their place on devices, here on the CPU. The reference is written out in double precision.

#include "check.h"
#include "nodes.h"

#include "cpu_heads.h"
#include "device_nucleus.h"
#include "distribution.h"
#include "heads_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

using namespace autodeco;

static const struct {
    const char * name;
    int64_t      n_vocab;
    float        deviation;
} ROWS[] = { { "peaked", 49152, 4.0f }, { "flat", 151936, 1.0f }, { "short", 300, 2.0f }, { "very short", 3, 1.0f } };

// the distribution at a temperature, in descending order; ids beside it
static std::vector<double> sorted_softmax(const std::vector<float> & z, double temperature, std::vector<int32_t> & id) {
    id.resize(z.size());
    std::iota(id.begin(), id.end(), 0);
    std::stable_sort(id.begin(), id.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
    std::vector<double> q(z.size());
    for (size_t i = 0; i < z.size(); ++i) {
        q[i] = std::exp((z[id[i]] - z[id[0]]) / temperature);
    }
    const double sum = std::accumulate(q.begin(), q.end(), 0.0);
    for (double & value : q) {
        value /= sum;
    }
    return q;
}

static std::vector<double> exact_stats(const std::vector<float> & z, double temperature) {
    std::vector<int32_t>      id;
    const std::vector<double> q = sorted_softmax(z, temperature + 1e-8, id);
    const double              n = (double) q.size();
    double entropy = 0.0;
    double var     = 0.0;
    for (const double value : q) {
        entropy -= value * std::log(value + 1e-8);
        var += (value - 1.0 / n) * (value - 1.0 / n) / (n - 1.0);
    }
    return { q[0], entropy, var, std::accumulate(q.begin(), q.begin() + std::min<ptrdiff_t>(5, (ptrdiff_t) q.size()), 0.0) };
}

// largest error of statistics, relative where they are large
static double error_of(const std::vector<float> & found, const std::vector<double> & wanted) {
    double error = 0.0;
    for (size_t i = 0; i < wanted.size(); ++i) {
        error = std::max(error, std::abs(found[i] - wanted[i]) / std::max(1.0, std::abs(wanted[i])));
    }
    return error;
}

// the few nodes of the CPU against the operations that are run on any device, by some threads
static void test_cpu_heads(const std::vector<float> & z, bool temperature, bool top_p, bool prob_stats) {
    const auto               heads   = random_heads(temperature, top_p, prob_stats, (int64_t) z.size());
    const auto               weights = heads->weights(ggml_backend_cpu_buffer_type());
    const std::vector<float> hidden  = random_row(heads->n_embd, 1.0f);
    for (const int n_threads : { 1, 2, 5 }) {
        row_graph     graph(z);
        row_workspace ws;
        ws.reserve((int64_t) z.size());
        cpu_heads_row row   = { heads.get(), &ws };
        ggml_tensor * input = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, heads->n_embd, 1);
        ggml_set_input(input);
        const predictions found  = build_cpu_heads(graph.ctx, weights->tensors, input, graph.logits, row);
        const predictions wanted = build_heads(graph.ctx, weights->tensors, prob_stats, input, [&](ggml_tensor * t) {
            return cpu_stats(graph.ctx, graph.logits, t);
        });
        for (const predictions & pred : { found, wanted }) {
            for (ggml_tensor * tensor : { pred.temperature, pred.top_p }) {
                if (tensor) {
                    graph.plan(ggml_cont(graph.ctx, tensor));
                }
            }
        }
        graph.allocate();
        ggml_backend_tensor_set(input, hidden.data(), 0, ggml_nbytes(input));
        graph.compute(1.0f, n_threads);
        double error = 0.0;
        for (size_t i = 0; i < graph.planned.size() / 2; ++i) {
            const float value = row_graph::values(graph.planned[i])[0];
            error = std::max(error, (double) std::abs(value - row_graph::values(graph.planned[i + graph.planned.size() / 2])[0]));
            check(value > 0.0f && value < 2.0f, "a prediction lies in its range", value);
        }
        check(error < 1e-5, "the nodes of the CPU predict what the operations predict", error);
    }
}

static void test_stats(const std::vector<float> & z) {
    for (const float temperature : { 1.0f, 0.3f, 1.9f }) {
        const std::vector<double> wanted = exact_stats(z, temperature);
        row_graph                 graph(z);
        ggml_tensor *             on_cpu = cpu_stats(graph.ctx, graph.logits, graph.scalar);
        ggml_tensor *             stats  = device_stats(graph.ctx, sort_rows(graph.ctx, graph.logits), graph.scalar);
        graph.plan(on_cpu);
        graph.plan(stats);
        graph.allocate();
        graph.compute(temperature, 1);
        const double cpu_error = error_of(row_graph::values(on_cpu), wanted);
        check(cpu_error < 1e-5, "statistics of the CPU node", cpu_error);
        // ggml adds the vocabulary up in float32, one after the other
        const double error = error_of(row_graph::values(stats), wanted);
        check(error < 2e-3, "statistics by operations", error);
    }
}

// the passes over a row, shared among threads that take turns here
static void test_shares(const std::vector<float> & z) {
    const auto    n = (int64_t) z.size();
    row_workspace whole, shared;
    whole.reserve(n);
    shared.reserve(n);
    prob_stats wanted, found;
    distribution_stats(z.data(), n, 0.7f, whole, wanted);
    for (const int n_threads : { 2, 3, 64 }) {
        for (int i = 0; i < n_threads; ++i) {
            row_maxima(z.data(), n, i, n_threads, shared);
        }
        for (int i = 0; i < n_threads; ++i) {
            row_exponentials(z.data(), n, 0.7f, i, n_threads, shared);
        }
        distribution_stats(z.data(), n, 0.7f, shared, found);
        const double error = std::abs(found.entropy - wanted.entropy) + std::abs(found.top5_sum - wanted.top5_sum) + std::abs(found.max_prob - wanted.max_prob);
        check(error < 1e-6, "threads that share a row find what one finds", error);
    }
}

static void test_no_numbers() {
    const std::vector<float> z(100000, NAN);
    const auto               n = (int64_t) z.size();
    row_workspace            ws;
    ws.reserve(n);
    for (const auto pass : { 0, 1 }) {
        for (int i = 0; i < 2; ++i) {
            pass == 0 ? row_maxima(z.data(), n, i, 2, ws) : row_exponentials(z.data(), n, 1.0f, i, 2, ws);
        }
    }
    prob_stats stats;
    check(distribution_stats(z.data(), n, 1.0f, ws, stats) == row_status::not_real, "logits that are no numbers have no statistics", 0);
    check(nucleus_sample(z.data(), n, 1.0f, 0.9f, 0.5, ws, true).status == row_status::not_real, "and are reported by the draw", 0);
}

// draw by operations with settings, against the nucleus written out
static void test_draw(const std::vector<float> & z, const device_settings & given, double top_p, int64_t top_k, double min_p) {
    row_graph   graph(z);
    predictions pred = { graph.scalar, nullptr };
    device_draw draw = build_device_draw(graph.ctx, sort_rows(graph.ctx, graph.logits), pred);
    graph.plan(draw.values);
    graph.plan(draw.token);
    graph.allocate();

    const float                        predicted = 0.9f;
    const double                       t         = std::max(1e-5, (double) given.temperature_scale * predicted + given.temperature);
    std::vector<int32_t>               id;
    const std::vector<double>          q = sorted_softmax(z, t, id);
    std::mt19937                       rng(1);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);

    size_t kept = 1;
    while (kept < q.size() && (top_k == 0 || (int64_t) kept < top_k) && q[kept] >= min_p * q[0]) {
        ++kept;
    }
    const double mass = std::accumulate(q.begin(), q.begin() + (ptrdiff_t) kept, 0.0);
    double       cum  = q[0];
    size_t       size = 1;
    while (size < kept && cum < top_p * mass) {
        cum += q[size++];
    }

    double worst = 0.0;
    double error = 0.0;
    int    outside = 0;
    for (int i = 0; i < 20; ++i) {
        device_settings settings = given;
        settings.uniform         = given.uniform < 0.0f ? uniform(rng) : given.uniform;
        write_settings(draw.settings, 0, settings);
        graph.compute(predicted, 1);
        const std::vector<float> values = row_graph::values(draw.values);

        // the drawn token's share of the nucleus must hold the uniform number
        const auto   rank  = (size_t) (std::find(id.begin(), id.end(), (int32_t) values[0]) - id.begin());
        const double above = std::accumulate(q.begin(), q.begin() + (ptrdiff_t) rank, 0.0) / cum;
        worst = std::max(worst, std::max(above - settings.uniform, settings.uniform - (above + q[rank] / cum)));
        error = std::max(error, std::abs(values[4] - q[rank] / cum));
        error = std::max(error, std::abs(values[3] + 1.0 - (double) size) / (double) size);
        outside += rank >= size && q[rank] != q[size - 1];
    }
    check(outside == 0, "draws stay in the nucleus", outside);
    check(worst < 2e-3, "draws follow the inverse distribution function", worst);
    check(error < 2e-2, "size and probability", error);
}

int main() {
    for (const auto & row : ROWS) {
        const std::vector<float> z = random_row(row.n_vocab, row.deviation);
        printf("%s row of %lld\n", row.name, (long long) row.n_vocab);
        test_stats(z);
        test_shares(z);
        test_cpu_heads(z, true, true, true);
        test_cpu_heads(z, true, true, false);
        test_cpu_heads(z, true, false, false);
        test_cpu_heads(z, false, true, true);
        const auto all = (float) row.n_vocab;
        //             T scale  T     P scale P     uniform  last   min_p
        test_draw(z, { 1.0f,    0.0f, 0.0f,   0.9f,  -1.0f,  all,   0.0f }, 0.9, 0, 0.0);
        test_draw(z, { 0.0f,    0.5f, 0.0f,   0.5f,  -1.0f,  all,   0.0f }, 0.5, 0, 0.0);
        test_draw(z, { 1.0f,    0.0f, 0.0f,   1.0f,  -1.0f,  all,   0.0f }, 1.0, 0, 0.0);
        test_draw(z, { 1.0f,    0.0f, 0.0f,   0.8f,  -1.0f,  1.0f,  0.0f }, 0.8, 2, 0.0);
        test_draw(z, { 1.0f,    0.0f, 0.0f,   0.8f,  -1.0f,  all,   0.2f }, 0.8, 0, 0.2);
        test_draw(z, { 1.0f,    0.0f, 0.0f,   0.0f,  -1.0f,  all,   0.0f }, 0.0, 0, 0.0);
        test_draw(z, { 0.0f,    0.0f, 0.0f,   1.0f,   0.0f,  all,   0.0f }, 0.0, 1, 0.0); // greedy
    }
    test_no_numbers();
    return report();
}
