#include "distribution.h"

#include "row_passes.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>

namespace autodeco {

namespace {

// buckets of the first level are 1/16 nat wide: 256 of them reach down to exp(-16) = 1e-7 of the largest probability
constexpr float BUCKETS_PER_NAT = 16.0f;

// buckets of at most this many tokens are sorted, larger ones are divided again
constexpr uint32_t SORT_LIMIT = 512;

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

// sum of exp of the five largest exponents: blocks are opened only while they can still hold one of the five
float top5_exponentials(const row & r, exponent_map em) {
    constexpr int K = 5;

    float top[K];
    std::fill(top, top + K, -FLT_MAX);
    for (int64_t b = 0; b < n_blocks(r.n); ++b) {
        if (r.block_max[b] <= top[K - 1]) {
            continue;
        }
        for (int64_t i = b * BLOCK_SIZE; i < std::min(r.n, (b + 1) * BLOCK_SIZE); ++i) {
            if (r.z[i] > top[K - 1]) {
                int k = K - 1;
                for (; k > 0 && r.z[i] > top[k - 1]; --k) {
                    top[k] = top[k - 1];
                }
                top[k] = r.z[i];
            }
        }
    }
    float sum = 0.0f;
    for (float z : top) {
        const float x = (z - em.max) * em.inv_temperature;
        sum += z > -FLT_MAX && x > MIN_EXPONENT ? std::exp(x) : 0.0f;
    }
    return sum;
}

// Where a cumulative mass falls in the descending order of the tokens.
struct position {
    int32_t token;
    float   e;    // mass of the token
    int64_t rank; // tokens before it
    double  cum;  // mass up to and including it
};

// Searches the descending order of one row without sorting it: a histogram of masses names the bucket that a cumulative
// mass falls into, and only that bucket is looked at more closely.
class descending_search {
public:
    descending_search(const row & r, exponent_map em, row_workspace & ws) : r(r), em(em), ws(ws) {
        top.lo    = std::max(-FLT_MAX, em.max + MIN_EXPONENT / em.inv_temperature);
        top.hi    = em.max;
        top.scale = BUCKETS_PER_NAT * em.inv_temperature;
        fill(top, total, mass, count);
        n_total = std::accumulate(count, count + N_BUCKETS + 1, (int64_t) 0);
    }

    double  total = 0.0;
    int64_t n_total = 0;

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it)
    position find(double target, bool strictly) {
        return find_in(top, mass, count, { -1, 0.0f, 0, 0.0 }, target, strictly, 0);
    }

private:
    const row &     r;
    exponent_map    em;
    row_workspace & ws;
    bucket_map      top;
    double          mass [N_BUCKETS + 1];
    uint32_t        count[N_BUCKETS + 1];

    static bool reached(double cum, double target, bool strictly) {
        return strictly ? cum > target : cum >= target;
    }

    void fill(bucket_map map, double & sum, double * bucket_mass, uint32_t * bucket_count) {
        std::fill(ws.bucket_mass.begin(), ws.bucket_mass.end(), 0.0);
        std::fill(ws.bucket_count.begin(), ws.bucket_count.end(), 0u);
        passes().histogram(r, em, map, ws.bucket_mass.data(), ws.bucket_count.data());
        sum = 0.0;
        for (int32_t b = 0; b <= N_BUCKETS; ++b) {
            bucket_mass[b]  = 0.0;
            bucket_count[b] = 0;
            for (int32_t lane = 0; lane < N_LANES; ++lane) {
                bucket_mass[b]  += ws.bucket_mass[b * N_LANES + lane];
                bucket_count[b] += ws.bucket_count[b * N_LANES + lane];
            }
            sum += bucket_mass[b];
        }
    }

    position find_in(bucket_map map, const double * bucket_mass, const uint32_t * bucket_count, position before, double target, bool strictly, int depth) {
        int32_t last = -1; // rounding may leave the target just above the sum of all: then it is the last token's
        for (int32_t b = 0; b <= N_BUCKETS; ++b) {
            if (bucket_count[b] == 0) {
                continue;
            }
            last = b;
            if (reached(before.cum + bucket_mass[b], target, strictly)) {
                break;
            }
            bool more = false;
            for (int32_t c = b + 1; c <= N_BUCKETS && !more; ++c) {
                more = bucket_count[c] != 0;
            }
            if (!more) {
                break;
            }
            before.cum  += bucket_mass[b];
            before.rank += bucket_count[b];
        }
        return find_in_bucket(map, last, bucket_count[last], before, target, strictly, depth);
    }

    position find_in_bucket(bucket_map map, int32_t bucket, uint32_t n, position before, double target, bool strictly, int depth) {
        constexpr int MAX_DEPTH = 6; // six divisions by 256 separate all but wildly spaced logits; sorting is right for any

        if (n > SORT_LIMIT && depth < MAX_DEPTH) {
            bucket_map inner;
            passes().bucket_range(r, map, bucket, &inner.lo, &inner.hi);
            if (inner.lo == inner.hi) {
                return find_among_equal(map, bucket, inner.hi, n, before, target, strictly);
            }
            inner.scale = (float) (N_BUCKETS - 1) / (inner.hi - inner.lo);
            if (inner.scale > 0.0f && inner.scale <= FLT_MAX) {
                double   inner_mass [N_BUCKETS + 1];
                uint32_t inner_count[N_BUCKETS + 1];
                double   inner_sum;
                fill(inner, inner_sum, inner_mass, inner_count);
                return find_in(inner, inner_mass, inner_count, before, target, strictly, depth + 1);
            }
        }

        passes().gather(r, map, bucket, ws.gathered_z.data(), ws.gathered_id.data(), n);
        passes().exponentials(ws.gathered_z.data(), n, em, ws.gathered_e.data());
        std::iota(ws.order.begin(), ws.order.begin() + n, 0);
        const float * z = ws.gathered_z.data();
        std::sort(ws.order.begin(), ws.order.begin() + n, [z](int32_t a, int32_t b) {
            return z[a] != z[b] ? z[a] > z[b] : a < b; // gathered in ascending order of id
        });
        for (uint32_t k = 0; k < n; ++k) {
            const int32_t i = ws.order[k];
            before.cum += ws.gathered_e[i];
            if (k + 1 == n || reached(before.cum, target, strictly)) {
                return { ws.gathered_id[i], ws.gathered_e[i], before.rank, before.cum };
            }
            before.rank += 1;
        }
        return before;
    }

    position find_among_equal(bucket_map map, int32_t bucket, float z, uint32_t n, position before, double target, bool strictly) {
        float e;
        passes().exponentials(&z, 1, em, &e);
        const double exact = e > 0.0f ? (target - before.cum) / e : 0.0;
        int64_t      k     = (int64_t) std::min(std::max(0.0, strictly ? std::floor(exact) : std::ceil(exact) - 1.0), (double) n - 1.0);
        passes().gather(r, map, bucket, ws.gathered_z.data(), ws.gathered_id.data(), n);
        return { ws.gathered_id[k], e, before.rank + k, before.cum + (double) e * (double) (k + 1) };
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
    const row          r  = { logits, n_vocab, ws.block_max.data() };
    const exponent_map em = { max, 1.0f / (temperature + 1e-8f) };

    double sum;
    double sum_sq;
    passes().moments(r, em, &sum, &sum_sq);
    const double inv_sum = 1.0 / sum;
    const double n       = (double) n_vocab;

    stats.max_prob = (float) inv_sum;
    stats.entropy  = (float) -passes().neg_entropy(r, em, (float) inv_sum);
    stats.prob_var = n_vocab > 1 ? (float) (std::max(0.0, sum_sq * inv_sum * inv_sum - 1.0 / n) / (n - 1.0)) : 0.0f;
    stats.top5_sum = (float) (top5_exponentials(r, em) * inv_sum);
    return row_status::ok;
}

nucleus_draw nucleus_sample(const float * logits, int64_t n_vocab, float temperature, float top_p, double uniform, row_workspace & ws) {
    float            max;
    const row_status status = scan(logits, n_vocab, ws, max);
    if (status != row_status::ok) {
        return { status, -1, 0, 0.0f };
    }
    if (!(temperature <= FLT_MAX) || std::isnan(top_p)) {
        return { row_status::not_real, -1, 0, 0.0f };
    }
    const row r = { logits, n_vocab, ws.block_max.data() };
    if (temperature < GREEDY_TEMPERATURE) {
        return { row_status::ok, first_of(r, max), 1, 1.0f };
    }

    descending_search search(r, { max, 1.0f / temperature }, ws);

    int64_t size   = search.n_total;
    double  weight = search.total;
    if (top_p < 1.0f) {
        const position crossing = search.find(std::max((double) top_p - TOP_P_ROUNDING, 0.0) * search.total, false);
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
