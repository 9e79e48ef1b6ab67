#include "row_draws.h"

#include "control.h"
#include "cpu_heads.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace autodeco {

namespace {

// memory that a thread keeps for its next rows
row_workspace & workspace() {
    thread_local row_workspace ws;
    return ws;
}

float with_noise(float top_p, double noise) {
    return noise == 0.0 || !(top_p > 0.0f && top_p < 1.0f) ? top_p : (float) (1.0 / (1.0 + (1.0 / top_p - 1.0) * std::exp(-noise)));
}

bool is_finite(const float * values, int64_t n) {
    return std::all_of(values, values + n, [](float value) { return std::isfinite(value); });
}

bool is_guided(const guided_draw & draw) {
    return draw.by_temperature_head || draw.by_top_p_head;
}

} // namespace

bool draw_from_rows(const heads_data * heads, const float * hidden, const float * logits, int64_t n_vocab, const guided_draw * draws, int64_t n,
                    int32_t * tokens, float * temperature, float * top_p, float * levels, std::string & error) {
    row_workspace &           ws = workspace();
    std::vector<draw_request> requests;
    std::vector<token_draw>   drawn;

    for (int64_t begin = 0, end; begin < n; begin = end) {
        const int64_t row    = draws[begin].request.row;
        bool          guided = false;
        bool          reads  = false; // a level
        for (end = begin; end < n && draws[end].request.row == row; ++end) {
            guided = guided || is_guided(draws[end]);
            reads  = reads || (is_guided(draws[end]) && std::isnan(draws[end].level));
        }
        const float * z           = logits + row * n_vocab;
        float         predicted_t = 1.0f;
        float         predicted_p = 1.0f;
        float         read_level  = 0.0f;
        ws.has_row                = false; // of another row
        if (guided) {
            if (!is_finite(hidden + row * heads->n_embd, heads->n_embd)) {
                error = "hidden state " + std::to_string(row) + " holds NaN or inf";
                return false;
            }
            cpu_heads_of(*heads, hidden + row * heads->n_embd, z, ws, predicted_t, predicted_p);
            read_level = reads ? cpu_level_of(*heads, hidden + row * heads->n_embd) : 0.0f;
        }

        requests.clear();
        for (int64_t i = begin; i < end; ++i) {
            draw_request request = draws[i].request;
            request.row          = 0;
            temperature[i]       = request.temperature;
            top_p[i]             = request.top_p;
            levels[i]            = draws[i].level;
            float steered_t      = predicted_t;
            float steered_p      = predicted_p;
            if (is_guided(draws[i]) && std::isnan(levels[i])) {
                levels[i] = read_level;
            }
            if (is_guided(draws[i]) && heads->has_control) {
                steer(heads->control, levels[i], steered_t, steered_p);
            }
            if (draws[i].by_temperature_head) {
                temperature[i]       = steered_t;
                request.temperature *= steered_t;
            }
            if (draws[i].by_top_p_head) {
                top_p[i]       = steered_p;
                request.top_p *= steered_p;
            }
            request.top_p = with_noise(request.top_p, draws[i].top_p_noise);
            requests.push_back(request);
        }
        drawn.resize(requests.size());
        nucleus_samples(z, n_vocab, requests.data(), (int64_t) requests.size(), ws, drawn.data(), guided);
        for (int64_t i = begin; i < end; ++i) {
            const token_draw & one = drawn[i - begin];
            if (one.status != row_status::ok) {
                error = "row " + std::to_string(row) + ": " + row_status_message(one.status);
                return false;
            }
            tokens[i] = one.token;
        }
    }
    return true;
}

spread spread_of_row(const float * logits, int64_t n_vocab) {
    return distribution_spread(logits, n_vocab, workspace());
}

} // namespace autodeco
