#include "heads_predict.h"

#include "cpu_heads.h"

#include <cmath>

namespace autodeco {

namespace {

bool check_hidden(const heads_data & heads, const float * hidden, int64_t n, std::string & error) {
    for (int64_t i = 0; i < n * heads.n_embd; ++i) {
        if (!std::isfinite(hidden[i])) {
            error = "hidden state " + std::to_string(i / heads.n_embd) + " holds NaN or inf";
            return false;
        }
    }
    return true;
}

} // namespace

bool heads_predict(const heads_data & heads, const float * hidden, const float * logits, int64_t n, int64_t n_vocab,
                   float * temperature, float * top_p, std::string & error) {
    if (!check_hidden(heads, hidden, n, error)) {
        return false;
    }
    row_workspace ws;
    for (int64_t i = 0; i < n; ++i) {
        const row_status status = row_check(logits + i * n_vocab, n_vocab, ws);
        if (status != row_status::ok) {
            error = "row " + std::to_string(i) + ": " + row_status_message(status);
            return false;
        }
    }
    for (int64_t i = 0; i < n; ++i) {
        cpu_heads_of(heads, hidden + i * heads.n_embd, logits + i * n_vocab, ws, temperature[i], top_p[i]);
    }
    return true;
}

bool heads_levels(const heads_data & heads, const float * hidden, int64_t n, float * levels, std::string & error) {
    if (!check_hidden(heads, hidden, n, error)) {
        return false;
    }
    for (int64_t i = 0; i < n; ++i) {
        levels[i] = cpu_level_of(heads, hidden + i * heads.n_embd);
    }
    return true;
}

} // namespace autodeco
