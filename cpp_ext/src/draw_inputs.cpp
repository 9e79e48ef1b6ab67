#include "draw_inputs.h"

#include "control.h"
#include "llama_releases.h"

#include "ggml-backend.h"

#include <cfloat>
#include <cstddef>

namespace autodeco {

namespace {

// as on the CPU, in what a device computes with: a mass that reaches top-p but for rounding reaches it
constexpr auto ROUNDING = (float) TOP_P_ROUNDING;

// scale * predicted + fixed
ggml_tensor * apply_setting(ggml_context * ctx, ggml_tensor * predicted, ggml_tensor * scale, ggml_tensor * fixed) {
    return predicted ? ggml_add(ctx, ggml_mul(ctx, predicted, scale), fixed) : fixed;
}

// number [1, n] of each row at an index [1, n] among `all`; clamped, for rows without settings have any
ggml_tensor * picked(ggml_context * ctx, ggml_tensor * all, ggml_tensor * index) {
    const auto    last = (float) (ggml_nelements(all) - 1);
    ggml_tensor * ids  = ggml_cast(ctx, clamped(ctx, index, 0.0f, last), GGML_TYPE_I32);
    return ggml_get_rows(ctx, ggml_reshape_2d(ctx, all, 1, ggml_nelements(all)), ggml_reshape_1d(ctx, ids, ggml_nelements(ids)));
}

} // namespace

draw_inputs place_draw_inputs(ggml_context * ctx, int64_t n, const predictions & pred, const control_ends & ends) {
    const int64_t n_settings = pred.level ? sizeof(device_settings) / sizeof(float) : N_SETTINGS_WITHOUT_LEVEL;
    ggml_tensor * settings   = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, n_settings);
    ggml_set_input(settings);
    ggml_set_name(settings, "autodeco_settings");
    // one copy to the device: the scheduler would make one of every view
    ggml_tensor * on_device = ggml_scale(ctx, settings, 1.0f);
    const auto    get       = [&](size_t offset) { return ggml_view_2d(ctx, on_device, 1, n, sizeof(float), offset * n); };

    draw_inputs in;
    in.settings = settings;
    in.pred     = pred;
    if (pred.level) {
        ggml_tensor * read  = picked(ctx, pred.level, get(offsetof(device_settings, level_row)));
        ggml_tensor * level = apply_setting(ctx, read, get(offsetof(device_settings, level_read)), get(offsetof(device_settings, level)));
        in.pred = { build_steered_temperature(ctx, ends, level, pred.temperature), build_steered_top_p(ctx, ends, level, pred.top_p), level };
    }
    in.temperature = apply_setting(ctx, in.pred.temperature, get(offsetof(device_settings, temperature_scale)), get(offsetof(device_settings, temperature)));
    in.top_p       = apply_setting(ctx, in.pred.top_p, get(offsetof(device_settings, top_p_scale)), get(offsetof(device_settings, top_p)));
    in.divisor     = clamped(ctx, in.temperature, GREEDY_TEMPERATURE, FLT_MAX);
    // a top-p of 1, here 2, is never reached
    in.share = ggml_add(ctx, ggml_scale_bias(ctx, in.top_p, 1.0f, -ROUNDING), ggml_step(ctx, ggml_scale_bias(ctx, in.top_p, 1.0f, -1.0f + ROUNDING)));
    in.uniform = get(offsetof(device_settings, uniform));
    in.last    = get(offsetof(device_settings, last));
    in.min_p   = get(offsetof(device_settings, min_p));
    return in;
}

void write_settings(ggml_tensor * settings, int64_t row, const device_settings & values) {
    const auto * value = (const float *) &values;
    for (int64_t i = 0; i < settings->ne[1]; ++i) {
        ggml_backend_tensor_set(settings, value + i, i * settings->nb[1] + row * settings->nb[0], sizeof(float));
    }
}

ggml_tensor * told_values(ggml_context * ctx, const draw_inputs & in, ggml_tensor * token, std::initializer_list<ggml_tensor *> rest) {
    ggml_tensor * values = ggml_concat(ctx, token, in.pred.temperature ? in.pred.temperature : in.temperature, 0);
    values               = ggml_concat(ctx, values, in.pred.top_p ? in.pred.top_p : in.top_p, 0);
    for (ggml_tensor * value : rest) {
        values = ggml_concat(ctx, values, value, 0);
    }
    return in.pred.level ? ggml_concat(ctx, values, in.pred.level, 0) : values;
}

} // namespace autodeco
