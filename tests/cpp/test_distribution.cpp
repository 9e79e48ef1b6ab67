// The kernel that this machine's vector instructions run, against the same written out for one number at a time in double
// precision: statistics, nucleus and draws over random rows of logits, and products with weights of every type. No model is
// needed, so that it runs on an emulated processor too.

#include "check.h"

#include "kernel/distribution.h"
#include "kernel/row_passes.h"

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

using namespace autodeco;

constexpr int   N_DRAWS = 60;
constexpr float TOP_P[] = { 0.1f, 0.9f, 0.999f };

// float32 sums over a vocabulary: a cut or a draw may fall to either side by this much mass
constexpr double ROUNDING = 2e-6;

struct worst_case {
    double stats = 0.0; // largest error of a statistic
    double cut   = 0.0; // largest mass that the nucleus ends too early or too late by
    double draw  = 0.0; // the same of a drawn token
    int    n     = 0;
};

// `order`: the ids of z in descending order
static void compare(const std::vector<float> & z, const std::vector<int32_t> & order, float temperature, std::mt19937 & rng, worst_case & worst) {
    const int64_t       n = (int64_t) z.size();
    std::vector<double> mass(z.size() + 1, 0.0); // of the first i tokens
    double              entropy = 0.0;
    double              sum     = 0.0;
    for (int32_t id : order) {
        sum += std::exp(((double) z[id] - z[order[0]]) / temperature);
    }
    for (size_t i = 0; i < z.size(); ++i) {
        const double q = std::exp(((double) z[order[i]] - z[order[0]]) / temperature) / sum;
        mass[i + 1]    = mass[i] + q;
        entropy -= q * std::log(q + 1e-8);
    }

    row_workspace ws;
    ws.reserve(n);
    prob_stats stats = {};
    distribution_stats(z.data(), n, temperature, ws, stats);
    worst.stats = std::max({ worst.stats, std::fabs(stats.max_prob - mass[1]), std::fabs(stats.entropy - entropy) / std::max(1.0, entropy),
                             std::fabs(stats.top5_sum - mass[std::min<size_t>(5, z.size())]) });

    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int i = 0; i < N_DRAWS; ++i) {
        const float        top_p = TOP_P[i % 3];
        const double       u     = uniform(rng);
        const nucleus_draw draw  = nucleus_sample(z.data(), n, temperature, top_p, u, ws);
        const double       kept  = mass[(size_t) draw.size];
        worst.cut        = std::max({ worst.cut, top_p - kept, mass[(size_t) draw.size - 1] - top_p });
        const auto place = (size_t) (std::find(order.begin(), order.end(), draw.token) - order.begin());
        worst.draw       = std::max({ worst.draw, mass[place] - u * kept, u * kept - mass[place + 1] });
        worst.n += 1;
    }
}

// the largest error of a product, in units of the sum of the magnitudes that are added
static double error_of_products(dot_product * dot, ggml_type type, int64_t n, std::mt19937 & rng) {
    const ggml_type_traits *        traits = ggml_get_type_traits(type);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    double                          worst = 0.0;
    for (const float scale : { 1.0f, 1e-5f, 1e3f }) { // float16 has no full precision below 6e-5
        std::vector<float>   w((size_t) n), x((size_t) n);
        std::vector<uint8_t> stored(ggml_row_size(type, n));
        std::generate(w.begin(), w.end(), [&] { return scale * normal(rng); });
        std::generate(x.begin(), x.end(), [&] { return normal(rng); });
        if (type == GGML_TYPE_F32) {
            std::copy_n((const uint8_t *) w.data(), stored.size(), stored.begin());
        } else {
            traits->from_float_ref(w.data(), stored.data(), n);
            traits->to_float(stored.data(), w.data(), n);
        }
        double sum = 0.0, size = 0.0;
        for (int64_t i = 0; i < n; ++i) {
            sum += (double) w[i] * x[i];
            size += std::abs((double) w[i] * x[i]);
        }
        worst = std::max(worst, std::abs(dot(stored.data(), x.data(), n) - sum) / size);
    }
    return worst;
}

static void test_products(std::mt19937 & rng) {
    for (const row_passes * passes : { &row_passes_baseline, &best_passes() }) {
        const struct {
            dot_product * dot;
            ggml_type     type;
        } kinds[] = { { passes->dot_f32, GGML_TYPE_F32 }, { passes->dot_f16, GGML_TYPE_F16 }, { passes->dot_bf16, GGML_TYPE_BF16 }, { passes->dot_q8_0, GGML_TYPE_Q8_0 } };
        for (const auto & kind : kinds) {
            double worst = 0.0;
            for (const int64_t n : { 1, 7, 8, 31, 33, 32, 576, 4096 }) {
                if (n % ggml_blck_size(kind.type) == 0) {
                    worst = std::max(worst, error_of_products(kind.dot, kind.type, n, rng));
                }
            }
            const std::string claim = std::string("products with ") + ggml_type_name(kind.type) + " weights (" + passes->isa + ")";
            check(worst < 1e-6, claim.c_str(), worst);
        }
    }
}

int main() {
    std::mt19937 rng(1);
    test_products(rng);
    for (const int64_t n : { 3, 300, 49152, 151937 }) {
        worst_case worst;
        for (const float deviation : { 0.5f, 2.0f, 5.0f }) {
            std::normal_distribution<float> normal(0.0f, deviation);
            std::vector<float>              z((size_t) n);
            std::generate(z.begin(), z.end(), [&] { return normal(rng); });
            std::vector<int32_t> order((size_t) n);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
            for (const float temperature : { 0.3f, 1.0f, 1.9f }) {
                compare(z, order, temperature, rng, worst);
            }
        }
        const std::string row = " in rows of " + std::to_string(n) + " (" + distribution_isa() + ")";
        check(worst.n == 9 * N_DRAWS, ("all draws were made" + row).c_str(), worst.n);
        check(worst.stats < 1e-5, ("statistics are the scalar ones" + row).c_str(), worst.stats);
        check(worst.cut < ROUNDING, ("the nucleus ends where the scalar one does" + row).c_str(), worst.cut);
        check(worst.draw < ROUNDING, ("draws are the scalar ones" + row).c_str(), worst.draw);
    }
    return report();
}
