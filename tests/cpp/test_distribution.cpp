// The kernel that this machine's vector instructions run, against the same written out for one number at a time in double
// precision: statistics, nucleus and draws over random rows of logits. No model is needed, so that it runs on an emulated
// processor too.

#include "check.h"

#include "distribution.h"

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

int main() {
    std::mt19937 rng(1);
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
