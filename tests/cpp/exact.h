// What the heads say of a state, and what a nucleus holds, in float64 by the shortest code: what tests compare with.

#pragma once

#include "heads.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

struct exact_prediction {
    double temperature = 1.0;
    double top_p       = 1.0;
};

// the statistics that the top-p head reads, in their order
inline std::array<double, autodeco::N_PROB_STATS> exact_statistics(const float * logits, int64_t n_vocab, double temperature) {
    std::vector<double> q(logits, logits + n_vocab);
    const double        max = *std::max_element(q.begin(), q.end());
    double              sum = 0.0;
    for (double & value : q) {
        value = std::exp((value - max) / (temperature + 1e-8));
        sum += value;
    }
    double entropy = 0.0, squares = 0.0;
    for (double & value : q) {
        value /= sum;
        entropy -= value * std::log(value + 1e-8);
        squares += (value - 1.0 / (double) n_vocab) * (value - 1.0 / (double) n_vocab);
    }
    const auto fifth = q.begin() + std::min<int64_t>(5, n_vocab);
    std::partial_sort(q.begin(), fifth, q.end(), std::greater<double>());
    return { q[0], entropy, squares / (double) (n_vocab - 1), std::accumulate(q.begin(), fifth, 0.0) };
}

// sigmoid(W2 relu(W1 [hidden, extra] + b1) + b2)
inline double exact_head(const autodeco::heads_data & heads, const std::string & name, const float * hidden, const std::vector<double> & extra) {
    const auto values = [&](const char * part) {
        const auto &       tensor = heads.tensors.at("autodeco." + name + part);
        std::vector<float> out((size_t) (tensor.ne[0] * tensor.ne[1]));
        if (tensor.type == GGML_TYPE_F32) {
            std::copy_n((const float *) tensor.bytes.data(), out.size(), out.begin());
        } else {
            ggml_get_type_traits(tensor.type)->to_float(tensor.bytes.data(), out.data(), (int64_t) out.size());
        }
        return out;
    };
    const auto   w1 = values(".0.weight"), b1 = values(".0.bias"), w2 = values(".2.weight");
    const auto   w1_extra = extra.empty() ? std::vector<float>() : values(".0.extra.weight");
    double       sum      = values(".2.bias")[0];
    const size_t n_embd   = (size_t) heads.n_embd;
    for (size_t i = 0; i < b1.size(); ++i) {
        double x = std::inner_product(hidden, hidden + n_embd, w1.begin() + (ptrdiff_t) (i * n_embd), (double) b1[i],
                                      std::plus<>(), [](double a, double b) { return a * b; });
        for (size_t k = 0; k < extra.size(); ++k) {
            x += w1_extra[i * extra.size() + k] * extra[k];
        }
        sum += w2[i] * std::max(x, 0.0);
    }
    return 1.0 / (1.0 + std::exp(-sum));
}

inline exact_prediction exact_heads(const autodeco::heads_data & heads, const float * hidden, const float * logits) {
    exact_prediction result;
    if (heads.has_temp) {
        result.temperature = autodeco::TEMPERATURE_SCALE * exact_head(heads, "temp_head", hidden, {});
    }
    if (heads.has_top_p) {
        std::vector<double> extra = { result.temperature };
        if (heads.prob_stats) {
            const auto statistics = exact_statistics(logits, heads.n_vocab, result.temperature);
            extra.insert(extra.end(), statistics.begin(), statistics.end());
        }
        result.top_p = exact_head(heads, "top_p_head", hidden, extra);
    }
    return result;
}

// the level that the control head reads; 0 without one
inline double exact_level(const autodeco::heads_data & heads, const float * hidden) {
    if (!heads.has_control) {
        return 0.0;
    }
    const double raw    = 2.0 * exact_head(heads, "control_head", hidden, {}) - 1.0;
    const double beyond = std::max(std::abs(raw) - heads.control.dead_zone, 0.0) / (1.0 - heads.control.dead_zone);
    return raw < 0.0 ? -beyond : beyond;
}

// what predictions become at a level
inline exact_prediction exact_steered(const autodeco::heads_data & heads, const exact_prediction & p, double level) {
    const auto & ends = heads.control;
    const double cold = std::max(-level, 0.0), hot = std::max(level, 0.0);
    return { p.temperature * (1.0 - cold * (1.0 - ends.low_temperature_factor)) + hot * std::max(ends.high_temperature - p.temperature, 0.0),
             p.top_p * (1.0 - cold * (1.0 - ends.low_top_p_factor)) + hot * std::max(ends.high_top_p - p.top_p, 0.0) };
}

// probabilities of the nucleus in float64, by a full sort
inline std::vector<double> exact_nucleus(const std::vector<float> & z, double temperature, double top_p) {
    std::vector<int32_t> order(z.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
    std::vector<double> p(z.size(), 0.0);
    double              sum = 0.0;
    for (size_t i = 0; i < z.size(); ++i) {
        p[i] = std::exp(((double) z[i] - z[order[0]]) / temperature);
        sum += p[i];
    }
    double cum = 0.0;
    for (int32_t i : order) {
        if (cum >= top_p * sum) {
            p[i] = 0.0;
        } else {
            cum += p[i];
        }
    }
    for (double & v : p) {
        v /= cum;
    }
    return p;
}
