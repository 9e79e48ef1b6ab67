// What tells one model file from another in milliseconds: export/fingerprint.py has the same, docs/export.md says what it is.

#pragma once

#include <cstdio>
#include <string>

namespace autodeco {

// "sha256:" and hexadecimal digits of the file; empty when it cannot be read.
std::string fingerprint(FILE * file);

} // namespace autodeco
