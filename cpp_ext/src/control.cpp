#include "control.h"

#include <algorithm>
#include <cmath>

namespace autodeco {

namespace {

// `value` times what is left of it at the cold end, and added what is missing at the hot one
float led(float value, float level, float low_factor, float high) {
    const float cold = std::max(-level, 0.0f);
    const float hot  = std::max(level, 0.0f);
    return value * (1.0f - cold * (1.0f - low_factor)) + hot * std::max(high - value, 0.0f);
}

ggml_tensor * build_led(ggml_context * ctx, ggml_tensor * value, ggml_tensor * level, float low_factor, float high) {
    ggml_tensor * cold    = ggml_relu(ctx, ggml_neg(ctx, level));
    ggml_tensor * left    = ggml_scale_bias(ctx, cold, low_factor - 1.0f, 1.0f);
    ggml_tensor * missing = ggml_relu(ctx, ggml_scale_bias(ctx, value, -1.0f, high));
    return ggml_add(ctx, ggml_mul(ctx, value, left), ggml_mul(ctx, ggml_relu(ctx, level), missing));
}

} // namespace

float control_level(const control_ends & ends, float sigmoid) {
    const float raw    = 2.0f * sigmoid - 1.0f;
    const float beyond = std::abs(raw) - ends.dead_zone;
    return beyond > 0.0f ? std::copysign(beyond / (1.0f - ends.dead_zone), raw) : 0.0f; // for NaN, too, which whoever draws reports
}

void steer(const control_ends & ends, float level, float & temperature, float & top_p) {
    temperature = led(temperature, level, ends.low_temperature_factor, ends.high_temperature);
    top_p       = led(top_p, level, ends.low_top_p_factor, ends.high_top_p);
}

ggml_tensor * build_control_level(ggml_context * ctx, const control_ends & ends, ggml_tensor * sigmoid) {
    const float   factor = 1.0f / (1.0f - ends.dead_zone);
    ggml_tensor * hot    = ggml_relu(ctx, ggml_scale_bias(ctx, sigmoid, 2.0f, -1.0f - ends.dead_zone));
    ggml_tensor * cold   = ggml_relu(ctx, ggml_scale_bias(ctx, sigmoid, -2.0f, 1.0f - ends.dead_zone));
    return ggml_scale(ctx, ggml_sub(ctx, hot, cold), factor);
}

ggml_tensor * build_steered_temperature(ggml_context * ctx, const control_ends & ends, ggml_tensor * level, ggml_tensor * temperature) {
    return build_led(ctx, temperature, level, ends.low_temperature_factor, ends.high_temperature);
}

ggml_tensor * build_steered_top_p(ggml_context * ctx, const control_ends & ends, ggml_tensor * level, ggml_tensor * top_p) {
    return build_led(ctx, top_p, level, ends.low_top_p_factor, ends.high_top_p);
}

} // namespace autodeco
