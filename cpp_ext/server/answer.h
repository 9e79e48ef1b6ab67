// What the heads decided, as an answer tells it.

#pragma once

#include "autodeco.h"

#include <memory>
#include <vector>

class common_json;

namespace autodeco {

struct request;

struct answer {
    std::shared_ptr<const request> asked;    // null: without heads
    std::vector<autodeco_decoding> decoded;  // tokens that no part of the answer has told of yet
    bool                           is_whole = false; // nothing follows

    // Add them to a part of an answer as llama.cpp makes it: to its first choice, or where it has none, to itself. Of a list of
    // parts, to the last with a choice. To the last part of all also what was made of the request.
    common_json added_to(common_json part) const;
};

// The same for one token, beside its probability.
void add_values(common_json & token, const autodeco_decoding & decoding);

} // namespace autodeco
