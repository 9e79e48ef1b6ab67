#include "distribution.h"

#include "row_passes.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>

namespace autodeco {

namespace {

// The row is divided into bands of exponents, each into 256 buckets, and a band is counted only when a target lies in it or
// below: 4 nats, where a peaked row has nearly all its mass in a few tokens, then 8, 16 and 64, beyond MIN_EXPONENT.
constexpr int   N_BANDS                  = 4;
constexpr float BUCKETS_PER_NAT[N_BANDS] = { 64.0f, 32.0f, 16.0f, 4.0f };

// buckets of at most this many tokens are sorted, larger ones are divided again
constexpr int64_t SORT_LIMIT = 512;

// half a unit in the last place of a float32 near 1: 0.8 stored as 0.80000001 still keeps 8 of 10 equal tokens
constexpr double TOP_P_ROUNDING = 6e-8;

const row_passes & passes() {
#if defined(AUTODECO_X86)
    static const row_passes & best =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") ? row_passes_avx512 :
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")                                              ? row_passes_avx2 :
                                                                                                                       row_passes_baseline;
    return best;
#else
    return row_passes_baseline;
#endif
}

int64_t n_blocks(int64_t n_vocab) {
    return (n_vocab + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

// Take the maxima of the blocks into the workspace; `max` is the row's.
row_status scan(const float * logits, int64_t n_vocab, row_workspace & ws, float & max) {
    ws.reserve(n_vocab);
    ws.has_row = false;
    if (!passes().block_max(logits, n_vocab, ws.block_max.data())) {
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

    const float least = std::max(-FLT_MAX, em.max + MIN_EXPONENT / em.inv_temperature); // r.e is filled from here up
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

// Where a cumulative mass falls in the descending order of the tokens.
struct position {
    int32_t token;
    float   e;    // mass of the token
    int64_t rank; // tokens before it
    double  cum;  // mass up to and including it
};

// Searches the descending order of one row without sorting it: histograms of masses name the bucket that a cumulative mass
// falls into, and only that bucket is looked at more closely.
class descending_search {
public:
    // `total` and `n_total`: mass and number of the tokens that have any, r.e filled
    descending_search(const row & r, exponent_map em, double total, int64_t n_total, row_workspace & ws) : r(r), ws(ws) {
        bands[0].map = { std::max(-FLT_MAX, em.max + MIN_EXPONENT / em.inv_temperature), em.max, BUCKETS_PER_NAT[0] * em.inv_temperature };
        fill(bands[0], total, n_total);
    }

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it)
    position find(double target, bool strictly) {
        position before = { -1, 0.0f, 0, 0.0 };
        int      k      = 0;
        while (k + 1 < N_BANDS && bands[k].count[TAIL] > 0 && !reached(before.cum + bands[k].above_tail, target, strictly)) {
            before.cum  += bands[k].above_tail;
            before.rank += bands[k].n_above_tail;
            ++k;
            if (k == n_bands) {
                fill_next_band();
            }
        }
        return find_in(bands[k], before, target, strictly, 0);
    }

private:
    struct level {
        bucket_map map;
        double     mass [N_BUCKETS + 1];
        int64_t    count[N_BUCKETS + 1];
        int32_t    last; // bucket that is not empty
        double     above_tail;
        int64_t    n_above_tail;
    };

    const row &     r;
    row_workspace & ws;
    level           bands[N_BANDS];
    int             n_bands = 1; // filled

    static bool reached(double cum, double target, bool strictly) {
        return strictly ? cum > target : cum >= target;
    }

    // the tail is what the buckets leave of the level's mass and number
    void fill(level & l, double mass, int64_t count) {
        std::fill(ws.bucket_mass.begin(), ws.bucket_mass.end(), 0.0);
        std::fill(ws.bucket_count.begin(), ws.bucket_count.end(), 0u);
        passes().histogram(r, l.map, ws.bucket_mass.data(), ws.bucket_count.data());
        l.last         = 0;
        l.above_tail   = 0.0;
        l.n_above_tail = 0;
        for (int32_t b = 0; b < N_BUCKETS; ++b) {
            l.mass[b]  = 0.0;
            l.count[b] = 0;
            for (int32_t lane = 0; lane < N_LANES; ++lane) {
                l.mass[b]  += ws.bucket_mass[b * N_LANES + lane];
                l.count[b] += ws.bucket_count[b * N_LANES + lane];
            }
            l.above_tail   += l.mass[b];
            l.n_above_tail += l.count[b];
            l.last          = l.count[b] > 0 ? b : l.last;
        }
        l.mass[TAIL]  = std::max(0.0, mass - l.above_tail);
        l.count[TAIL] = count - l.n_above_tail;
        l.last        = l.count[TAIL] > 0 ? TAIL : l.last;
    }

    void fill_next_band() {
        const level & above = bands[n_bands - 1];
        level &       l     = bands[n_bands];
        l.map = { above.map.lo, largest_in_tail(above.map), above.map.scale * (BUCKETS_PER_NAT[n_bands] / BUCKETS_PER_NAT[n_bands - 1]) };
        fill(l, above.mass[TAIL], above.count[TAIL]);
        ++n_bands;
    }

    // the largest float that the map puts into the tail, by the very arithmetic of the passes
    static float largest_in_tail(bucket_map map) {
        const auto in_tail = [map](float z) { return (map.hi - z) * map.scale >= (float) TAIL; };

        float z = map.hi - (float) TAIL / map.scale;
        while (!in_tail(z)) {
            z = std::nextafter(z, -std::numeric_limits<float>::infinity());
        }
        for (float up; in_tail(up = std::nextafter(z, map.hi)) && up != z;) {
            z = up;
        }
        return z;
    }

    position find_in(const level & l, position before, double target, bool strictly, int depth) {
        int32_t b = 0;
        // rounding may leave the target just above the sum of all: then it is the last token's
        while (b < l.last && (l.count[b] == 0 || !reached(before.cum + l.mass[b], target, strictly))) {
            before.cum  += l.mass[b];
            before.rank += l.count[b];
            ++b;
        }
        return find_in_bucket(l.map, b, l.count[b], before, target, strictly, depth);
    }

    position find_in_bucket(bucket_map map, int32_t bucket, int64_t n, position before, double target, bool strictly, int depth) {
        constexpr int MAX_DEPTH = 6; // six divisions by 256 separate all but wildly spaced logits; sorting is right for any

        if (n > SORT_LIMIT && depth < MAX_DEPTH) {
            level inner;
            passes().bucket_range(r, map, bucket, &inner.map.lo, &inner.map.hi);
            if (inner.map.lo == inner.map.hi) {
                return find_among_equal(map, bucket, n, before, target, strictly);
            }
            inner.map.scale = (float) (N_BUCKETS - 1) / (inner.map.hi - inner.map.lo);
            if (inner.map.scale > 0.0f && inner.map.scale <= FLT_MAX) {
                fill(inner, 0.0, n);
                return find_in(inner, before, target, strictly, depth + 1);
            }
        }

        passes().gather(r, map, bucket, n, ws.gathered_z.data(), ws.gathered_e.data(), ws.gathered_id.data());
        std::iota(ws.order.begin(), ws.order.begin() + n, 0);
        const float * z = ws.gathered_z.data();
        std::sort(ws.order.begin(), ws.order.begin() + n, [z](int32_t a, int32_t b) {
            return z[a] != z[b] ? z[a] > z[b] : a < b; // gathered in ascending order of id
        });
        for (int64_t k = 0; k < n; ++k) {
            const int32_t i = ws.order[k];
            before.cum += ws.gathered_e[i];
            if (k + 1 == n || reached(before.cum, target, strictly)) {
                return { ws.gathered_id[i], ws.gathered_e[i], before.rank, before.cum };
            }
            before.rank += 1;
        }
        return before;
    }

    position find_among_equal(bucket_map map, int32_t bucket, int64_t n, position before, double target, bool strictly) {
        passes().gather(r, map, bucket, 1, ws.gathered_z.data(), ws.gathered_e.data(), ws.gathered_id.data());
        const double e     = ws.gathered_e[0];
        const double exact = e > 0.0 ? (target - before.cum) / e : 0.0;
        const auto   k     = (int64_t) std::min(std::max(0.0, strictly ? std::floor(exact) : std::ceil(exact) - 1.0), (double) n - 1.0);
        passes().gather(r, map, bucket, k + 1, ws.gathered_z.data(), ws.gathered_e.data(), ws.gathered_id.data());
        return { ws.gathered_id[k], (float) e, before.rank + k, before.cum + e * (double) (k + 1) };
    }
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

void row_workspace::reserve(int64_t n_vocab) {
    if ((int64_t) order.size() >= n_vocab) {
        return;
    }
    block_max.resize(n_blocks(n_vocab));
    e.resize(n_blocks(n_vocab) * BLOCK_SIZE);
    bucket_mass.resize(N_CELLS);
    bucket_count.resize(N_CELLS);
    gathered_z.resize(n_vocab);
    gathered_e.resize(n_vocab);
    gathered_id.resize(n_vocab);
    order.resize(n_vocab);
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
    const row_sums     sums = passes().exponentials(r, em);

    const double inv_sum = 1.0 / sums.e;
    const double n       = (double) n_vocab;

    // -sum q log q = log(sum) - (sum of e x) / sum, as log q = x - log(sum); the 1e-8 in the logarithm shifts it a little
    stats.max_prob = (float) inv_sum;
    stats.entropy  = (float) (std::log(sums.e) - sums.e_x * inv_sum - passes().entropy_shift(r, em, (float) inv_sum));
    stats.prob_var = n_vocab > 1 ? (float) (std::max(0.0, sums.e_sq * inv_sum * inv_sum - 1.0 / n) / (n - 1.0)) : 0.0f;
    stats.top5_sum = (float) (top5_sum(r, em) * inv_sum);

    ws.has_row         = true;
    ws.max             = max;
    ws.inv_temperature = em.inv_temperature;
    ws.sum             = sums.e;
    ws.n               = sums.n;
    return row_status::ok;
}

nucleus_draw nucleus_sample(const float * logits, int64_t n_vocab, float temperature, float top_p, double uniform, row_workspace & ws, bool seen) {
    seen      = seen && ws.has_row;
    float max = ws.max;
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

    exponent_map em    = { max, 1.0f / temperature };
    double       total = ws.sum;
    int64_t      n     = ws.n;
    // the statistics are of T + 1e-8, which is the same temperature for all but the smallest
    if (seen && std::abs(em.inv_temperature - ws.inv_temperature) <= 1e-6f * em.inv_temperature) {
        em.inv_temperature = ws.inv_temperature;
    } else {
        const row_sums sums = passes().exponentials(r, em);
        total               = sums.e;
        n                   = sums.n;
    }
    ws.has_row = false; // r.e may be of another temperature now

    descending_search search(r, em, total, n, ws);

    int64_t size   = n;
    double  weight = total;
    if (top_p < 1.0f) {
        const position crossing = search.find(std::max((double) top_p - TOP_P_ROUNDING, 0.0) * total, false);
        size                    = crossing.rank + 1;
        weight                  = crossing.cum;
    }
    const position drawn = search.find(uniform * weight, true);
    return { row_status::ok, drawn.token, (int32_t) size, (float) (drawn.e / weight) };
}

const char * distribution_isa() {
    return passes().isa;
}

} // namespace autodeco
