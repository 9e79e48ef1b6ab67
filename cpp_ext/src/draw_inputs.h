// What a draw on a device reads of the user's settings and of the heads, and what it tells.

#pragma once

#include "heads_graph.h"

#include <initializer_list>

namespace autodeco {

// What the draw of one row depends on beside logits and heads.
struct device_settings {
    // temperature of the draw: `temperature_scale` times the predicted one plus `temperature`; top-p alike
    float temperature_scale;
    float temperature;
    float top_p_scale;
    float top_p;
    float uniform;
    float last;  // rank of the last token that top-k keeps, from 0; beyond the vocabulary for no top-k
    float min_p; // times MIN_P_ROUNDING: what is as likely but for rounding stays

    // with a control head: `level_read` times the level that row `level_row` of the graph reads, plus `level`
    float level_row  = 0.0f;
    float level_read = 0.0f;
    float level      = 0.0f;
};

// how many of them a draw without a control head reads
constexpr int64_t N_SETTINGS_WITHOUT_LEVEL = 7;

constexpr float MIN_P_ROUNDING = 1.0f - 1e-6f;

// What the draw of one row tells of itself.
struct device_values {
    float token; // ids are below 2^24
    float temperature;
    float top_p;
    float last; // rank of the last token in the nucleus, from 0
    float prob;
    float total; // no number where one of the logits is none
    float level; // that has steered; told where there is a control head
};

constexpr int64_t N_VALUES_WITHOUT_LEVEL = 6;

inline int64_t n_device_values(bool has_level) {
    return has_level ? sizeof(device_values) / sizeof(float) : N_VALUES_WITHOUT_LEVEL;
}

// All [1, n], but for `settings`.
struct draw_inputs {
    ggml_tensor * settings; // input, [n, 7 or 10], see write_settings
    predictions   pred;     // as they are told: steered by the level, which is there only with a control head
    ggml_tensor * temperature;
    ggml_tensor * top_p;
    ggml_tensor * divisor; // the temperature that divides: greedy is the coldest one that does, with a uniform number of 0
    ggml_tensor * share;   // of the mass, before which the nucleus does not end; above 1 for one that never ends
    ggml_tensor * uniform;
    ggml_tensor * last;
    ggml_tensor * min_p;
};

// `pred` as the heads predict, null for what they do not; its level, where there is one, is of all rows that the graph has.
draw_inputs place_draw_inputs(ggml_context * ctx, int64_t n, const predictions & pred, const control_ends & ends);

void write_settings(ggml_tensor * settings, int64_t row, const device_settings & values);

// device_values [6 or 7, n] of each row: what was drawn [1, n], and what was picked for it
ggml_tensor * told_values(ggml_context * ctx, const draw_inputs & in, ggml_tensor * token, std::initializer_list<ggml_tensor *> rest);

} // namespace autodeco
