// The heads run on given arrays, without a model.

#pragma once

#include "heads.h"

#include <cstdint>
#include <string>

namespace autodeco {

// Temperature and top-p [n], before any steering, for hidden [n, n_embd] and logits [n, n_vocab], row by row in memory, on the CPU.
// Returns false with one line in `error` when hidden states hold NaN or inf, or logits NaN or +inf.
bool heads_predict(const heads_data & heads, const float * hidden, const float * logits, int64_t n, int64_t n_vocab,
                   float * temperature, float * top_p, std::string & error);

// Levels [n] that the control head reads at hidden [n, n_embd]; 0 without one. Returns false with one line in `error` when
// they hold NaN or inf.
bool heads_levels(const heads_data & heads, const float * hidden, int64_t n, float * levels, std::string & error);

} // namespace autodeco
