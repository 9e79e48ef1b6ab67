#include "weights_digest.h"

#include "heads.h"
#include "sha256.h"

namespace autodeco {

std::string weights_digest(const heads_data & heads) {
    sha256 digest;
    for (const auto & [name, tensor] : heads.tensors) {
        digest.add(name.c_str(), name.size() + 1);
        for (int i = 0; i < 4; ++i) {
            const uint8_t byte = (uint8_t) ((uint32_t) tensor.type >> (8 * i));
            digest.add(&byte, 1);
        }
        digest.add(tensor.bytes.data(), tensor.bytes.size());
    }
    if (heads.has_control) {
        const control_ends & ends = heads.control;
        for (const float number : { ends.low_temperature_factor, ends.high_temperature, ends.low_top_p_factor, ends.high_top_p, ends.dead_zone }) {
            digest.add(&number, sizeof(number));
        }
    }
    return "sha256:" + digest.hex();
}

} // namespace autodeco
