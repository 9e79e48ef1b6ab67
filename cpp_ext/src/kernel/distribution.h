// What AutoDeco needs to know of a token distribution, computed from raw logits on the CPU:
// the statistics that the top-p head reads, and a draw from the nucleus.
//
// Nothing here sorts the vocabulary.

#pragma once

#include "method.h"
#include "row_workspace.h"

#include <cstddef>
#include <cstdint>

namespace autodeco {

enum class row_status : int32_t {
    ok       = 0,
    not_real = 1, // a logit is NaN or +inf
    empty    = 2, // every logit is -inf: no token may be drawn
};

const char * row_status_message(row_status status);

// the four inputs of the top-p head beside hidden state and temperature, in their order
struct prob_stats {
    float max_prob;
    float entropy;  // nats, -sum q log(q + STATS_EPSILON)
    float prob_var; // unbiased
    float top5_sum;
};

struct nucleus_draw {
    row_status status;
    int32_t    token;
    int32_t    size; // tokens in the nucleus
    float      prob; // probability of the token within the nucleus
};

// Whether tokens can be drawn from a row of logits.
row_status row_check(const float * logits, int64_t n_vocab, row_workspace & ws);

// The two passes over all logits, for the part of thread `ith` of `nth`; every thread must have done the first before any
// begins the second. distribution_stats of the same row then does not repeat them. The workspace is reserved.
void row_maxima      (const float * logits, int64_t n_vocab, int ith, int nth, row_workspace & ws);
void row_exponentials(const float * logits, int64_t n_vocab, float temperature, int ith, int nth, row_workspace & ws);

// Statistics of softmax(logits / (temperature + STATS_EPSILON)) over the whole vocabulary.
row_status distribution_stats(const float * logits, int64_t n_vocab, float temperature, row_workspace & ws, prob_stats & stats);

// Draw the token at `uniform` in [0, 1) of the inverse distribution function of the nucleus: tokens in descending order of
// logit (equal logits: lower id first), the smallest prefix of softmax(logits / temperature) whose mass reaches top_p, the
// crossing token included, at least one token. A temperature below GREEDY_TEMPERATURE takes the argmax. `seen`: the workspace
// comes from distribution_stats of the very same row, whose passes are then not repeated.
nucleus_draw nucleus_sample(const float * logits, int64_t n_vocab, float temperature, float top_p, double uniform, row_workspace & ws, bool seen = false);

// One of several draws from rows of logits; those of one row at one temperature and top-p share its passes.
struct draw_request {
    int64_t row;
    float   temperature;
    float   top_p;
    double  uniform;
};

struct token_draw {
    row_status status;
    int32_t    token;
};

// The tokens that nucleus_sample draws for each of n requests from logits [rows, n_vocab]. `seen`, of one row only, is as
// there. Where the likeliest token has nearly all mass, most draws are certain without the exponentials of the others.
void nucleus_samples(const float * logits, int64_t n_vocab, const draw_request * requests, int64_t n, row_workspace & ws, token_draw * draws, bool seen = false);

// Entropy in nats and the highest probability of softmax(logits).
struct spread {
    row_status status;
    double     entropy;
    double     max_prob;
};

spread distribution_spread(const float * logits, int64_t n_vocab, row_workspace & ws);

// Name of the vector instructions that the passes run on: "avx512", "avx2", "neon" or "generic".
const char * distribution_isa();

} // namespace autodeco
