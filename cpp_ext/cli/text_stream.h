// From tokens to text that can be shown: whole characters, and nothing of a stop text.

#pragma once

#include "autodeco.h"

#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace cli {

struct shown_token {
    autodeco_decoding decoding;
    std::string       text; // whole characters: the bytes of an unfinished one go with the next token
};

class text_stream {
public:
    text_stream(std::vector<std::string> stop, std::function<void(const shown_token &)> show);

    // Take a token's bytes, and show what is certain now. False when they complete a stop text, which is not shown.
    bool push(const autodeco_decoding & decoding, const std::string & piece);

    // The answer ends: show what was held back.
    void finish();

private:
    // Show the tokens that end within the first n bytes; what a token leaves of a character goes to the next. Returns how
    // many of the n bytes are left, in a token that ends later.
    size_t show_up_to(size_t n);

    const std::vector<std::string>                 stop;
    const std::function<void(const shown_token &)> show;
    std::deque<shown_token>                        held; // tokens whose bytes are not shown yet
    std::string                                    text; // theirs
};

} // namespace cli
