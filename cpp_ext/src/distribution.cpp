#include "distribution.h"

#include "bracket_search.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

namespace autodeco {

namespace {

// half a unit in the last place of a float32 near 1: 0.8 stored as 0.80000001 still keeps 8 of 10 equal tokens
constexpr double TOP_P_ROUNDING = 6e-8;

// Take the maxima of the blocks into the workspace; `max` is the row's.
row_status scan(const float * logits, int64_t n_vocab, row_workspace & ws, float & max) {
    ws.reserve(n_vocab);
    ws.has_row = false;
    if (!best_passes().block_max(logits, n_vocab, ws.block_max.data())) {
        return row_status::not_real;
    }
    max = *std::max_element(ws.block_max.begin(), ws.block_max.begin() + n_blocks(n_vocab));
    return max == -std::numeric_limits<float>::infinity() ? row_status::empty : row_status::ok;
}

int32_t first_of(const row & r, float z) {
    for (int64_t b = 0; b < n_blocks(r.n); ++b) {
        if (r.block_max[b] >= z) {
            for (int64_t i = b * BLOCK_SIZE; i < std::min(r.n, (b + 1) * BLOCK_SIZE); ++i) {
                if (r.z[i] == z) {
                    return (int32_t) i;
                }
            }
        }
    }
    return -1;
}

// sum of the five largest e: blocks are opened only while they can still hold one of the five
float top5_sum(const row & r, exponent_map em) {
    constexpr int K = 5;

    const float least = least_with_mass(em); // r.e is filled from here up
    float       top_z[K];
    float       top_e[K] = {};
    std::fill(top_z, top_z + K, least);
    for (int64_t b = 0; b < n_blocks(r.n); ++b) {
        if (r.block_max[b] <= top_z[K - 1]) {
            continue;
        }
        for (int64_t i = b * BLOCK_SIZE; i < std::min(r.n, (b + 1) * BLOCK_SIZE); ++i) {
            if (r.z[i] > top_z[K - 1]) {
                int k = K - 1;
                for (; k > 0 && r.z[i] > top_z[k - 1]; --k) {
                    top_z[k] = top_z[k - 1];
                    top_e[k] = top_e[k - 1];
                }
                top_z[k] = r.z[i];
                top_e[k] = r.e[i];
            }
        }
    }
    return std::accumulate(top_e, top_e + K, 0.0f);
}

// Searches the descending order of one row, the way that suits it.
class descending_search {
public:
    // r.e filled
    descending_search(const row & r, exponent_map em, const row_sums & sums, row_workspace & ws) : r(r), em(em), sums(sums), ws(ws) {
        if (bracket_search::pays(r, sums)) {
            bracketed.emplace(r, em, sums.e, ws);
        }
    }

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it)
    position find(double target, bool strictly) {
        position found;
        if (bracketed && bracketed->find(target, strictly, found)) {
            return found;
        }
        if (!buckets) {
            buckets.emplace(r, em, sums.e, sums.n, ws);
        }
        return buckets->find(target, strictly);
    }

private:
    const row                     r;
    const exponent_map            em;
    const row_sums                sums;
    row_workspace &               ws;
    std::optional<bracket_search> bracketed;
    std::optional<bucket_search>  buckets;
};

} // namespace

const char * row_status_message(row_status status) {
    switch (status) {
        case row_status::ok:       return "ok";
        case row_status::not_real: return "logits, temperature or top-p hold NaN or +inf";
        case row_status::empty:    return "every logit is -inf: no token may be drawn";
    }
    return "unknown";
}

row_status row_check(const float * logits, int64_t n_vocab, row_workspace & ws) {
    float max;
    return scan(logits, n_vocab, ws, max);
}

row_status distribution_stats(const float * logits, int64_t n_vocab, float temperature, row_workspace & ws, prob_stats & stats) {
    float            max;
    const row_status status = scan(logits, n_vocab, ws, max);
    if (status != row_status::ok) {
        return status;
    }
    if (!(temperature >= 0.0f && temperature <= FLT_MAX)) {
        return row_status::not_real;
    }
    const row          r    = { logits, n_vocab, ws.block_max.data(), ws.e.data() };
    const exponent_map em   = { max, 1.0f / (temperature + 1e-8f) };
    const row_sums     sums = best_passes().exponentials(r, em);

    const double inv_sum = 1.0 / sums.e;
    const double n       = (double) n_vocab;

    // -sum q log q = log(sum) - (sum of e x) / sum, as log q = x - log(sum); the 1e-8 in the logarithm shifts it a little
    stats.max_prob = (float) inv_sum;
    stats.entropy  = (float) (std::log(sums.e) - sums.e_x * inv_sum - best_passes().entropy_shift(r, em, (float) inv_sum));
    stats.prob_var = n_vocab > 1 ? (float) (std::max(0.0, sums.e_sq * inv_sum * inv_sum - 1.0 / n) / (n - 1.0)) : 0.0f;
    stats.top5_sum = (float) (top5_sum(r, em) * inv_sum);

    ws.has_row = true;
    ws.em      = em;
    ws.sums    = sums;
    return row_status::ok;
}

nucleus_draw nucleus_sample(const float * logits, int64_t n_vocab, float temperature, float top_p, double uniform, row_workspace & ws, bool seen) {
    seen      = seen && ws.has_row;
    float max = ws.em.max;
    if (!seen) {
        const row_status status = scan(logits, n_vocab, ws, max);
        if (status != row_status::ok) {
            return { status, -1, 0, 0.0f };
        }
    }
    if (!(temperature <= FLT_MAX) || std::isnan(top_p)) {
        return { row_status::not_real, -1, 0, 0.0f };
    }
    const row r = { logits, n_vocab, ws.block_max.data(), ws.e.data() };
    if (temperature < GREEDY_TEMPERATURE) {
        return { row_status::ok, first_of(r, max), 1, 1.0f };
    }

    exponent_map em = { max, 1.0f / temperature };
    // the statistics are of T + 1e-8, which is the same temperature for all but the smallest
    if (seen && std::abs(em.inv_temperature - ws.em.inv_temperature) <= 1e-6f * em.inv_temperature) {
        em = ws.em;
    } else {
        ws.sums = best_passes().exponentials(r, em);
    }
    ws.has_row = false; // r.e may be of another temperature now

    descending_search search(r, em, ws.sums, ws);

    int64_t size   = ws.sums.n;
    double  weight = ws.sums.e;
    if (top_p < 1.0f) {
        const position crossing = search.find(std::max((double) top_p - TOP_P_ROUNDING, 0.0) * ws.sums.e, false);
        size                    = crossing.rank + 1;
        weight                  = crossing.cum;
    }
    const position drawn = search.find(uniform * weight, true);
    return { row_status::ok, drawn.token, (int32_t) size, (float) (drawn.e / weight) };
}

const char * distribution_isa() {
    return best_passes().isa;
}

} // namespace autodeco
