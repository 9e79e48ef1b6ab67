#include "distribution.h"

#include "bracket_search.h"
#include "sole_token.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

namespace autodeco {

namespace {

// blocks that thread `ith` of `nth` reads, as a row of its own
logits_row share_of(const logits_row & r, int ith, int nth) {
    const int64_t first = n_blocks(r.n) * ith / nth * BLOCK_SIZE;
    const int64_t end   = std::min(r.n, n_blocks(r.n) * (ith + 1) / nth * BLOCK_SIZE);
    return { r.z + first, std::max<int64_t>(0, end - first), r.block_max + first / BLOCK_SIZE, r.e + first };
}

logits_row row_of(const float * logits, int64_t n_vocab, row_workspace & ws) {
    return { logits, n_vocab, ws.block_max.data(), ws.e.data() };
}

logits_row reserved_row(const float * logits, int64_t n_vocab, row_workspace & ws) {
    ws.reserve(n_vocab); // which moves the memory of a smaller one
    return row_of(logits, n_vocab, ws);
}

row_status status_of(bool is_real, float max) {
    return !is_real ? row_status::not_real : max == -std::numeric_limits<float>::infinity() ? row_status::empty : row_status::ok;
}

float largest(const logits_row & r) {
    return *std::max_element(r.block_max, r.block_max + n_blocks(r.n));
}

exponent_map exponents_at(float temperature, float max) {
    return { max, 1.0f / (temperature + STATS_EPSILON) };
}

bool is_temperature(float temperature) {
    return temperature >= 0.0f && temperature <= FLT_MAX;
}

// Take the maxima of the blocks into the workspace; `max` is the row's.
row_status scan(const float * logits, int64_t n_vocab, row_workspace & ws, float & max) {
    ws.reserve(n_vocab);
    ws.has_row   = false;
    ws.n_shares  = 0;
    const bool is_real = best_passes().block_max(logits, n_vocab, ws.block_max.data());
    max = is_real ? largest(row_of(logits, n_vocab, ws)) : 0.0f;
    return status_of(is_real, max);
}

// The same and the exponentials, put together from what the threads have found.
row_status join_shares(const logits_row & r, row_workspace & ws, float & max, row_sums & sums) {
    bool is_real = true;
    sums         = { 0.0, 0.0, 0.0, 0 };
    for (int i = 0; i < ws.n_shares; ++i) {
        const row_share & share = ws.shares[i];
        is_real = is_real && share.is_real;
        sums    = { sums.e + share.sums.e, sums.e_sq + share.sums.e_sq, sums.e_x + share.sums.e_x, sums.n + share.sums.n };
    }
    ws.has_row  = false;
    ws.n_shares = 0;
    max = is_real ? largest(r) : 0.0f;
    return status_of(is_real, max);
}

int32_t first_of(const logits_row & r, float z) {
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
float top5_sum(const logits_row & r, exponent_map em) {
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
    descending_search(const logits_row & r, exponent_map em, const row_sums & sums, row_workspace & ws) : r(r), em(em), sums(sums), ws(ws) {
        if (bracket_search::pays(r, sums)) {
            bracketed.emplace(r, em, sums.e, ws);
        }
    }

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it)
    mass_position find(double target, bool strictly) {
        mass_position found;
        if (bracketed && bracketed->find(target, strictly, found)) {
            return found;
        }
        if (!buckets) {
            buckets.emplace(r, em, sums.e, sums.n, ws);
        }
        return buckets->find(target, strictly);
    }

private:
    const logits_row                     r;
    const exponent_map            em;
    const row_sums                sums;
    row_workspace &               ws;
    std::optional<bracket_search> bracketed;
    std::optional<bucket_search>  buckets;
};

// The nucleus of one row at a temperature and top-p, from which any number of tokens can be drawn.
class nucleus {
public:
    nucleus(const float * logits, int64_t n_vocab, float temperature, float top_p, row_workspace & ws, bool seen) :
        r(reserved_row(logits, n_vocab, ws)), ws(ws), top_p(top_p) {
        seen      = seen && ws.has_row;
        float max = ws.em.max;
        if (!seen) {
            status = scan(logits, n_vocab, ws, max);
        }
        if (status == row_status::ok && (!(temperature <= FLT_MAX) || std::isnan(top_p))) {
            status = row_status::not_real;
        }
        if (status != row_status::ok) {
            return;
        }
        is_greedy = temperature < GREEDY_TEMPERATURE;
        if (is_greedy) {
            likeliest = first_of(r, max);
            return;
        }

        em = { max, 1.0f / temperature };
        // the statistics are of T + STATS_EPSILON, which is the same temperature for all but the smallest
        is_filled = seen && std::abs(em.inv_temperature - ws.em.inv_temperature) <= 1e-6f * em.inv_temperature;
        if (is_filled) {
            em = ws.em;
        }
        ws.has_row = false; // r.e may be of another temperature soon
    }

    nucleus_draw draw(double uniform) {
        if (status != row_status::ok) {
            return { status, -1, 0, 0.0f };
        }
        if (is_greedy) {
            return { status, likeliest, 1, 1.0f };
        }
        find_edge();
        const mass_position drawn = search->find(uniform * mass, true);
        return { status, drawn.token, (int32_t) size, (float) (drawn.e / mass) };
    }

    // The token of the same draw.
    token_draw draw_token(double uniform) {
        if (status == row_status::ok && !is_greedy && !is_filled) {
            if (likeliest < 0) {
                likeliest = first_of(r, em.max);
                beside    = most_beside(r, em, ws);
            }
            if (is_sole(top_p, beside) || takes_likeliest(uniform, beside)) {
                return { status, likeliest };
            }
        }
        return { status, draw(uniform).token };
    }

private:
    // The exponentials of the row, and the mass of the nucleus.
    void find_edge() {
        if (search) {
            return;
        }
        if (!is_filled) {
            ws.sums   = best_passes().exponentials(r, em);
            is_filled = true;
        }
        search.emplace(r, em, ws.sums, ws);
        size = ws.sums.n;
        mass = ws.sums.e;
        if (top_p < 1.0f) {
            const mass_position crossing = search->find(std::max((double) top_p - TOP_P_ROUNDING, 0.0) * ws.sums.e, false);
            size                         = crossing.rank + 1;
            mass                         = crossing.cum;
        }
    }

    const logits_row r;
    row_workspace &  ws;
    const float      top_p;
    exponent_map     em        = { 0.0f, 0.0f };
    row_status       status    = row_status::ok;
    bool             is_greedy = false;
    bool             is_filled = false; // r.e has the exponentials
    int32_t          likeliest = -1;
    double           beside    = 0.0; // a bound on the mass of all others, once `likeliest` is known
    int64_t          size      = 0;
    double           mass      = 0.0;

    std::optional<descending_search> search; // once it is needed
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

void row_maxima(const float * logits, int64_t n_vocab, int ith, int nth, row_workspace & ws) {
    if (nth > (int) ws.shares.size()) {
        return; // more threads than ggml can have
    }
    const logits_row share = share_of(row_of(logits, n_vocab, ws), ith, nth);
    ws.shares[ith].is_real = best_passes().block_max(share.z, share.n, share.block_max);
}

void row_exponentials(const float * logits, int64_t n_vocab, float temperature, int ith, int nth, row_workspace & ws) {
    if (nth > (int) ws.shares.size()) {
        return;
    }
    const logits_row          r  = row_of(logits, n_vocab, ws);
    const exponent_map em = exponents_at(temperature, largest(r));
    ws.shares[ith].sums   = { 0.0, 0.0, 0.0, 0 };
    if (is_temperature(temperature) && em.max > -std::numeric_limits<float>::infinity()) {
        ws.shares[ith].sums = best_passes().exponentials(share_of(r, ith, nth), em);
    }
    if (ith == 0) {
        ws.n_shares = nth;
    }
}

row_status distribution_stats(const float * logits, int64_t n_vocab, float temperature, row_workspace & ws, prob_stats & stats) {
    ws.reserve(n_vocab);
    const logits_row  r      = row_of(logits, n_vocab, ws);
    const bool shared = ws.n_shares > 0;
    float      max;
    row_sums   sums;
    const row_status status = shared ? join_shares(r, ws, max, sums) : scan(logits, n_vocab, ws, max);
    if (status != row_status::ok) {
        return status;
    }
    if (!is_temperature(temperature)) {
        return row_status::not_real;
    }
    const exponent_map em = exponents_at(temperature, max);
    if (!shared) {
        sums = best_passes().exponentials(r, em);
    }

    const double inv_sum = 1.0 / sums.e;
    const double n       = (double) n_vocab;

    // -sum q log q = log(sum) - (sum of e x) / sum, as log q = x - log(sum); STATS_EPSILON in the logarithm shifts it a little
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
    return nucleus(logits, n_vocab, temperature, top_p, ws, seen).draw(uniform);
}

void nucleus_samples(const float * logits, int64_t n_vocab, const draw_request * requests, int64_t n, row_workspace & ws, token_draw * draws, bool seen) {
    // those at the temperature whose exponentials the workspace has come first
    const exponent_map known    = ws.em;
    const auto         settings = [&](int64_t i) {
        const draw_request & one = requests[i];
        return std::make_tuple(one.row, !(seen && exponents_at(one.temperature, known.max).inv_temperature == known.inv_temperature), one.temperature, one.top_p);
    };

    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return settings(a) < settings(b); });
    for (int64_t i = 0; i < n;) {
        const draw_request & first = requests[order[i]];
        nucleus              shared(logits + first.row * n_vocab, n_vocab, first.temperature, first.top_p, ws, seen);
        const auto           these = settings(order[i]);
        do {
            draws[order[i]] = shared.draw_token(requests[order[i]].uniform);
        } while (++i < n && settings(order[i]) == these);
    }
}

spread distribution_spread(const float * logits, int64_t n_vocab, row_workspace & ws) {
    float            max;
    const row_status status = scan(logits, n_vocab, ws, max);
    if (status != row_status::ok) {
        return { status, 0.0, 0.0 };
    }
    const row_sums sums = best_passes().exponentials(row_of(logits, n_vocab, ws), { max, 1.0f });
    return { status, std::max(0.0, std::log(sums.e) - sums.e_x / sums.e), 1.0 / sums.e };
}

const char * distribution_isa() {
    return best_passes().isa;
}

} // namespace autodeco
