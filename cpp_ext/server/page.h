// The page that the server shows at /autodeco.

#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace autodeco {

extern const char        PAGE[];
extern const std::size_t PAGE_SIZE;

// The headers that it is sent with: its own policy, and what a browser takes from headers alone.
std::map<std::string, std::string> page_headers();

} // namespace autodeco
