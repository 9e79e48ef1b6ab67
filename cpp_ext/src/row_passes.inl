// The passes over a row of logits, written once with the vector extensions of gcc and clang and compiled once for each set
// of vector instructions: the including file names its table in AUTODECO_ROW_PASSES and its instructions in AUTODECO_ISA.
// Everything is in an unnamed namespace: functions of the same name compiled for other instructions must not be merged.

#include "distribution.h"
#include "row_passes.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

namespace autodeco {
namespace {

constexpr int W = 8; // floats in a vector; the compiler splits or joins them to what the machine has
static_assert(W == N_LANES, "a lane of a vector owns a cell of every bucket");
static_assert(BLOCK_SIZE % W == 0, "blocks hold whole vectors");

typedef float   vfloat __attribute__((vector_size(W * sizeof(float))));
typedef int32_t vint   __attribute__((vector_size(W * sizeof(int32_t))));
typedef double  vdouble __attribute__((vector_size(W * sizeof(double))));

constexpr float NEG_INF = -std::numeric_limits<float>::infinity();

inline vfloat load(const float * p) {
    vfloat v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}

inline vfloat splat(float x) {
    return vfloat{} + x;
}

inline vfloat vmax(vfloat a, vfloat b) {
    return a > b ? a : b;
}

inline vfloat vmin(vfloat a, vfloat b) {
    return a < b ? a : b;
}

inline bool any(vint mask) {
    int64_t parts[W / 2];
    std::memcpy(parts, &mask, sizeof(mask));
    return (parts[0] | parts[1] | parts[2] | parts[3]) != 0;
}

inline float hmax(vfloat v) {
    float m = v[0];
    for (int i = 1; i < W; ++i) {
        m = v[i] > m ? v[i] : m;
    }
    return m;
}

inline double hsum(vfloat v) {
    double s = 0.0;
    for (int i = 0; i < W; ++i) {
        s += v[i];
    }
    return s;
}

inline vfloat bits_to_float(vint v) {
    vfloat f;
    std::memcpy(&f, &v, sizeof(f));
    return f;
}

inline void store(float * p, vfloat v) {
    std::memcpy(p, &v, sizeof(v));
}

inline vint float_to_bits(vfloat v) {
    vint i;
    std::memcpy(&i, &v, sizeof(i));
    return i;
}

// exp(x) for x <= 0, 0 below MIN_EXPONENT; relative error below 2e-7 (degree 6 polynomial on [-ln2/2, ln2/2])
inline vfloat vexp(vfloat x) {
    const vint   alive   = x > MIN_EXPONENT;
    const vfloat clamped = vmax(x, splat(MIN_EXPONENT));
    // adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits
    const vfloat shifted = clamped * 1.44269504088896341f + 12582912.0f;
    const vfloat n       = shifted - 12582912.0f;
    vfloat       r       = clamped - n * 0.693359375f;
    r                    = r - n * -2.12194440e-4f;
    vfloat p             = splat(1.9875691500e-4f);
    p                    = p * r + 1.3981999507e-3f;
    p                    = p * r + 8.3334519073e-3f;
    p                    = p * r + 4.1665795894e-2f;
    p                    = p * r + 1.6666665459e-1f;
    p                    = p * r + 5.0000001201e-1f;
    p                    = p * r * r + r + 1.0f;
    const vint exponent  = (float_to_bits(shifted) - float_to_bits(splat(12582912.0f))) << 23;
    const vfloat e       = bits_to_float(float_to_bits(p) + exponent);
    return alive ? e : vfloat{};
}

inline vfloat exponents(vfloat z, exponent_map em) {
    return (z - em.max) * em.inv_temperature;
}

// Call `body(p, i)` for every block whose maximum reaches `least`: p are its BLOCK_SIZE logits, i the id of the first.
// The last block is padded with -inf, which no pass counts; r.e has room for whole blocks.
template <typename F>
inline void for_each_block(const row & r, float least, F && body) {
    const int64_t n_full = r.n / BLOCK_SIZE;
    for (int64_t b = 0; b < n_full; ++b) {
        if (r.block_max[b] >= least) {
            body(r.z + b * BLOCK_SIZE, b * BLOCK_SIZE);
        }
    }
    const int64_t rest = r.n - n_full * BLOCK_SIZE;
    if (rest > 0 && r.block_max[n_full] >= least) {
        float padded[BLOCK_SIZE];
        std::memcpy(padded, r.z + n_full * BLOCK_SIZE, rest * sizeof(float));
        for (int64_t i = rest; i < BLOCK_SIZE; ++i) {
            padded[i] = NEG_INF;
        }
        body(padded, n_full * BLOCK_SIZE);
    }
}

// the smallest logit whose exponent is at least x; -FLT_MAX keeps -inf out
inline float least_logit(exponent_map em, float x) {
    const float z = em.max + x / em.inv_temperature;
    return z > -FLT_MAX ? z : -FLT_MAX;
}

bool block_max(const float * z, int64_t n, float * block_max) {
    const int64_t n_full = n / BLOCK_SIZE;
    vint          bad    = vint{};
    for (int64_t b = 0; b < n_full; ++b) {
        const float * p  = z + b * BLOCK_SIZE;
        vfloat        m0 = splat(NEG_INF);
        vfloat        m1 = m0;
        for (int64_t i = 0; i < BLOCK_SIZE; i += 2 * W) {
            const vfloat v0 = load(p + i);
            const vfloat v1 = load(p + i + W);
            bad |= ~(v0 <= FLT_MAX) | ~(v1 <= FLT_MAX); // true for NaN and +inf
            m0 = vmax(v0, m0);
            m1 = vmax(v1, m1);
        }
        block_max[b] = hmax(vmax(m0, m1));
    }
    bool ok = !any(bad);
    if (n_full * BLOCK_SIZE < n) {
        float m = NEG_INF;
        for (int64_t i = n_full * BLOCK_SIZE; i < n; ++i) {
            ok = ok && z[i] <= FLT_MAX;
            m  = z[i] > m ? z[i] : m;
        }
        block_max[n_full] = m;
    }
    return ok;
}

row_sums exponentials(const row & r, exponent_map em) {
    row_sums sums = { 0.0, 0.0, 0.0, 0 };
    for_each_block(r, least_logit(em, MIN_EXPONENT), [&](const float * p, int64_t first) {
        vfloat e_sum    = vfloat{};
        vfloat e_sq_sum = vfloat{};
        vfloat e_x_sum  = vfloat{};
        vint   alive    = vint{};
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vfloat x = vmax(exponents(load(p + i), em), splat(MIN_EXPONENT)); // -inf * 0 would be NaN
            const vfloat e = vexp(x);
            store(r.e + first + i, e);
            e_sum += e;
            e_sq_sum += e * e;
            e_x_sum += e * x;
            alive -= e > 0.0f;
        }
        sums.e += hsum(e_sum);
        sums.e_sq += hsum(e_sq_sum);
        sums.e_x += hsum(e_x_sum);
        for (int lane = 0; lane < W; ++lane) {
            sums.n += alive[lane];
        }
    });
    return sums;
}

double entropy_shift(const row & r, exponent_map em, float inv_sum) {
    constexpr float EPS = 1e-8f;

    // below q = 1e-14 a vocabulary of 262k adds less than 262e3 * 1e-14 * log(1e6) = 4e-8
    const float least = std::log(1e-14f / inv_sum);
    double      s     = 0.0;
    for_each_block(r, least_logit(em, least > MIN_EXPONENT ? least : MIN_EXPONENT), [&](const float *, int64_t first) {
        vfloat v = vfloat{};
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            // with t = q / 1e-8 a term is 1e-8 * t log(1 + 1/t); the fraction is within 1.2e-3 of t log(1 + 1/t) for all
            // t >= 0, and so the sum within 262e3 * 1e-8 * 1.2e-3 = 3e-6 nats in the worst case
            const vfloat t = load(r.e + first + i) * (inv_sum / EPS);
            v += (((t + 0.33311871f) * t + 0.0043569f) * t) / (((t + 0.83311871f) * t + 0.09915266f) * t + 0.00059522f);
        }
        s += hsum(v);
    });
    return s * EPS;
}

// bucket of each logit of a vector, -1 outside [map.lo, map.hi]
inline vint buckets(vfloat z, bucket_map map) {
    const vint   inside = (z >= map.lo) & (z <= map.hi);
    const vfloat b      = vmin((map.hi - z) * map.scale, splat((float) TAIL));
    // a lane outside may hold inf or NaN here, whose conversion is undefined: give it a bucket first
    const vfloat safe = inside ? b : vfloat{};
    return inside ? __builtin_convertvector(safe, vint) : vint{} - 1;
}

// a logit that no token of the bucket lies below; rounding of the map is within one bucket
inline float least_of(bucket_map map, int32_t bucket) {
    const float z = map.hi - (float) (bucket + 2) / map.scale;
    return bucket != TAIL && z > map.lo ? z : map.lo;
}

void histogram(const row & r, bucket_map map, double * mass, uint32_t * count) {
    for_each_block(r, least_of(map, N_BUCKETS - 1), [&](const float * p, int64_t first) {
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vint b = buckets(load(p + i), map);
            if (!any((b >= 0) & (b != TAIL))) {
                continue;
            }
            // no branch a lane: what does not count goes to the cells of the tail, which nobody reads
            const vint    cell = (b < 0 ? vint{} + TAIL : b) * N_LANES;
            const vdouble e    = __builtin_convertvector(load(r.e + first + i), vdouble);
            for (int lane = 0; lane < W; ++lane) {
                mass[cell[lane] + lane] += e[lane];
                count[cell[lane] + lane] += 1;
            }
        }
    });
}

void bucket_range(const row & r, bucket_map map, int32_t bucket, float * lo, float * hi) {
    vfloat vlo = splat(FLT_MAX);
    vfloat vhi = splat(-FLT_MAX);
    for_each_block(r, least_of(map, bucket), [&](const float * p, int64_t) {
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vfloat z  = load(p + i);
            const vint   in = buckets(z, map) == bucket;
            vlo             = vmin(vlo, in ? z : splat(FLT_MAX));
            vhi             = vmax(vhi, in ? z : splat(-FLT_MAX));
        }
    });
    *hi = hmax(vhi);
    *lo = -hmax(-vlo);
}

void gather(const row & r, bucket_map map, int32_t bucket, int64_t n, float * z_out, float * e_out, int32_t * id_out) {
    int64_t k = 0;
    for_each_block(r, least_of(map, bucket), [&](const float * p, int64_t first) {
        for (int64_t i = 0; i < BLOCK_SIZE && k < n; i += W) {
            const vfloat z  = load(p + i);
            const vint   in = buckets(z, map) == bucket;
            if (!any(in)) {
                continue;
            }
            for (int lane = 0; lane < W; ++lane) {
                if (in[lane] && k < n) {
                    z_out[k]  = z[lane];
                    e_out[k]  = r.e[first + i + lane];
                    id_out[k] = (int32_t) (first + i + lane);
                    ++k;
                }
            }
        }
    });
}

} // namespace

const row_passes AUTODECO_ROW_PASSES = {
    /* .isa           = */ AUTODECO_ISA,
    /* .block_max     = */ block_max,
    /* .exponentials  = */ exponentials,
    /* .entropy_shift = */ entropy_shift,
    /* .histogram     = */ histogram,
    /* .bucket_range  = */ bucket_range,
    /* .gather        = */ gather,
};

} // namespace autodeco
