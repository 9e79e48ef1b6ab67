// The numbers of the method (arXiv 2510.26697, 3.1) and of how this project rounds it, once for all of the C++. Python has
// the same in export/schema.py; a test holds one to the other.

#pragma once

#include <cstdint>

namespace autodeco {

// Width of the hidden layer of both heads, as in the official implementation.
constexpr int64_t HEAD_WIDTH = 256;

// Temperature is this times a sigmoid.
constexpr float TEMPERATURE_SCALE = 2.0f;

// Statistics that the top-p head may read beside hidden state and temperature.
constexpr int64_t N_PROB_STATS = 4;

// Added to T before the division, and to q inside the logarithm of the entropy, in the statistics only.
constexpr float STATS_EPSILON = 1e-8f;

// Temperatures below this are greedy: the division z / T must never see a zero.
constexpr float GREEDY_TEMPERATURE = 1e-5f;

// Half a unit in the last place of a float32 near 1: 0.8 stored as 0.80000001 still keeps 8 of 10 equal tokens.
constexpr double TOP_P_ROUNDING = 6e-8;

} // namespace autodeco
