#include "utf8.h"

#include <cstdint>

namespace autodeco {

size_t not_utf8_at(const std::string & text) {
    const auto * begin = (const uint8_t *) text.data();
    const auto * end   = begin + text.size();
    for (const uint8_t * at = begin; at < end;) {
        const auto    place = (size_t) (at - begin);
        const uint8_t first = *at++;
        const int     more  = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
        if (more < 0 || end - at < more) {
            return place;
        }
        // the second byte rules out what is too long, half a surrogate pair, or beyond Unicode
        const uint8_t least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        const uint8_t most  = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        for (int i = 0; i < more; ++i, ++at) {
            if (*at < (i == 0 ? least : 0x80) || *at > (i == 0 ? most : 0xbf)) {
                return place;
            }
        }
    }
    return std::string::npos;
}

} // namespace autodeco
