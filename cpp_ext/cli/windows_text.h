// Windows' own text, of 16 bits a letter, and UTF-8. Brings windows.h, without the macros that break others' code.

#pragma once

#include <string>

#ifndef NOMINMAX
#    define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

namespace cli {

// Halves of letters become the replacement character.
inline std::string to_utf8(const std::wstring & text) {
    std::string bytes((size_t) WideCharToMultiByte(CP_UTF8, 0, text.data(), (int) text.size(), nullptr, 0, nullptr, nullptr), '\0');
    WideCharToMultiByte(CP_UTF8, 0, text.data(), (int) text.size(), bytes.data(), (int) bytes.size(), nullptr, nullptr);
    return bytes;
}

} // namespace cli
