#include "sole_token.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

// more than sums in float32 are off, of the maxima and of a row
constexpr double ROUNDING = 2e-5;

} // namespace

double most_beside(const logits_row & r, exponent_map em, row_workspace & ws) {
    // the likeliest token's own block is read, all others hold at most BLOCK_SIZE times their maximum
    const int64_t n     = n_blocks(r.n);
    const int64_t first = std::max_element(r.block_max, r.block_max + n) - r.block_max;
    const int64_t begin = first * BLOCK_SIZE;
    const int64_t end   = std::min(r.n, begin + BLOCK_SIZE);
    double        own   = -1.0;
    for (int64_t i = begin; i < end; ++i) {
        own += std::exp((double) (r.z[i] - em.max) * em.inv_temperature);
    }

    const logits_row maxima = { r.block_max, n, ws.sample.block_max.data(), ws.sample.e.data() };
    best_passes().block_max(maxima.z, n, ws.sample.block_max.data());
    const double all = best_passes().exponentials(maxima, em).e;
    return own + (double) BLOCK_SIZE * (all - 1.0 + ROUNDING);
}

bool is_sole(float top_p, double beside) {
    return (double) top_p * (1.0 + beside) <= 1.0 - ROUNDING;
}

bool takes_likeliest(double uniform, double beside) {
    return uniform * (1.0 + beside) <= 1.0 - ROUNDING;
}

} // namespace autodeco
