// Top-k and min-p of a row on the host.

#pragma once

#include <cstdint>
#include <vector>

namespace autodeco {

// Copy logits [n] to `cut` with every token banned that min_p (of the softmax at the temperature) and then top_k leave out.
// Equal logits at the edge of top_k: lower id first.
void cut_row(const float * logits, int64_t n, float temperature, int32_t top_k, float min_p, std::vector<float> & cut);

} // namespace autodeco
