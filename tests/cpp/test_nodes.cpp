// The graph nodes over random rows of logits, without a model: by one thread and by several, and the operations that take
// their place on devices, on the CPU too. The reference is written out in double precision.
//
//   test_nodes [DEVICE]      the operations alone, on a device as `autodeco-cli --devices` calls it

#include "check.h"
#include "exact.h"
#include "nodes.h"

#include "cpu_heads.h"
#include "device_nucleus.h"
#include "kernel/distribution.h"
#include "heads_graph.h"
#include "host_node.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
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

// largest error of statistics, relative where they are large
static double error_of(const std::vector<float> & found, const std::array<double, N_PROB_STATS> & wanted) {
    double error = 0.0;
    for (size_t i = 0; i < wanted.size(); ++i) {
        error = std::max(error, std::abs(found[i] - wanted[i]) / std::max(1.0, std::abs(wanted[i])));
    }
    return error;
}

// Whether the scheduler leaves all functions that the tensor depends on to the CPU: each reads weights of its memory.
static bool calls_stay_here(const ggml_tensor * tensor) {
    const auto * end   = tensor->src + GGML_MAX_SRC;
    const bool   stays = tensor->op != GGML_OP_CUSTOM || std::find(tensor->src, end, host_one()) != end;
    return stays && std::all_of(tensor->src, end, [](const ggml_tensor * source) { return !source || calls_stay_here(source); });
}

// the few nodes of the CPU against the operations that are run on any device, by some threads
static void test_cpu_heads(const std::vector<float> & z, bool temperature, bool top_p, bool prob_stats, bool has_control = false) {
    const auto               heads   = random_heads(temperature, top_p, prob_stats, (int64_t) z.size(), 64, GGML_TYPE_F32, has_control);
    const auto               weights = heads->weights(ggml_backend_cpu_buffer_type());
    const std::vector<float> hidden  = random_row(heads->n_embd, 1.0f);
    for (const int n_threads : { 1, 2, 5 }) {
        row_graph     graph(z);
        row_workspace ws;
        ws.reserve((int64_t) z.size());
        cpu_heads_row row   = { heads.get(), &ws };
        ggml_tensor * input = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, heads->n_embd, 1);
        ggml_set_input(input);
        const predictions found  = build_cpu_heads(graph.ctx, input, graph.logits, row);
        predictions       wanted = build_heads(graph.ctx, weights->tensors, prob_stats, input, [&](ggml_tensor * t) {
            return cpu_stats(graph.ctx, graph.logits, t);
        });
        wanted.level    = build_level(graph.ctx, weights->tensors, heads->control, input);
        row.reads_level = has_control;
        for (const ggml_tensor * tensor : { found.temperature, found.top_p, wanted.top_p }) {
            check(!tensor || calls_stay_here(tensor), "nodes that call functions read what lies in this process");
        }
        for (const predictions & pred : { found, wanted }) {
            for (ggml_tensor * tensor : { pred.temperature, pred.top_p, pred.level }) {
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
            check(i < 2 ? value > 0.0f && value < 2.0f : value != 0.0f && std::abs(value) < 1.0f, "a prediction lies in its range", value);
        }
        check(error < 1e-5, "the nodes of the CPU predict what the operations predict", error);
        check(has_control == (found.level != nullptr) && has_control == (wanted.level != nullptr), "a level is there with a control head alone");
        if (has_control) {
            check(std::abs(cpu_level_of(*heads, hidden.data()) - row_graph::values(graph.planned[2])[0]) < 1e-6, "a level outside the graph is that of its nodes");
            row.reads_level = false;
            graph.compute(1.0f, n_threads);
            check(row_graph::values(graph.planned[2])[0] == 0.0f, "a row that reads no level computes none", row_graph::values(graph.planned[2])[0]);
        }
    }
}

// by the node of the CPU, or by the operations of any device, which add the vocabulary up in float32
static void test_stats(const std::vector<float> & z, bool by_node) {
    for (const float temperature : { 1.0f, 0.3f, 1.9f }) {
        row_graph     graph(z);
        ggml_tensor * stats = by_node ? cpu_stats(graph.ctx, graph.logits, graph.scalar) : device_stats(graph.ctx, sort_rows(graph.ctx, graph.logits), graph.scalar);
        graph.plan(stats);
        graph.allocate();
        graph.compute(temperature, 1);
        const double error = error_of(row_graph::values(stats), exact_statistics(z.data(), (int64_t) z.size(), temperature));
        check(error < (by_node ? 1e-5 : 2e-3), by_node ? "statistics of the CPU node" : "statistics by operations", error);
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

// a row that is drawn from: what the heads predict of it, the user's settings, and what these amount to
struct row_case {
    float           temperature;
    float           top_p; // below 0: not predicted, for any row
    device_settings given; // a uniform number below 0: another one each time
    int64_t         top_k; // 0 for none
    double          min_p;
};

// what may be drawn from a row, written out
struct sorted_nucleus {
    std::vector<int32_t> id;
    std::vector<double>  q;
    size_t               size;
    double               mass = 0.0;

    sorted_nucleus(const std::vector<float> & z, const row_case & row) {
        const double t = std::max(1e-5, (double) row.given.temperature_scale * row.temperature + row.given.temperature);
        const double p = (double) row.given.top_p_scale * row.top_p + row.given.top_p;
        q = sorted_softmax(z, t, id);
        size_t kept = 1;
        while (kept < q.size() && (row.top_k == 0 || (int64_t) kept < row.top_k) && q[kept] >= row.min_p * q[0]) {
            ++kept;
        }
        const double all = std::accumulate(q.begin(), q.begin() + (ptrdiff_t) kept, 0.0);
        mass             = q[0];
        size             = 1;
        while (size < kept && mass < p * all) {
            mass += q[size++];
        }
    }
};

// rows of one length out of one vector
static std::vector<std::vector<float>> rows_of(const std::vector<float> & z, size_t n) {
    std::vector<std::vector<float>> rows;
    for (size_t i = 0; i < n; ++i) {
        rows.emplace_back(z.begin() + (ptrdiff_t) (i * z.size() / n), z.begin() + (ptrdiff_t) ((i + 1) * z.size() / n));
    }
    return rows;
}

// Draw by operations from rows at once, against the nucleus of each; `strays` are drawn from with settings that are no
// numbers.
static void test_draws(const std::vector<float> & z, const std::vector<row_case> & cases, const std::vector<size_t> & strays, int rounds) {
    const size_t n = cases.size();
    row_graph    graph(z, (int64_t) n);
    predictions  pred = { graph.scalar, nullptr };
    if (cases[0].top_p >= 0.0f) {
        pred.top_p = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, 1, (int64_t) n);
        ggml_set_input(pred.top_p);
    }
    const device_draw draw = build_device_draw(graph.ctx, sort_rows(graph.ctx, graph.logits), pred);
    graph.plan(draw.token);
    graph.allocate();

    std::vector<sorted_nucleus> wanted;
    std::vector<float>         temperatures, top_ps;
    for (size_t i = 0; i < n; ++i) {
        wanted.emplace_back(rows_of(z, n)[i], cases[i]);
        temperatures.push_back(cases[i].temperature);
        top_ps.push_back(cases[i].top_p);
    }
    std::mt19937                          rng(1);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    double worst   = 0.0;
    double error   = 0.0;
    int    outside = 0;
    int    unlike  = 0;
    for (int round = 0; round < rounds; ++round) {
        std::vector<float> drawn_at(n);
        for (size_t i = 0; i < n; ++i) {
            device_settings settings = cases[i].given;
            drawn_at[i]              = settings.uniform < 0.0f ? uniform(rng) : settings.uniform;
            settings.uniform         = drawn_at[i];
            if (std::count(strays.begin(), strays.end(), i)) {
                const float any = round % 3 == 0 ? NAN : round % 3 == 1 ? -INFINITY : 3e38f;
                settings        = { any, any, any, any, any, any, any };
            }
            write_settings(draw.settings, (int64_t) i, settings);
        }
        if (pred.top_p) {
            ggml_backend_tensor_set(pred.top_p, top_ps.data(), 0, ggml_nbytes(pred.top_p));
        }
        graph.compute(temperatures, 1);

        const auto           n_vocab = (int32_t) (z.size() / n);
        std::vector<int32_t> tokens(n);
        const auto           values = row_graph::values(draw.values);
        ggml_backend_tensor_get(draw.token, tokens.data(), 0, ggml_nbytes(draw.token));
        for (size_t i = 0; i < n; ++i) {
            device_values found = {};
            std::memcpy(&found, &values[i * N_VALUES_WITHOUT_LEVEL], N_VALUES_WITHOUT_LEVEL * sizeof(float));
            unlike += tokens[i] != (int32_t) found.token || tokens[i] < 0 || tokens[i] >= n_vocab;
            if (std::count(strays.begin(), strays.end(), i)) {
                continue;
            }
            unlike += !std::isfinite(found.prob) || found.temperature != cases[i].temperature || (pred.top_p && found.top_p != cases[i].top_p);

            // the drawn token's share of the nucleus must hold the uniform number
            const auto & [id, q, size, mass] = wanted[i];
            const auto   rank  = (size_t) (std::find(id.begin(), id.end(), tokens[i]) - id.begin());
            const double above = std::accumulate(q.begin(), q.begin() + (ptrdiff_t) rank, 0.0) / mass;
            worst = std::max(worst, std::max(above - drawn_at[i], drawn_at[i] - (above + q[rank] / mass)));
            error = std::max(error, std::abs(found.prob - q[rank] / mass));
            error = std::max(error, std::abs(found.last + 1.0 - (double) size) / (double) size);
            outside += rank >= size && q[rank] != q[size - 1];
        }
    }
    check(outside == 0, "draws stay in the nucleus", outside);
    check(worst < 2e-3, "draws follow the inverse distribution function", worst);
    check(error < 2e-2, "size and probability", error);
    check(unlike == 0, "each row gives a token of its own, and tells what was predicted for it", unlike);
}

// whether all rows that the graph of `tensor` sorts begin where every device can sort them
static bool sorts_aligned(const ggml_tensor * tensor) {
    const bool is_aligned = tensor->op != GGML_OP_ARGSORT || tensor->src[0]->view_offs % 256 == 0;
    return is_aligned && std::all_of(tensor->src, tensor->src + GGML_MAX_SRC, [](const ggml_tensor * source) { return !source || sorts_aligned(source); });
}

// rows of a length that is no multiple of a device's alignment: one, a few, and one in the midst of others
static void test_alignment() {
    for (const int64_t n_vocab : { 4099, 50257 }) {
        const std::vector<float> z((size_t) (5 * n_vocab));
        row_graph                graph(z, 5);
        ggml_tensor *            third = ggml_view_2d(graph.ctx, graph.logits, n_vocab, 1, graph.logits->nb[1], 2 * graph.logits->nb[1]);
        ggml_tensor *            few   = ggml_view_2d(graph.ctx, graph.logits, n_vocab, 4, graph.logits->nb[1], graph.logits->nb[1]);
        for (ggml_tensor * rows : { graph.logits, third, few }) {
            check(sorts_aligned(sort_rows(graph.ctx, rows).id), "rows are sorted from where every device can read them", (double) rows->view_offs);
        }
    }
}

// sorts differ in where they leave a logit that is no number: here beyond all that can be drawn
static void test_no_number_at_the_end() {
    std::vector<float> z(300, 0.0f);
    for (size_t i = 0; i < z.size(); ++i) {
        z[i] = -0.5f * (float) i;
    }
    z.back() = NAN;
    row_graph         graph(z);
    ggml_tensor *     id   = ggml_cast(graph.ctx, ggml_arange(graph.ctx, 0.0f, (float) z.size(), 1.0f), GGML_TYPE_I32);
    const device_draw draw = build_device_draw(graph.ctx, { ggml_reshape_2d(graph.ctx, id, (int64_t) z.size(), 1), graph.logits }, { graph.scalar, nullptr });
    graph.plan(draw.token);
    graph.allocate();
    write_settings(draw.settings, 0, { 1.0f, 0.0f, 0.0f, 0.5f, 0.5f, 1e6f, 0.0f });
    graph.compute(1.0f, 1);
    device_values found = {};
    ggml_backend_tensor_get(draw.values, &found, 0, N_VALUES_WITHOUT_LEVEL * sizeof(float));
    check(std::isfinite(found.prob) && !std::isfinite(found.total), "a draw tells that one of the logits is no number", found.token);
}

// n rows at once: no two neighbours alike in shape, temperature, top-p or settings
static void test_many(int64_t n_vocab, int64_t n, int rounds) {
    const auto   all   = (float) n_vocab;
    const struct {
        device_settings given;
        int64_t         top_k;
        double          min_p;
    } settings[] = {
        // T scale  T     P scale P     uniform  last   min_p
        { { 1.0f,    0.0f, 1.0f,   0.0f, -1.0f,  all,   0.0f }, 0, 0.0 },
        { { 0.0f,    0.0f, 1.0f,   0.0f,  0.0f,  all,   0.0f }, 1, 0.0 }, // greedy
        { { 0.7f,    0.0f, 0.0f,   1.0f, -1.0f,  2.0f,  0.0f }, 3, 0.0 },
        { { 0.0f,    0.8f, 0.8f,   0.0f, -1.0f,  all,   0.1f }, 0, 0.1 },
        { { 1.3f,    0.0f, 0.0f,   0.6f, -1.0f,  all,   0.0f }, 0, 0.0 },
    };
    std::vector<float>    z = random_row(n_vocab * n, 1.0f);
    std::vector<row_case> cases;
    std::vector<float>    temperatures;
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t k = 0; k < n_vocab; ++k) {
            z[i * n_vocab + k] *= 1.0f + (float) (i % 4);
            z[i * n_vocab + k] += 100.0f * (float) (i % 3); // no float holds exp of this at any temperature here
        }
        const auto & [given, top_k, min_p] = settings[i % 5];
        cases.push_back({ 0.4f + 0.1f * (float) (i % 7), 0.5f + 0.05f * (float) (i % 6), given, top_k, min_p });
        temperatures.push_back(cases.back().temperature);
    }
    printf("%lld rows of %lld at once\n", (long long) n, (long long) n_vocab);
    test_draws(z, cases, n > 2 ? std::vector<size_t>{ 1, (size_t) n - 1 } : std::vector<size_t>{}, rounds);
    for (row_case & row : cases) {
        row.top_p             = -1.0f; // not predicted
        row.given.top_p       = row.given.top_p_scale > 0.0f ? 0.75f : row.given.top_p;
        row.given.top_p_scale = 0.0f;
    }
    test_draws(z, cases, {}, rounds);

    row_graph     graph(z, n);
    ggml_tensor * stats = device_stats(graph.ctx, sort_rows(graph.ctx, graph.logits), graph.scalar);
    graph.plan(stats);
    graph.allocate();
    graph.compute(temperatures, 1);
    const std::vector<float> found = row_graph::values(stats);
    double                   error = 0.0;
    for (int64_t i = 0; i < n; ++i) {
        const std::vector<float> own(found.begin() + i * N_PROB_STATS, found.begin() + (i + 1) * N_PROB_STATS);
        error = std::max(error, error_of(own, exact_statistics(z.data() + i * n_vocab, n_vocab, temperatures[(size_t) i])));
    }
    check(error < 2e-3, "statistics of each row at its temperature", error);
}

// heads over rows at once, with the statistics of the CPU and by operations
static void test_many_heads(bool temperature, bool top_p, bool prob_stats) {
    constexpr int64_t        n       = 21;
    constexpr int64_t        n_vocab = 5000;
    const auto               heads   = random_heads(temperature, top_p, prob_stats, n_vocab);
    const auto               weights = heads->weights(ggml_backend_cpu_buffer_type());
    const std::vector<float> z       = random_row(n * n_vocab, 2.0f);
    const std::vector<float> hidden  = random_row(n * heads->n_embd, 1.0f);
    row_graph                graph(z, n);
    ggml_tensor *            input = ggml_new_tensor_2d(graph.ctx, GGML_TYPE_F32, heads->n_embd, n);
    ggml_set_input(input);
    const sorted_rows rows  = sort_rows(graph.ctx, graph.logits);
    const predictions found = build_heads(graph.ctx, weights->tensors, prob_stats, input, [&](ggml_tensor * t) { return device_stats(graph.ctx, rows, t); });
    const predictions wanted = build_heads(graph.ctx, weights->tensors, prob_stats, input, [&](ggml_tensor * t) { return cpu_stats(graph.ctx, graph.logits, t); });
    for (const predictions & pred : { found, wanted }) {
        graph.plan(pred.temperature);
        if (pred.top_p) {
            graph.plan(pred.top_p);
        }
    }
    graph.allocate();
    ggml_backend_tensor_set(input, hidden.data(), 0, ggml_nbytes(input));
    graph.compute(1.0f, 2);
    double error = 0.0;
    for (size_t i = 0; i < graph.planned.size() / 2; ++i) {
        const std::vector<float> a = row_graph::values(graph.planned[i]);
        const std::vector<float> b = row_graph::values(graph.planned[i + graph.planned.size() / 2]);
        for (size_t k = 0; k < (size_t) n; ++k) {
            error = std::max(error, (double) std::abs(a[k] - b[k]));
        }
    }
    check(error < 1e-4, "heads of many rows predict the same with either statistics", error);
}

int main(int argc, char ** argv) {
    if (argc > 1 && !(node_device = ggml_backend_dev_by_name(argv[1]))) {
        fprintf(stderr, "no device is called %s; see autodeco-cli --devices\n", argv[1]);
        return 2;
    }
    check(ggml_backend_buffer_is_host(host_one()->buffer) && ggml_backend_buffer_get_usage(host_one()->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
          "what keeps nodes in this process lies there, as a weight");
    const int rounds = node_device ? 3 : 20; // a device may be a driver for CPUs
    for (const auto & row : ROWS) {
        const std::vector<float> z = random_row(row.n_vocab, row.deviation);
        printf("%s row of %lld\n", row.name, (long long) row.n_vocab);
        test_stats(z, false);
        if (!node_device) {
            test_stats(z, true);
            test_shares(z);
            test_cpu_heads(z, true, true, true);
            test_cpu_heads(z, true, true, true, true);
            test_cpu_heads(z, true, true, false);
            test_cpu_heads(z, true, false, false);
            test_cpu_heads(z, false, true, true);
        }
        const auto all = (float) row.n_vocab;
        //                             T scale  T     P scale P     uniform  last   min_p
        test_draws(z, { { 0.9f, -1.0f, { 1.0f,    0.0f, 0.0f,   0.9f,  -1.0f,  all,   0.0f }, 0, 0.0 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 0.0f,    0.5f, 0.0f,   0.5f,  -1.0f,  all,   0.0f }, 0, 0.0 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 1.0f,    0.0f, 0.0f,   1.0f,  -1.0f,  all,   0.0f }, 0, 0.0 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 1.0f,    0.0f, 0.0f,   0.8f,  -1.0f,  1.0f,  0.0f }, 2, 0.0 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 1.0f,    0.0f, 0.0f,   0.8f,  -1.0f,  all,   0.2f }, 0, 0.2 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 1.0f,    0.0f, 0.0f,   0.0f,  -1.0f,  all,   0.0f }, 0, 0.0 } }, {}, rounds);
        test_draws(z, { { 0.9f, -1.0f, { 0.0f,    0.0f, 0.0f,   1.0f,   0.0f,  all,   0.0f }, 1, 0.0 } }, {}, rounds); // greedy
    }
    //        vocabulary, rows: sorted one by one and at once, of lengths with and without a power of two in them
    test_many(151936, 3, 2);
    test_many(49152, 5, 3);
    test_many(49152, 17, 2);
    test_many(4099, 2, 20);
    test_many(300, 40, 9);
    test_many(3, 4, 9);
    if (!node_device) {
        test_many_heads(true, true, true);
        test_many_heads(true, true, false);
        test_many_heads(true, false, false);
        test_many_heads(false, true, true);
            test_no_numbers();
    }
    test_alignment();
    test_no_number_at_the_end();
    return report();
}
