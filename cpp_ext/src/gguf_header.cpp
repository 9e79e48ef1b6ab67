#include "gguf_header.h"

#include "file.h"
#include "utf8.h"

#include "ggml.h"
#include "gguf.h"

#include <algorithm>
#include <cstring>

namespace autodeco {

namespace {

// the limits of export/gguf_file.py
constexpr uint64_t MAX_ALIGNMENT    = 1u << 20;
constexpr uint64_t MAX_KEYS         = 1u << 16;
constexpr uint64_t MAX_TENSORS      = 1u << 18;
constexpr uint64_t MAX_KEY_BYTES    = 65535; // GGUF's specification
constexpr uint64_t MAX_NAME_BYTES   = GGML_MAX_NAME - 1;
constexpr uint64_t MAX_STRINGS      = 1u << 24;
constexpr uint64_t MAX_NUMBERS      = 1u << 30;
constexpr uint64_t MAX_STRING_BYTES = 1u << 24;

// bytes of a value of each gguf_type; 0: not the same for all
constexpr uint64_t SIZES[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
static_assert(GGUF_TYPE_STRING == 8 && GGUF_TYPE_ARRAY == 9 && GGUF_TYPE_FLOAT64 == 12, "SIZES is in the order of gguf_type");

bool begins_with(const std::string & text, const char * prefix) {
    return text.compare(0, std::strlen(prefix), prefix) == 0;
}

// Reads from the front to the back, in pieces that are larger than what is asked for.
class gguf_cursor {
public:
    explicit gguf_cursor(const gguf_bytes & bytes) : bytes(bytes), piece(1 << 16) {}

    uint64_t position() const { return at; }
    uint64_t remaining() const { return bytes.size - at; }

    bool read(void * dst, uint64_t n) {
        if (n > remaining()) {
            return false;
        }
        if (n > piece.size()) {
            at += n;
            return bytes.read(dst, at - n, n);
        }
        if (at < piece_at || at + n > piece_at + piece_size) {
            piece_size = std::min<uint64_t>(piece.size(), remaining());
            piece_at   = at;
            if (!bytes.read(piece.data(), piece_at, piece_size)) {
                return false;
            }
        }
        std::memcpy(dst, piece.data() + (at - piece_at), n);
        at += n;
        return true;
    }

    template <typename T> bool read(T & value) { return read(&value, sizeof(value)); }

    bool read_text(std::string & text, uint64_t limit) {
        uint64_t n;
        if (!read(n) || n > limit || n > remaining()) {
            return false;
        }
        text.resize(n);
        return read(text.data(), n);
    }

    bool skip_text(uint64_t limit) {
        uint64_t n;
        return read(n) && n <= limit && skip(n);
    }

    bool skip(uint64_t n) {
        if (n > remaining()) {
            return false;
        }
        at += n;
        return true;
    }

private:
    const gguf_bytes &   bytes;
    uint64_t             at = 0; // <= bytes.size
    std::vector<uint8_t> piece;
    uint64_t             piece_at   = 0;
    uint64_t             piece_size = 0;
};

struct header_reader {
    gguf_cursor   from;
    gguf_header & header;
    std::string & error;

    bool fail(const std::string & what) {
        error = what;
        return false;
    }

    bool fail_cut() { return fail("is not a valid GGUF file, or is cut short"); }

    bool skip_items(uint32_t type, uint64_t n) {
        if (type != GGUF_TYPE_STRING) {
            return n <= MAX_NUMBERS && from.skip(n * SIZES[type]);
        }
        if (n > MAX_STRINGS) {
            return false;
        }
        for (; n > 0; --n) {
            if (!from.skip_text(UINT64_MAX)) {
                return false;
            }
        }
        return true;
    }

    bool read_value() {
        std::string key;
        gguf_value  value = {};
        value.start       = from.position();
        if (!from.read_text(key, MAX_KEY_BYTES) || !from.read(value.type)) {
            return fail_cut();
        }
        if (key.empty() || not_utf8_at(key) != std::string::npos) {
            return fail("has a key without a name, or one that is not UTF-8");
        }
        if (value.type >= GGUF_TYPE_COUNT) {
            return fail("has the key " + key + " of a type that does not exist");
        }
        bool whole;
        value.items = from.position();
        if (value.type == GGUF_TYPE_ARRAY) {
            const uint32_t & type = value.item_type;
            whole = from.read(value.item_type) && from.read(value.count) && type < GGUF_TYPE_COUNT && type != GGUF_TYPE_ARRAY;
            value.items = from.position();
            whole       = whole && skip_items(type, value.count);
        } else if (value.type == GGUF_TYPE_STRING) {
            const bool kept = begins_with(key, "autodeco.") || key == "general.architecture" || key == "adapter.type";
            whole = kept ? from.read_text(value.text, MAX_STRING_BYTES) : from.skip_text(MAX_STRING_BYTES);
        } else {
            whole = from.read(value.bytes, SIZES[value.type]);
        }
        value.end = from.position();
        if (!whole) {
            return fail_cut();
        }
        if (key == GGUF_KEY_GENERAL_ALIGNMENT) {
            uint32_t bytes;
            std::memcpy(&bytes, value.bytes, sizeof(bytes));
            if (value.type != GGUF_TYPE_UINT32 || bytes == 0 || bytes > MAX_ALIGNMENT || (bytes & (bytes - 1)) != 0) {
                return fail("has an alignment that is no power of two up to a megabyte");
            }
            header.alignment = bytes;
        }
        return header.values.emplace(key, std::move(value)).second || fail("has the key " + key + " twice");
    }

    bool read_tensor(uint64_t file_size) {
        gguf_tensor tensor = { {}, 0, { 1, 1, 1, 1 }, 0, 0 };
        uint32_t    n_dims;
        if (!from.read_text(tensor.name, MAX_NAME_BYTES) || !from.read(n_dims) || n_dims > 4) {
            return fail_cut();
        }
        if (not_utf8_at(tensor.name) != std::string::npos) {
            return fail("has a tensor whose name is not UTF-8");
        }
        for (uint32_t i = 0; i < n_dims; ++i) {
            if (!from.read(tensor.ne[i])) {
                return fail_cut();
            }
        }
        if (!from.read(tensor.type) || !from.read(tensor.offset)) {
            return fail_cut();
        }
        const std::string what      = "tensor " + tensor.name;
        const uint64_t    type_size = tensor.type < GGML_TYPE_COUNT ? ggml_type_size((ggml_type) tensor.type) : 0;
        if (type_size == 0) {
            return fail(what + " is of type " + std::to_string(tensor.type) + ", which does not exist");
        }
        const uint64_t block      = (uint64_t) ggml_blck_size((ggml_type) tensor.type);
        uint64_t       n_elements = 1;
        for (const int64_t n : tensor.ne) {
            if (n < 0 || (n > 0 && n_elements > (uint64_t) INT64_MAX / (uint64_t) n)) {
                return fail(what + " is larger than anything");
            }
            n_elements *= (uint64_t) n;
        }
        if ((uint64_t) tensor.ne[0] % block != 0) {
            return fail(what + " of type " + ggml_type_name((ggml_type) tensor.type) + " has rows of " + std::to_string(tensor.ne[0]) + " values, no whole blocks");
        }
        const uint64_t next = header.tensors.empty() ? 0 : gguf_padded(header.tensors.back().offset + header.tensors.back().size, header.alignment);
        if (tensor.offset != next) {
            return fail(what + " is at offset " + std::to_string(tensor.offset) + " where " + std::to_string(next) + " is next");
        }
        if (n_elements / block > file_size / type_size || tensor.offset > file_size) {
            return fail(what + " reaches past the end of the file, which is cut short: fetch or export it again");
        }
        tensor.size = n_elements / block * type_size;
        if (!header.places.emplace(tensor.name, header.tensors.size()).second) {
            return fail("has the " + what + " twice");
        }
        header.tensors.push_back(std::move(tensor));
        return true;
    }

    bool read(uint64_t file_size) {
        char     magic[4];
        uint64_t n_tensors, n_values;
        if (!from.read(magic) || std::memcmp(magic, GGUF_MAGIC, 4) != 0 || !from.read(header.version) || header.version < 2 || header.version > GGUF_VERSION ||
            !from.read(n_tensors) || !from.read(n_values)) {
            return fail_cut();
        }
        // the smallest key takes 14 bytes, the smallest tensor 24
        if (n_values > std::min(MAX_KEYS, from.remaining() / 14) || n_tensors > std::min(MAX_TENSORS, from.remaining() / 24)) {
            return fail_cut();
        }
        header.alignment = GGUF_DEFAULT_ALIGNMENT;
        for (uint64_t i = 0; i < n_values; ++i) {
            if (!read_value()) {
                return false;
            }
        }
        header.infos = from.position();
        for (uint64_t i = 0; i < n_tensors; ++i) {
            if (!read_tensor(file_size)) {
                return false;
            }
        }
        header.infos_end = from.position();
        header.data_offset = gguf_padded(from.position(), header.alignment); // an offset in the data counts from here
        header.data_end    = header.data_offset;
        if (!header.tensors.empty()) {
            const gguf_tensor & last = header.tensors.back();
            header.data_end += last.offset + last.size;
            if (header.data_end > file_size) {
                return fail("tensor " + last.name + " reaches past the end of the file, which is cut short: fetch or export it again");
            }
        }
        return true;
    }
};

} // namespace

bool gguf_bytes::read(void * dst, uint64_t offset, uint64_t n) const {
    if (n == 0) {
        return true;
    }
    if (!file) {
        std::memcpy(dst, data + offset, n);
        return true;
    }
    return seek_in(file, start + offset) && fread(dst, 1, n, file) == n;
}

gguf_bytes gguf_bytes::part(uint64_t offset, uint64_t n) const {
    return { file, file ? nullptr : data + offset, n, file ? start + offset : 0 };
}

gguf_bytes gguf_bytes_of(FILE * file) {
    return { file, nullptr, size_of(file) };
}

const gguf_value * gguf_header::value(const std::string & key) const {
    const auto it = values.find(key);
    return it == values.end() ? nullptr : &it->second;
}

const gguf_tensor * gguf_header::tensor(const std::string & name) const {
    const auto it = places.find(name);
    return it == places.end() ? nullptr : &tensors[it->second];
}

uint64_t gguf_padded(uint64_t size, uint64_t alignment) {
    return (size + alignment - 1) / alignment * alignment;
}

bool gguf_header_read(const gguf_bytes & bytes, gguf_header & header, std::string & error) {
    return header_reader{ gguf_cursor(bytes), header, error }.read(bytes.size);
}

} // namespace autodeco
