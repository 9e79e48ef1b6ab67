// Reading heads from a GGUF file. Files come from strangers: every size is checked against what the schema allows and
// against the file before memory is asked for.

#include "heads.h"

#include "file.h"

#include "ggml-cpp.h"
#include "gguf.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace autodeco {

namespace {

// the bytes of a GGUF: of a file, or in memory
struct gguf_bytes {
    FILE *          file;
    const uint8_t * data;
    size_t          size;

    gguf_context * open(gguf_init_params params) const {
        return file ? gguf_init_from_file_ptr(file, params) : gguf_init_from_buffer(data, size, params);
    }

    bool read(void * dst, size_t offset, size_t n) const {
        if (!file) {
            std::memcpy(dst, data + offset, n);
            return true;
        }
        return fseeko(file, (off_t) offset, SEEK_SET) == 0 && fread(dst, 1, n, file) == n;
    }
};

bool read_key(const gguf_context * meta, const char * key, gguf_type type, int64_t & id, std::string & error) {
    id = gguf_find_key(meta, key);
    if (id < 0) {
        error = std::string("key ") + key + " is missing";
        return false;
    }
    if (gguf_get_kv_type(meta, id) != type) {
        error = std::string("key ") + key + " is of type " + gguf_type_name(gguf_get_kv_type(meta, id)) + ", expected " + gguf_type_name(type);
        return false;
    }
    return true;
}

bool read_size(const gguf_context * meta, const char * key, int32_t & value, std::string & error) {
    int64_t id;
    if (!read_key(meta, key, GGUF_TYPE_UINT32, id, error)) {
        return false;
    }
    const uint32_t v = gguf_get_val_u32(meta, id);
    if (v < 1 || v > (1u << 30)) {
        error = std::string("key ") + key + " is " + std::to_string(v);
        return false;
    }
    value = (int32_t) v;
    return true;
}

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

struct heads_reader {
    const gguf_bytes &   bytes;
    const gguf_context * meta;
    ggml_context *       shapes; // the tensors of the file, without data
    heads_data &         heads;
    std::string &        error;
    autodeco_code        code = AUTODECO_ERROR_FORMAT; // of the error

    bool has(const std::string & name) const { return gguf_find_tensor(meta, name.c_str()) >= 0; }

    bool read(const std::string & name, int64_t ne0, int64_t ne1, bool is_weight) {
        const int64_t       id     = gguf_find_tensor(meta, name.c_str());
        const ggml_tensor * tensor = id < 0 ? nullptr : ggml_get_tensor(shapes, name.c_str());
        if (!tensor) {
            error = "tensor " + name + " is missing";
            return false;
        }
        if (tensor->ne[0] != ne0 || tensor->ne[1] != ne1 || tensor->ne[2] != 1 || tensor->ne[3] != 1) {
            error = "tensor " + name + " has shape [" + std::to_string(tensor->ne[0]) + ", " + std::to_string(tensor->ne[1]) +
                    "], expected [" + std::to_string(ne0) + ", " + std::to_string(ne1) + "]";
            return false;
        }
        const bool quantized = tensor->type == GGML_TYPE_F16 || tensor->type == GGML_TYPE_BF16 || tensor->type == GGML_TYPE_Q8_0;
        if (tensor->type != GGML_TYPE_F32 && !(is_weight && quantized)) {
            error = "tensor " + name + " is of type " + ggml_type_name(tensor->type) + (is_weight ? ", expected f32, f16, bf16 or q8_0" : ", expected f32");
            return false;
        }
        const size_t offset = gguf_get_data_offset(meta) + gguf_get_tensor_offset(meta, id);
        const size_t size   = ggml_nbytes(tensor);
        if (offset > bytes.size || size > bytes.size - offset) {
            error = "tensor " + name + " reaches past the end of the file, which is cut short: fetch or export it again";
            return false;
        }
        heads_data::tensor_data data = { tensor->type, { ne0, ne1 }, std::vector<uint8_t>(size) };
        if (!bytes.read(data.bytes.data(), offset, size)) {
            code  = AUTODECO_ERROR_FILE;
            error = "tensor " + name + " cannot be read";
            return false;
        }
        if (!all_finite(data.type, data.bytes, ne0 * ne1)) {
            error = "tensor " + name + " holds NaN or infinite weights: train or export it again";
            return false;
        }
        heads.tensors.emplace(name, std::move(data));
        return true;
    }

    bool read_head(const std::string & head, int64_t n_extra) {
        return read(head + ".0.weight", heads.n_embd, HEAD_WIDTH, true) && read(head + ".0.bias", HEAD_WIDTH, 1, false) &&
               read(head + ".2.weight", HEAD_WIDTH, 1, true) && read(head + ".2.bias", 1, 1, false) &&
               (n_extra == 0 || read(head + ".0.extra.weight", n_extra, HEAD_WIDTH, false));
    }

    bool read_all() {
        int64_t id;
        if (gguf_find_key(meta, "autodeco.version") < 0) {
            code  = AUTODECO_ERROR_NO_HEADS;
            error = "holds no AutoDeco heads (key autodeco.version is missing): give a file that autodeco-export wrote";
            return false;
        }
        if (!read_key(meta, "autodeco.version", GGUF_TYPE_UINT32, id, error)) {
            return false;
        }
        if (gguf_get_val_u32(meta, id) != 1) {
            error = "is of schema version " + std::to_string(gguf_get_val_u32(meta, id)) + ", this program reads version 1: update it";
            return false;
        }
        if (!read_size(meta, "autodeco.embedding_length", heads.n_embd, error) || !read_size(meta, "autodeco.vocab_size", heads.n_vocab, error)) {
            return false;
        }
        if (!read_key(meta, "autodeco.temperature.scale", GGUF_TYPE_FLOAT32, id, error)) {
            return false;
        }
        if (gguf_get_val_f32(meta, id) != TEMPERATURE_SCALE) {
            error = "has autodeco.temperature.scale " + std::to_string(gguf_get_val_f32(meta, id)) + ", only 2.0 is defined";
            return false;
        }
        heads.has_temp  = has("autodeco.temp_head.0.weight");
        heads.has_top_p = has("autodeco.top_p_head.0.weight");
        if (!heads.has_temp && !heads.has_top_p) {
            error = "holds neither a temperature head nor a top-p head";
            return false;
        }
        if (heads.has_top_p) {
            if (!read_key(meta, "autodeco.top_p.prob_stats", GGUF_TYPE_BOOL, id, error)) {
                return false;
            }
            heads.prob_stats = gguf_get_val_bool(meta, id);
        }
        return (!heads.has_temp || read_head("autodeco.temp_head", 0)) &&
               (!heads.has_top_p || read_head("autodeco.top_p_head", heads.prob_stats ? 1 + N_PROB_STATS : 1));
    }
};

std::shared_ptr<const heads_data> read_gguf(const gguf_bytes & bytes, failure & error) {
    ggml_context *         shapes = nullptr;
    const gguf_context_ptr meta(bytes.open({ /* .no_alloc = */ true, /* .ctx = */ &shapes }));
    const ggml_context_ptr shapes_owner(shapes);
    if (!meta || !shapes) {
        error = { AUTODECO_ERROR_FORMAT, "is not a valid GGUF file, or is cut short" };
        return nullptr;
    }
    auto         heads  = std::make_shared<heads_data>();
    heads_reader reader = { bytes, meta.get(), shapes, *heads, error.message };
    if (!reader.read_all()) {
        error.code = reader.code;
        return nullptr;
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
    const off_t size = fseeko(file.get(), 0, SEEK_END) == 0 ? ftello(file.get()) : -1;
    if (size < 0 || fseeko(file.get(), 0, SEEK_SET) != 0) {
        error = { AUTODECO_ERROR_FILE, path + ": is not a regular file" };
        return nullptr;
    }
    auto heads = read_gguf({ file.get(), nullptr, (size_t) size }, error);
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
