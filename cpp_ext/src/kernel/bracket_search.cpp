#include "bracket_search.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

// rows whose mass is spread like that of fewer tokens, evenly, are searched by buckets, which skip what is below them
constexpr double FLAT_TOKENS = 1024.0;

// standard deviations of the sample's cumulative mass on either side; a miss costs time only
constexpr double DEVIATIONS = 3.0;

int64_t sample_size(int64_t n) {
    return (n - SAMPLE_RUN) / (SAMPLE_RUN * SAMPLE_STRIDE) * SAMPLE_RUN + SAMPLE_RUN;
}

// take every SAMPLE_STRIDE-th run of tokens into the workspace, as a row of its own
logits_row take_sample(const logits_row & r, row_workspace & ws) {
    const logits_row sample = ws.sample.first(sample_size(r.n));
    for (int64_t i = 0; i < sample.n; i += SAMPLE_RUN) {
        std::copy_n(r.z + i * SAMPLE_STRIDE, SAMPLE_RUN, ws.sample.z.data() + i);
    }
    best_passes().block_max(sample.z, sample.n, ws.sample.block_max.data());
    return sample;
}

// take the tokens named in the workspace as a row of its own, and their mass
logits_row take_bracket(const logits_row & r, int64_t n, row_workspace & ws, double & mass) {
    double partial[4] = {}; // additions that do not wait for each other
    for (int64_t i = 0; i < n; ++i) {
        const int32_t id    = ws.bracket_id[i];
        ws.bracket.z[i]     = r.z[id];
        ws.bracket.e[i]     = r.e[id];
        partial[i % 4]     += r.e[id];
    }
    mass = partial[0] + partial[1] + partial[2] + partial[3];

    const logits_row within = ws.bracket.first(n);
    best_passes().block_max(within.z, n, ws.bracket.block_max.data());
    return within;
}

} // namespace

bool bracket_search::pays(const logits_row & r, const row_sums & sums) {
    return r.n > BLOCK_SIZE * SAMPLE_STRIDE && sums.e * sums.e > FLAT_TOKENS * sums.e_sq;
}

bracket_search::bracket_search(const logits_row & r, exponent_map em, double total, row_workspace & ws) :
    r(r),
    em(em),
    total(total),
    ws(ws),
    sample(take_sample(r, ws)),
    sums(best_passes().exponentials(sample, em)),
    in_sample(sample, em, sums.e, sums.n, ws) {}

bool bracket_search::find(double target, bool strictly, mass_position & found) {
    const int64_t capacity = (int64_t) ws.bracket_id.size();
    float         lo, hi;
    bracket(target / total, lo, hi);

    const split_sums at     = best_passes().split(r, lo, hi, lo < hi ? capacity : 0, ws.bracket_id.data());
    const mass_position   before = { -1, 0.0f, at.n_above, at.above };
    if (reached(before.cum, target, strictly) || at.n_in == 0) {
        return false;
    }
    if (lo == hi) {
        found = find_among_equal(r, lo, at.n_in, before, target, strictly);
        return reached(found.cum, target, strictly);
    }
    bucket_map map;
    if (at.n_in + BLOCK_SIZE > capacity || !map_onto_buckets(lo, hi, map)) {
        return false;
    }
    double    mass;
    const logits_row within = take_bracket(r, at.n_in, ws, mass);
    if (!reached(before.cum + mass, target, strictly)) {
        return false;
    }
    found = bucket_search(within, map, mass, at.n_in, ws).find(target - before.cum, strictly);
    found.token = ws.bracket_id[found.token];
    found.rank += before.rank;
    found.cum += before.cum;
    return true;
}

// logits between which the token at a share of the mass most likely lies
void bracket_search::bracket(double share, float & lo, float & hi) {
    // The variance of the share that a sample gives its tokens above a logit is the sum of (e (1 or 0 - share))^2 over its
    // tokens; those below the logit are at most as heavy as the one at it.
    const double rest     = 1.0 - share;
    const double e        = in_sample.find(share * sums.e, false).e;
    const double variance = rest * rest * sums.e_sq + share * rest * share * e * sums.e;
    const double margin   = DEVIATIONS * std::sqrt(variance) / sums.e;

    hi = share > margin ? sample.z[in_sample.find((share - margin) * sums.e, false).token] : em.max;
    lo = rest > margin ? sample.z[in_sample.find((share + margin) * sums.e, false).token] : least_with_mass(em);
}

} // namespace autodeco
