// What the C interface tells of a failure.

#pragma once

#include "autodeco.h"

#include <string>

namespace autodeco {

struct failure {
    autodeco_code code = AUTODECO_OK;
    std::string   message;
};

} // namespace autodeco
