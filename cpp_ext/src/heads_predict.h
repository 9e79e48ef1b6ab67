// The heads run on given arrays, without a model.

#pragma once

#include "heads.h"

#include <cstdint>
#include <string>

namespace autodeco {

// Temperature and top-p [n] for hidden [n, n_embd] and logits [n, n_vocab], row by row in memory, on the CPU.
// Returns false with one line in `error` when hidden states hold NaN or inf, or logits NaN or +inf.
bool heads_predict(const heads_data & heads, const float * hidden, const float * logits, int64_t n, int64_t n_vocab,
                   float * temperature, float * top_p, std::string & error);

} // namespace autodeco
