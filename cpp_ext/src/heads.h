// Heads as read from a file, and their weights in the memory of a device.

#pragma once

#include "failure.h"
#include "method.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace autodeco {

// ggml tensors of a multilayer perceptron W2 relu(W1 x + b1) + b2; all null where the head is absent
struct mlp_tensors {
    ggml_tensor * w1       = nullptr; // [n_embd, HEAD_WIDTH]
    ggml_tensor * w1_extra = nullptr; // [1 or 5, HEAD_WIDTH], top-p head only
    ggml_tensor * b1       = nullptr; // [HEAD_WIDTH]
    ggml_tensor * w2       = nullptr; // [HEAD_WIDTH, 1]
    ggml_tensor * b2       = nullptr; // [1]
};

struct head_tensors {
    mlp_tensors   temperature;
    mlp_tensors   top_p;
    mlp_tensors   control;
    ggml_tensor * one = nullptr; // [1], the temperature where there is no temperature head
};

// what the names of their tensors begin with
inline const std::string TEMPERATURE_HEAD = "autodeco.temp_head";
inline const std::string TOP_P_HEAD       = "autodeco.top_p_head";
inline const std::string CONTROL_HEAD     = "autodeco.control_head";

// Where the levels of the control head lead, and how weak ones are taken for none; in the order of the file's keys.
struct control_ends {
    float low_temperature_factor = 1.0f; // of the temperature at level -1, in [0, 1]
    float high_temperature       = 1.0f; // at level 1, where the predicted one is lower; in (0, 2)
    float low_top_p_factor       = 1.0f; // of the top-p at level -1, in [0, 1]
    float high_top_p             = 0.5f; // at level 1, where the predicted one is lower; in (0, 1)
    float dead_zone              = 0.0f; // raw levels this near to 0 are 0, in [0, 1)
};

// Tensors of heads in a context of ggml, which has no memory for what they hold.
struct placed_heads {
    head_tensors                         tensors;
    std::map<std::string, ggml_tensor *> by_name;
};

// A tensor as it was read.
struct tensor_data {
    ggml_type            type;
    int64_t              ne[2];
    std::vector<uint8_t> bytes;
};

// A perceptron in host memory, all but w1 in float32.
struct mlp_values {
    const tensor_data * w1 = nullptr; // null where the head is absent
    std::vector<float> w1_extra; // [HEAD_WIDTH, 1 or 5] rows
    std::vector<float> b1;
    std::vector<float> w2;
    float              b2 = 0.0f;
};

// One copy of the weights in buffers of one type, freed with the last user.
struct device_weights {
    ggml_context *        ctx    = nullptr;
    ggml_backend_buffer_t buffer = nullptr;
    head_tensors          tensors;

    // samplers that predict with them, for all of which one graph makes room
    mutable std::atomic<int64_t> n_samplers{ 0 };

    device_weights() = default;
    device_weights(const device_weights &) = delete;
    device_weights & operator=(const device_weights &) = delete;
    ~device_weights();
};

struct heads_data {
    int32_t n_embd      = 0;
    int32_t n_vocab     = 0;
    bool    prob_stats  = false;
    bool    has_temp    = false;
    bool    has_top_p   = false;
    bool    has_control = false; // only beside both others

    control_ends control; // of the control head

    // of the model that they were exported for; empty where the file does not say
    std::string base_name;
    std::string base_fingerprint;

    std::map<std::string, tensor_data> tensors;

    // the same for the nodes of the CPU
    mlp_values temperature;
    mlp_values top_p;
    mlp_values control_head;

    void take_values();

    placed_heads place(ggml_context * ctx) const;

    // Weights in buffers of type `buft`, shared by all who ask for the same type; null when memory cannot be had.
    std::shared_ptr<const device_weights> weights(ggml_backend_buffer_type_t buft) const;

private:
    mutable std::mutex                                                            mutex;
    mutable std::map<ggml_backend_buffer_type_t, std::weak_ptr<const device_weights>> cache;
};

// Read a file with heads of any layout, or the bytes of one; null on failure.
std::shared_ptr<const heads_data> heads_read(const std::string & path, failure & error);
std::shared_ptr<const heads_data> heads_read(const void * data, size_t size, failure & error);

} // namespace autodeco

// what the C interface hands out
struct autodeco_heads {
    std::shared_ptr<const autodeco::heads_data> data;
};
