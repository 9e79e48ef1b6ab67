// Reading heads from a GGUF file. Files come from strangers: every size is checked against what the schema allows and
// against the file before memory is asked for.

#include "heads.h"

#include "file.h"
#include "gguf_header.h"

#include "gguf.h"

#include <cmath>
#include <cstring>

namespace autodeco {

namespace {

// The value of a key of our schema, a T of `type`; false and an error when it is not there, or of another type.
template <typename T> bool read_key(const gguf_header & header, const char * key, gguf_type type, T & value, std::string & error) {
    const auto it = header.values.find(key);
    if (it == header.values.end()) {
        error = std::string("key ") + key + " is missing";
        return false;
    }
    if (it->second.type != (uint32_t) type) {
        error = std::string("key ") + key + " is of type " + gguf_type_name((gguf_type) it->second.type) + ", expected " + gguf_type_name(type);
        return false;
    }
    std::memcpy(&value, it->second.bytes, sizeof(value));
    return true;
}

bool read_size(const gguf_header & header, const char * key, int32_t & value, std::string & error) {
    uint32_t v;
    if (!read_key(header, key, GGUF_TYPE_UINT32, v, error)) {
        return false;
    }
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

// The text of a key that need not be there, without what could drive a terminal; empty if there is none.
std::string text_of(const gguf_header & header, const char * key) {
    const auto it = header.values.find(key);
    std::string text;
    if (it != header.values.end() && it->second.type == GGUF_TYPE_STRING) {
        for (char c : it->second.text) {
            text += (unsigned char) c < 0x20 || c == 0x7f ? '?' : c;
        }
    }
    return text;
}

struct heads_reader {
    const gguf_bytes &  bytes;
    const gguf_header & header;
    heads_data &        heads;
    std::string &       error;
    autodeco_code       code = AUTODECO_ERROR_FORMAT; // of the error

    bool has(const char * name) const { return header.tensors.count(name) > 0; }

    bool read(const std::string & name, int64_t ne0, int64_t ne1, bool is_weight) {
        const auto it = header.tensors.find(name);
        if (it == header.tensors.end()) {
            error = "tensor " + name + " is missing";
            return false;
        }
        const gguf_tensor & tensor = it->second;
        if (tensor.ne[0] != ne0 || tensor.ne[1] != ne1 || tensor.ne[2] != 1 || tensor.ne[3] != 1) {
            error = "tensor " + name + " has shape [" + std::to_string(tensor.ne[0]) + ", " + std::to_string(tensor.ne[1]) +
                    "], expected [" + std::to_string(ne0) + ", " + std::to_string(ne1) + "]";
            return false;
        }
        const bool quantized = tensor.type == GGML_TYPE_F16 || tensor.type == GGML_TYPE_BF16 || tensor.type == GGML_TYPE_Q8_0;
        if (tensor.type != GGML_TYPE_F32 && !(is_weight && quantized)) {
            const std::string type = tensor.type < GGML_TYPE_COUNT ? ggml_type_name((ggml_type) tensor.type) : std::to_string(tensor.type);
            error = "tensor " + name + " is of type " + type + (is_weight ? ", expected f32, f16, bf16 or q8_0" : ", expected f32");
            return false;
        }
        const ggml_type type = (ggml_type) tensor.type;
        if (ne0 % ggml_blck_size(type) != 0) {
            error = "tensor " + name + " of type " + ggml_type_name(type) + " has rows of " + std::to_string(ne0) + " values, no whole blocks";
            return false;
        }
        const uint64_t size = ggml_row_size(type, ne0) * (uint64_t) ne1;
        if (size > bytes.size - tensor.offset) {
            error = "tensor " + name + " reaches past the end of the file, which is cut short: fetch or export it again";
            return false;
        }
        tensor_data data = { type, { ne0, ne1 }, std::vector<uint8_t>(size) };
        if (!bytes.read(data.bytes.data(), tensor.offset, size)) {
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
        if (header.values.count("autodeco.version") == 0) {
            code  = AUTODECO_ERROR_NO_HEADS;
            error = "holds no AutoDeco heads (key autodeco.version is missing): give a file that autodeco-export wrote";
            return false;
        }
        uint32_t version;
        float    scale;
        if (!read_key(header, "autodeco.version", GGUF_TYPE_UINT32, version, error)) {
            return false;
        }
        if (version != 1) {
            error = "is of schema version " + std::to_string(version) + ", this program reads version 1: update it";
            return false;
        }
        if (!read_size(header, "autodeco.embedding_length", heads.n_embd, error) || !read_size(header, "autodeco.vocab_size", heads.n_vocab, error)) {
            return false;
        }
        if (!read_key(header, "autodeco.temperature.scale", GGUF_TYPE_FLOAT32, scale, error)) {
            return false;
        }
        if (scale != TEMPERATURE_SCALE) {
            error = "has autodeco.temperature.scale " + std::to_string(scale) + ", only 2.0 is defined";
            return false;
        }
        heads.base_name        = text_of(header, "autodeco.base_model.name");
        heads.base_fingerprint = text_of(header, "autodeco.base_model.fingerprint");

        heads.has_temp  = has("autodeco.temp_head.0.weight");
        heads.has_top_p = has("autodeco.top_p_head.0.weight");
        if (!heads.has_temp && !heads.has_top_p) {
            error = "holds neither a temperature head nor a top-p head";
            return false;
        }
        if (heads.has_top_p) {
            uint8_t prob_stats; // a byte: any but 0 is true
            if (!read_key(header, "autodeco.top_p.prob_stats", GGUF_TYPE_BOOL, prob_stats, error)) {
                return false;
            }
            heads.prob_stats = prob_stats != 0;
        }
        return (!heads.has_temp || read_head("autodeco.temp_head", 0)) &&
               (!heads.has_top_p || read_head("autodeco.top_p_head", heads.prob_stats ? 1 + N_PROB_STATS : 1));
    }
};

std::shared_ptr<const heads_data> read_gguf(const gguf_bytes & bytes, failure & error) {
    gguf_header header;
    if (!gguf_header_read(bytes, header)) {
        error = { AUTODECO_ERROR_FORMAT, "is not a valid GGUF file, or is cut short" };
        return nullptr;
    }
    auto         heads  = std::make_shared<heads_data>();
    heads_reader reader = { bytes, header, *heads, error.message };
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
