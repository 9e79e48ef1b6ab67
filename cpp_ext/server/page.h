// The page that the server shows at /autodeco.

#pragma once

#include <cstddef>

namespace autodeco {

extern const char        PAGE[];
extern const std::size_t PAGE_SIZE;

} // namespace autodeco
