// Putting the weights of heads into the memory of a device.

#include "heads.h"

#include <cstring>
#include <new>
#include <string>

namespace autodeco {

namespace {

std::vector<float> in_float32(const tensor_data & tensor) {
    std::vector<float> values(tensor.ne[0] * tensor.ne[1]);
    if (tensor.type == GGML_TYPE_F32) {
        std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    } else {
        ggml_get_type_traits(tensor.type)->to_float(tensor.bytes.data(), values.data(), (int64_t) values.size());
    }
    return values;
}

} // namespace

void heads_data::take_values() {
    const auto take = [&](mlp_values & mlp, const std::string & head) {
        const auto extra = tensors.find(head + ".0.extra.weight");
        if (extra != tensors.end()) {
            mlp.w1_extra = in_float32(extra->second);
        }
        mlp.w1 = &tensors.at(head + ".0.weight");
        mlp.b1 = in_float32(tensors.at(head + ".0.bias"));
        mlp.w2 = in_float32(tensors.at(head + ".2.weight"));
        mlp.b2 = in_float32(tensors.at(head + ".2.bias"))[0];
    };
    if (has_temp) {
        take(temperature, TEMPERATURE_HEAD);
    }
    if (has_top_p) {
        take(top_p, TOP_P_HEAD);
    }
    if (has_control) {
        take(control_head, CONTROL_HEAD);
    }
}

placed_heads heads_data::place(ggml_context * ctx) const {
    placed_heads result;
    for (const auto & [name, data] : tensors) {
        result.by_name[name] = data.ne[1] == 1 ? ggml_new_tensor_1d(ctx, data.type, data.ne[0]) : ggml_new_tensor_2d(ctx, data.type, data.ne[0], data.ne[1]);
    }
    result.tensors.one = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1);

    const auto take = [&](mlp_tensors & mlp, const std::string & head) {
        const auto find = [&](const std::string & suffix) {
            const auto it = result.by_name.find(head + suffix);
            return it == result.by_name.end() ? nullptr : it->second;
        };
        mlp.w1       = find(".0.weight");
        mlp.w1_extra = find(".0.extra.weight");
        mlp.b1       = find(".0.bias");
        mlp.w2       = find(".2.weight");
        mlp.b2       = find(".2.bias");
    };
    take(result.tensors.temperature, TEMPERATURE_HEAD);
    take(result.tensors.top_p, TOP_P_HEAD);
    take(result.tensors.control, CONTROL_HEAD);
    return result;
}

device_weights::~device_weights() {
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
}

std::shared_ptr<const device_weights> heads_data::weights(ggml_backend_buffer_type_t buft) const try {
    const std::lock_guard<std::mutex> lock(mutex);
    if (auto shared = cache[buft].lock()) {
        return shared;
    }

    auto result = std::make_shared<device_weights>();
    result->ctx = ggml_init({ /* .mem_size = */ (tensors.size() + 1) * ggml_tensor_overhead(), /* .mem_buffer = */ nullptr, /* .no_alloc = */ true });
    if (!result->ctx) {
        return nullptr;
    }
    const placed_heads placed = place(result->ctx);
    result->tensors           = placed.tensors;
    result->buffer            = ggml_backend_alloc_ctx_tensors_from_buft(result->ctx, buft);
    if (!result->buffer) {
        return nullptr;
    }
    ggml_backend_buffer_set_usage(result->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const auto & [name, data] : tensors) {
        ggml_backend_tensor_set(placed.by_name.at(name), data.bytes.data(), 0, data.bytes.size());
    }
    const float one = 1.0f;
    ggml_backend_tensor_set(result->tensors.one, &one, 0, sizeof(one));

    cache[buft] = result;
    return result;
} catch (const std::bad_alloc &) { // llama.cpp, which asks, has a C interface
    return nullptr;
}

} // namespace autodeco
