// The model's own file in an embedded one, as export/embedded.py has it.

#pragma once

#include "gguf_header.h"

#include <cstdint>
#include <vector>

namespace autodeco {

// The header of the model's own file, after which the data follow as they lie in the embedded file: without our keys and
// those that they mark as added, and with the values that they keep as replaced. False when the bytes cannot be read.
bool own_header(const gguf_bytes & bytes, const gguf_header & header, std::vector<uint8_t> & own);

} // namespace autodeco
