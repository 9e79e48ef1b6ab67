// What tells one model file from another in milliseconds: export/fingerprint.py has the same, docs/export.md says what it is.

#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace autodeco {

// "sha256:" and hexadecimal digits of `header` and then `size` bytes of the file at `offset`; empty when they cannot be read.
std::string fingerprint(FILE * file, uint64_t offset, uint64_t size, const std::vector<uint8_t> & header = {});

} // namespace autodeco
