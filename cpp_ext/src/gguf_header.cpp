#include "gguf_header.h"

#include "gguf.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace autodeco {

namespace {

constexpr uint64_t MAX_NAME = 65535; // of a key (GGUF's specification); names of tensors and our own texts are shorter

// bytes of a value of each gguf_type; 0: not the same for all
constexpr uint64_t SIZES[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
static_assert(GGUF_TYPE_STRING == 8 && GGUF_TYPE_ARRAY == 9 && GGUF_TYPE_FLOAT64 == 12, "SIZES is in the order of gguf_type");

bool is_ours(const std::string & name) {
    return name.compare(0, 9, "autodeco.") == 0;
}

// Reads from the front to the back, in pieces that are larger than what is asked for.
class gguf_cursor {
public:
    explicit gguf_cursor(const gguf_bytes & bytes) : bytes(bytes), piece(MAX_NAME) {}

    uint64_t position() const { return at; }

    bool read(void * dst, uint64_t n) { // n <= MAX_NAME
        if (n > bytes.size - at) {
            return false;
        }
        if (at < piece_at || at + n > piece_at + piece_size) {
            piece_size = std::min<uint64_t>(piece.size(), bytes.size - at);
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

    bool read(std::string & text) {
        uint64_t n;
        if (!read(n) || n > MAX_NAME) {
            return false;
        }
        text.resize(n);
        return read(text.data(), n);
    }

    // go past n values of a type
    bool skip(uint32_t type, uint64_t n) {
        if (type != GGUF_TYPE_STRING) {
            return n <= (bytes.size - at) / SIZES[type] && skip(n * SIZES[type]);
        }
        uint64_t length;
        for (; n > 0; --n) {
            if (!read(length) || !skip(length)) {
                return false;
            }
        }
        return true;
    }

private:
    bool skip(uint64_t n) {
        if (n > bytes.size - at) {
            return false;
        }
        at += n;
        return true;
    }

    const gguf_bytes &   bytes;
    uint64_t             at = 0; // <= bytes.size
    std::vector<uint8_t> piece;
    uint64_t             piece_at   = 0;
    uint64_t             piece_size = 0;
};

bool read_value(gguf_cursor & from, gguf_header & header, uint64_t & alignment) {
    std::string key;
    gguf_value  value = {};
    if (!from.read(key) || !from.read(value.type)) {
        return false;
    }
    uint32_t type = value.type; // of the elements of an array
    uint64_t n    = 1;
    if (type == GGUF_TYPE_ARRAY && (!from.read(type) || !from.read(n))) {
        return false;
    }
    if (type >= GGUF_TYPE_COUNT || type == GGUF_TYPE_ARRAY) {
        return false;
    }
    const bool is_one    = value.type == type; // else an array
    const bool is_number = is_one && SIZES[type] > 0;
    const bool is_text   = is_one && type == GGUF_TYPE_STRING && is_ours(key);
    if (is_number ? !from.read(value.bytes, SIZES[type]) : is_text ? !from.read(value.text) : !from.skip(type, n)) {
        return false;
    }
    if (key == GGUF_KEY_GENERAL_ALIGNMENT) {
        uint32_t bytes;
        std::memcpy(&bytes, value.bytes, sizeof(bytes));
        alignment = bytes;
        return value.type == GGUF_TYPE_UINT32 && bytes > 0 && (bytes & (bytes - 1)) == 0;
    }
    return !is_ours(key) || header.values.emplace(key, value).second;
}

bool read_tensor(gguf_cursor & from, gguf_header & header) {
    std::string name;
    gguf_tensor tensor = { 0, { 1, 1, 1, 1 }, 0 };
    uint32_t    n_dims;
    if (!from.read(name) || !from.read(n_dims) || n_dims > 4) {
        return false;
    }
    for (uint32_t i = 0; i < n_dims; ++i) {
        if (!from.read(tensor.ne[i])) {
            return false;
        }
    }
    return from.read(tensor.type) && from.read(tensor.offset) && (!is_ours(name) || header.tensors.emplace(name, tensor).second);
}

} // namespace

bool gguf_bytes::read(void * dst, uint64_t offset, uint64_t n) const {
    if (!file) {
        std::memcpy(dst, data + offset, n);
        return true;
    }
    return fseeko(file, (off_t) offset, SEEK_SET) == 0 && fread(dst, 1, n, file) == n;
}

gguf_bytes gguf_bytes_of(FILE * file) {
    const off_t size = fseeko(file, 0, SEEK_END) == 0 ? ftello(file) : 0;
    return { file, nullptr, (uint64_t) std::max<off_t>(size, 0) };
}

bool gguf_header_read(const gguf_bytes & bytes, gguf_header & header) {
    gguf_cursor from(bytes);
    char        magic[4];
    uint32_t    version;
    uint64_t    n_tensors, n_values;
    if (!from.read(magic) || std::memcmp(magic, GGUF_MAGIC, 4) != 0 || !from.read(version) || version < 2 || version > GGUF_VERSION) {
        return false;
    }
    if (!from.read(n_tensors) || !from.read(n_values)) {
        return false;
    }
    uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;
    for (uint64_t i = 0; i < n_values; ++i) {
        if (!read_value(from, header, alignment)) {
            return false;
        }
    }
    for (uint64_t i = 0; i < n_tensors; ++i) {
        if (!read_tensor(from, header)) {
            return false;
        }
    }
    // offsets in the file count from where the data begin, which is aligned
    const uint64_t start = std::min((from.position() + alignment - 1) / alignment * alignment, bytes.size);
    header.data_offset   = start;
    for (auto & [name, tensor] : header.tensors) {
        tensor.offset = start + std::min(tensor.offset, bytes.size - start);
    }
    return true;
}

} // namespace autodeco
