// Draws from many rows of logits by settings and heads, on given arrays, on one thread.

#pragma once

#include "heads.h"
#include "kernel/distribution.h"

#include <cstdint>
#include <string>

namespace autodeco {

// A draw whose temperature and top-p multiply what the heads predict, where these decide, and are the setting elsewhere.
struct guided_draw {
    draw_request request;
    bool         by_temperature_head;
    bool         by_top_p_head;
    double       top_p_noise; // added to the logit of the top-p that it draws with; what is told of it is without
    float        level; // that steers what the heads predict; NaN: the one that the row reads, as at the first token of an answer
};

// Draw n tokens; the draws stand in the order of their rows. Heads (null where no draw needs them) predict once for a row,
// from hidden [rows, n_embd] and logits [rows, n_vocab], into temperature and top_p [n] of its draws, steered by their levels
// [n]; draws that no head guides have all three as they were given. Returns false with one line in `error` for a row that cannot be drawn from.
bool draw_from_rows(const heads_data * heads, const float * hidden, const float * logits, int64_t n_vocab, const guided_draw * draws, int64_t n,
                    int32_t * tokens, float * temperature, float * top_p, float * levels, std::string & error);

// distribution_spread with memory that the thread keeps.
spread spread_of_row(const float * logits, int64_t n_vocab);

} // namespace autodeco
