// SHA-256 (FIPS 180-4) of bytes that come in pieces.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace autodeco {

class sha256 {
public:
    void        add(const void * data, size_t n);
    std::string hex(); // of all that was added; nothing may be added afterwards

private:
    void block(const uint8_t * bytes);

    std::array<uint32_t, 8> state = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    std::array<uint8_t, 64> held  = {};
    uint64_t                total = 0; // bytes added
};

} // namespace autodeco
