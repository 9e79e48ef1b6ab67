#include "file_layout.h"

#include "language_model.h"
#include "method.h"

#include "ggml.h"
#include "gguf.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <type_traits>

namespace autodeco {

namespace {

constexpr uint64_t MAX_HIDDEN_SIZE  = 1u << 16; // as in export/schema.py
constexpr uint64_t MAX_VOCAB_SIZE   = 1u << 30;
constexpr size_t   MAX_ARCHITECTURE = 64;

const std::string PREFIX    = "autodeco.";
const std::string BASE_GGUF = "autodeco.base_gguf";
const std::string BASE_TAIL = "autodeco.base_tail";
const std::string HEADS     = "autodeco.heads";
const std::string TEMP      = "autodeco.temp_head.";
const std::string TOP_P     = "autodeco.top_p_head.";
const std::string CONTROL   = "autodeco.control_head.";
const std::string EXTRA     = "autodeco.top_p_head.0.extra.weight";

constexpr uint32_t WITHOUT_CONTROL = 1; // versions of the schema
constexpr uint32_t WITH_CONTROL    = 2;

bool is_ours(const std::string & name) {
    return name.compare(0, PREFIX.size(), PREFIX) == 0;
}

bool is_integer(uint32_t type) {
    return type <= GGUF_TYPE_INT32 || type == GGUF_TYPE_UINT64 || type == GGUF_TYPE_INT64;
}

struct layout_reader {
    const gguf_bytes & bytes;
    file_layout &      layout;
    failure &          error;

    const gguf_header & header() const { return layout.header; }

    bool fail(const std::string & what) {
        error = { AUTODECO_ERROR_FORMAT, what };
        return false;
    }

    // The value of a key of one type, which the file need not have; `found` tells.
    template <typename T> bool read_key(const std::string & key, gguf_type type, T & value, bool & found) {
        const gguf_value * held = header().value(key);
        found = held != nullptr;
        if (found && held->type != (uint32_t) type) {
            return fail("key " + key + " is of type " + gguf_type_name((gguf_type) held->type) + ", expected " + gguf_type_name(type));
        }
        if constexpr (std::is_same_v<T, std::string>) {
            value = found ? held->text : "";
        } else if (found) {
            std::memcpy(&value, held->bytes, sizeof(value));
        }
        return true;
    }

    // The same of a key that the file must have.
    template <typename T> bool need_key(const std::string & key, gguf_type type, T & value) {
        bool found;
        return read_key(key, type, value, found) && (found || fail("key " + key + " is missing"));
    }

    // The value of a key of any type of integer; 0 where there is none, or a negative one.
    bool read_integer(const std::string & key, uint64_t & value) {
        const gguf_value * held = header().value(key);
        value = 0;
        if (!held) {
            return true;
        }
        const auto take = [&](auto typed) {
            std::memcpy(&typed, held->bytes, sizeof(typed));
            value = typed > 0 ? (uint64_t) typed : 0;
            return true;
        };
        switch (held->type) {
            case GGUF_TYPE_UINT8:  return take(uint8_t());
            case GGUF_TYPE_INT8:   return take(int8_t());
            case GGUF_TYPE_UINT16: return take(uint16_t());
            case GGUF_TYPE_INT16:  return take(int16_t());
            case GGUF_TYPE_UINT32: return take(uint32_t());
            case GGUF_TYPE_INT32:  return take(int32_t());
            case GGUF_TYPE_UINT64: return take(uint64_t());
            case GGUF_TYPE_INT64:  return take(int64_t());
            default:               return fail("key " + key + " is of type " + gguf_type_name((gguf_type) held->type) + ", expected an integer");
        }
    }

    // A name such as "qwen3": keys of the model begin with it, and it is shown.
    bool read_architecture() {
        bool found;
        if (!read_key("general.architecture", GGUF_TYPE_STRING, layout.architecture, found)) {
            return false;
        }
        const std::string & name = layout.architecture;
        const bool is_name = name.size() <= MAX_ARCHITECTURE && std::all_of(name.begin(), name.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        });
        return is_name || fail("key general.architecture is no name of an architecture");
    }

    bool take_sizes(uint64_t n_embd, uint64_t n_vocab) {
        if (n_embd < 1 || n_embd > MAX_HIDDEN_SIZE || n_vocab < 1 || n_vocab > MAX_VOCAB_SIZE) {
            return fail("has an embedding length of " + std::to_string(n_embd) + " and a vocabulary of " + std::to_string(n_vocab) + " tokens, as no language model");
        }
        layout.n_embd  = (int32_t) n_embd;
        layout.n_vocab = (int32_t) n_vocab;
        return true;
    }

    // One line for a model that heads cannot run with; a key of another type says nothing.
    std::string why_no_language_model() {
        const gguf_value * causal  = header().value(layout.architecture + ".attention.causal");
        const gguf_value * pooling = header().value(layout.architecture + ".pooling_type");
        const bool         is_said = causal && causal->type == GGUF_TYPE_BOOL && causal->bytes[0] == 0;
        uint64_t           kind    = 0;
        if (pooling && pooling->type == GGUF_TYPE_BOOL) {
            kind = pooling->bytes[0] != 0;
        } else if (pooling && is_integer(pooling->type)) {
            read_integer(layout.architecture + ".pooling_type", kind);
        }
        return autodeco::why_no_language_model(layout.architecture, !is_said, (long) std::min<uint64_t>(kind, 1000));
    }

    bool read_plain() {
        uint64_t part, n_embd, n_vocab = 0;
        if (!read_integer("split.no", part) || !read_architecture()) {
            return false;
        }
        if (part > 0) {
            return fail("is part " + std::to_string(part + 1) + " of a split model: give the first");
        }
        if (layout.architecture.empty()) {
            return fail("names no architecture: give the GGUF of a language model");
        }
        if (!read_integer("split.count", part) || !read_integer(layout.architecture + ".embedding_length", n_embd)) {
            return false;
        }
        const std::string no_language_model = why_no_language_model();
        if (!no_language_model.empty()) {
            return fail(no_language_model);
        }
        // as llama_vocab_n_tokens counts: the tokens, and the key only for a model without a tokenizer
        const gguf_value * tokens = header().value("tokenizer.ggml.tokens");
        if (tokens && tokens->type == GGUF_TYPE_ARRAY) {
            n_vocab = tokens->count;
        } else if (!read_integer(layout.architecture + ".vocab_size", n_vocab)) {
            return false;
        }
        layout.kind      = file_kind::plain;
        layout.base_size = bytes.size;
        return take_sizes(n_embd, n_vocab);
    }

    // Whether a head is there: all of its tensors, or none.
    bool find_head(const std::string & prefix, std::initializer_list<const char *> parts, bool & is_there) {
        size_t      n = 0;
        std::string missing;
        for (const char * part : parts) {
            if (header().tensor(prefix + part)) {
                ++n;
            } else {
                missing = prefix + part;
            }
        }
        is_there = n > 0;
        return n == 0 || n == parts.size() || fail("tensor " + missing + " is missing");
    }

    bool check_tensor(const std::string & name, int64_t ne0, int64_t ne1, bool is_weight) {
        const gguf_tensor & tensor = *header().tensor(name);
        if (!tensor.has_shape(ne0, ne1)) {
            return fail("tensor " + name + " has shape [" + std::to_string(tensor.ne[0]) + ", " + std::to_string(tensor.ne[1]) + "], expected [" +
                        std::to_string(ne0) + ", " + std::to_string(ne1) + "]");
        }
        const bool quantized = tensor.type == GGML_TYPE_F16 || tensor.type == GGML_TYPE_BF16 || tensor.type == GGML_TYPE_Q8_0;
        if (tensor.type != GGML_TYPE_F32 && !(is_weight && quantized)) {
            return fail("tensor " + name + " is of type " + ggml_type_name((ggml_type) tensor.type) + (is_weight ? ", expected f32, f16, bf16 or q8_0" : ", expected f32"));
        }
        return true;
    }

    bool check_head(const std::string & prefix) {
        return check_tensor(prefix + "0.weight", layout.n_embd, HEAD_WIDTH, true) && check_tensor(prefix + "0.bias", HEAD_WIDTH, 1, false) &&
               check_tensor(prefix + "2.weight", HEAD_WIDTH, 1, true) && check_tensor(prefix + "2.bias", 1, 1, false);
    }

    bool check_names(bool is_merged, uint32_t version) {
        for (const gguf_tensor & tensor : header().tensors) {
            const std::string & name = tensor.name;
            bool known = !is_ours(name) || name == EXTRA || (is_merged && (name == BASE_GGUF || name == BASE_TAIL));
            for (const std::string & prefix : { TEMP, TOP_P, CONTROL }) {
                for (const char * part : { "0.weight", "0.bias", "2.weight", "2.bias" }) {
                    known = known || (name == prefix + part && (prefix != CONTROL || version == WITH_CONTROL));
                }
            }
            if (!known) {
                return fail("tensor " + name + " is not in schema version " + std::to_string(version) + ": update autodeco");
            }
        }
        return true;
    }

    // A number of the control head, which must be in `range`; NaN is in none.
    bool need_number(const std::string & key, const char * range, bool (*is_in_range)(float), float & value) {
        return need_key("autodeco.control." + key, GGUF_TYPE_FLOAT32, value) &&
               (is_in_range(value) || fail("has autodeco.control." + key + " " + std::to_string(value) + ", which must be in " + range + ": export the heads again"));
    }

    bool read_control() {
        const auto     is_factor = [](float value) { return value >= 0.0f && value <= 1.0f; };
        control_ends & ends      = layout.control;
        if (!need_number("low_temperature_factor", "[0, 1]", is_factor, ends.low_temperature_factor) ||
            !need_number("high_temperature", "(0, 2)", [](float value) { return value > 0.0f && value < TEMPERATURE_SCALE; }, ends.high_temperature) ||
            !need_number("low_top_p_factor", "[0, 1]", is_factor, ends.low_top_p_factor) ||
            !need_number("high_top_p", "(0, 1)", [](float value) { return value > 0.0f && value < 1.0f; }, ends.high_top_p) ||
            !need_number("dead_zone", "[0, 1)", [](float value) { return value >= 0.0f && value < 1.0f; }, ends.dead_zone) ||
            !find_head(CONTROL, { "0.weight", "0.bias", "2.weight", "2.bias" }, layout.has_control)) {
            return false;
        }
        if (!layout.has_control) {
            return fail("is of schema version 2 and holds no control head: export the heads again");
        }
        return (layout.has_temp && layout.has_top_p) || fail("holds a control head without a temperature head and a top-p head, which it needs");
    }

    bool read_heads(bool is_merged) {
        uint32_t version, n_embd, n_vocab;
        float    scale;
        uint64_t parts;
        bool     found, says_stats;
        uint8_t  prob_stats = 0; // a byte: any but 0 is true
        if (!need_key("autodeco.version", GGUF_TYPE_UINT32, version)) {
            return false;
        }
        if (version != WITHOUT_CONTROL && version != WITH_CONTROL) {
            return fail("is of schema version " + std::to_string(version) + ", this program reads versions 1 and 2: update it");
        }
        if (!need_key("autodeco.temperature.scale", GGUF_TYPE_FLOAT32, scale)) {
            return false;
        }
        if (scale != TEMPERATURE_SCALE) {
            return fail("has autodeco.temperature.scale " + std::to_string(scale) + ", only 2.0 is defined");
        }
        if (!check_names(is_merged, version) || !read_integer("split.count", parts)) {
            return false;
        }
        if (parts > 1) {
            return fail("is one part of a split file: join it with 'llama-gguf-split --merge' first");
        }
        if (!need_key("autodeco.embedding_length", GGUF_TYPE_UINT32, n_embd) || !need_key("autodeco.vocab_size", GGUF_TYPE_UINT32, n_vocab) ||
            !take_sizes(n_embd, n_vocab) || !read_architecture() ||
            !read_key("autodeco.top_p.prob_stats", GGUF_TYPE_BOOL, prob_stats, says_stats) ||
            !read_key("autodeco.base_model.name", GGUF_TYPE_STRING, layout.base_name, found) ||
            !read_key("autodeco.base_model.fingerprint", GGUF_TYPE_STRING, layout.base_fingerprint, found) ||
            !find_head(TEMP, { "0.weight", "0.bias", "2.weight", "2.bias" }, layout.has_temp) ||
            !find_head(TOP_P, { "0.weight", "0.bias", "2.weight", "2.bias", "0.extra.weight" }, layout.has_top_p)) {
            return false;
        }
        if (!layout.has_temp && !layout.has_top_p) {
            return fail("holds neither a temperature head nor a top-p head");
        }
        if (layout.has_top_p && !says_stats) {
            return fail("key autodeco.top_p.prob_stats is missing");
        }
        if (version == WITH_CONTROL && !read_control()) {
            return false;
        }
        layout.kind       = is_merged ? file_kind::merged : file_kind::sidecar;
        layout.prob_stats = layout.has_top_p && prob_stats != 0;
        return (!layout.has_temp || check_head(TEMP)) && (!layout.has_control || check_head(CONTROL)) &&
               (!layout.has_top_p || (check_head(TOP_P) && check_tensor(EXTRA, layout.prob_stats ? 1 + N_PROB_STATS : 1, HEAD_WIDTH, false)));
    }

    bool fail_merged(const std::string & what) { return fail("is not a merged file as it was written: " + what + "; merge heads and model again"); }

    // The model inside must be the one that the outer header describes, tensor for tensor.
    bool read_merged() {
        const std::vector<gguf_tensor> & outer = header().tensors;
        const gguf_tensor & held   = *header().tensor(BASE_GGUF);
        const uint64_t      offset = header().data_offset;
        uint64_t            size;
        if (&held != &outer.front() || held.type != GGML_TYPE_I8) {
            return fail_merged(BASE_GGUF + " is not its first tensor");
        }
        if (!need_key("autodeco.base_model.file_size", GGUF_TYPE_UINT64, size)) {
            return false;
        }
        const std::string told = "autodeco.base_model.file_size is " + std::to_string(size);
        if (size < held.size || size > bytes.size - offset) {
            return fail_merged(told);
        }
        const gguf_bytes inner_bytes = bytes.part(offset, size);
        file_layout      inside;
        failure          ignored;
        std::string      why;
        if (!gguf_header_read(inner_bytes, inside.header, why)) {
            return fail_merged("its model " + why);
        }
        const gguf_header & base = inside.header;
        if (base.data_offset != held.size || base.alignment != header().alignment || base.tensors.empty()) {
            return fail_merged("the header in " + BASE_GGUF + " is not " + std::to_string(held.size) + " bytes long");
        }
        const size_t n = base.tensors.size();
        for (size_t i = 0; i < n; ++i) {
            const gguf_tensor & inner = base.tensors[i];
            const bool is_same = 1 + i < outer.size() && outer[1 + i].name == inner.name && outer[1 + i].type == inner.type &&
                                 std::equal(inner.ne, inner.ne + 4, outer[1 + i].ne) && outer[1 + i].offset == inner.offset + held.size;
            if (!is_same) {
                return fail_merged("tensor " + inner.name + " is not where the model has it");
            }
        }
        const uint64_t      end  = gguf_padded(base.data_end, base.alignment);
        const gguf_tensor * tail = header().tensor(BASE_TAIL);
        if (tail && (outer.size() < n + 2 || tail != &outer[1 + n] || tail->offset != end)) {
            return fail_merged(BASE_TAIL + " does not follow the model");
        }
        if (size > end + (tail ? tail->size : 0) || (tail && size != end + tail->size)) {
            return fail_merged(told + " but the model ends at " + std::to_string(end));
        }
        // a plain model, as layout_of sees it
        layout_reader inner = { inner_bytes, inside, ignored };
        const bool is_plain = !inner.has_ours() && inner.read_plain();
        if (!read_heads(true)) {
            return false;
        }
        if (!is_plain || inside.architecture != layout.architecture || inside.n_embd != layout.n_embd || inside.n_vocab != layout.n_vocab) {
            return fail_merged("the heads are for a model of another shape than the one inside");
        }
        layout.base_offset = offset;
        layout.base_size   = size;
        return true;
    }

    bool is_adapter() const {
        const gguf_value * type = header().value("adapter.type");
        return type && type->type == GGUF_TYPE_STRING && type->text == "autodeco";
    }

    bool has_our_tensors() const {
        return std::any_of(header().tensors.begin(), header().tensors.end(), [](const gguf_tensor & tensor) { return is_ours(tensor.name); });
    }

    // Whether it has heads, or is meant to.
    bool has_ours() const { return is_adapter() || header().value(HEADS) || has_our_tensors(); }

    // A model's own file with the bytes of a sidecar as one more key.
    bool read_embedded() {
        const gguf_value & held = *header().value(HEADS);
        if (held.type != GGUF_TYPE_ARRAY || held.item_type != GGUF_TYPE_UINT64 || held.count == 0) {
            return fail("key " + HEADS + " is no array of u64: export the heads again");
        }
        if (header().value("autodeco.version") || has_our_tensors()) {
            return fail("has heads in " + HEADS + " and others beside it: export the heads again");
        }
        layout.inside_offset = held.items;
        layout.inside_size   = held.count * sizeof(uint64_t);
        const gguf_bytes inner_bytes = bytes.part(layout.inside_offset, layout.inside_size);
        file_layout      made;
        std::string      why;
        if (!gguf_header_read(inner_bytes, made.header, why)) {
            return fail("has heads in " + HEADS + " that cannot be read: the key " + why);
        }
        if (made.header.value(HEADS)) {
            return fail("has a model in " + HEADS + ", not heads: export the heads again");
        }
        layout_reader inner = { inner_bytes, made, error };
        if (!read_plain() || !inner.read_heads(false)) {
            return false;
        }
        if (made.architecture != layout.architecture || made.n_embd != layout.n_embd || made.n_vocab != layout.n_vocab) {
            return fail("has heads for a model of another shape: export the heads again");
        }
        layout.kind             = file_kind::embedded;
        layout.has_temp         = made.has_temp;
        layout.has_top_p        = made.has_top_p;
        layout.has_control      = made.has_control;
        layout.control          = made.control;
        layout.prob_stats       = made.prob_stats;
        layout.base_name        = made.base_name;
        layout.base_fingerprint = made.base_fingerprint;
        layout.inside           = std::move(made.header);
        return true;
    }

    bool read() {
        std::string why;
        if (!gguf_header_read(bytes, layout.header, why)) {
            return fail(why);
        }
        if (header().tensor(BASE_GGUF)) {
            return read_merged();
        }
        if (is_adapter()) {
            return read_heads(false);
        }
        if (header().value(HEADS)) {
            return read_embedded();
        }
        return has_ours() ? fail("has heads but is neither a heads file nor a merged one: another program rewrote it, export it again") : read_plain();
    }
};

} // namespace

bool file_layout_read(const gguf_bytes & bytes, file_layout & layout, failure & error) {
    return layout_reader{ bytes, layout, error }.read();
}

} // namespace autodeco
