#include "fingerprint.h"

#include "gguf_header.h"
#include "sha256.h"

#include <vector>

namespace autodeco {

namespace {

constexpr uint64_t BLOCKS     = 256;
constexpr uint64_t BLOCK_SIZE = 4096;

} // namespace

std::string fingerprint(FILE * file, uint64_t offset, uint64_t size) {
    const gguf_bytes bytes = gguf_bytes_of(file);
    sha256           digest;
    if (offset > bytes.size || size > bytes.size - offset) {
        return {};
    }
    for (int i = 0; i < 8; ++i) { // little-endian, whatever this machine is
        const uint8_t byte = (uint8_t) (size >> (8 * i));
        digest.add(&byte, 1);
    }
    const bool           whole = size <= BLOCKS * BLOCK_SIZE;
    std::vector<uint8_t> part(whole ? size : BLOCK_SIZE);
    for (uint64_t i = 0; i < (whole ? 1 : BLOCKS); ++i) {
        const uint64_t start = whole ? 0 : i * (size - BLOCK_SIZE) / (BLOCKS - 1);
        if (!bytes.read(part.data(), offset + start, part.size())) {
            return {};
        }
        digest.add(part.data(), part.size());
    }
    return "sha256:" + digest.hex();
}

} // namespace autodeco
