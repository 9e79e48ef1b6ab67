// The passes over a row of logits that distribution.cpp is made of, and products with the weights of heads. They stand in a
// table, so that one build holds several versions: row_passes_avx512.cpp, row_passes_avx2.cpp and row_passes_baseline.cpp
// compile the same row_passes.inl.

#pragma once

#include <cstdint>

namespace autodeco {

// A row of logits is read in blocks; the maximum of each, taken once, lets later passes skip every block that cannot matter.
constexpr int64_t BLOCK_SIZE = 128;

constexpr int32_t N_BUCKETS = 256;
constexpr int32_t TAIL      = N_BUCKETS; // what lies below the last bucket
constexpr int32_t N_LANES   = 8;         // every bucket has this many cells, so that neighbouring tokens in one bucket do
                                         // not wait for each other's addition
constexpr int32_t N_CELLS   = (N_BUCKETS + 1) * N_LANES;

// tokens with exp((z - max) / T) below exp(MIN_EXPONENT) have no mass in float32
constexpr float MIN_EXPONENT = -87.0f;

// a map from a logit z with lo <= z <= hi to a bucket: min((hi - z) * scale, TAIL), descending in z
struct bucket_map {
    float lo;
    float hi;
    float scale;
};

// the exponent of a logit: (z - max) * inv_temperature
struct exponent_map {
    float max;
    float inv_temperature;
};

struct logits_row {
    const float * z;
    int64_t       n;
    float *       block_max; // [ceil(n / BLOCK_SIZE)]
    float *       e;         // exp of the exponents of all blocks that hold mass, written by `exponentials`
};

struct row_sums {
    double  e;    // sum of e
    double  e_sq; // sum of e * e
    double  e_x;  // sum of e * exponent
    int64_t n;    // tokens with e > 0
};

struct split_sums {
    double  above;   // sum of e of the tokens above
    int64_t n_above;
    int64_t n_in;    // tokens within
};

using dot_product = float(const void * weights, const float * x, int64_t n);

struct row_passes {
    const char * isa;

    // maximum of each block; false if a logit is NaN or +inf
    bool (*block_max)(const float * z, int64_t n, float * block_max);

    // fill r.e, and sum it up
    row_sums (*exponentials)(const logits_row & r, exponent_map em);

    // sum of q log(1 + STATS_EPSILON / q) over the vocabulary, with q = e * inv_sum
    double (*entropy_shift)(const logits_row & r, exponent_map em, float inv_sum);

    // add every logit within [map.lo, map.hi] to its bucket: its e to mass[bucket*N_LANES + lane], 1 to count[...];
    // the cells of the tail are left with nothing of use
    void (*histogram)(const logits_row & r, bucket_map map, double * mass, uint32_t * count);

    // smallest and largest logit of one bucket
    void (*bucket_range)(const logits_row & r, bucket_map map, int32_t bucket, float * lo, float * hi);

    // logits, e and ids of the first n tokens of one bucket, in ascending order of id
    void (*gather)(const logits_row & r, bucket_map map, int32_t bucket, int64_t n, float * z, float * e, int32_t * id);

    // sum up the tokens above hi and count those within [lo, hi]; if they are at most `capacity` less a block, their ids
    // stand in id_in in ascending order
    split_sums (*split)(const logits_row & r, float lo, float hi, int64_t capacity, int32_t * id_in);

    // id of the k-th token (from 0) whose logit is z
    int32_t (*nth_equal)(const logits_row & r, float z, int64_t k);

    // sum of weights[i] * x[i] over n values, in float32; weights as ggml stores a row of the type
    dot_product * dot_f32;
    dot_product * dot_f16;
    dot_product * dot_bf16;
    dot_product * dot_q8_0;
};

// those for the machine that runs this
const row_passes & best_passes();

extern const row_passes row_passes_baseline;
#if defined(AUTODECO_X86)
extern const row_passes row_passes_avx2;
extern const row_passes row_passes_avx512;
#endif

} // namespace autodeco
