#include "one_line.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace autodeco {

namespace {

struct range {
    uint32_t first, last;
};

constexpr range BREAKS[] = { { 0x0A, 0x0D }, { 0x1C, 0x1E }, { 0x85, 0x85 }, { 0x2028, 0x2029 } };
constexpr range BLANKS[] = { { 0x09, 0x09 }, { 0x1F, 0x20 }, { 0xA0, 0xA0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200A }, { 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 } };

// controls, formats, halves of surrogate pairs, private use and what is no letter, by Unicode 14
constexpr range UNPRINTABLE[] = {
    { 0x00, 0x1F }, { 0x7F, 0x9F }, { 0xAD, 0xAD }, { 0x600, 0x605 }, { 0x61C, 0x61C }, { 0x6DD, 0x6DD }, { 0x70F, 0x70F }, { 0x890, 0x891 },
    { 0x8E2, 0x8E2 }, { 0x180E, 0x180E }, { 0x200B, 0x200F }, { 0x202A, 0x202E }, { 0x2060, 0x206F }, { 0xD800, 0xF8FF }, { 0xFDD0, 0xFDEF }, { 0xFEFF, 0xFEFF },
    { 0xFFF0, 0xFFFB }, { 0xFFFE, 0xFFFF }, { 0x110BD, 0x110BD }, { 0x110CD, 0x110CD }, { 0x13430, 0x13438 }, { 0x1BCA0, 0x1BCA3 }, { 0x1D173, 0x1D17A },
    { 0xE0000, 0xE00FF }, { 0xE01F0, 0x10FFFF },
};

template <size_t n> bool is_in(const range (&ranges)[n], uint32_t letter) {
    return std::any_of(std::begin(ranges), std::end(ranges), [&](const range & each) { return each.first <= letter && letter <= each.last; });
}

constexpr uint32_t NO_LETTER = 0xD800;

// The letter at `place` and its length in bytes; NO_LETTER of one byte where none is.
uint32_t letter_at(const std::string & text, size_t place, size_t & length) {
    const auto byte = [&](size_t i) { return (uint32_t) (unsigned char) text[place + i]; };
    const uint32_t lead = byte(0);
    length              = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3 : lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
    if (length < 2 || place + length > text.size()) {
        const bool is_ascii = length == 1;
        length              = 1;
        return is_ascii ? lead : NO_LETTER;
    }
    uint32_t letter = lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0) != 0x80) {
            length = 1;
            return NO_LETTER;
        }
        letter = letter << 6 | (byte(i) & 0x3F);
    }
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (letter < least[length] || letter > 0x10FFFF || (letter >= 0xD800 && letter <= 0xDFFF)) {
        length = 1;
        return NO_LETTER;
    }
    return letter;
}

} // namespace

std::string without_controls(const std::string & text) {
    std::string clean;
    for (size_t place = 0, length = 1; place < text.size(); place += length) {
        const uint32_t letter = letter_at(text, place, length);
        clean += is_in(BREAKS, letter) || is_in(BLANKS, letter) ? " " : is_in(UNPRINTABLE, letter) ? "?" : text.substr(place, length);
    }
    return clean;
}

std::string one_line(const std::string & text) {
    std::string line;
    size_t      kept     = 0;     // of the line, up to the last letter that is no blank
    bool        is_break = false; // among the blanks since
    for (size_t place = 0, length = 1; place < text.size(); place += length) {
        const uint32_t letter = letter_at(text, place, length);
        if (is_in(BREAKS, letter) || is_in(BLANKS, letter)) {
            is_break = is_break || is_in(BREAKS, letter);
            line += ' ';
            continue;
        }
        if (kept == 0 || is_break) {
            line.resize(kept);
            line += kept == 0 ? "" : " ";
        }
        line += is_in(UNPRINTABLE, letter) ? "?" : text.substr(place, length);
        kept     = line.size();
        is_break = false;
    }
    line.resize(kept);
    return line;
}

} // namespace autodeco
