// Reading heads from a GGUF file. Files come from strangers: every size has been checked against what the schema allows and
// against the file before memory is asked for.

#include "heads.h"

#include "file.h"
#include "file_layout.h"
#include "one_line.h"

#include <cmath>
#include <cstring>

namespace autodeco {

namespace {

bool all_finite(ggml_type type, const std::vector<uint8_t> & bytes, int64_t n) {
    std::vector<float> values(n);
    if (type == GGML_TYPE_F32) {
        std::memcpy(values.data(), bytes.data(), n * sizeof(float));
    } else {
        ggml_get_type_traits(type)->to_float(bytes.data(), values.data(), n);
    }
    for (float v : values) {
        if (!std::isfinite(v)) {
            return false;
        }
    }
    return true;
}

bool read_tensor(const gguf_bytes & bytes, const gguf_header & header, const gguf_tensor & tensor, heads_data & heads, failure & error) {
    tensor_data data = { (ggml_type) tensor.type, { tensor.ne[0], tensor.ne[1] }, std::vector<uint8_t>(tensor.size) };
    if (!bytes.read(data.bytes.data(), header.data_offset + tensor.offset, tensor.size)) {
        error = { AUTODECO_ERROR_FILE, "tensor " + tensor.name + " cannot be read" };
        return false;
    }
    if (!all_finite(data.type, data.bytes, data.ne[0] * data.ne[1])) {
        error = { AUTODECO_ERROR_FORMAT, "tensor " + tensor.name + " holds NaN or infinite weights: train or export it again" };
        return false;
    }
    heads.tensors.emplace(tensor.name, std::move(data));
    return true;
}

bool is_of(const std::string & head, const gguf_tensor & tensor) {
    return tensor.name.compare(0, head.size() + 1, head + ".") == 0;
}

std::shared_ptr<const heads_data> read_gguf(const gguf_bytes & bytes, failure & error) {
    file_layout layout;
    if (!file_layout_read(bytes, layout, error)) {
        return nullptr;
    }
    if (layout.kind == file_kind::plain) {
        error = { AUTODECO_ERROR_NO_HEADS, "holds no AutoDeco heads: give a file that autodeco-export wrote" };
        return nullptr;
    }
    auto heads = std::make_shared<heads_data>();
    heads->n_embd           = layout.n_embd;
    heads->n_vocab          = layout.n_vocab;
    heads->prob_stats       = layout.prob_stats;
    heads->has_temp         = layout.has_temp;
    heads->has_top_p        = layout.has_top_p;
    heads->has_control      = layout.has_control;
    heads->control          = layout.control;
    heads->base_name        = one_line(layout.base_name);
    heads->base_fingerprint = one_line(layout.base_fingerprint);
    const gguf_header & header = layout.heads_header();
    const gguf_bytes    held   = layout.heads_bytes(bytes);
    for (const gguf_tensor & tensor : header.tensors) {
        const bool is_head = is_of(TEMPERATURE_HEAD, tensor) || is_of(TOP_P_HEAD, tensor) || is_of(CONTROL_HEAD, tensor);
        if (is_head && !read_tensor(held, header, tensor, *heads, error)) {
            return nullptr;
        }
    }
    heads->take_values();
    return heads;
}

} // namespace

std::shared_ptr<const heads_data> heads_read(const std::string & path, failure & error) {
    const file_ptr file = open_file(path, error);
    if (!file) {
        return nullptr;
    }
    auto heads = read_gguf(gguf_bytes_of(file.get()), error);
    if (!heads) {
        error.message = path + ": " + error.message;
    }
    return heads;
}

std::shared_ptr<const heads_data> heads_read(const void * data, size_t size, failure & error) {
    auto heads = read_gguf({ nullptr, (const uint8_t *) data, size }, error);
    if (!heads) {
        error.message = "heads in memory: " + error.message;
    }
    return heads;
}

} // namespace autodeco
