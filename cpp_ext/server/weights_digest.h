// What tells heads from others by their weights: export/weights_digest.py has the same.

#pragma once

#include <string>

namespace autodeco {

struct heads_data;

// "sha256:" and hexadecimal digits of all tensors in the order of their names: the name, a zero, the type as u32
// little-endian, the bytes as they are in the file; then, of a control head, its five numbers as f32.
std::string weights_digest(const heads_data & heads);

} // namespace autodeco
