// Memory of the passes over one row of logits, allocated once for the largest row. One per thread.

#pragma once

#include "row_passes.h"

#include <vector>

namespace autodeco {

// A flat row, one whose mass lies in many tokens, is sampled: one token in SAMPLE_STRIDE, in runs of SAMPLE_RUN.
constexpr int64_t SAMPLE_STRIDE = 16;
constexpr int64_t SAMPLE_RUN    = 8;

inline int64_t n_blocks(int64_t n_vocab) {
    return (n_vocab + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

// a part of a row as a row of its own
struct part_of_row {
    std::vector<float> z;
    std::vector<float> e;
    std::vector<float> block_max;

    void reserve(int64_t n) {
        z.resize(n);
        e.resize(n_blocks(n) * BLOCK_SIZE);
        block_max.resize(n_blocks(n));
    }

    logits_row first(int64_t n) { return { z.data(), n, block_max.data(), e.data() }; }
};

// what one thread found of its part of a row
struct row_share {
    bool     is_real;
    row_sums sums;
};

struct row_workspace {
    void reserve(int64_t n_vocab);

    std::vector<float> block_max;
    std::vector<float> e;

    // bucket_search
    std::vector<double>   bucket_mass;
    std::vector<uint32_t> bucket_count;
    std::vector<float>    gathered_z;
    std::vector<float>    gathered_e;
    std::vector<int32_t>  gathered_id;
    std::vector<int32_t>  order;

    // bracket_search
    part_of_row          sample;
    part_of_row          bracket;
    std::vector<int32_t> bracket_id;

    // row_maxima and row_exponentials, for distribution_stats
    std::vector<row_share> shares;
    int                    n_shares = 0;

    // what distribution_stats found in a row, for a draw from the same row
    bool         has_row = false;
    exponent_map em      = { 0.0f, 0.0f };
    row_sums     sums    = { 0.0, 0.0, 0.0, 0 };
};

} // namespace autodeco
