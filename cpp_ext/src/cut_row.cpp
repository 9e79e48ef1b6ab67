#include "cut_row.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace autodeco {

void cut_row(const float * logits, int64_t n, float temperature, int32_t top_k, float min_p, std::vector<float> & cut) {
    cut.assign(logits, logits + n);
    if (top_k > 0 && top_k < n) {
        std::nth_element(cut.begin(), cut.begin() + (top_k - 1), cut.end(), std::greater<float>());
        const float edge  = cut[top_k - 1];
        int64_t     equal = top_k - std::count_if(cut.begin(), cut.begin() + (top_k - 1), [&](float z) { return z > edge; });
        for (int64_t i = 0; i < n; ++i) {
            cut[i] = logits[i] > edge || (logits[i] == edge && equal-- > 0) ? logits[i] : -INFINITY;
        }
    }
    if (min_p > 0.0f) {
        const float least = *std::max_element(cut.begin(), cut.end()) + temperature * std::log(min_p);
        for (float & z : cut) {
            z = z < least ? -INFINITY : z;
        }
    }
}

} // namespace autodeco
