#include "fingerprint.h"

#include "gguf_header.h"
#include "sha256.h"

#include <algorithm>
#include <vector>

namespace autodeco {

namespace {

constexpr uint64_t BLOCKS     = 256;
constexpr uint64_t BLOCK_SIZE = 4096;

} // namespace

std::string fingerprint(FILE * file, uint64_t offset, uint64_t size, const std::vector<uint8_t> & header) {
    const gguf_bytes bytes = gguf_bytes_of(file);
    sha256           digest;
    if (offset > bytes.size || size > bytes.size - offset) {
        return {};
    }
    const uint64_t whole_size = header.size() + size;
    for (int i = 0; i < 8; ++i) { // little-endian, whatever this machine is
        const uint8_t byte = (uint8_t) (whole_size >> (8 * i));
        digest.add(&byte, 1);
    }
    const bool           whole = whole_size <= BLOCKS * BLOCK_SIZE;
    std::vector<uint8_t> part(whole ? whole_size : BLOCK_SIZE);
    for (uint64_t i = 0; i < (whole ? 1 : BLOCKS); ++i) {
        const uint64_t start    = whole ? 0 : i * (whole_size - BLOCK_SIZE) / (BLOCKS - 1);
        const uint64_t n_header = std::min<uint64_t>(header.size() - std::min<uint64_t>(start, header.size()), part.size());
        std::copy_n(header.begin() + (ptrdiff_t) std::min<uint64_t>(start, header.size()), n_header, part.begin());
        if (!bytes.read(part.data() + n_header, offset + start + n_header - header.size(), part.size() - n_header)) {
            return {};
        }
        digest.add(part.data(), part.size());
    }
    return "sha256:" + digest.hex();
}

} // namespace autodeco
