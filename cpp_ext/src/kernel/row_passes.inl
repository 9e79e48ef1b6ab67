// The passes over a row of logits, written once with the vector extensions of gcc and clang and compiled once for each set
// of vector instructions: the including file names its table in AUTODECO_ROW_PASSES and its instructions in AUTODECO_ISA.
// Everything is in an unnamed namespace: functions of the same name compiled for other instructions must not be merged.

#include "row_passes.h"

#include "method.h"

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#if defined(__AVX__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

namespace autodeco {
namespace {

constexpr int W = 8; // floats in a vector; the compiler splits or joins them to what the machine has
static_assert(W == N_LANES, "a lane of a vector owns a cell of every bucket");
static_assert(BLOCK_SIZE % W == 0, "blocks hold whole vectors");

typedef float   vfloat __attribute__((vector_size(W * sizeof(float))));
typedef int32_t vint   __attribute__((vector_size(W * sizeof(int32_t))));
typedef float   vfloat_half __attribute__((vector_size(W / 2 * sizeof(float))));
typedef double  vdouble     __attribute__((vector_size(W / 2 * sizeof(double))));
typedef uint16_t vshort     __attribute__((vector_size(W * sizeof(uint16_t))));
typedef int8_t   vchar      __attribute__((vector_size(W)));

constexpr float NEG_INF = -std::numeric_limits<float>::infinity();

inline vfloat load(const float * p) {
    vfloat v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}

inline vfloat splat(float x) {
    return vfloat{} + x;
}

// b where a is NaN
inline vfloat vmax(vfloat a, vfloat b) {
#if defined(__AVX__)
    return (vfloat) _mm256_max_ps((__m256) a, (__m256) b); // gcc makes a comparison and a blend of the line below
#else
    return a > b ? a : b;
#endif
}

inline vfloat vmin(vfloat a, vfloat b) {
    return a < b ? a : b;
}

inline bool any(vint mask) {
#if defined(__AVX__)
    return !_mm256_testz_si256((__m256i) mask, (__m256i) mask);
#else
    int64_t parts[W / 2];
    std::memcpy(parts, &mask, sizeof(mask));
    return (parts[0] | parts[1] | parts[2] | parts[3]) != 0;
#endif
}

inline float hmax(vfloat v) {
    float m = v[0];
    for (int i = 1; i < W; ++i) {
        m = v[i] > m ? v[i] : m;
    }
    return m;
}

// Sums of the lanes of many vectors. In two halves: gcc moves a vector of eight doubles about in scalar registers.
struct double_sums {
    vdouble lo = vdouble{};
    vdouble hi = vdouble{};

    void add(vfloat v) {
        lo += __builtin_convertvector(half(v, 0), vdouble);
        hi += __builtin_convertvector(half(v, W / 2), vdouble);
    }

    double total() const {
        double s = 0.0;
        for (int i = 0; i < W / 2; ++i) {
            s += lo[i] + hi[i];
        }
        return s;
    }

private:
    static vfloat_half half(vfloat v, int from) {
        vfloat_half h;
        std::memcpy(&h, (const char *) &v + from * sizeof(float), sizeof(h));
        return h;
    }
};

inline int64_t hsum(vint v) {
    int64_t s = 0;
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

// 2^y for -126 <= y <= 0; relative error below 1e-7 (degree 6, fitted to the relative error on [-1/2, 1/2])
inline vfloat vexp2(vfloat y) {
    // adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits
    const vfloat shifted = y + 12582912.0f;
    const vfloat r       = y - (shifted - 12582912.0f);
    vfloat       p       = splat(1.5370704816e-4f);
    p                    = p * r + 1.3399848291e-3f;
    p                    = p * r + 9.6183732514e-3f;
    p                    = p * r + 5.5503290352e-2f;
    p                    = p * r + 2.4022648462e-1f;
    p                    = p * r + 6.9314720558e-1f;
    p                    = p * r + 1.0f;
    const vint exponent  = float_to_bits(shifted) << 23; // of 1.5 * 2^23 the shift leaves nothing
    return bits_to_float(float_to_bits(p) + exponent);
}

// Call `body(p, i)` for every block whose maximum reaches `least`: p are its BLOCK_SIZE logits, i the id of the first.
// The last block is padded with -inf, which no pass counts; r.e has room for whole blocks.
template <typename F>
inline void for_each_block(const logits_row & r, float least, F && body) {
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

row_sums exponentials(const logits_row & r, exponent_map em) {
    constexpr float LOG2E = 1.44269504088896341f;

    const float scale = em.inv_temperature * LOG2E;
    const float least = MIN_EXPONENT * LOG2E;
    double_sums e_sum, e_sq_sum, e_y_sum;
    vint        alive = vint{};
    for_each_block(r, least_logit(em, MIN_EXPONENT), [&](const float * p, int64_t first) {
        vfloat block_e    = vfloat{};
        vfloat block_e_sq = vfloat{};
        vfloat block_e_y  = vfloat{};
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vfloat y    = vmax((load(p + i) - em.max) * scale, splat(least)); // -inf * 0 would be NaN
            const vint   mass = y > least;
            const vfloat e    = bits_to_float(float_to_bits(vexp2(y)) & mass);
            store(r.e + first + i, e);
            block_e += e;
            block_e_sq += e * e;
            block_e_y += e * y;
            alive -= mass;
        }
        e_sum.add(block_e);
        e_sq_sum.add(block_e_sq);
        e_y_sum.add(block_e_y);
    });
    return { e_sum.total(), e_sq_sum.total(), e_y_sum.total() / (double) LOG2E, hsum(alive) };
}

double entropy_shift(const logits_row & r, exponent_map em, float inv_sum) {
    // below q = 1e-14 a vocabulary of 262k adds less than 262e3 * 1e-14 * log(1e6) = 4e-8
    const float least = std::log(1e-14f / inv_sum);
    double_sums s;
    for_each_block(r, least_logit(em, least > MIN_EXPONENT ? least : MIN_EXPONENT), [&](const float *, int64_t first) {
        vfloat v = vfloat{};
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            // with t = q / 1e-8 a term is 1e-8 * t log(1 + 1/t); the fraction is within 1.2e-3 of t log(1 + 1/t) for all
            // t >= 0, and so the sum within 262e3 * 1e-8 * 1.2e-3 = 3e-6 nats in the worst case
            const vfloat t = load(r.e + first + i) * (inv_sum / STATS_EPSILON);
            v += (((t + 0.33311871f) * t + 0.0043569f) * t) / (((t + 0.83311871f) * t + 0.09915266f) * t + 0.00059522f);
        }
        s.add(v);
    });
    return s.total() * STATS_EPSILON;
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

void histogram(const logits_row & r, bucket_map map, double * mass, uint32_t * count) {
    for_each_block(r, least_of(map, N_BUCKETS - 1), [&](const float * p, int64_t first) {
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vint b = buckets(load(p + i), map);
            if (!any((b >= 0) & (b != TAIL))) {
                continue;
            }
            // no branch a lane: what does not count goes to the cells of the tail, which nobody reads
            const vint    cell = (b < 0 ? vint{} + TAIL : b) * N_LANES;
            const vfloat  e    = load(r.e + first + i);
            for (int lane = 0; lane < W; ++lane) {
                mass[cell[lane] + lane] += (double) e[lane];
                count[cell[lane] + lane] += 1;
            }
        }
    });
}

void bucket_range(const logits_row & r, bucket_map map, int32_t bucket, float * lo, float * hi) {
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

void gather(const logits_row & r, bucket_map map, int32_t bucket, int64_t n, float * z_out, float * e_out, int32_t * id_out) {
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

#if defined(__AVX2__) && !defined(__AVX512VL__)
// for every mask of eight lanes, the numbers of the lanes that are in it, one a byte from the lowest
struct lane_table {
    uint64_t lanes[256];

    constexpr lane_table() : lanes() {
        for (int mask = 0; mask < 256; ++mask) {
            int n = 0;
            for (int lane = 0; lane < W; ++lane) {
                if (mask >> lane & 1) {
                    lanes[mask] |= (uint64_t) lane << 8 * n++;
                }
            }
        }
    }
};

constexpr lane_table LANES_IN;
#endif

// Write first + lane for every lane of the mask to `out`, which has room for a whole vector; returns how many. Without
// branches: which lanes are in is as good as random.
inline int64_t pack(int32_t * out, vint mask, int32_t first) {
#if defined(__AVX512VL__)
    const __mmask8 bits  = _mm256_movepi32_mask((__m256i) mask);
    const __m256i  lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_mask_compressstoreu_epi32(out, bits, _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
    return __builtin_popcount(bits);
#elif defined(__AVX2__)
    const int     bits  = _mm256_movemask_ps((__m256) mask);
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) &LANES_IN.lanes[bits]));
    _mm256_storeu_si256((__m256i *) out, _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
    return __builtin_popcount(bits);
#else
    int64_t k = 0;
    for (int lane = 0; lane < W; ++lane) {
        out[k] = first + lane;
        k -= mask[lane];
    }
    return k;
#endif
}

split_sums split(const logits_row & r, float lo, float hi, int64_t capacity, int32_t * id_in) {
    double_sums above;
    vint        n_above = vint{};
    vint        n_in    = vint{};
    int64_t     k       = 0;
    for_each_block(r, lo, [&](const float * p, int64_t first) {
        const bool room = k + BLOCK_SIZE <= capacity;
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            const vfloat z  = load(p + i);
            const vint   up = z > hi;
            const vint   in = (z >= lo) & ~up;
            above.add(bits_to_float(float_to_bits(load(r.e + first + i)) & up));
            n_above -= up;
            n_in -= in;
            if (room) {
                k += pack(id_in + k, in, (int32_t) (first + i));
            }
        }
    });
    return { above.total(), hsum(n_above), hsum(n_in) };
}

int32_t nth_equal(const logits_row & r, float z, int64_t k) {
    int32_t found = -1;
    for_each_block(r, z, [&](const float * p, int64_t first) {
        if (found >= 0) {
            return;
        }
        vint n = vint{};
        for (int64_t i = 0; i < BLOCK_SIZE; i += W) {
            n -= load(p + i) == z;
        }
        const int64_t in_block = hsum(n);
        if (k >= in_block) {
            k -= in_block;
            return;
        }
        for (int64_t i = 0; found < 0; ++i) {
            if (p[i] == z && k-- == 0) {
                found = (int32_t) (first + i);
            }
        }
    });
    return found;
}

template <typename V> V load_as(const void * p) {
    V v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}

inline vfloat from_f16(const void * p) {
#if defined(__F16C__)
    return (vfloat) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
#elif defined(__aarch64__)
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *) p));
    vfloat            v;
    vst1q_f32((float *) &v, vcvt_f32_f16(vget_low_f16(h)));
    vst1q_f32((float *) &v + W / 2, vcvt_high_f32_f16(h));
    return v;
#else
    const vint h = __builtin_convertvector(load_as<vshort>(p), vint);
    return bits_to_float(float_to_bits(bits_to_float((h & 0x7fff) << 13) * 0x1p112f) | (h & 0x8000) << 16);
#endif
}

inline vfloat from_bf16(const void * p) {
    return bits_to_float(__builtin_convertvector(load_as<vshort>(p), vint) << 16);
}

// several sums at a time, as an addition waits for the one before it
constexpr int64_t N_SUMS = 4;

// `convert` reads W weights; what is left of a row is padded with zeros
template <int64_t SIZE, vfloat (*convert)(const void *)> float dot(const void * weights, const float * x, int64_t n) {
    const auto * w = (const char *) weights;
    vfloat       sums[N_SUMS] = {};
    int64_t      i            = 0;
    for (; i + N_SUMS * W <= n; i += N_SUMS * W) {
        for (int64_t k = 0; k < N_SUMS; ++k) {
            sums[k] += convert(w + (i + k * W) * SIZE) * load(x + i + k * W);
        }
    }
    for (; i < n; i += W) {
        const int64_t left             = n - i < W ? n - i : W;
        char          rest_w[W * SIZE] = {};
        float         rest_x[W]        = {};
        std::memcpy(rest_w, w + i * SIZE, left * SIZE);
        std::memcpy(rest_x, x + i, left * sizeof(float));
        sums[0] += convert(rest_w) * load(rest_x);
    }
    const vfloat all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float        sum = 0.0f;
    for (int k = 0; k < W; ++k) {
        sum += all[k];
    }
    return sum;
}

// blocks of a float16 scale and 32 integers
float dot_q8_0(const void * weights, const float * x, int64_t n) {
    constexpr int64_t N    = 32;
    const auto *      w    = (const char *) weights;
    vfloat            sums = vfloat{};
    for (int64_t i = 0; i < n; i += N, w += sizeof(uint16_t) + N) {
        uint16_t scale[W] = {};
        std::memcpy(scale, w, sizeof(uint16_t));
        vfloat block = vfloat{};
        for (int64_t k = 0; k < N; k += W) {
            block += __builtin_convertvector(load_as<vchar>(w + sizeof(uint16_t) + k), vfloat) * load(x + i + k);
        }
        sums += block * from_f16(scale)[0];
    }
    float sum = 0.0f;
    for (int k = 0; k < W; ++k) {
        sum += sums[k];
    }
    return sum;
}

inline vfloat from_f32(const void * p) {
    return load_as<vfloat>(p);
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
    /* .split         = */ split,
    /* .nth_equal     = */ nth_equal,
    /* .dot_f32       = */ dot<sizeof(float), from_f32>,
    /* .dot_f16       = */ dot<sizeof(uint16_t), from_f16>,
    /* .dot_bf16      = */ dot<sizeof(uint16_t), from_bf16>,
    /* .dot_q8_0      = */ dot_q8_0,
};

} // namespace autodeco
