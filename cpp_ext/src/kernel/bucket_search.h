// Searches the descending order of one row of logits without sorting it: histograms of masses name the bucket that a
// cumulative mass falls into, and only that bucket is looked at more closely.

#pragma once

#include "row_workspace.h"

namespace autodeco {

// Where a cumulative mass falls in the descending order of the tokens (equal logits: lower id first).
struct mass_position {
    int32_t token;
    float   e;    // mass of the token
    int64_t rank; // tokens before it
    double  cum;  // mass up to and including it
};

inline bool reached(double cum, double target, bool strictly) {
    return strictly ? cum > target : cum >= target;
}

// The smallest logit that has mass; -FLT_MAX keeps -inf out.
float least_with_mass(exponent_map em);

// The token that `target` falls on, known to be one of the `n` tokens with the logit `z`; `before` are those above.
mass_position find_among_equal(const logits_row & r, float z, int64_t n, mass_position before, double target, bool strictly);

class bucket_search {
public:
    // `total` and `n_total`: mass and number of the tokens that have any, r.e filled
    bucket_search(const logits_row & r, exponent_map em, double total, int64_t n_total, row_workspace & ws);

    // for a row whose tokens all lie within [map.lo, map.hi]
    bucket_search(const logits_row & r, bucket_map map, double total, int64_t n_total, row_workspace & ws);

    // the first token at which the cumulative mass reaches `target` (`strictly`: exceeds it)
    mass_position find(double target, bool strictly);

private:
    // The row is divided into bands of exponents, each into N_BUCKETS buckets, and a band is counted only when a target lies
    // in it or below.
    static constexpr int N_BANDS = 4;

    struct level {
        bucket_map map;
        double     mass [N_BUCKETS + 1];
        int64_t    count[N_BUCKETS + 1];
        int32_t    last; // bucket that is not empty
        double     above_tail;
        int64_t    n_above_tail;
    };

    const logits_row r;
    row_workspace &  ws;
    level            bands[N_BANDS];
    int              n_bands = 1; // filled

    void     fill(level & l, double mass, int64_t count);
    void     fill_next_band();
    mass_position find_in(const level & l, mass_position before, double target, bool strictly, int depth);
    mass_position find_in_bucket(bucket_map map, int32_t bucket, int64_t n, mass_position before, double target, bool strictly, int depth);
};

// a map from [lo, hi], lo < hi, onto the buckets; false if they lie too far apart for one
bool map_onto_buckets(float lo, float hi, bucket_map & map);

} // namespace autodeco
