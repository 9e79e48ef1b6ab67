// What the control head does to temperature and top-p: one level for a whole answer, read at the state that its first token
// is drawn from, leads both towards cold or towards hot. docs/control.md has the formulas.

#pragma once

#include "heads.h"

namespace autodeco {

// Level in [-1, 1] of what a sigmoid of the control head gives, after the dead zone: within it exactly 0.
float control_level(const control_ends & ends, float sigmoid);

// Lead predictions by a level in [-1, 1]: below 0 towards cold, above 0 towards hot. 0 leaves every bit as it is.
void steer(const control_ends & ends, float level, float & temperature, float & top_p);

// The same as operations of any device, [1, n] each.
ggml_tensor * build_control_level(ggml_context * ctx, const control_ends & ends, ggml_tensor * sigmoid);
ggml_tensor * build_steered_temperature(ggml_context * ctx, const control_ends & ends, ggml_tensor * level, ggml_tensor * temperature);
ggml_tensor * build_steered_top_p(ggml_context * ctx, const control_ends & ends, ggml_tensor * level, ggml_tensor * top_p);

} // namespace autodeco
