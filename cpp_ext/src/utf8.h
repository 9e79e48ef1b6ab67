// Whether bytes are text.

#pragma once

#include <cstddef>
#include <string>

namespace autodeco {

// The place of the first byte that begins no letter of UTF-8; npos where all of `text` is UTF-8.
size_t not_utf8_at(const std::string & text);

} // namespace autodeco
